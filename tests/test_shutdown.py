"""How a server process ends: its phases, what each kind of request sees of them, and the exit codes."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import WAIT_S, ServerProcess, Start, signal_set
from websocketwire import close_frame
from wire import handshake, request

APP = """
import asyncio

def say(*words):
    print(*words, flush=True)

async def lifespan(receive, send):
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        say(phase)
        await send({"type": f"lifespan.{phase}.complete"})

async def begin(send, body):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body, "more_body": True})

async def upload(receive, send):
    body = b""
    while True:
        message = await receive()
        say("uploading")
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})

async def events(receive, send):
    # As server-sent events are: a stream without end, and somebody who watches for the client's leaving
    async def watch():
        while (await receive())["type"] != "http.disconnect":
            pass
        say("events: disconnect")
    watching = asyncio.create_task(watch())
    await begin(send, b"event")
    await watching
    try:
        await send({"type": "http.response.body", "body": b"too late", "more_body": True})
    except OSError:
        say("events: OSError")
        raise

async def poll(receive, send):
    assert (await receive())["type"] == "http.request"
    say("poll: waits")
    assert (await receive())["type"] == "http.disconnect"
    say("poll: disconnect")

async def hang(receive, send):
    await begin(send, b"hangs")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("hang: cancelled")
        raise

async def ignore(receive, send):
    await begin(send, b"ignores")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("ignore: cancelled")

async def block(receive, send):
    await begin(send, b"blocks")
    while True:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            say("block: cancelled")
            raise

async def background(receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"answered"})
    say("background: begins")
    await asyncio.sleep(0.3)
    say("background: done")

