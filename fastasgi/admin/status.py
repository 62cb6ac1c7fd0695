"""The JSON document of a server's state: made of its report, of its counts, and of how these have changed."""

import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from fastasgi import __version__
from fastasgi.admin.counts import Counts
from fastasgi.admin.document import (
    VERSION,
    Certificate,
    Collections,
    Document,
    Health,
    History,
    Now,
    Process,
    Quantiles,
    Queue,
    RefusalRecord,
    ServerPart,
    Stall,
    Totals,
    Worker,
)
from fastasgi.admin.history import (
    HISTORY_S,
    NOTHING,
    POINT_S,
    Change,
    Look,
    Points,
    Window,
    classes,
    failures,
)
from fastasgi.admin.problems import problems
from fastasgi.admin.report import Report, WorkerReport
from fastasgi.admin.source import Source

LOOK_S = 0.9  # between two looks, whoever asks
BLOCKED_S = 2.0  # without a beat, of which each loop has one a second: then it is blocked
RECORDS = 24  # of the last stalls, and of the last refusals
TEXT_LIMIT = 300  # characters
FRAMES = 16

STATES = ("serving", "retiring", "starting", "condemned", "leaving")
"""What a process may be, that which matters most first."""


class Status:
    """Makes the documents of one server. To be asked about once a second, so that it knows how counts change.

    Whoever asks sooner than LOOK_S after another one is told the same.
    """

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._clock = clock
        self._unix_clock = unix_clock
        self._began_at = clock()
        self._window = Window()
        self._points = Points()
        self._beats = Beats()
        self._failures: dict[int, int] = {}  # by slot, when it last had a process
        self._looked_at = -math.inf
        self._last: Document | None = None

    def document(self) -> Document:
        """All that is known, with all points of the history."""
        return self._with_history(self._looked(), last_only=False)

    def update(self) -> Document:
        """The same with the last point only, for whoever has had a document before."""
        return self._with_history(self._looked(), last_only=True)

    def _with_history(self, document: Document, last_only: bool) -> Document:
        history = History(
            is_whole=not last_only,
            interval_s=POINT_S,
            length_s=HISTORY_S,
            columns=self._points.columns(last_only, self._began_at),
        )
        return {**document, "history": history}

    def _looked(self) -> Document:
        now = self._clock()
        if self._last is None or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._last = self._look(now)
        return self._last

    def _look(self, now: float) -> Document:
        """Look at the server, whose document, without history, is returned."""
        unix_now = self._unix_clock()
        report, rows = self._source.report(), self._source.counts()
        look = Look.of(now, rows, self._beats.blocked(rows, now, unix_now))
        self._window.add(look)
        change = self._window.change()
        figures = _now(look, change)
        self._points.add(look, change, figures["busy_share"])
        document = Document(
            version=VERSION,
            at=round(unix_now, 3),
            time_s=round(now - self._began_at, 3),
            server=_server(report, unix_now),
            live=Health(is_well=report.is_live, reason=report.live_reason),
            ready=Health(is_well=report.is_ready, reason=report.ready_reason),
            problems=[],
            now=figures,
            totals=_totals(look.sums),
            workers=self._workers(report, look, unix_now),
            stalls=_stalls(rows),
            refusals=_refusals(rows),
            queues=[Queue(address=q.address, length=q.length, limit=q.limit) for q in report.queues],
            certificates=_certificates(report, unix_now),
            settings=dict(report.settings),
            history=History(is_whole=False, interval_s=POINT_S, length_s=HISTORY_S, columns={}),
        )
        document["problems"] = problems(
            document,
            self._points.sum_of("worker_failures"),
            self._points.sum_of("stalls"),
            round(HISTORY_S / 60),
        )
        return document

    def _workers(self, report: Report, look: Look, unix_now: float) -> list[Worker]:
        """Each slot that has a process, or has had one."""
        slots = sorted({*look.slots, *(each.slot for each in report.workers)})
        return [self._worker(slot, report.workers, look, unix_now) for slot in slots]

    def _worker(self, slot: int, reports: Iterable[WorkerReport], look: Look, unix_now: float) -> Worker:
        counts = look.slots.get(slot, NOTHING)
        change = self._window.change_in(slot)
        processes = sorted(
            (_process(each, unix_now) for each in reports if each.slot == slot),
            key=lambda process: STATES.index(process["state"]) if process["state"] in STATES else len(STATES),
        )
        failed = failures(counts.ends)
        if counts.is_running:
            self._failures[slot] = failed
        without = "failed" if failed > self._failures.get(slot, failed) else "none"
        blocked_s = look.blocked_s.get(slot, 0.0)
        if processes and processes[0]["state"] == "starting":
            blocked_s = 0.0  # its loop does not run yet, or only just
        return Worker(
            slot=slot,
            state=processes[0]["state"] if processes else without,
            age_s=processes[0]["age_s"] if processes else None,
            processes=processes,
            blocked_s=round(blocked_s, 1),
            busy_share=_rounded(change.share("busy_s", min(change.blocked_s, change.seconds))),
            cpu_share=_rounded(change.per_s("cpu_s")),
            lag_p99_s=_rounded(change.lag(0.99)),
            requests_per_s=_rounded(change.per_s("responses")),
            requests=sum(classes(counts).values()),
            exceptions=counts.exceptions,
            running=counts.running,
            connections=sum(counts.open.values()),
            websockets=counts.websockets,
            is_shedding=counts.is_shedding,
            resident_bytes=counts.resident_bytes,
            descriptors=counts.descriptors,
            descriptors_limit=counts.descriptors_limit,
            stalls=counts.stalls,
            starts=counts.starts,
            ends=_present(counts.ends),
        )


