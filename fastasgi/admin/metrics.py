"""The metrics of a server, in Prometheus's text format or OpenMetrics, which the client asks for by Accept.

Names and units are those of Prometheus, and labels those of OpenTelemetry's conventions for HTTP where they
fit. All values of labels come from the lists here and from settings, never from a client. A worker is its
slot: its processes come and go, and what they have counted stays.
"""

import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

from fastasgi import __version__
from fastasgi.admin.counts import STARTS_S, Counts, Histogram
from fastasgi.admin.report import Report
from fastasgi.admin.source import Source
from fastasgi.core.counters import CLASSES
from fastasgi.errors import FastasgiError

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import generate_latest as encode_text
    from prometheus_client.openmetrics.exposition import generate_latest as encode_openmetrics
    from prometheus_client.registry import Collector
except ModuleNotFoundError:  # the extra is optional
    Collector = object  # type: ignore[assignment,misc]
    CollectorRegistry = None  # type: ignore[assignment,misc]

# Media types, with the versions of the formats that prometheus-client writes unless it is told otherwise
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Seconds. The nearest bounds of Histogram's own buckets are taken, so that no time is on the wrong side
_WANTED_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_BOUND_BUCKETS = [
    min(range(len(STARTS_S)), key=lambda bucket: abs(STARTS_S[bucket] - bound)) for bound in _WANTED_BOUNDS_S
]
BOUNDS_S = [STARTS_S[bucket] for bucket in _BOUND_BUCKETS]

_FINAL_CLASSES = [each for each in CLASSES if each != "1xx"]
_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


class MissingExtra(FastasgiError):
    """The package that writes metrics is not installed."""


def exposition(source: Source, accept: str) -> tuple[bytes, str]:
    """All metrics, and their media type, for a client that sends this Accept field. Raises MissingExtra."""
    if CollectorRegistry is None:
        raise MissingExtra("metrics need the prometheus-client package: pip install 'fastasgi[metrics]'")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(source))
    if prefers_openmetrics(accept):
        body: bytes = encode_openmetrics(registry)  # type: ignore[no-untyped-call]
        return body, OPENMETRICS
    return encode_text(registry), TEXT


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept field (RFC 9110, 12.5.1) asks for OpenMetrics 1.0.0 rather than for text.

    Who asks for neither by its name gets text. An element that can't be understood counts for nothing.
    """
    asked = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for element in accept.lower().split(","):
        name, *parameters = (part.strip() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                weight = float(parameter[2:]) if _WEIGHT.fullmatch(parameter[2:]) else 0.0
            elif name == "application/openmetrics-text" and parameter.startswith("version="):
                weight = weight if parameter == "version=1.0.0" else 0.0
        if name in asked:
            asked[name] = max(asked[name], weight)
    return 0 < asked["application/openmetrics-text"] >= asked["text/plain"]


def folded(histogram: Histogram) -> list[tuple[str, float]]:
    """A histogram in few buckets, each with all of those below it, as Prometheus has them."""
    sums, total = [], 0
    for count in histogram.counts:
        sums.append(total)
        total += count
    buckets: list[tuple[str, float]] = [
        (repr(STARTS_S[bucket]), float(sums[bucket])) for bucket in _BOUND_BUCKETS
    ]
    return [*buckets, ("+Inf", float(total))]


def by_slot(rows: list[Counts]) -> list[Counts]:
    """The rows of each worker's slot together, in the order of slots."""
    slots: dict[int, Counts] = {}
    for row in rows:
        slots[row.slot] = slots[row.slot].plus(row) if row.slot in slots else row
    return [slots[slot] for slot in sorted(slots)]


Values = Callable[[Counts], dict[tuple[str, ...], float]]


def _one(value: Callable[[Counts], float]) -> Values:
    return lambda counts: {(): value(counts)}


def _named(values: Callable[[Counts], dict[str, int]]) -> Values:
    return lambda counts: {(name,): number for name, number in values(counts).items()}


def _by_generation(values: Callable[[Counts], list[Any]]) -> Values:
    return lambda counts: {(str(i),): value for i, value in enumerate(values(counts))}


def _responses(counts: Counts) -> dict[tuple[str, ...], float]:
    """All but WebSockets' handshakes, whose protocol is no version of HTTP.

    Of a method that has been seen all classes are there, from 0 on: so the first of each is seen as a rise.
    """
    found: dict[tuple[str, ...], float] = {}
    for (protocol, method, status), number in counts.responses.items():
        if protocol != "ws":
            for each in _FINAL_CLASSES:
                found.setdefault((protocol, method, each), 0)
            found[protocol, method, status] = number
    return found


