"""Clients that mean no harm, and do much of what attackers do: none of them is cut off.

Where hours pass the clock is set forward.
"""

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attacker import attacked, block
from backpressure import MIB
from http2peer import (
    PREFACE,
    Flag,
    FrameType,
    HTTP2Peer,
    data,
    headers,
    ping,
    read_frames,
    rst_stream,
    settings,
    window_update,
)
from serving import WAIT_S
from watching import Peer
from wire import in_loop, in_turn_of_its_own, read_body, respond, served

DRILL = int(os.environ.get("DRILL", "1"))
STREAMS = 100  # http2_max_concurrent_streams


class Clock:
    """The running loop's time, which is set forward."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        loop.time = lambda: time() + self._ahead_s  # type: ignore[method-assign]

    async def forward(self, server: Any, seconds: float) -> None:
        """Have so many seconds pass for the server."""
        self._ahead_s += seconds
        await in_turn_of_its_own(server.context.tick)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here")
def test_many_requests_on_one_connection(tmp_path: Path) -> None:
    """Others end a connection after 1000 or 4096 requests, and what runs on it is lost."""
    count = 20_000 if DRILL == 1 else 10**6
    with attacked(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/hello"
        load = subprocess.run(
            ["h2load", "-n", str(count), "-c", "1", "-m", str(STREAMS), url],
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in load.stdout


PAGES = {"10 seconds apart": (20, 0, 10.0), "behind pages that have come": (20, STREAMS, 0.0)}


@pytest.mark.parametrize(("count", "whole", "pause_s"), PAGES.values(), ids=PAGES)
@in_loop
async def test_pages_that_are_left(count: int, whole: int, pause_s: float) -> None:
    """The browser resets all streams of the page at once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await respond(send, b"ok")
        while (await receive())["type"] != "http.disconnect":
            pass

    clock = Clock()
    async with served(app, client_type=HTTP2Peer, timeout_keep_alive=60) as server:
        peer = await server.connect()
        await peer.open()
        for _ in range(count):
            for asked in [await peer.request() for _ in range(whole)]:
                assert (await peer.response(asked)).is_whole
            left = [await peer.request("GET", "/left") for _ in range(STREAMS)]
            await peer.settle()
            assert server.context.registry.exchange_count == STREAMS
            await peer.write(b"".join(map(rst_stream, left)))
            await peer.settle()
            await clock.forward(server, pause_s)
        assert (await peer.ask()).body == b"ok"
        assert peer.goaways == []


