"""Liveness and readiness, for whoever asks."""

from collections.abc import Iterator

from fastasgi.admin.report import Report, WorkerReport


def liveness(report: Report) -> tuple[int, str]:
    """The status and the reason that /livez answers: a process that is not live is to be started anew."""
    return (200 if report.is_live else 503), _one_line(report.live_reason)


def readiness(report: Report) -> tuple[int, str]:
    """The status and the reason that /readyz answers: who is not ready is to get no new connections."""
    return (200 if report.is_ready else 503), _one_line(report.ready_reason)


def verbose(reason: str, report: Report) -> str:
    """A reason, and a line for each worker."""
    return "\n".join([reason, *_lines(report)])


def _one_line(reason: str) -> str:
    return " ".join(reason.split())


def _lines(report: Report) -> Iterator[str]:
    for worker in sorted(report.workers, key=lambda each: (each.slot, each.started_at)):
        yield f"worker {worker.slot} [{worker.pid}] {worker.state}{_age(worker, report.at)}"


def _age(worker: WorkerReport, now: float) -> str:
    if worker.ready_at is not None:
        return f", ready for {max(0.0, now - worker.ready_at):.0f} s"
    return f", started {max(0.0, now - worker.started_at):.0f} s ago"
