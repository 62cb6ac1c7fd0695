"""Which requests are refused while more come than can be answered, for tests."""

class SheddingRule:
    """When requests are refused, and which. Times are nanoseconds of any clock.

    `completed` is always how many requests have been completed so far.
    """

    def __init__(self, target_s: float) -> None:
        """`target_s` is how late the probe, a timer of the event loop's, may be."""

    @property
    def target_ns(self) -> int:
        """How late the probe may be."""

    @property
    def interval_ns(self) -> int:
        """How long it has to have been late, each time, before requests are refused."""

    @property
    def is_shedding(self) -> bool:
        """Whether requests are refused, or may be."""

    @property
    def refused(self) -> int:
        """Requests that were refused, since the start."""

    def start_probe(self, now_ns: int) -> int:
        """When the probe is due that is started now."""

    def note_probe(self, now_ns: int, completed: int) -> bool:
        """The probe has gone off. Whether another one is needed though nobody asks."""

    def refuses(self, now_ns: int, completed: int, running: int) -> bool:
        """Whether a request is refused that has just come, while so many others run."""