async def hello(receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await globals()[scope["path"][1:]](receive, send)
"""


class Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, text: bytes) -> bytes:
        received = b""
        while text not in received:
            piece = self.socket.recv(65536)
            assert piece, received
            received += piece
        return received

    def rest(self) -> bytes:
        """What comes until the server's end, be it in order or by a reset."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                received += piece
        return received


Connect = Callable[[ServerProcess], Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections, closed with the test."""
    connections: list[Connection] = []

    def connect(process: ServerProcess) -> Connection:
        connections.append(Connection(process.port))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.socket.close()


def begin(start: Start, grace: str, *arguments: str) -> ServerProcess:
    return start(
        APP, "app:app", "--port", "0", "--no-access-log", "--timeout-graceful-shutdown", grace, *arguments
    )


def clean(process: ServerProcess) -> list[str]:
    """What the application said, after a graceful end without a traceback."""
    assert "Traceback" not in process.log, process.log
    assert process.errors[-1].startswith("INFO:     Finished server process")
    return process.output.split("\n")[:-1]


each_loop = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@each_loop
def test_requests_within_the_grace_time_are_answered(start: Start, connect: Connect, loop: str) -> None:
    process = begin(start, "20", "--loop", loop, "--timeout-keep-alive", "20")
    idle, silent, uploading, behind = [connect(process) for _ in range(4)]
    idle.send(request("GET /hello HTTP/1.1"))
    idle.until(b"hello")
    uploading.send(request("POST /upload HTTP/1.1", "content-length: 6", body=b"abc"))
    behind.send(request("GET /background HTTP/1.1"))
    behind.until(b"answered")
    process.process.send_signal(signal.SIGTERM)
    process.wait_for(r"Waiting for \d+ connection")
    assert idle.rest() == b""
    assert silent.rest() == b""
    assert behind.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        connect(process)
    uploading.send(b"def" + request("GET /hello HTTP/1.1"))
    answer = uploading.rest()
    uploading.socket.close()
    assert answer.endswith(b"\r\n\r\nabcdef")
    assert b"\r\nconnection: close\r\n" in answer
    assert process.wait() == -signal.SIGTERM
    said = clean(process)
    assert (said[0], said[-1]) == ("startup", "shutdown")
    assert "background: done" in said


@each_loop
def test_streams_are_disconnected_and_what_hangs_is_cancelled(
    start: Start, connect: Connect, loop: str
) -> None:
    process = begin(start, "0.3", "--loop", loop)
    streaming, polling, hanging = [connect(process) for _ in range(3)]
    streaming.send(request("GET /events HTTP/1.1"))
    streaming.until(b"event")
    polling.send(request("GET /poll HTTP/1.1"))
    hanging.send(request("GET /hang HTTP/1.1"))
    hanging.until(b"hangs")
    asked_at = time.monotonic()
    assert process.end(signal.SIGINT) == 0
    assert 0.3 <= time.monotonic() - asked_at < 10
    for connection in (streaming, hanging):
        assert not connection.rest().endswith(b"0\r\n\r\n"), "a stream that was broken off looks complete"
    assert polling.rest() == b""
    said = clean(process)
    assert said[:2] == ["startup", "poll: waits"]
    assert sorted(said[2:5]) == ["events: OSError", "events: disconnect", "poll: disconnect"]
    assert said[5:] == ["hang: cancelled", "shutdown"]


def test_no_grace_time_disconnects_at_once(start: Start, connect: Connect) -> None:
    process = begin(start, "0")
    streaming = connect(process)
    streaming.send(request("GET /events HTTP/1.1"))
    streaming.until(b"event")
    asked_at = time.monotonic()
    assert process.end(signal.SIGTERM) == -signal.SIGTERM
    assert time.monotonic() - asked_at < 2
    assert clean(process) == ["startup", "events: disconnect", "events: OSError", "shutdown"]


def test_an_application_that_ignores_cancellation_is_given_up(start: Start, connect: Connect) -> None:
    process = begin(start, "0")
    ignoring = connect(process)
    ignoring.send(request("GET /ignore HTTP/1.1"))
    ignoring.until(b"ignores")
    assert process.end(signal.SIGTERM) == -signal.SIGTERM
    ignoring.rest()
    said = process.output.split()
    assert "shutdown" in said
    assert "cancelled" in said
    assert "Finished server process" in process.log


def test_a_busy_application_is_cancelled(start: Start, connect: Connect) -> None:
    process = begin(start, "0")
    blocking = connect(process)
    blocking.send(request("GET /block HTTP/1.1"))
    blocking.until(b"blocks")
    assert process.end(signal.SIGTERM) == -signal.SIGTERM
    assert clean(process) == ["startup", "block: cancelled", "shutdown"]


@each_loop
def test_a_second_signal_ends_the_grace_time(start: Start, connect: Connect, loop: str) -> None:
    process = begin(start, "100", "--loop", loop)
    streaming, hanging = connect(process), connect(process)
    streaming.send(request("GET /events HTTP/1.1"))
    streaming.until(b"event")
    hanging.send(request("GET /hang HTTP/1.1"))
    hanging.until(b"hangs")
    process.process.send_signal(signal.SIGINT)
    process.wait_for(r"Waiting for \d+ connection")
    asked_at = time.monotonic()
    assert process.end(signal.SIGINT) == 0
    assert time.monotonic() - asked_at < 5
    said = process.output.split("\n")[:-1]
    assert (said[0], said[-1]) == ("startup", "shutdown")
    assert {"hang: cancelled", "events: disconnect"} < set(said)
    assert "Traceback" not in process.log


@each_loop
def test_a_hangup_ends_gracefully(start: Start, connect: Connect, loop: str) -> None:
    with signal_set(signal.SIGHUP, signal.SIG_DFL):
        process = begin(start, "20", "--loop", loop)
    uploading = connect(process)
    uploading.send(request("POST /upload HTTP/1.1", "content-length: 6", body=b"abc"))
    assert process.process.stdout.readline() + process.process.stdout.readline() == "startup\nuploading\n"
    process.process.send_signal(signal.SIGHUP)
    process.wait_for(r"Waiting for \d+ connection")
    uploading.send(b"def")
    assert uploading.rest().endswith(b"\r\n\r\nabcdef")
    assert process.wait() == -signal.SIGHUP
    assert clean(process)[-1] == "shutdown"


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(start: Start, connect: Connect) -> None:
    source = APP + (
        "\nasync def hangup(receive, send):\n"
        "    import signal\n"
        "    await begin(send, signal.getsignal(signal.SIGHUP).name.encode())\n"
    )
    with signal_set(signal.SIGHUP, signal.SIG_IGN):
        process = start(source, "app:app", "--port", "0")
    client = connect(process)
    client.send(request("GET /hangup HTTP/1.1"))
    client.until(b"SIG_IGN")
    assert process.end(signal.SIGTERM) == -signal.SIGTERM


def test_a_hangup_that_the_script_handles_is_left_to_it(start: Start) -> None:
    source = "import signal\nsignal.signal(signal.SIGHUP, lambda *_: say('heard'))\n" + APP
    process = start(source, "app:app", "--port", "0")
    assert process.port
    assert process.process.stdout.readline() == "startup\n"
    process.process.send_signal(signal.SIGHUP)
    assert process.process.stdout.readline() == "heard\n"
    assert process.end(signal.SIGTERM) == -signal.SIGTERM
    assert clean(process) == ["shutdown"]


def test_a_client_that_does_not_read_its_response_does_not_hold_the_end_up(
    start: Start, connect: Connect
) -> None:
    source = APP + (
        "\nasync def large(receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': bytes(50_000_000)})\n"
    )
    process = start(source, "app:app", "--port", "0", "--timeout-graceful-shutdown", "0.2")
    reading = connect(process)
    reading.send(request("GET /large HTTP/1.1"))
    reading.until(b"\r\n\r\n")
    asked_at = time.monotonic()
    assert process.end(signal.SIGTERM) == -signal.SIGTERM
    assert time.monotonic() - asked_at < 15
    assert "Traceback" not in process.log


def test_a_failed_lifespan_shutdown_is_said(start: Start) -> None:
    source = """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.failed", "message": "the pool is stuck"})
    """
    process = start(source, "app:app", "--port", "0")
    assert process.port
    process.end(signal.SIGTERM)
    assert "the pool is stuck" in process.log
    assert "Traceback" not in process.log


def test_the_exit_code_of_a_failed_start(start: Start) -> None:
    source = """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    process = start(source, "app:app", "--port", "0")
    assert process.wait() == 3
    assert "no database" in process.log
    assert "Traceback" not in process.log


def test_the_exit_code_after_the_last_request(start: Start, connect: Connect) -> None:
    process = begin(start, "5", "--limit-max-requests", "2")
    client = connect(process)
    for _ in range(2):
        client.send(request("GET /hello HTTP/1.1"))
        client.until(b"hello")
    client.rest()
    assert process.wait() == 0
    assert clean(process) == ["startup", "shutdown"]


# What a client may have sent just before the end


def half(path: str) -> tuple[bytes, bytes]:
    """A request in two parts, cut inside its head."""
    whole = request(f"GET {path} HTTP/1.1")
    return whole[:9], whole[9:]


@each_loop
def test_a_request_under_way_to_a_new_connection_is_answered(
    start: Start, connect: Connect, loop: str
) -> None:
    process = begin(start, "20", "--loop", loop, "--timeout-keep-alive", "30")
    idle, fresh, begun, again = [connect(process) for _ in range(4)]
    first, second = half("/hello")
    begun.send(first)
    for connection in (idle, again):
        connection.send(request("GET /hello HTTP/1.1"))
        connection.until(b"hello")
    again.send(first)
    # What the server has read of this one says that it has read the others too
    last = connect(process)
    last.send(request("GET /hello HTTP/1.1"))
    last.until(b"hello")
    process.process.send_signal(signal.SIGTERM)
    assert idle.rest() == b""
    assert last.rest() == b""
    fresh.send(request("GET /hello HTTP/1.1"))
    begun.send(second)
    again.send(second)
    for connection in (fresh, begun, again):
        answer = connection.rest()
        assert answer.endswith((b"hello\r\n0\r\n\r\n", b"\r\n\r\nhello"))
        assert b"\r\nconnection: close\r\n" in answer
    assert process.wait() == -signal.SIGTERM
    clean(process)


@each_loop
def test_a_client_that_sends_nothing_or_half_does_not_hold_the_end_up(
    start: Start, connect: Connect, loop: str
) -> None:
    process = begin(start, "20", "--loop", loop, "--timeout-keep-alive", "30")
    silent, begun = connect(process), connect(process)
    begun.send(half("/hello")[0])
    asked_at = time.monotonic()
    assert process.end() == -signal.SIGTERM
    assert time.monotonic() - asked_at < 6  # half a second and two ticks
    assert silent.rest() == b""
    assert re.fullmatch(rb"|HTTP/1\.1 408 (?s:.*)", begun.rest())
    clean(process)


PID_APP = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b"%06d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": body})
"""


def begin_worker(start: Start, keep_alive_s: str) -> ServerProcess:
    process = start(
        PID_APP,
        "app:app",
        "--port",
        "0",
        "--workers",
        "1",
        "--no-access-log",
        "--timeout-keep-alive",
        keep_alive_s,
    )
    process.wait_for("Started server process")
    return process


def test_a_worker_that_is_succeeded_answers_once_more_on_idle_connections(
    start: Start, connect: Connect
) -> None:
    process = begin_worker(start, "15")
    idle, fresh = connect(process), connect(process)
    idle.send(request("GET / HTTP/1.1"))
    pid = answer_of(idle)[1]
    process.process.send_signal(signal.SIGHUP)
    process.wait_for("Shutting down")
    process.wait_for("Reloaded")
    new = connect(process)
    new.send(request("GET / HTTP/1.1"))
    new_head, new_pid = answer_of(new)
    assert new_pid != pid
    assert b"connection: close" not in new_head
    for connection in (idle, fresh):
        connection.send(request("GET / HTTP/1.1"))
        head, by = answer_of(connection)
        assert by == pid
        assert b"\r\nconnection: close\r\n" in head
        assert connection.rest() == b""
    process.wait_for("Finished server process")
    new.send(request("GET / HTTP/1.1"))
    assert answer_of(new)[1] == new_pid
    assert process.end() == 0


def answer_of(connection: Connection) -> tuple[bytes, bytes]:
    """Head and body of an answer of PID_APP."""
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 6:
        piece = connection.socket.recv(65536)
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return head + b"\r\n", body


def test_a_worker_that_is_succeeded_waits_no_longer_than_it_keeps_connections(
    start: Start, connect: Connect
) -> None:
    process = begin_worker(start, "1")
    idle = connect(process)
    idle.send(request("GET / HTTP/1.1"))
    answer_of(idle)
    process.process.send_signal(signal.SIGHUP)
    process.wait_for("Shutting down")
    assert idle.rest() == b""
    process.wait_for("Finished server process")
    assert process.end() == 0


# --- WebSockets, and the end of it all ---

WEBSOCKETS = """
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        if os.environ.get("END") == "waits":
            await asyncio.Event().wait()
        if os.environ.get("END") == "blocks":
            time.sleep(60)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            pass
        print("websocket", message["code"], flush=True)
