"""The workloads: what is asked of a server, by how many users of which kind."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

# What Chrome sends for a page of a site that the user is logged in to.
BROWSER_HEADERS = {
    "Connection": "keep-alive",
    "Cache-Control": "max-age=0",
    "sec-ch-ua": '"Chromium";v="142", "Not?A_Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-User": "?1",
    "Sec-Fetch-Dest": "document",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9,de;q=0.8",
    "Cookie": "session=eyJ1c2VyIjoxNzAxLCJyb2xlIjoiZWRpdG9yIn0.Zx81Qw.0kq2dV5mX7; theme=dark; consent=all",
}

# How long the application takes for a request to /slow.
SLOW_S = 0.005
WAIT_WORK_S = 0.001
# The connections of a proxy.
POOL = 500
# How many a client has at most: no one machine has more to one port, and few shells allow more open files.
MOST_CONNECTIONS = 15_000


@dataclass(frozen=True)
class Workload:
    """One kind of work, the same for every server."""

    name: str
    title: str
    path: str = "/"
    app: str = "plain:app"
    """Module and name of the ASGI application, in bench/apps."""
    kind: str = "request"
    """The kind of user, a key of users.KINDS, or of peak, a key of peaks.KINDS; or `h2load`, whose load that
    program makes; or `start`, which only starts the server.
    """
    connections: int = 64
    depth: int = 1
    """Requests that one connection has open at once."""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body_bytes: int = 0
    rate_per_s: int = 0
    """Of kind `rated`: requests a second of all connections together."""
    arrivals: int = 0
    """Of kind `burst`: connections that are made at once, beside the others."""
    times_capacity: float = 0.0
    """Of kind `overload`: requests that arrive, as a multiple of what the server can answer."""
    work_s: float = 0.0
    """Of kind `overload`: the processor time of a request."""
    pool: int = 0
    """Of kind `overload`: the connections that there are; 0: a new one whenever none is idle."""
    workers: int = 1
    tls: bool = False
    uds: bool = False
    """The server listens on a Unix socket."""
    database: bool = False
    unit: str = "requests"
    expect: bytes = b"Hello, World!"
    """In the answer to the probe; without it the figure would be of other work."""
    fixed: bool = True
    """Every body is as long as the others."""
    bare: bool = False
    """The C epoll floor takes part: fixed bytes for every blank line are the answer."""

    @property
    def request(self) -> bytes:
        """The request, ready to send with HTTP/1.1."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        if self.method == "POST":
            head += f"Content-Type: application/octet-stream\r\nContent-Length: {self.body_bytes}\r\n"
        return head.encode("latin-1") + b"\r\n" + b"a" * self.body_bytes

    @property
    def joins(self) -> bool:
        """Whether every user holds a connection, so that the window can wait for the first answer on each."""
        return self.kind in ("request", "http2", "idle", "websocket")

    @property
    def http2(self) -> bool:
        """Whether the client speaks HTTP/2: by prior knowledge, or over TLS as ALPN chooses."""
        return self.kind in ("http2", "h2load")

    @property
    def peak(self) -> bool:
        """Whether the load is a short peak, which bench.peaks makes, instead of a steady one by locust."""
        return self.kind in ("burst", "overload")

    @property
    def has_rate(self) -> bool:
        """Whether the figure is a rate, with the CPU time and the latency of each request."""
        return self.kind not in ("idle", "start") and not self.peak

    @property
    def expected_connections(self) -> int:
        """How many connections there are at once, as far as a server could be told before."""
        return self.connections + self.arrivals

    def most_connections(self, window_s: float) -> int:
        """How many there may be if no request of an overload, which lasts so long, is answered."""
        if self.kind != "overload":
            return self.expected_connections
        arrivals = int(self.times_capacity * self.workers / self.work_s * window_s)
        return self.pool or min(MOST_CONNECTIONS, self.expected_connections + arrivals)

    @property
    def route(self) -> str:
        """The path without its query."""
        return urlsplit(self.path).path


def _burst(name: str, arrivals: int, how: str = "", **options: Any) -> Workload:
    title = f"{arrivals} new connections at once beside 64 busy ones, 130 µs of work a request, {how}"
    return Workload(name, title.rstrip(", "), "/busy", kind="burst", arrivals=arrivals, **options)


def _http2(name: str, title: str, **options: Any) -> Workload:
    given: dict[str, Any] = {"kind": "http2", "connections": 16, "depth": 32, **options}
    return Workload(name, title, **given)


