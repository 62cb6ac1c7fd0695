"""The place of one worker, in which processes come and go."""

from fastasgi.processes.states import State
from fastasgi.processes.workerprocess import WorkerProcess

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0  # between starts of a worker that does not get ready
SERVED_BACKOFF_S = 2.0  # at the most between starts of one that gets ready, and dies soon
STEADY_S = 2.0  # a worker that has served so long is replaced at once when it dies


class Slot:
    """The place of one worker. Times are time.monotonic()'s."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.serving: WorkerProcess | None = None
        self.starting: WorkerProcess | None = None  # serves once it is ready, in the other's place
        self.failures = 0  # starts in a row of which no worker has stayed
        self.start_at = 0.0  # nothing is started before this time
        self.started_at = 0.0  # when a process was last started

    def processes(self) -> list[WorkerProcess]:
        """The process that serves, and the one that is to."""
        return [process for process in (self.serving, self.starting) if process is not None]

    def is_outdated(self, generation: int, now: float) -> bool:
        """Whether a successor is to be started now: the process that serves retires or has older code."""
        return (
            self.serving is not None
            and self.starting is None
            and (self.serving.state is State.RETIRING or self.serving.generation != generation)
            and now >= self.start_at
        )

    def promote(self) -> WorkerProcess | None:
        """Have the process that was starting serve. Returns the one whose place it takes, if any."""
        assert self.starting is not None
        former, self.serving, self.starting = self.serving, self.starting, None
        self.serving.become(State.SERVING)
        if former is not None:
            self.failures = 0
        return former

    def remove(self, process: WorkerProcess) -> None:
        """Forget a process of this slot."""
        if self.serving is process:
            self.serving = None
        else:
            self.starting = None

    def dismiss(self) -> list[WorkerProcess]:
        """Forget all its processes, and return them."""
        processes = self.processes()
        self.serving = self.starting = None
        return processes

    def forgive(self) -> None:
        """Let the next start come at once, whatever has failed before."""
        self.failures, self.start_at = 0, 0.0

    def back_off(self, now: float, served_s: float | None) -> None:
        """Wait before the next start, twice as long each time that a process has not stayed.

        served_s is how long the last process has served, None if it never got ready.
        """
        self.failures = 0 if served_s is not None and served_s >= STEADY_S else self.failures + 1
        doubled = FIRST_BACKOFF_S * 2 ** min(self.failures - 2, 16)
        longest = LONGEST_BACKOFF_S if served_s is None else SERVED_BACKOFF_S
        self.start_at = now + (min(longest, doubled) if self.failures > 1 else 0.0)
