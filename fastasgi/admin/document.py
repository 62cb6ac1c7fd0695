"""The shape of the JSON document of ``/status``, which each event of ``/events`` has too.

Others read it: within one VERSION names and meanings stay, and names may be added. Names of seconds end in
``_s``, of rates in ``_per_s``, of Unix times in ``at``; a share is from 0 to 1. A figure that is not known
yet is null. Counts are since the server started, whatever workers and reloads there have been.
"""

from typing import TypedDict

VERSION = 1


class Health(TypedDict):
    """One answer to a probe, and why it is so."""

    is_well: bool
    reason: str


class Problem(TypedDict):
    """What an operator should know first, in a sentence."""

    is_severe: bool  # requests fail or wait now
    text: str


class ServerPart(TypedDict):
    """The server as a whole."""

    name: str  # of the application
    fastasgi: str
    python: str
    phase: str  # "starting", "running", "withdrawn" or "stopping"
    started_at: float
    uptime_s: float
    report_age_s: float  # since the server last said this and what is not counted


class Quantiles(TypedDict):
    """Of times in seconds, over the last window_s. Null if there was none."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Now(TypedDict):
    """What happens now. Rates and quantiles are over the last window_s, 0 until there are two looks."""

    window_s: float
    requests_per_s: float | None
    responses_per_s: dict[str, float]  # by class of status: "1xx" to "5xx", "aborted"
    error_share: float | None  # of responses that are 5xx
    exceptions_per_s: float | None  # out of the application
    refusals_per_s: float | None
    received_bytes_per_s: float | None
    sent_bytes_per_s: float | None
    first_byte: Quantiles  # from the arrival of a request's head to the first byte of its response
    duration: Quantiles  # and to the last one
    lag: Quantiles  # how late event loops run what is due; also the time for which one is blocked
    busy_share: float | None  # of the workers' time, in which their event loops were not waiting
    gc_share: float | None  # of the workers' time, in which they stood still to collect garbage
    running: int  # requests under way
    connections: int
    websockets: int
    open: dict[str, dict[str, int]]  # connections: "1", "2", "ws" or "none" yet, then "plain" or "tls"
    is_shedding: bool  # new requests are refused for overload


class Collections(TypedDict):
    """The garbage collector's pauses in one generation."""

    generation: int
    pauses: int
    total_s: float


class Totals(TypedDict):
    """Counts of all workers together."""

    requests: int
    responses: dict[str, int]  # by class of status
    protocols: dict[str, int]  # responses by protocol: "1.0", "1.1", "2", "ws"
    exceptions: int
    refusals: dict[str, int]  # by reason, those that are not 0
    timeouts: dict[str, int]  # by kind, those that are not 0
    accepted: dict[str, int]  # connections, "plain" and "tls"
    received_bytes: int
    sent_bytes: int
    messages_received: int  # of WebSockets
    messages_sent: int
    stalls: int
    stalled_s: float
    sheds: int  # periods in which requests were refused for overload
    starts: int  # of workers
    ends: dict[str, int]  # of workers by cause, those that are not 0
    collections: list[Collections]


class Process(TypedDict):
    """A process of a worker's slot, of which there are two while one succeeds the other."""

    pid: int
    state: str  # "starting", "serving", "retiring", "leaving" or "condemned"
    started_at: float
    age_s: float
    stands_at: str  # where it stands that takes so long to start, or to turn; empty if that is not known


class Worker(TypedDict):
    """A worker's slot: what the processes do that have it now, and the counts of all that ever had it."""

    slot: int
    state: str  # of the process that matters most; without any "failed" or, if it was to end, "none"
    age_s: float | None  # of that process
    processes: list[Process]
    blocked_s: float  # for how long its event loop has not turned; 0 if it turns
    busy_share: float | None
    cpu_share: float | None  # of one processor
    lag_p99_s: float | None
    requests_per_s: float | None
    requests: int
    exceptions: int
    running: int
    connections: int
    websockets: int
    is_shedding: bool
    resident_bytes: int
    descriptors: int
    descriptors_limit: int  # 0 if there is none
    stalls: int
    starts: int
    ends: dict[str, int]  # by cause, those that are not 0


class Stall(TypedDict):
    """An event loop that did not turn."""

    at: float  # when it began
    slot: int
    duration_s: float  # when it was last looked at, if it is not over
    is_over: bool
    is_held: bool  # C code has held the interpreter, so that nobody could see where it stands
    request: str  # method and path; empty if it was none
    where: list[str]  # the application's frames, innermost first


class RefusalRecord(TypedDict):
    """A request or connection that was refused. The path is without its query."""

    at: float
    slot: int
    status: int  # 0 if there was no response
    kind: str
    reason: str
    client: str
    method: str
    path: str


class Queue(TypedDict):
    """Connections that wait to be accepted."""

    address: str
    length: int
    limit: int


class Certificate(TypedDict):
    """A certificate that is served."""

    names: list[str]
    file: str
    expires_at: float
    days_left: float  # below 0 if it has expired
    error: str  # why its files could not be read again; empty if they could


class History(TypedDict):
    """Points of the last length_s, oldest first, interval_s apart: each column has a number for each point.

    time_s is of the document's own clock, which does not jump. With is_whole all points are there, otherwise
    only the last one.
    """

    is_whole: bool
    interval_s: float
    length_s: float
    columns: dict[str, list[float | None]]  # by the names in fastasgi.admin.history.COLUMNS


class Document(TypedDict):
    """All of it."""

    version: int
    at: float
    time_s: float  # a clock that does not jump; it begins anew with the process that tells this
    server: ServerPart
    live: Health
    ready: Health
    problems: list[Problem]  # severe ones first; empty if all is well
    now: Now
    totals: Totals
    workers: list[Worker]
    stalls: list[Stall]  # the last ones, newest first
    refusals: list[RefusalRecord]  # the last ones, newest first
    queues: list[Queue]
    certificates: list[Certificate]
    settings: dict[str, str]  # in force; secrets are hidden
    history: History