class Beats:
    """When each row's event loop has last turned, by a clock that does not jump."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[float, float]] = {}  # by slot and pid: a beat, its time here
        self._looked_at = -math.inf

    def blocked(self, rows: Iterable[Counts], now: float, unix_now: float) -> dict[int, float]:
        """The slots of which a process has an event loop that does not turn, and for how many seconds."""
        seen: dict[tuple[int, int], tuple[float, float]] = {}
        blocked: dict[int, float] = {}
        for row in rows:
            if not row.is_running or not row.beat_at:
                continue
            key = row.slot, row.pid
            beat_at, turned_at = self._seen.get(key, (0.0, 0.0))
            if beat_at != row.beat_at:
                turned_at = now - max(0.0, unix_now - row.beat_at)
                if key in self._seen:
                    # Since the look before, whatever the wall clock says
                    turned_at = max(turned_at, self._looked_at)
            seen[key] = row.beat_at, turned_at
            if now - turned_at >= BLOCKED_S:
                blocked[row.slot] = max(blocked.get(row.slot, 0.0), now - turned_at)
        self._seen, self._looked_at = seen, now
        return blocked


def _server(report: Report, unix_now: float) -> ServerPart:
    return ServerPart(
        name=_text(report.settings.get("app", "")),
        fastasgi=__version__,
        python=platform.python_version(),
        phase=report.phase,
        started_at=report.started_at,
        uptime_s=round(max(0.0, unix_now - report.started_at), 1),
        report_age_s=round(max(0.0, unix_now - report.at), 1),
    )


def _now(look: Look, change: Change) -> Now:
    rates = change.classes_per_s()
    responses = sum(rates.values())
    sums = look.sums
    names: dict[str, dict[str, int]] = {}
    for (protocol, security), number in sums.open.items():
        names.setdefault(protocol, {})[security] = number
    return Now(
        window_s=round(change.seconds, 1),
        requests_per_s=_rounded(change.per_s("responses")),
        responses_per_s={name: float(f"{rate:.4g}") for name, rate in sorted(rates.items()) if rate},
        error_share=_rounded(rates.get("5xx", 0.0) / responses) if responses else None,
        exceptions_per_s=_rounded(change.per_s("exceptions")),
        refusals_per_s=_rounded(change.per_s("refusals")),
        received_bytes_per_s=_rounded(change.per_s("bytes_received")),
        sent_bytes_per_s=_rounded(change.per_s("bytes_sent")),
        first_byte=_quantiles(lambda share: change.quantile("first_byte", share)),
        duration=_quantiles(lambda share: change.quantile("duration", share)),
        lag=_quantiles(change.lag),
        busy_share=_rounded(change.share("busy_s", _blocked_within(change, look))),
        gc_share=_rounded(change.share("gc_pause_s")),
        running=sums.running,
        connections=sum(sums.open.values()),
        websockets=sums.websockets,
        open=names,
        is_shedding=sums.is_shedding,
    )


def _quantiles(quantile: Callable[[float], float | None]) -> Quantiles:
    return Quantiles(
        p50_s=_rounded(quantile(0.5)), p95_s=_rounded(quantile(0.95)), p99_s=_rounded(quantile(0.99))
    )


def _totals(sums: Counts) -> Totals:
    by_class = classes(sums)
    protocols: Counter[str] = Counter()
    for (protocol, _, _), number in sums.responses.items():
        protocols[protocol] += number
    return Totals(
        requests=sum(by_class.values()),
        responses=dict(sorted(by_class.items())),
        protocols=dict(sorted(protocols.items())),
        exceptions=sums.exceptions,
        refusals=_present(sums.refusals),
        timeouts=_present(sums.timeouts),
        accepted=dict(sums.accepted),
        received_bytes=sums.bytes_received,
        sent_bytes=sums.bytes_sent,
        messages_received=sums.messages_received,
        messages_sent=sums.messages_sent,
        stalls=sums.stalls,
        stalled_s=round(sums.stalled_s, 3),
        sheds=sums.sheds,
        starts=sums.starts,
        ends=_present(sums.ends),
        collections=[
            Collections(generation=i, pauses=pauses, total_s=round(total_s, 6))
            for i, (pauses, total_s) in enumerate(zip(sums.gc_pauses, sums.gc_pause_s, strict=True))
        ],
    )


def _process(report: WorkerReport, unix_now: float) -> Process:
    return Process(
        pid=report.pid,
        state=report.state,
        started_at=report.started_at,
        age_s=round(max(0.0, unix_now - report.started_at), 1),
        stands_at=_text(report.stands_at),
    )


def _blocked_within(change: Change, look: Look) -> float:
    """For how long of the change event loops have been blocked, which have not told that they were busy."""
    return sum(min(blocked_s, change.seconds) for blocked_s in look.blocked_s.values())


def _stalls(rows: Iterable[Counts]) -> list[Stall]:
    return [
        Stall(
            at=_number(record.get("at")),
            slot=row.slot,
            duration_s=_number(record.get("duration_s")),
            is_over=bool(record.get("is_over")),
            is_held=bool(record.get("is_held")),
            request=_text(record.get("request")),
            where=[_text(frame) for frame in record.get("where") or ()][:FRAMES],
        )
        for row, record in _last(rows, "last_stalls")
    ]


def _refusals(rows: Iterable[Counts]) -> list[RefusalRecord]:
    return [
        RefusalRecord(
            at=_number(record.get("at")),
            slot=row.slot,
            status=int(_number(record.get("status"))),
            kind=_text(record.get("kind")),
            reason=_text(record.get("reason")),
            client=_text(record.get("client")),
            method=_text(record.get("method")),
            path=_text(record.get("path")),
        )
        for row, record in _last(rows, "last_refusals")
    ]


def _last(rows: Iterable[Counts], name: str) -> list[tuple[Counts, dict[str, Any]]]:
    """The last records of all rows, newest first."""
    records = [(row, record) for row in rows for record in getattr(row, name)]
    return sorted(records, key=lambda each: -_number(each[1].get("at")))[:RECORDS]


def _certificates(report: Report, unix_now: float) -> list[Certificate]:
    return [
        Certificate(
            names=[_text(name) for name in each.names],
            file=_text(each.file),
            expires_at=each.expires_at,
            days_left=round((each.expires_at - unix_now) / 86400, 2),
            error=_text(each.error),
        )
        for each in report.certificates
    ]


def _present(counts: dict[str, int]) -> dict[str, int]:
    """Those that are not 0."""
    return {name: number for name, number in counts.items() if number}


def _rounded(value: float | None) -> float | None:
    """With four digits, for a person or a chart."""
    return None if value is None else float(f"{value:.4g}")


def _number(value: object) -> float:
    """A number that JSON has; 0 for what is none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _text(value: object) -> str:
    """A text of bounded length; empty for what is none."""
    text = value if isinstance(value, str) else ""
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
