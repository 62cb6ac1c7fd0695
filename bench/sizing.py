"""What docs/deploy/sizing.md and fleet.md say: memory, connections, a limit of concurrency, a node.

``python -m bench.sizing memory|connections|concurrency|node`` runs the fastasgi that this interpreter has.
"""

import argparse
import asyncio
import contextlib
import http.client
import os
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import http2, websocket
from bench.probe import free_port

APPS = Path(__file__).parent / "apps"
WAIT_S = 30.0
SETTLE_S = 0.3  # for what a server does behind an answer
HEAD = b"GET %s HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: sizing\r\naccept: */*\r\n\r\n"

# Ten connections of a pool, each of which is needed for 50 ms: 200 requests a second
POOL_APP = """
import asyncio

pool = asyncio.Semaphore(10)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    async with pool:
        await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """A server in a folder that has its application: its process and its port."""
    port = free_port()
    options = [
        "--port",
        str(port),
        "--no-access-log",
        "--log-level",
        "error",
        "--timeout-keep-alive",
        "600",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastasgi", *options, *arguments], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("sizing: the server does not start") from None
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def row(*cells: str) -> None:
    """Print a line of a table."""
    print("|", " | ".join(cells), "|", flush=True)


def table(*names: str) -> None:
    """Print the head of one."""
    row(*names)
    print("|" + "---|" * len(names))


def children(pid: int) -> list[int]:
    """The child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Memory:
    """What a process has in memory, in MiB."""

    def __init__(self, pid: int) -> None:
        found = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            found[name] = int(value.split()[0]) / 1024
        self.resident = found["Rss"]
        self.own = found["Pss_Anon"]
        """Its data. A page that it shares with a process that it was forked from counts by its share."""
        self.files = found["Rss"] - found["Anonymous"]
        """Programs and libraries, which all processes of a server share."""


def mib_of_all(each: list[Memory]) -> float:
    """What processes of one server have together."""
    return sum(one.own for one in each) + max(one.files for one in each)


