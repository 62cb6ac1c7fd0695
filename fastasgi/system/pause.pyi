"""A pause that tells when it was over, whoever held the interpreter then."""

class Pause:
    """Waits in one thread, until another one ends it. Raises OSError if the system lacks descriptors."""

    def wait(self, seconds: float) -> float:
        """Wait for so long. Returns the monotonic time, in seconds, at which the wait was over.

        If ``end`` has been called it returns at once, and -1. The thread may get the interpreter only later:
        as much later as other threads have held it.
        """

    def end(self) -> None:
        """Have the wait under way, and all others, return at once. From any thread."""
