"""How large the windows are that an HTTP/2 server gives for uploads (RFC 9113 section 5.2)."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backpressure import MIB
from http2peer import WINDOW, FrameType, HTTP2Peer
from http2served import peer_of
from wire import in_loop, respond, served

# Each way. `make drill` takes longer ways, and more.
DRILL = int(os.environ.get("DRILL", "1"))
DELAY_S, SIZE = (0.01, 16 * MIB) if DRILL == 1 else (0.05, 100 * MIB)
STREAM_WINDOW, LARGEST_WINDOW, LARGEST_WINDOWS = 256 * 1024, 4 * MIB, 8 * MIB


async def count(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


class Relay:
    """Passes bytes on after a while, in both directions."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(MIB):
            loop.call_later(DELAY_S, writer.write, data)
        loop.call_later(DELAY_S, writer.close)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for way in (self._pass_on(reader, back), self._pass_on(there, writer)):
            task = asyncio.create_task(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens on `port` meanwhile."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()


@in_loop
async def test_an_upload_from_far_away_is_not_held_up_by_a_window() -> None:
    async with served(count, client_type=HTTP2Peer) as server:
        relay = Relay(server.port)
        async with relay.running():
            peer = await HTTP2Peer.connect(relay.port)
            await peer.open()
            begun = time.monotonic()
            response = await peer.ask("POST", "/", body=bytes(SIZE))
            taken_s = time.monotonic() - begun
            peer.writer.close()
    assert response.body == b"%d" % SIZE
    with_a_fixed_window_s = SIZE / WINDOW * 2 * DELAY_S
    assert taken_s < with_a_fixed_window_s / 5


@in_loop
async def test_windows_grow_up_to_a_limit() -> None:
    async with peer_of(count) as (_, peer):
        assert (await peer.ask("POST", "/", body=bytes(64 * MIB))).body == b"%d" % (64 * MIB)
        stream = await peer.begin("POST", "/")
        await peer.settle()
        assert STREAM_WINDOW < peer.room(stream) <= LARGEST_WINDOW
        assert peer.send_window <= LARGEST_WINDOWS


@in_loop
async def test_windows_do_not_grow_for_what_the_application_leaves() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await count(scope, receive, send)

    async with peer_of(app) as (_, peer):
        stream = await peer.begin("POST", "/")
        await peer.send(stream, bytes(STREAM_WINDOW))
        await peer.settle()
        assert peer.room(stream) == 0
        release.set()
        await peer.send(stream, b"x", end_stream=True)
        assert (await peer.response(stream)).body == b"%d" % (STREAM_WINDOW + 1)


@in_loop
async def test_uploads_that_are_left_leave_the_rest_of_the_window_to_others() -> None:
    """Three of 256 KiB hold three quarters of the connection's window."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/leave":
            await release.wait()
            await respond(send, b"")
        else:
            await count(scope, receive, send)

    release = asyncio.Event()
    async with peer_of(app) as (_, peer):
        for _ in range(3):
            await peer.send(await peer.begin("POST", "/leave"), bytes(STREAM_WINDOW))
        assert (await peer.ask("POST", "/", body=bytes(2 * MIB))).body == b"%d" % (2 * MIB)
        release.set()


@pytest.mark.parametrize("setting", ["stream", "connection"])
@in_loop
async def test_settings_say_how_large_they_are_at_first(setting: str) -> None:
    async with peer_of(count, **{f"http2_initial_{setting}_window_size": 123456}) as (_, peer):
        await peer.wait_for(FrameType.SETTINGS)
        await peer.settle()
        stream = await peer.begin("POST", "/")
        assert peer.room(stream) == 123456
        await peer.send(stream, b"", end_stream=True)
        assert (await peer.response(stream)).body == b"0"
