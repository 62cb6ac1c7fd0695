"""health_path, and timeout_drain: the server goes on to serve while balancers learn that it will end."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from serving import WAIT_S, ServerProcess, Start, fetch, port_of, serving
from wire import in_each_loop, in_loop, request

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    text = f"app {scope['method']} {scope['path']}".encode()
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
"""


async def app(scope, receive, send):
    assert scope["type"] == "http"
    text = f"app {scope['method']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": text})


def asked(line: str) -> str:
    return request(f"{line} HTTP/1.1", "connection: close").decode()


# Which requests are answered by the server


@in_loop
async def test_get_is_answered() -> None:
    async with serving(app, health_path="/healthz") as server:
        head, _, body = (await fetch(port_of(server), asked("GET /healthz"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert {
        b"content-type: text/plain; charset=utf-8",
        b"cache-control: no-store",
        b"content-length: 3",
    } < set(head.split(b"\r\n"))
    assert body == b"ok\n"


@in_loop
async def test_head_is_answered_without_a_body() -> None:
    async with serving(app, health_path="/healthz") as server:
        head, _, body = (await fetch(port_of(server), asked("HEAD /healthz"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 3" in head.split(b"\r\n")
    assert body == b""


@pytest.mark.parametrize("line", ["GET /healthz?verbose=1", "GET /health%7A"])
def test_other_spellings_of_the_path_are_answered(line: str) -> None:
    @in_loop
    async def run() -> None:
        async with serving(app, health_path="/healthz") as server:
            assert (await fetch(port_of(server), asked(line))).endswith(b"\r\n\r\nok\n")

    run()


@pytest.mark.parametrize(
    "line",
    [
        "POST /healthz",
        "OPTIONS /healthz",
        "DELETE /healthz",
        "GET /healthz/",
        "GET /",
        "GET /Healthz",
        "GET //healthz",
    ],
)
def test_all_else_reaches_the_application(line: str) -> None:
    @in_loop
    async def run() -> None:
        async with serving(app, health_path="/healthz") as server:
            assert b"\r\n\r\napp " + line.encode() in (
                answer := await fetch(port_of(server), asked(line))
            ) or answer.endswith(f"app {line}".encode())

    run()


@in_loop
async def test_without_the_setting_nothing_is_answered() -> None:
    async with serving(app) as server:
        assert (await fetch(port_of(server), asked("GET /healthz"))).endswith(b"app GET /healthz")


@in_loop
async def test_a_request_body_does_no_harm() -> None:
    sent = request("GET /healthz HTTP/1.1", "content-length: 5", body=b"12345")
    sent += request("GET /next HTTP/1.1", "connection: close")
    async with serving(app, health_path="/healthz") as server:
        answers = await fetch(port_of(server), sent.decode())
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b"ok\n" in answers
    assert b"app GET /next" in answers


@in_loop
async def test_draining_is_503() -> None:
    async with serving(app, health_path="/healthz") as server:
        server.is_draining = True
        answer = await fetch(port_of(server), asked("GET /healthz"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\ndraining\n")
        assert (await fetch(port_of(server), asked("HEAD /healthz"))).startswith(b"HTTP/1.1 503 ")
        assert (await fetch(port_of(server), asked("GET /"))).startswith(b"HTTP/1.1 200 ")


@in_each_loop
async def test_limit_concurrency_lets_health_checks_pass() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def busy(scope, receive, send):
        begun.set()
        await go_on.wait()
        await app(scope, receive, send)

    async with serving(busy, health_path="/healthz", limit_concurrency=1, lifespan="off") as server:
        port = port_of(server)
        running = asyncio.create_task(fetch(port, asked("GET /page")))
        await begun.wait()
        for _ in range(3):
            assert (await fetch(port, asked("GET /healthz?deep"))).endswith(b"\r\n\r\nok\n")
        assert (await fetch(port, asked("HEAD /healthz"))).startswith(b"HTTP/1.1 200 ")
        handshake = request(
            "GET /healthz HTTP/1.1", "upgrade: websocket", "connection: upgrade",
            "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        for sent in (asked("POST /healthz"), asked("GET /healthz/"), asked("GET /page"), handshake.decode()):
            assert (await fetch(port, sent)).startswith(b"HTTP/1.1 503 ")
        go_on.set()
        assert (await running).startswith(b"HTTP/1.1 200 ")


# Draining


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.received = b""

    def ask(self, path: str) -> bytes:
        """Send a request and return the answer, which has a content-length."""
        self.socket.sendall(request(f"GET {path} HTTP/1.1"))
        while b"\r\n\r\n" not in self.received:
            self.read()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        [length] = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        while len(self.received) < length:
            self.read()
        body, self.received = self.received[:length], self.received[length:]
        return head + b"\r\n\r\n" + body

    def read(self) -> None:
        piece = self.socket.recv(65536)
        assert piece, self.received
        self.received += piece

    def is_closed(self) -> bool:
        """Whether the server closes next, with nothing more sent."""
        return self.socket.recv(1) == b""


@pytest.fixture
def connect() -> Iterator[Callable[[ServerProcess], Client]]:
    clients: list[Client] = []

    def connect(process: ServerProcess) -> Client:
        clients.append(Client(process.port))
        return clients[-1]

    yield connect
    for client in clients:
        client.socket.close()


Connect = Callable[[ServerProcess], Client]

each_kind = pytest.mark.parametrize("kind", [(), ("--workers", "2")], ids=["alone", "workers"])


def begin(start: Start, drain_s: str, *arguments: str) -> ServerProcess:
    return start(
        APP, "app:app", "--port", "0", "--health-path", "/healthz", "--timeout-drain", drain_s,
        "--timeout-keep-alive", "30", *arguments,
    )  # fmt: skip


def wait_for_start(process: ServerProcess, kind: tuple[str, ...]) -> None:
    """Wait until each of the processes that are to serve does."""
    assert process.port
    process.wait_for("(?s)" + (int(kind[1]) if kind else 1) * "appears unsupported.*")


def wait_for_draining(process: ServerProcess, kind: tuple[str, ...]) -> None:
    """Wait until each of the processes that serve drains."""
    process.wait_for("(?s)" + (int(kind[1]) if kind else 1) * "Draining for .*")


@each_kind
def test_a_draining_server_serves_on(start: Start, connect: Connect, kind: tuple[str, ...]) -> None:
    process = begin(start, "1.5", *kind)
    wait_for_start(process, kind)
    idle, fresh = connect(process), connect(process)
    assert idle.ask("/healthz").startswith(b"HTTP/1.1 200 ")
    asked_at = time.monotonic()
    process.process.send_signal(signal.SIGTERM)
    wait_for_draining(process, kind)
    for client in (idle, fresh, connect(process)):
        answer = client.ask("/page")
        assert answer.endswith(b"\r\n\r\napp GET /page")
        assert b"\r\nconnection: close\r\n" in answer
        assert client.is_closed()
    answer = connect(process).ask("/healthz")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert process.wait() == (0 if kind else -signal.SIGTERM)
    assert time.monotonic() - asked_at >= 1.5
    assert "Traceback" not in process.log
    with pytest.raises(ConnectionRefusedError):
        connect(process)


@each_kind
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_draining_short(
    start: Start, connect: Connect, kind: tuple[str, ...], number: int
) -> None:
    process = begin(start, "60", *kind)
    wait_for_start(process, kind)
    idle = connect(process)
    idle.ask("/page")
    process.process.send_signal(signal.SIGTERM)
    wait_for_draining(process, kind)
    asked_at = time.monotonic()
    process.process.send_signal(number)
    assert process.wait() in (0, -signal.SIGTERM)
    assert time.monotonic() - asked_at < 6
    assert "Traceback" not in process.log


@each_kind
def test_connections_that_wait_to_be_accepted_are_answered(
    start: Start, connect: Connect, kind: tuple[str, ...]
) -> None:
    process = begin(start, "0.2", *kind)
    wait_for_start(process, kind)
    pids = [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", process.log)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    clients = [connect(process) for _ in range(20)]
    process.process.send_signal(signal.SIGTERM)
    if kind:
        process.wait_for("Stopping workers")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        assert client.ask("/page").endswith(b"app GET /page")
        assert client.is_closed()
    assert process.wait() == (0 if kind else -signal.SIGTERM)
