"""What the log says of a start that takes long: of a worker, or of the import before workers are forked."""

import contextlib
import logging
from collections.abc import Iterator

from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.system.stacks import where_main_thread_stands
from fastasgi.system.stalls import StartWatch

logger = logging.getLogger("fastasgi.error")

STILL_STARTING_S = 30.0  # between two lines about the same start
NOWHERE = "it does not say where it stands"


def tell_of_start(process: WorkerProcess, now: float) -> None:
    """Log that a worker is still starting, and where it stands, once every STILL_STARTING_S."""
    if now - process.told_at >= STILL_STARTING_S:
        process.told_at = now
        logger.info(
            "Worker [%d] is still starting after %.0f seconds: %s",
            process.pid,
            now - process.started_at,
            process.stands_at or NOWHERE,
        )


@contextlib.contextmanager
def told_of_import() -> Iterator[None]:
    """Log where the main thread stands in the block, once every STILL_STARTING_S."""

    def tell(spent_s: float) -> None:
        where = where_main_thread_stands() or NOWHERE
        logger.info("The application is still being imported after %.0f seconds: %s", spent_s, where)

    watch = StartWatch(STILL_STARTING_S, tell)
    try:
        yield
    finally:
        watch.end()