def ask(port: int, path: bytes) -> None:
    """One request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as sock:
        sock.sendall((HEAD % path).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        while sock.recv(65536):
            pass


def measure_memory(workers: int, requests: int) -> None:
    """The memory of supervisor and workers, by application, once each has answered some requests."""
    table("application", "preload", "a worker, resident", "of that its own", f"server of {workers} workers")
    for name, app, path in (("hello", "plain:app", b"/"), ("FastAPI", "fast:app", b"/items/1?q=a")):
        for preload in ((), ("--preload",)):
            with serving(APPS, "--workers", str(workers), *preload, app) as (pid, port):
                while len(children(pid)) < workers:
                    time.sleep(0.05)
                time.sleep(1)  # until all have started
                for _ in range(requests):
                    ask(port, path)
                workers_have = [Memory(child) for child in children(pid)]
                resident = sum(one.resident for one in workers_have) / workers
                own = sum(one.own for one in workers_have) / workers
                together = mib_of_all([Memory(pid), *workers_have])
                figures = (f"{mib:.0f} MiB" for mib in (resident, own, together))
                row(name, "yes" if preload else "no", *figures)


def connect(port: int, tls: bool) -> socket.socket:
    """A connection; over TLS without a session of an earlier one."""
    sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def received(sock: socket.socket) -> bytes:
    """What has come next. Raises OSError if that is the end."""
    if data := sock.recv(65536):
        return data
    raise ConnectionError("the server has closed the connection")


def open_http1(port: int, tls: bool = False) -> socket.socket:
    """A connection that has had one answer."""
    sock = connect(port, tls)
    sock.sendall(HEAD % b"/")
    assert b"200" in received(sock)
    return sock


def open_http2(port: int, tls: bool = False) -> socket.socket:
    """The same by HTTP/2 with prior knowledge."""
    sock = connect(port, tls)
    counter = http2.StreamCounter()
    _, data = http2.Requests("/", tls=tls).open(1)
    sock.sendall(http2.build_preface() + data)
    while not counter.feed(received(sock)):
        sock.sendall(counter.take_replies())
    sock.sendall(counter.take_replies())
    return sock


def open_websocket(port: int, tls: bool = False) -> socket.socket:
    """An open WebSocket that has had one message echoed."""
    sock = connect(port, tls)
    sock.sendall(websocket.build_handshake("/"))
    data = b""
    while websocket.read_handshake(data) is None:
        data += received(sock)
    sock.sendall(websocket.build_text(b"hello"))
    counter = websocket.MessageCounter()
    while not counter.feed(received(sock)):
        pass
    return sock


KINDS: dict[str, tuple[Callable[[int, bool], socket.socket], bool]] = {
    "HTTP/1.1": (open_http1, False),
    "HTTP/2": (open_http2, False),
    "WebSocket": (open_websocket, False),
    "HTTP/1.1 over TLS": (open_http1, True),
    "WebSocket over TLS": (open_websocket, True),
}


def make_certificate(folder: Path) -> Path:
    """A file of a key for P-256 and its certificate."""
    path = folder / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    out = ["-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run([*command.split(), *out], check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "key.pem").read_text())
    return path


def processor_s(pid: int) -> float:
    """The processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_connections(folder: Path, count: int) -> None:
    """The memory of the process for each idle connection, and what it costs to open one and ask once."""
    certificate = make_certificate(folder)
    table("idle connection", "memory of the worker", "processor time to open it, with one request or message")
    for name, (opened, tls) in KINDS.items():
        more = ("--ssl-certfile", str(certificate)) if tls else ()
        with serving(APPS, "--ws-ping-interval", "0", *more, "plain:app") as (pid, port):
            connections = [opened(port, tls) for _ in range(count // 10)]
            time.sleep(SETTLE_S)
            before, spent_s = Memory(pid).resident, processor_s(pid)
            connections += [opened(port, tls) for _ in range(count)]
            cost_us = (processor_s(pid) - spent_s) / count * 1e6
            time.sleep(SETTLE_S)
            kib = (Memory(pid).resident - before) * 1024 / count
            row(name, f"{kib:.1f} KiB", f"{cost_us:.0f} µs")
            for connection in connections:
                connection.close()


class Arrivals:
    """Requests that come at a rate, whether or not earlier ones are answered; on a kept connection if any."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.times: dict[int, list[float]] = {}
        self.failures: Counter[str] = Counter()

    async def ask(self, since: float) -> None:
        """One request that has come at a time."""
        try:
            pair = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = pair
            writer.write(HEAD % b"/")
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failures[type(error).__name__] += 1
            return
        self.times.setdefault(int(head.split()[1]), []).append(time.perf_counter() - since)
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self.free.append(pair)

    async def come(self, rate: float, seconds: float) -> None:
        """All of them, and their answers."""
        begin = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.ask(due)))
        await asyncio.gather(*tasks)


def percentile(times: list[float], share: float) -> str:
    """One of the times, in milliseconds."""
    return f"{sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000:.0f} ms" if times else "-"


def measure_concurrency(folder: Path, seconds: float) -> None:
    """Answers at a rate below, and at one above what the application can do, with and without a limit."""
    (folder / "pool.py").write_text(POOL_APP)
    table("requests a second", "limit", "200", "503", "200: median", "200: 99 %", "503: 99 %")
    for rate in (150, 300):
        for limit in (0, 20):
            with serving(folder, "--lifespan", "off", "--limit-concurrency", str(limit), "pool:app") as (
                _,
                port,
            ):
                arrivals = Arrivals(port)
                asyncio.run(arrivals.come(rate, seconds))
                good, refused = (arrivals.times.get(status, []) for status in (200, 503))
                times = (percentile(good, 0.5), percentile(good, 0.99), percentile(refused, 0.99))
                row(f"{rate}", f"{limit or 'none'}", f"{len(good)}", f"{len(refused)}", *times)
                if arrivals.failures:
                    print(f"sizing: failed: {dict(arrivals.failures)}", file=sys.stderr)


def ask_admin(port: int, path: str) -> tuple[int, str]:
    """Status and body of the admin listener's answer on a connection of its own; 0 if nobody listens."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        connection.request("GET", path, headers={"connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""


def measure_node(websockets: int) -> None:
    """What a node of a fleet does: start, be probed, tell its metrics, write lines, end."""
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "fastasgi", "--port", str(port), "--admin", f"127.0.0.1:{admin}"]
    options = ["--workers", "2", "--ws-ping-interval", "0", "plain:app"]
    table("what", "measured")
    begin = time.monotonic()
    with subprocess.Popen(
        [*command, *options], cwd=APPS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        while "2 of 2" not in ask_admin(admin, "/readyz")[1]:
            if process.poll() is not None or time.monotonic() > begin + WAIT_S:
                raise SystemExit("sizing: the server does not start")
            time.sleep(0.02)
        row("from the start to 2 of 2 workers ready", f"{time.monotonic() - begin:.1f} s")
        listener = next(pid for pid in children(process.pid) if is_admin(pid))
        spent_s, count = processor_s(listener), 2000
        for _ in range(count):
            ask_admin(admin, "/readyz")
        row("processor time for /readyz", f"{(processor_s(listener) - spent_s) / count * 1e6:.0f} µs")
        for _ in range(200):
            ask(port, b"/")
        lines = ask_admin(admin, "/metrics")[1].splitlines()
        row("series in /metrics", f"{sum(line[0] != '#' for line in lines)}")
        spent_s = processor_s(listener)
        for _ in range(50):
            ask_admin(admin, "/metrics")
        row("processor time for /metrics", f"{(processor_s(listener) - spent_s) / 50 * 1e3:.0f} ms")
        row("size of /metrics", f"{sum(len(line) + 1 for line in lines) / 1024:.0f} KiB")
        connections = [open_websocket(port) for _ in range(websockets)]
        begin = time.monotonic()
        process.terminate()
        ends = sorted(end_of(connections, begin))
        output = process.communicate()[0]
        row(f"from SIGTERM to the end, with {websockets} WebSockets", f"{time.monotonic() - begin:.1f} s")
        row("of these: the first Close frame, the last", f"{ends[0]:.1f} s, {ends[-1]:.1f} s")
        asked = [len(line) for line in output.splitlines() if '"GET / HTTP/1.1" 200' in line]
        row("an access line", f"{sum(asked) / len(asked) + 1:.0f} bytes")


def is_admin(pid: int) -> bool:
    """Whether a process is that of the admin listener."""
    return b"adminchild" in Path(f"/proc/{pid}/cmdline").read_bytes()


def end_of(connections: list[socket.socket], begin: float) -> Iterator[float]:
    """When each WebSocket was closed by the server, which is answered, in seconds from the beginning."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                closed = key.fileobj
                assert isinstance(closed, socket.socket)
                assert closed.recv(4096)[:1] == b"\x88"
                yield time.monotonic() - begin
                closed.sendall(b"\x88\x82\0\0\0\0\x03\xf4")
                selector.unregister(closed)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory")
    memory.add_argument("--workers", type=int, default=4)
    memory.add_argument("--requests", type=int, default=2000)
    connections = commands.add_parser("connections")
    connections.add_argument("--count", type=int, default=5000)
    node = commands.add_parser("node")
    node.add_argument("--websockets", type=int, default=2000)
    concurrency = commands.add_parser("concurrency")
    concurrency.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        if options.command == "memory":
            measure_memory(options.workers, options.requests)
        elif options.command == "node":
            measure_node(options.websockets)
        elif options.command == "connections":
            measure_connections(Path(name), options.count)
        else:
            measure_concurrency(Path(name), options.seconds)


if __name__ == "__main__":
    main()