def _handshakes(counts: Counts) -> dict[tuple[str, ...], float]:
    """WebSockets' handshakes by their outcome."""
    found = {"accepted": 0, "denied": 0, "aborted": 0}
    for (protocol, _, status), number in counts.responses.items():
        if protocol == "ws":
            found[{"1xx": "accepted", "aborted": "aborted"}.get(status, "denied")] += number
    return {(outcome,): number for outcome, number in found.items()}


# Of each worker: name, labels beside the worker, help, values
COUNTERS: list[tuple[str, tuple[str, ...], str, Values]] = [
    (
        "fastasgi_http_responses",
        ("network_protocol_version", "http_request_method", "http_response_status_class"),
        "Responses, by HTTP version, method (_OTHER for the rare ones) and class of the status. The class "
        "aborted means that the client left before the response was complete.",
        _responses,
    ),
    (
        "fastasgi_websocket_handshakes",
        ("outcome",),
        "WebSocket handshakes that the application has answered, or whose client left before.",
        _handshakes,
    ),
    (
        "fastasgi_websocket_messages_received",
        (),
        "Messages that the application got of WebSocket clients.",
        _one(lambda counts: counts.messages_received),
    ),
    (
        "fastasgi_websocket_messages_sent",
        (),
        "Messages that the application sent to WebSocket clients.",
        _one(lambda counts: counts.messages_sent),
    ),
    (
        "fastasgi_received_bytes",
        (),
        "Bytes read from clients' sockets, TLS included.",
        _one(lambda counts: counts.bytes_received),
    ),
    (
        "fastasgi_sent_bytes",
        (),
        "Bytes written to clients' sockets, TLS included.",
        _one(lambda counts: counts.bytes_sent),
    ),
    (
        "fastasgi_connections_accepted",
        ("tls",),
        "Connections accepted, with TLS and without.",
        lambda counts: {(_tls(kind),): number for kind, number in counts.accepted.items()},
    ),
    (
        "fastasgi_refusals",
        ("reason",),
        "Requests and connections that the server itself refused, by the reason.",
        _named(lambda counts: counts.refusals),
    ),
    (
        "fastasgi_timeouts",
        ("kind",),
        "Clients that did not do in time what was due, by what that was. An idle connection that is closed "
        "(keep_alive) is no fault.",
        _named(lambda counts: counts.timeouts),
    ),
    (
        "fastasgi_application_exceptions",
        (),
        "Exceptions that came out of the application.",
        _one(lambda counts: counts.exceptions),
    ),
    (
        "fastasgi_event_loop_busy_seconds",
        (),
        "Time for which the event loop had something to do: with uvloop its thread's processor time, with "
        "asyncio all time outside its select.",
        _one(lambda counts: counts.busy_s),
    ),
    (
        "fastasgi_event_loop_stalls",
        (),
        "How often the event loop was blocked for log_stall or longer.",
        _one(lambda counts: counts.stalls),
    ),
    (
        "fastasgi_event_loop_stalled_seconds",
        (),
        "For how long those stalls lasted, once they were over.",
        _one(lambda counts: counts.stalled_s),
    ),
    (
        "fastasgi_overload_periods",
        (),
        "How often requests began to be refused since the event loop was late (overload_delay).",
        _one(lambda counts: counts.sheds),
    ),
    (
        "fastasgi_gc_pauses",
        ("generation",),
        "Collections of Python's garbage collector.",
        _by_generation(lambda counts: counts.gc_pauses),
    ),
    (
        "fastasgi_gc_pause_seconds",
        ("generation",),
        "Time for which collections held the interpreter.",
        _by_generation(lambda counts: counts.gc_pause_s),
    ),
    (
        "fastasgi_process_cpu_seconds",
        (),
        "Processor time of the worker's processes.",
        _one(lambda counts: counts.cpu_s),
    ),
    (
        "fastasgi_worker_starts",
        (),
        "Processes that were started for this worker.",
        _one(lambda counts: counts.starts),
    ),
    (
        "fastasgi_worker_ends",
        ("cause",),
        "Processes of this worker that have ended: asked to, by a limit, for a stall, killed since they took "
        "too long (overdue), before they were ready (not_started), by themselves (exit), or by a signal.",
        _named(lambda counts: counts.ends),
    ),
]