def _overloads() -> Iterator[Workload]:
    """Of each kind of work. So many connections keep a server busy while its capacity is measured."""
    works = (("", "/slow", SLOW_S, 4, ""), ("-wait", "/wait", WAIT_WORK_S, 64, " and 50 ms of waiting"))
    for name, path, work_s, connections, more in works:
        for pool in (0, POOL):
            for times in (1, 2, 3, 5):
                arrivals = "as many" if times == 1 else f"{times} times as many"
                how = f", over {pool} connections" if pool else ""
                yield Workload(
                    f"overload{name}{'-pool' if pool else ''}-{times}",
                    f"{arrivals} requests as can be answered, {work_s * 1e3:.0f} ms of work{more} each{how}",
                    path,
                    kind="overload",
                    connections=connections,
                    times_capacity=times,
                    work_s=work_s,
                    pool=pool,
                )


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("hello", "hello: GET of 13 bytes, 64 connections", bare=True),
        Workload("hello-1000", "hello, 1000 connections", connections=1000, bare=True),
        Workload("pipeline", "hello, 16 requests at once on each connection", depth=16, bare=True),
        Workload("browser", "hello with a browser's headers", "/?a=b", headers=BROWSER_HEADERS, bare=True),
        Workload("client", "hello by locust's FastHttpUser", kind="client", bare=True),
        Workload(
            "reconnect",
            "hello, a connection for each request",
            kind="reconnect",
            connections=32,
            headers={"Connection": "close"},
        ),
        Workload("workers-2", "hello with 2 workers", workers=2),
        Workload("starlette", "JSON by Starlette", "/json", "star:app", expect=b'"message"'),
        Workload(
            "fastapi",
            "JSON by FastAPI, a path and a query parameter",
            "/items/5?q=abc",
            "fast:app",
            expect=b'"abc"',
        ),
        Workload(
            "post16k", "POST of 16 KiB, echoed", "/echo", method="POST", body_bytes=16384, expect=b"a" * 16384
        ),
        Workload(
            "upload1m",
            "upload of 1 MiB",
            "/count",
            connections=16,
            method="POST",
            body_bytes=1 << 20,
            expect=b"1048576",
        ),
        Workload("download1m", "download of 1 MiB", "/big", connections=16, expect=b"x" * (1 << 20)),
        Workload(
            "stream",
            "response of 64 pieces of 1 KiB, each sent in a turn of the loop of its own",
            "/stream",
            connections=32,
            expect=b"y",
        ),
        Workload(
            "ws-echo", "WebSocket echo of 32 bytes, 64 connections", "/ws", kind="websocket", unit="messages"
        ),
        Workload("tls", "hello over TLS 1.3", tls=True),
        _http2("h2c", "hello over HTTP/2, 16 connections with 32 streams each"),
        _http2("h2c-one", "hello over HTTP/2, one stream at a time", connections=1, depth=1),
        _http2(
            "h2c-h2load", "hello over HTTP/2 by h2load, 16 connections with 32 streams each", kind="h2load"
        ),
        _http2("h2tls", "hello over HTTP/2 and TLS 1.3, 16 connections with 32 streams each", tls=True),
        Workload("rate-1000", "latency at 1000 requests a second", kind="rated", rate_per_s=1000, bare=True),
        _burst("burst", 200),
        _burst("burst-1000", 1000),
        _burst("burst-tls", 200, "over TLS 1.3", tls=True),
        _burst("burst-uds", 200, "on a Unix socket", uds=True),
        _burst("burst-workers-2", 200, "with 2 workers", workers=2),
        *_overloads(),
        Workload("idle", "memory of 10 000 idle connections", kind="idle", connections=10_000),
        Workload("start", "time from the start to the first answer", kind="start", bare=True),
        # TechEmpower's two tests of one query, with their number of connections scaled to one core.
        Workload(
            "te-db",
            "TechEmpower single query",
            "/db",
            "techempower:app",
            connections=128,
            expect=b"randomNumber",
            database=True,
            # Rows are random, some with more digits than others.
            fixed=False,
        ),
        Workload(
            "te-fortunes",
            "TechEmpower fortunes",
            "/fortunes",
            "techempower:app",
            connections=128,
            expect=b"&lt;script&gt;",
            database=True,
        ),
    )
}

QUICK = ("hello", "pipeline", "starlette", "h2c", "h2c-h2load", "rate-1000")
