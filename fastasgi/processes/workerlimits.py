"""How long a worker may take to start, to turn its loop and to end, and how old and large it may become."""

import logging

from fastasgi.config import Config
from fastasgi.processes.slot import STEADY_S
from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.shutdown import BROKEN_OFF_S, FORCED_LIFESPAN_TIMEOUT_S, LIFESPAN_END_S

logger = logging.getLogger("fastasgi.error")

BEAT_S = 1.0  # at the most between two beats of a worker whose event loop turns
EXIT_S = LIFESPAN_END_S + BROKEN_OFF_S + 0.1  # that a worker may take to end beyond the grace time
FORCED_EXIT_S = FORCED_LIFESPAN_TIMEOUT_S + 1.0  # that one may take that is to end at once


def exit_time_s(process: WorkerProcess, config: Config, drain_s: float) -> float:
    """How many seconds a worker may take to end, if it waits drain_s before it closes connections."""
    if process.ready_at is None:
        return FORCED_EXIT_S
    return drain_s + config.grace_timeout_s + EXIT_S


def hang(process: WorkerProcess, config: Config, now: float) -> str | None:
    """In words for the log, how a worker hangs: in its start, or in its event loop. None if it does not."""
    if process.ready_at is None:
        limit_s, name = config.timeout_worker_startup, "timeout_worker_startup"
        silent_s, what = now - process.started_at, "is not ready after"
    else:
        limit_s, name = config.healthcheck_timeout_s, "timeout_worker_healthcheck"
        silent_s, what = now - process.heard_at - BEAT_S, "has blocked its event loop for"
    return f"{what} {limit_s:g} seconds ({name})" if silent_s > limit_s > 0 else None


def is_too_old_or_large(process: WorkerProcess, config: Config, now: float) -> bool:
    """Whether a worker that serves is to be succeeded for its age or its memory. Logs which of them it is."""
    age_s = now - process.started_at
    if age_s < STEADY_S:
        return False
    limit_mib, life_s = config.limit_worker_rss, config.limit_worker_lifetime
    if limit_mib is not None and process.resident_bytes() > limit_mib * 2**20:
        logger.warning("Worker [%d] uses more than %d MiB and gets a successor", process.pid, limit_mib)
        return True
    if life_s is not None and age_s > life_s:
        logger.info("Worker [%d] is older than %g seconds and gets a successor", process.pid, life_s)
        return True
    return False