GAUGES: list[tuple[str, tuple[str, ...], str, Values]] = [
    (
        "fastasgi_http_active_requests",
        (),
        "Requests under way.",
        _one(lambda counts: counts.running),
    ),
    (
        "fastasgi_websockets_open",
        (),
        "Open WebSockets.",
        _one(lambda counts: counts.websockets),
    ),
    (
        "fastasgi_connections_open",
        ("protocol", "tls"),
        "Open connections, by what they speak (none: not known yet) and TLS.",
        lambda counts: {(protocol, _tls(kind)): number for (protocol, kind), number in counts.open.items()},
    ),
    (
        "fastasgi_overload_shedding",
        (),
        "1 while requests are refused since the event loop is late.",
        _one(lambda counts: counts.is_shedding),
    ),
    (
        "fastasgi_process_resident_memory_bytes",
        (),
        "Resident memory of the worker's process.",
        _one(lambda counts: counts.resident_bytes),
    ),
    (
        "fastasgi_process_open_fds",
        (),
        "Open file descriptors of the worker's process.",
        _one(lambda counts: counts.descriptors),
    ),
    (
        "fastasgi_process_max_fds",
        (),
        "How many it may have.",
        _one(lambda counts: counts.descriptors_limit),
    ),
    (
        "fastasgi_worker_up",
        (),
        "1 while a process serves, or starts, for this worker.",
        _one(lambda counts: counts.is_running),
    ),
]

HISTOGRAMS: list[tuple[str, str, Callable[[Counts], Histogram]]] = [
    (
        "http_server_request_duration_seconds",
        "From the arrival of a request's head until all of its response was written; without WebSockets.",
        lambda counts: counts.duration,
    ),
    (
        "fastasgi_http_time_to_first_byte_seconds",
        "From the arrival of a request's head until the first byte of its response was written.",
        lambda counts: counts.first_byte,
    ),
    (
        "fastasgi_event_loop_lag_seconds",
        "How late the event loop ran a call that was due, looked at ten times a second.",
        lambda counts: counts.lag,
    ),
]


def _tls(kind: str) -> str:
    return "true" if kind == "tls" else "false"


def _text(value: str) -> str:
    """A label's value of a path, which need not be UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode()


class ServerCollector(Collector):
    """Makes the metrics of one server, each time that they are asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator["Metric"]:
        """All metrics as they are now."""
        rows = by_slot(self._source.counts())
        for name, labels, text, values in COUNTERS:
            yield _family(CounterMetricFamily, name, labels, text, values, rows)
        for name, labels, text, values in GAUGES:
            yield _family(GaugeMetricFamily, name, labels, text, values, rows)
        for name, text, histogram_of in HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=["worker"])
            for counts in rows:
                histogram = histogram_of(counts)
                family.add_metric([str(counts.slot)], folded(histogram), histogram.sum_s)
            yield family
        yield from _of_report(self._source.report())


def _family(
    kind: Any, name: str, labels: tuple[str, ...], text: str, values: Values, rows: list[Counts]
) -> "Metric":
    family = kind(name, text, labels=["worker", *labels])
    for counts in rows:
        for names, value in values(counts).items():
            family.add_metric([str(counts.slot), *names], float(value))
    metric: Metric = family
    return metric


def _of_report(report: Report) -> Iterator["Metric"]:
    yield InfoMetricFamily(
        "fastasgi_build",
        "Versions of the server and of Python.",
        {"version": __version__, "python_version": platform.python_version()},
    )
    yield GaugeMetricFamily(
        "fastasgi_live", "1 if the server is live, as /livez says.", float(report.is_live)
    )
    yield GaugeMetricFamily(
        "fastasgi_ready", "1 if the server is ready, as /readyz says.", float(report.is_ready)
    )
    yield GaugeMetricFamily(
        "fastasgi_start_time_seconds", "When the server was started, in Unix time.", report.started_at
    )
    length = GaugeMetricFamily(
        "fastasgi_accept_queue_length", "Connections that wait to be accepted.", labels=["address"]
    )
    limit = GaugeMetricFamily(
        "fastasgi_accept_queue_limit", "How many connections may wait to be accepted.", labels=["address"]
    )
    for queue in report.queues:
        length.add_metric([_text(queue.address)], queue.length)
        limit.add_metric([_text(queue.address)], queue.limit)
    yield length
    yield limit
    expiry = GaugeMetricFamily(
        "fastasgi_certificate_expiry_timestamp_seconds",
        "When a certificate that is served expires, in Unix time.",
        labels=["file"],
    )
    failed = GaugeMetricFamily(
        "fastasgi_certificate_renewal_failed",
        "1 if a certificate's files could not be read again when they had changed.",
        labels=["file"],
    )
    for certificate in report.certificates:
        expiry.add_metric([_text(certificate.file)], certificate.expires_at)
        failed.add_metric([_text(certificate.file)], float(bool(certificate.error)))
    yield expiry
    yield failed