@in_loop
async def test_a_ping_a_second_for_a_day() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await over.wait()
        await send({"type": "http.response.body", "body": b"ended"})

    over = asyncio.Event()
    step_s = 10
    pings = b"".join(ping(b"%8d" % second) for second in range(step_s))
    acks = b"".join(ping(b"%8d" % second, ack=True) for second in range(step_s))
    clock = Clock()
    async with served(app) as server:
        peer = Peer.connect(server)
        peer.send(PREFACE + settings() + headers(1, block("/")))
        await peer.until(b"begun")
        for _ in range(24 * 3600 // step_s):
            await clock.forward(server, step_s)
            peer.send(pings)
            await peer.until(acks)
        over.set()
        assert b"ended" in await peer.until(b"ended")
        peer.close()


@in_loop
async def test_90_crumbs_of_cookies() -> None:
    """Browsers send each cookie as a field of its own."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append([value for name, value in scope["headers"] if name == b"cookie"])
        await respond(send, b"ok")

    crumbs = [f"name{i}={'v' * 40}{i}" for i in range(90)]
    fields = [f"x-{i}: {i}" for i in range(20)] + [f"cookie: {crumb}" for crumb in crumbs]
    async with served(app, client_type=HTTP2Peer) as server:
        peer = await server.connect()
        await peer.open()
        for _ in range(3):
            assert (await peer.ask("GET", "/", *fields)).status == 200
    assert seen == 3 * [["; ".join(crumbs).encode()]]


def test_a_download_acknowledged_in_small_steps(tmp_path: Path) -> None:
    size = 200 * MIB if DRILL == 1 else 10**10 // 16384 * 16384
    step = 32768
    with (
        attacked(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), WAIT_S) as sock,
    ):
        sock.sendall(PREFACE + settings() + headers(1, block(f"/large?{size}")))
        credit = window_update(0, step) + window_update(1, step)
        came, received, credited = bytearray(), 0, 0
        is_over = False
        while not is_over:
            came += (piece := sock.recv(2**18))
            assert piece, "cut off"
            for frame in read_frames(came):
                assert frame.type != FrameType.GOAWAY, frame
                if frame.type == FrameType.DATA:
                    received += len(frame.payload)
                    is_over = bool(frame.flags & Flag.END_STREAM)
            due = (received - credited) // step
            credited += due * step
            sock.sendall(due * credit)
    assert received == size


@in_loop
async def test_every_second_event_stream_is_aborted_for_an_hour() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        if scope["path"] == "/ends":
            await send({"type": "http.response.body"})
        while (await receive())["type"] != "http.disconnect":
            pass

    clock = Clock()
    async with served(app, client_type=HTTP2Peer, timeout_keep_alive=60) as server:
        peer = await server.connect()
        await peer.open()
        for _ in range(3600 // 6):
            ending = [await peer.request("GET", "/ends") for _ in range(5)]
            aborted = [await peer.request("GET", "/goes-on") for _ in range(5)]
            for stream in ending:
                assert (await peer.response(stream)).is_whole
            for stream in aborted:
                assert (await peer.head(stream)).status == 200
                await peer.write(rst_stream(stream))
            await peer.settle()
            peer.responses.clear()
            peer.frames.clear()
            await clock.forward(server, 6.0)
        assert (await peer.ask("GET", "/ends")).is_whole
        assert peer.goaways == []


@in_loop
async def test_small_events_each_acknowledged_at_once() -> None:
    """100 events a second on each of 10 streams, as models write them, and two frames of window for each."""
    event = b"data: token\n\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while True:
            await due.acquire()
            await send({"type": "http.response.body", "body": event, "more_body": True})

    due = asyncio.Semaphore(0)
    clock = Clock()
    async with served(app, client_type=HTTP2Peer) as server:
        peer = await server.connect()
        await peer.open()
        streams = [await peer.request() for _ in range(10)]
        for second in range(1, 11):
            for _ in range(100 * len(streams)):
                due.release()
            expected = second * 100 * len(streams) * len(event)
            await peer.until(
                lambda expected=expected: sum(peer.of(x).length for x in streams) == expected, "all events"
            )
            await clock.forward(server, 1.0)
        assert peer.goaways == []


@in_loop
async def test_many_uploads_that_are_refused() -> None:
    """More than their windows' worth of them was under way when the client heard of it."""
    body = bytes(16384)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await read_body(receive)
        await respond(send, b"ok")

    async with served(app, client_type=HTTP2Peer, limit_request_body=10_000) as server:
        peer = await server.connect()
        await peer.open()
        streams = [await peer.begin("POST") for _ in range(STREAMS // 2)]
        await peer.write(b"".join(map(peer.encode_data, streams, len(streams) * [body])))
        await peer.settle()
        assert {peer.of(stream).status for stream in streams} == {413}
        await peer.write(b"".join(data(stream, b"on its way") for stream in streams))
        assert (await peer.ask()).body == b"ok"
        assert peer.goaways == []


@in_loop
async def test_many_small_messages_at_once() -> None:
    """As clients of gRPC stream them, each in a frame of its own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"%d" % len(await read_body(receive)))

    async with served(app, client_type=HTTP2Peer) as server:
        peer = await server.connect()
        await peer.open()
        stream = await peer.begin("POST")
        for _ in range(20_000):
            await peer.send(stream, b"10 bytes..")
        await peer.send(stream, b"", end_stream=True)
        assert (await peer.response(stream)).body == b"200000"