"""
RESTARTS = b"\x88\x02\x03\xf4"  # a Close frame of 1012


def open_websocket(connection: Connection) -> None:
    connection.send(handshake())
    connection.until(b"\r\n\r\n")


def serve_websockets(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> ServerProcess:
    (folder / "app.py").write_text(WEBSOCKETS)
    return ServerProcess(
        folder, "app:app", "--port", "0", *arguments, environment={**os.environ, **(environment or {})}
    )


@pytest.fixture
def websockets(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    processes: list[ServerProcess] = []

    def serve(*arguments: str, **environment: str) -> ServerProcess:
        processes.append(serve_websockets(tmp_path, *arguments, environment=environment))
        return processes[-1]

    yield serve
    for process in processes:
        process.close()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize("answers", [True, False])
def test_an_open_websocket_does_not_hold_sigterm(
    websockets: Callable[..., ServerProcess], connect: Connect, arguments: list[str], answers: bool
) -> None:
    """With the defaults, well within the 10 seconds that docker gives."""
    process = websockets(*arguments)
    client = connect(process)
    open_websocket(client)
    asked_at = time.monotonic()
    process.process.send_signal(signal.SIGTERM)
    client.until(RESTARTS)
    if answers:
        client.send(close_frame(1012))
    assert process.wait() in (0, -signal.SIGTERM)
    assert time.monotonic() - asked_at < (2 if answers else 4)
    assert not re.search("ERROR|Traceback", process.log), process.log
    assert "websocket 1012" in process.output
    assert process.output.splitlines()[-1] == "shutdown"


@pytest.mark.parametrize("how", ["HUP", "reload"])
def test_an_open_websocket_does_not_hold_a_new_generation(
    websockets: Callable[..., ServerProcess], connect: Connect, tmp_path: Path, how: str
) -> None:
    process = websockets(*(["--workers", "1"] if how == "HUP" else ["--reload"]))
    client = connect(process)
    open_websocket(client)
    before = process.log.count("Finished server process")
    asked_at = time.monotonic()
    if how == "HUP":
        process.process.send_signal(signal.SIGHUP)
    else:
        (tmp_path / "app.py").write_text(WEBSOCKETS + "\n# changed\n")
    client.until(RESTARTS)
    client.send(close_frame(1012))
    process.wait_for(rf"(?s)(Finished server process.*){{{before + 1}}}")
    assert time.monotonic() - asked_at < 8
    other = connect(process)
    open_websocket(other)
    other.socket.close()
    process.end()
    assert "ERROR" not in process.log


@pytest.mark.parametrize("arguments", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_an_applications_shutdown_is_broken_off(
    websockets: Callable[..., ServerProcess], connect: Connect, arguments: list[str]
) -> None:
    process = websockets("--timeout-graceful-shutdown", "0", *arguments, END="waits")
    process.wait_for("startup complete")
    asked_at = time.monotonic()
    assert process.end() in (0, -signal.SIGTERM)
    assert 5.9 < time.monotonic() - asked_at < 8
    assert process.log.count("Application shutdown is broken off") == 1
    assert "Traceback" not in process.log


def test_a_worker_that_blocks_its_end_is_killed_in_time(websockets: Callable[..., ServerProcess]) -> None:
    process = websockets("--timeout-graceful-shutdown", "0", "--workers", "1", END="blocks")
    process.wait_for("startup complete")
    asked_at = time.monotonic()
    assert process.end() in (0, -signal.SIGTERM)
    assert 6.5 < time.monotonic() - asked_at < 8
    process.wait_for("does not end and is killed")


@each_loop
def test_a_connection_without_a_request_holds_the_end_for_half_a_second(
    websockets: Callable[..., ServerProcess], connect: Connect, loop: str
) -> None:
    process = websockets("--loop", loop)
    client = connect(process)
    asked_at = time.monotonic()
    process.process.send_signal(signal.SIGTERM)
    assert client.rest() == b""
    assert time.monotonic() - asked_at < 0.65
    process.wait()
