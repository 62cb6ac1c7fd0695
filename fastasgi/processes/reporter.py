"""What a supervisor reports of itself, for the admin listener. Must not know: who reads it."""

import time

from fastasgi.admin.report import SILENT_S, CertificateReport, QueueReport, Report, WorkerReport
from fastasgi.admin.reportparts import certificate_reports, queue_reports, setting_reports
from fastasgi.config import Config
from fastasgi.processes.listeners import Listeners
from fastasgi.processes.pool import WorkerPool
from fastasgi.processes.states import Phase
from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.tls.contexts import TLSFiles


class Reporter:
    """Makes the reports of one supervisor: of its workers, and of its listening sockets."""

    def __init__(self, workers: WorkerPool, listeners: Listeners) -> None:
        self._workers = workers
        self._listeners = listeners
        self._started_at = time.time()
        self._settings: dict[str, str] = {}
        self._settings_of: Config | None = None
        self._certificates: list[CertificateReport] = []
        self._certificates_of: tuple[TLSFiles, str] | None = None  # and what was wrong with newer files

    def report(self, phase: Phase) -> Report:
        """The supervisor, which is in this phase, as it is now."""
        now = time.monotonic()
        is_ready, ready_reason = self._readiness(phase, now)
        return Report(
            at=time.time(),
            started_at=self._started_at,
            phase=self._phase_name(phase),
            is_live=True,
            live_reason="the supervisor replaces workers that end",
            is_ready=is_ready,
            ready_reason=ready_reason,
            workers=[_worker_report(each, now) for each in self._workers.processes()],
            queues=self._queues(),
            certificates=self._certificate_reports(),
            settings=self._setting_reports(),
        )

    def _phase_name(self, phase: Phase) -> str:
        if phase is Phase.RUNNING and not self._workers.has_started:
            return "starting"
        return phase.name.lower()

    def _readiness(self, phase: Phase, now: float) -> tuple[bool, str]:
        """Whether a worker accepts connections, and why."""
        count = len(self._workers.slots) or self._workers.config.worker_count  # none before the first start
        serving = [slot.serving for slot in self._workers.slots if slot.serving is not None]
        turning = [process for process in serving if now - process.heard_at < SILENT_S]
        if phase is Phase.STOPPING:
            return False, "the server is stopping"
        if phase is Phase.WITHDRAWN:
            return False, "all workers are withdrawn"
        if not serving:
            return False, f"none of {count} workers serves yet"
        if not turning:
            return False, f"no worker's event loop has turned for {SILENT_S:g} s"
        return True, f"{len(turning)} of {count} workers serve"

    def _queues(self) -> list[QueueReport]:
        return queue_reports(self._listeners.sockets, self._workers.config.is_ssl)

    def _certificate_reports(self) -> list[CertificateReport]:
        """Read again only when files have been: to read them is not for each second."""
        tls = self._workers.config.tls
        key = None if tls is None else (tls.files, tls.fault)
        if key != self._certificates_of:
            self._certificates_of = key
            self._certificates = certificate_reports(tls)
        return self._certificates

    def _setting_reports(self) -> dict[str, str]:
        if self._settings_of is not self._workers.config:
            self._settings_of = self._workers.config
            self._settings = setting_reports(self._settings_of)
        return self._settings


def _worker_report(process: WorkerProcess, now: float) -> WorkerReport:
    since_s = time.time() - now
    return WorkerReport(
        slot=process.slot,
        pid=process.pid,
        state=process.state.name.lower(),
        # Rounded, so that they stay the same from one report to the next
        started_at=round(process.started_at + since_s, 1),
        ready_at=None if process.ready_at is None else round(process.ready_at + since_s, 1),
        stands_at=process.stands_at,
    )
