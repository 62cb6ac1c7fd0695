"""The demo's WebSocket: over the wire as `python -m fastasgi` serves it, and by hand."""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clientframes import BINARY, frame
from demoexchange import Exchange, ended_without_a_trace
from serving import WAIT_S, ServerProcess, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fastasgi.demo.socket import MESSAGE_LIMIT_BYTES
from fastasgi.demo.traffic import Traffic

MOST_HELD = 100 * 1024 * 1024  # by the buffers of both ends
HANDSHAKE = b"""\
GET /ws HTTP/1.1
host: test
connection: upgrade
upgrade: websocket
sec-websocket-version: 13
sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==

""".replace(b"\n", b"\r\n")
DEMO = ("fastasgi.demo:app", "--port", "0", "--no-access-log")


@contextlib.contextmanager
def greeted(port: int, path: str = "/ws", **options: Any) -> Iterator[ClientConnection]:
    """A WebSocket whose first message, which is about the server, has been read."""
    with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, **options) as client:
        about = json.loads(client.recv(WAIT_S))
        assert about == {"http_version": "1.1", "limit_bytes": MESSAGE_LIMIT_BYTES}
        yield client


def sample(port: int) -> dict[str, Any]:
    """The newest counters, half a second old at most."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/live")
        response = connection.getresponse()
        while not (line := response.readline()).startswith(b"event: sample"):
            assert line
        return json.loads(response.readline().removeprefix(b"data: "))


@pytest.mark.parametrize(
    "message",
    ["", "Hello", "grüß\0\n", "x" * MESSAGE_LIMIT_BYTES, b"", b"\0\xff", bytes(MESSAGE_LIMIT_BYTES)],
    ids=lambda message: f"{type(message).__name__} {len(message)}",
)
def test_a_message_comes_back(port: int, message: str | bytes) -> None:
    with greeted(port) as client:
        client.send(message)
        assert client.recv(WAIT_S) == message


@pytest.mark.parametrize("message", ["ü" * (MESSAGE_LIMIT_BYTES // 2 + 1), bytes(MESSAGE_LIMIT_BYTES + 1)])
def test_a_message_that_is_too_big_ends_the_connection(port: int, message: str | bytes) -> None:
    with greeted(port) as client:
        client.send("before")
        client.send(message)
        with contextlib.suppress(ConnectionClosed):
            client.send("after")
        assert client.recv(WAIT_S) == "before"
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
    assert closed.value.rcvd.code == 1009
    assert closed.value.rcvd.reason == "the demo takes 65536 bytes in a message"
    with greeted(port) as client:
        client.send("next")
        assert client.recv(WAIT_S) == "next"


def test_text_that_is_no_utf8_ends_the_connection(port: int) -> None:
    with greeted(port) as client:
        client.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
    assert closed.value.rcvd.code == 1007


def test_many_messages_at_once_come_back_in_order(port: int) -> None:
    with greeted(port) as client:
        for number in range(3000):
            client.send(f"message {number}")
        assert [client.recv(WAIT_S) for _ in range(3000)] == [f"message {number}" for number in range(3000)]


def test_each_client_gets_its_own_messages(port: int) -> None:
    with greeted(port) as one, greeted(port) as other:
        wait_until(lambda: sample(port)["websockets"] == 2)
        one.send("one")
        other.send("other")
        one.send("again")
        assert [other.recv(WAIT_S), one.recv(WAIT_S), one.recv(WAIT_S)] == ["other", "one", "again"]
    wait_until(lambda: sample(port)["websockets"] == 0)


@pytest.mark.parametrize("with_reset", [True, False])
def test_a_client_may_leave_midway(port: int, with_reset: bool) -> None:
    before = sample(port)["messages"]
    with greeted(port) as client:
        for _ in range(100):
            client.send("x" * 1000)
        if with_reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        else:
            client.socket.shutdown(socket.SHUT_RDWR)
    after = wait_until(lambda: (found := sample(port))["websockets"] == 0 and found)
    assert after["messages"] <= before + 100
    assert after["in_flight"] >= 1


def test_a_client_that_does_not_read_holds_itself_up_alone(port: int) -> None:
    """The application takes no more of it than the kernel and the server hold."""
    message = frame(BINARY, bytes(MESSAGE_LIMIT_BYTES))
    with socket.create_connection(("127.0.0.1", port)) as lazy, greeted(port) as client:
        lazy.sendall(HANDSHAKE)
        lazy.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < MOST_HELD:
                lazy.sendall(message)
                sent += len(message)
        client.send("Hello")
        assert client.recv(WAIT_S) == "Hello"
        assert sample(port)["websockets"] == 2
    assert sent < MOST_HELD
    wait_until(lambda: sample(port)["websockets"] == 0)


@pytest.mark.parametrize("path", ["/", "/ws/", "/echo", "/nothing"])
def test_another_path_is_turned_away(port: int, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{port}{path}"):
        pass
    assert refused.value.response.status_code == 403


def test_it_is_found_below_a_root_path(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, *DEMO, "--root-path", "/under")
    with contextlib.closing(process), greeted(process.port) as client:
        client.send("Hello")
        assert client.recv(WAIT_S) == "Hello"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((sys.executable, "-m", "fastasgi"), id="fastasgi"),
        pytest.param((sys.executable, "-m", "uvicorn", "--ws", "websockets-sansio"), id="uvicorn"),
    ],
)
def test_a_server_that_ends_tells_its_clients(tmp_path: Path, command: tuple[str, ...]) -> None:
    process = ServerProcess(tmp_path, *DEMO, command=command)
    with contextlib.closing(process), greeted(process.port) as client:
        client.send("Hello")
        assert client.recv(WAIT_S) == "Hello"
        process.process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
        process.wait()
    assert closed.value.rcvd.code == 1012
    assert "Traceback" not in process.log


# By hand


def told(exchange: Exchange) -> list[str]:
    return [exchange.outgoing.get_nowait()["type"] for _ in range(exchange.outgoing.qsize())]


def test_without_a_lifespan_it_is_turned_away() -> None:
    async def run() -> None:
        exchange = Exchange(type="websocket", path="/ws")
        exchange.incoming.put_nowait({"type": "websocket.connect"})
        await exchange.expect("websocket.close")
        assert await ended_without_a_trace(exchange.task)

    asyncio.run(run())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_it_ends_when_the_client_leaves(count: int) -> None:
    async def run() -> None:
        traffic = Traffic()
        exchange = Exchange(type="websocket", path="/ws", state={"traffic": traffic})
        messages = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "x"}] * 2]
        for message in messages[:count]:
            exchange.incoming.put_nowait(message)
        exchange.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        assert await ended_without_a_trace(exchange.task)
        assert told(exchange) == ["websocket.accept", *["websocket.send"] * count][: count and count + 1]
        assert (traffic.websockets, traffic.messages) == (0, max(0, count - 1))

    asyncio.run(run())


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_it_ends_when_send_fails(failing: int) -> None:
    async def run() -> None:
        traffic = Traffic()
        sent = []

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == failing:
                raise ConnectionResetError("the client has gone")

        exchange = Exchange(send=send, type="websocket", path="/ws", state={"traffic": traffic})
        exchange.incoming.put_nowait({"type": "websocket.connect"})
        exchange.incoming.put_nowait({"type": "websocket.receive", "bytes": b"x", "text": None})
        assert await ended_without_a_trace(exchange.task)
        assert len(sent) == failing
        assert traffic.websockets == 0

    asyncio.run(run())
