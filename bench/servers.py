"""The servers, each started as its own documentation recommends for production.

Settings are those of a deployment behind no proxy: the fastest event loop and parser that the server
supports, no access log (all have it off, since they would log differently much), keep-alive long enough
that no connection closes within a turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import MissingError, UnsupportedError
from bench.workloads import Workload

HERE = Path(__file__).resolve().parent
KEEP_ALIVE_S = 75
# The default of most; the others' are too short for the workload of 10 000 connections.
BACKLOG = 2048
# Above so many connections granian and peregrine are told how many to expect: they hold back what goes beyond
# their limits.
MANY = 500
# The one that fastasgi's documentation recommends.
OVERLOAD_DELAY_S = 0.02


@dataclass(frozen=True)
class Place:
    """Where a turn happens: the port, and what the environment holds."""

    port: int
    uds: Path
    """The path of the Unix socket, for a workload with one."""
    programs: Path
    """The folder with the environment's commands."""
    floor: Path
    node: str
    key: Path
    certificate: Path

    def program(self, name: str) -> str:
        """The path of a command of the environment. Raises MissingError."""
        path = self.programs / name
        if not path.exists():
            raise MissingError(f"{name} is not installed in {self.programs.parent}")
        return str(path)


@dataclass(frozen=True)
class Server:
    """A server to compare."""

    name: str
    title: str
    settings: str
    """What a reader has to know of how it is started."""
    command: Callable[[Workload, Place], list[str]]
    """The command line for a workload. Raises UnsupportedError or MissingError."""
    packages: tuple[str, ...] = ()
    """Distributions to install, and whose versions are noted."""
    needs_fastasgi: bool = False
    takes_part: Callable[[Workload], bool] = lambda work: True
    """Whether the workload is one to compare it at; a server that is asked and can't, says so itself."""


def _where(work: Workload, place: Place, option: str = "--uds") -> list[str]:
    """The options for the address; `option` is that for a Unix socket."""
    return [option, str(place.uds)] if work.uds else ["--port", str(place.port)]


def _fastasgi(work: Workload, place: Place) -> list[str]:
    command = [place.program("python"), "-m", "fastasgi", work.app, *_where(work, place)]
    command += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", str(KEEP_ALIVE_S)]
    if work.workers > 1:
        command += ["--workers", str(work.workers)]
    return command + _ssl(work, place)


def _fastasgi_shedding(work: Workload, place: Place) -> list[str]:
    return [*_fastasgi(work, place), "--overload-delay", str(OVERLOAD_DELAY_S)]


def _uvicorn(work: Workload, place: Place) -> list[str]:
    command = [place.program("uvicorn"), work.app, *_where(work, place), "--loop", "uvloop"]
    command += ["--http", "zttp", "--http2"] if work.http2 else ["--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--workers", str(work.workers)]
    return command + _ssl(work, place)


def _ssl(work: Workload, place: Place) -> list[str]:
    return ["--ssl-keyfile", str(place.key), "--ssl-certfile", str(place.certificate)] if work.tls else []


def _granian(work: Workload, place: Place) -> list[str]:
    command = [place.program("granian"), "--interface", "asgi", "--loop", "uvloop"]
    command += [*_where(work, place), "--workers", str(work.workers)]
    command += ["--no-access-log", "--log-level", "warning"]
    if work.expected_connections > MANY:
        command += ["--backpressure", str(2 * work.expected_connections)]
    if work.http2:
        command += ["--http", "2"]
    if work.tls:
        command += ["--ssl-keyfile", str(place.key), "--ssl-certificate", str(place.certificate)]
    return [*command, work.app]


def _peregrine(work: Workload, place: Place) -> list[str]:
    command = [place.program("peregrine"), "--protocol", "asgi", *_where(work, place, "--unix")]
    command += ["--workers", str(work.workers), "--keep-alive", str(1000 * KEEP_ALIVE_S)]
    command += ["--log-level", "warning"]
    if work.expected_connections > MANY:
        command += ["--max-connections", str(2 * work.expected_connections)]
    if work.tls:
        command += ["--tls-key", str(place.key), "--tls-cert", str(place.certificate)]
    return [*command, work.app]


def _h2corn(work: Workload, place: Place) -> list[str]:
    where = ["--bind", f"unix:{place.uds}"] if work.uds else ["--port", str(place.port)]
    command = [place.program("h2corn"), *where, "--workers", str(work.workers)]
    command += ["--loop", "uvloop", "--no-access-log", "--timeout-keep-alive", str(KEEP_ALIVE_S)]
    command += ["--backlog", str(BACKLOG)]
    if work.expected_connections > MANY:
        command += ["--timeout-handshake", str(KEEP_ALIVE_S), "--timeout-request-header", str(KEEP_ALIVE_S)]
    if work.tls:
        command += ["--keyfile", str(place.key), "--certfile", str(place.certificate)]
    return [*command, work.app]


