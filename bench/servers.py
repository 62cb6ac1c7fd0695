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
# Above so many connections granian needs to be told: it holds back what goes beyond its backlog.
MANY = 500


@dataclass(frozen=True)
class Place:
    """Where a turn happens: the port, and what the environment holds."""

    port: int
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


def _fastasgi(work: Workload, place: Place) -> list[str]:
    command = [place.program("python"), "-m", "fastasgi", work.app, "--port", str(place.port)]
    command += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", str(KEEP_ALIVE_S)]
    if work.workers > 1:
        command += ["--workers", str(work.workers)]
    return command + _ssl(work, place)


def _uvicorn(work: Workload, place: Place) -> list[str]:
    command = [place.program("uvicorn"), work.app, "--port", str(place.port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--workers", str(work.workers)]
    return command + _ssl(work, place)


def _ssl(work: Workload, place: Place) -> list[str]:
    return ["--ssl-keyfile", str(place.key), "--ssl-certfile", str(place.certificate)] if work.tls else []


def _granian(work: Workload, place: Place) -> list[str]:
    command = [place.program("granian"), "--interface", "asgi", "--loop", "uvloop", "--host", "127.0.0.1"]
    command += [
        "--port",
        str(place.port),
        "--workers",
        str(work.workers),
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    if work.connections > MANY:
        command += ["--backpressure", str(2 * work.connections)]
    if work.tls:
        command += ["--ssl-keyfile", str(place.key), "--ssl-certificate", str(place.certificate)]
    return [*command, work.app]


def _hypercorn(work: Workload, place: Place) -> list[str]:
    command = [
        place.program("hypercorn"),
        "-k",
        "uvloop",
        "-b",
        f"127.0.0.1:{place.port}",
        "-w",
        str(work.workers),
    ]
    command += ["--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning", "--backlog", str(BACKLOG)]
    if work.tls:
        command += ["--keyfile", str(place.key), "--certfile", str(place.certificate)]
    return [*command, work.app]


def _daphne(work: Workload, place: Place) -> list[str]:
    if work.workers > 1:
        raise UnsupportedError("it has no worker processes")
    command = [place.program("daphne"), "-v", "0"]
    if work.tls:
        endpoint = f"ssl:{place.port}:privateKey={place.key}:certKey={place.certificate}"
    else:
        endpoint = f"tcp:{place.port}"
    return [*command, "-e", f"{endpoint}:interface=127.0.0.1:backlog={BACKLOG}", work.app]


def _gunicorn(*arguments: str) -> Callable[[Workload, Place], list[str]]:
    def command(work: Workload, place: Place) -> list[str]:
        tls = ["--keyfile", str(place.key), "--certfile", str(place.certificate)] if work.tls else []
        common = ["-b", f"127.0.0.1:{place.port}", "-w", str(work.workers), "--keep-alive", str(KEEP_ALIVE_S)]
        common += ["--log-level", "warning", "--worker-connections", "20000"]
        return [place.program("gunicorn"), *arguments, *common, *tls, work.app]

    return command


# What server.js answers as the applications do.
_NODE_ROUTES = frozenset(
    [
        "/",
        "/echo",
        "/count",
        "/big",
        "/stream",
        "/events",
        "/json",
        "/items/5",
        "/plaintext",
        "/db",
        "/queries",
        "/fortunes",
    ]
)


def _node(work: Workload, place: Place) -> list[str]:
    if not place.node:
        raise MissingError("node is not installed")
    if work.kind in ("websocket", "broadcast", "visitor") or work.route not in _NODE_ROUTES:
        raise UnsupportedError("Node's http module has no such part; the application would need a package")
    command = [place.node, str(HERE / "apps" / "server.js"), str(place.port), str(work.workers)]
    return command + ([str(place.key), str(place.certificate)] if work.tls else [])


def _floor(work: Workload, place: Place) -> list[str]:
    if not place.floor.exists():
        raise MissingError("no C compiler has built bench/floor.c")
    return [str(place.floor), str(place.port)]


SERVERS = {
    server.name: server
    for server in (
        Server("fastasgi", "fastasgi", "uvloop, own parser", _fastasgi, ("uvloop",), needs_fastasgi=True),
        Server(
            "uvicorn",
            "uvicorn",
            "uvloop, httptools, websockets",
            _uvicorn,
            ("uvicorn", "uvloop", "httptools", "websockets"),
        ),
        Server(
            "granian",
            "granian",
            "uvloop, one runtime thread a worker; --backpressure for more than 500 connections",
            _granian,
            ("granian", "uvloop"),
        ),
        Server(
            "hypercorn",
            "hypercorn",
            "uvloop worker class, backlog of 2048",
            _hypercorn,
            ("hypercorn", "uvloop"),
        ),
        Server(
            "daphne",
            "daphne",
            "its defaults: Twisted's asyncio reactor; backlog of 2048",
            _daphne,
            ("daphne",),
        ),
        Server(
            "gunicorn-asgi",
            "gunicorn asgi",
            "-k asgi, uvloop, its C parser",
            _gunicorn("-k", "asgi", "--asgi-loop", "uvloop"),
            ("gunicorn", "gunicorn_h1c", "uvloop"),
        ),
        Server(
            "gunicorn-uvicorn",
            "gunicorn + uvicorn",
            "-k uvicorn_worker.UvicornWorker: uvloop, httptools",
            _gunicorn("-k", "uvicorn_worker.UvicornWorker"),
            ("gunicorn", "uvicorn", "uvicorn-worker", "uvloop", "httptools"),
        ),
        Server(
            "gunicorn-fastasgi",
            "gunicorn + fastasgi",
            "-k fastasgi.workers.FastASGIWorker: uvloop, own parser",
            _gunicorn("-k", "fastasgi.workers.FastASGIWorker"),
            ("gunicorn", "uvloop"),
            needs_fastasgi=True,
        ),
        Server(
            "node",
            "Node http",
            "http.createServer, one process",
            _node,
            takes_part=lambda work: work.workers == 1,
        ),
        Server(
            "node-cluster",
            "Node cluster",
            "cluster, a process for each worker",
            _node,
            takes_part=lambda work: work.workers > 1,
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