# The next three are at workloads of one worker only.


def _gunicorn(work: Workload, place: Place) -> list[str]:
    command = [place.program("gunicorn"), "-k", "asgi", "--asgi-loop", "uvloop", "--log-level", "warning"]
    return [*command, "-b", f"127.0.0.1:{place.port}", "--keep-alive", str(KEEP_ALIVE_S), work.app]


def _hypercorn(work: Workload, place: Place) -> list[str]:
    command = [place.program("hypercorn"), "-k", "uvloop", "-b", f"127.0.0.1:{place.port}"]
    command += ["--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning", "--backlog", str(BACKLOG)]
    command += ["--config", str(HERE / "apps" / "hypercorn.toml")]
    if work.tls:
        command += ["--keyfile", str(place.key), "--certfile", str(place.certificate)]
    return [*command, work.app]


def _daphne(work: Workload, place: Place) -> list[str]:
    endpoint = f"tcp:{place.port}:interface=127.0.0.1:backlog={BACKLOG}"
    return [place.program("daphne"), "-v", "0", "-e", endpoint, work.app]


# What server.js answers as the applications do.
_NODE_ROUTES = frozenset(
    [
        "/",
        "/echo",
        "/count",
        "/big",
        "/stream",
        "/busy",
        "/slow",
        "/wait",
        "/json",
        "/items/5",
        "/db",
        "/fortunes",
    ]
)


def _node(work: Workload, place: Place) -> list[str]:
    if not place.node:
        raise MissingError("node is not installed")
    if work.kind == "websocket" or work.route not in _NODE_ROUTES:
        raise UnsupportedError("Node's http module has no such part; the application would need a package")
    where = str(place.uds if work.uds else place.port)
    version = "2" if work.http2 else "1.1"
    command = [place.node, str(HERE / "apps" / "server.js"), version, where, str(work.workers)]
    return command + ([str(place.key), str(place.certificate)] if work.tls else [])


def _floor(work: Workload, place: Place) -> list[str]:
    if not place.floor.exists():
        raise MissingError("no C compiler has built bench/floor.c")
    return [str(place.floor), str(place.port)]


def _is_hello(work: Workload) -> bool:
    """Whether the workload is the one for servers whose other figures would say nothing new."""
    return work.name == "hello"


SERVERS = {
    server.name: server
    for server in (
        Server("fastasgi", "fastasgi", "uvloop, own parser", _fastasgi, ("uvloop",), needs_fastasgi=True),
        Server(
            "fastasgi-shedding",
            "fastasgi --overload-delay",
            f"as fastasgi, with --overload-delay {OVERLOAD_DELAY_S}; at overloads only",
            _fastasgi_shedding,
            ("uvloop",),
            needs_fastasgi=True,
            takes_part=lambda work: work.kind == "overload",
        ),
        Server(
            "uvicorn",
            "uvicorn",
            "uvloop, httptools, websockets; zttp for HTTP/2",
            _uvicorn,
            ("uvicorn", "uvloop", "httptools", "websockets", "zttp"),
        ),
        Server(
            "granian",
            "granian",
            f"uvloop, one runtime thread a worker; --backpressure for more than {MANY} connections",
            _granian,
            ("granian", "uvloop"),
        ),
        Server(
            "peregrine",
            "peregrine",
            f"uvloop; --max-connections for more than {MANY} connections",
            _peregrine,
            ("peregrine-server", "uvloop"),
        ),
        Server(
            "h2corn",
            "h2corn",
            f"uvloop, backlog of {BACKLOG}; longer time-outs for more than {MANY} connections; no overloads",
            _h2corn,
            ("h2corn", "uvloop"),
            takes_part=lambda work: work.kind != "overload",
        ),
        Server(
            "gunicorn",
            "gunicorn asgi",
            "-k asgi, uvloop, its C parser; at hello only",
            _gunicorn,
            ("gunicorn", "gunicorn_h1c", "uvloop"),
            takes_part=_is_hello,
        ),
        Server(
            "hypercorn",
            "hypercorn",
            f"uvloop worker class, backlog of {BACKLOG}, no last request; at hello and HTTP/2 only",
            _hypercorn,
            ("hypercorn", "uvloop"),
            takes_part=lambda work: _is_hello(work) or work.http2,
        ),
        Server(
            "daphne",
            "daphne",
            f"its defaults: Twisted's asyncio reactor; backlog of {BACKLOG}; at hello only",
            _daphne,
            ("daphne",),
            takes_part=_is_hello,
        ),
        Server(
            "node",
            "Node http",
            "http.createServer, http2.createServer for HTTP/2; in the cluster module if there are workers",
            _node,
        ),
        Server(
            "floor",
            "C epoll floor",
            "bench/floor.c: fixed bytes for each blank line; what the kernel allows",
            _floor,
            takes_part=lambda work: work.bare,
        ),
    )
}

QUICK = ("fastasgi", "uvicorn", "granian", "node", "floor")
