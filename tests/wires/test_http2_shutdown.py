"""How HTTP/2 connections end when the server does: no request is lost (RFC 9113 section 6.8)."""

import asyncio
from typing import Any

import pytest
from clientframes import TEXT, frame
from http2peer import (
    MAX_WINDOW,
    End,
    ErrorCode,
    FrameType,
    GoAway,
    HTTP2Peer,
    continuation,
    headers,
    ping,
    request_fields,
    rst_stream,
)
from http2served import peer_of
from http2tunnel import open_websocket
from jumpingloop import in_jumping_loop
from websocketapps import Recorder, disconnected
from websocketwire import WebSocket, close_frame
from wire import Served, error_records, hello, in_each_loop, in_loop, now, read_body, respond

FIRST = GoAway(MAX_WINDOW, ErrorCode.NO_ERROR, b"")  # what a shutdown begins with: it refuses nothing yet
GRACE: Any = {"timeout_graceful_shutdown": 15}


def last(stream: int) -> GoAway:
    """What ends the beginning of streams: this one is the last that is served."""
    return GoAway(stream, ErrorCode.NO_ERROR, b"")


class Slow:
    """Answers with the request's body, when it has come and `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.targets: list[str] = []
        self.websocket = Recorder()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.targets.append(scope["path"])
        if scope["type"] == "websocket":
            return await self.websocket(scope, receive, send)
        body = await read_body(receive)
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
            await self.go_on.wait()
            return await send({"type": "http.response.body", "body": body})
        if scope["path"] != "/quick":
            await self.go_on.wait()
        await respond(send, body)


async def stop(server: Served, peer: HTTP2Peer) -> "asyncio.Task[None]":
    """Begin a shutdown; returns when the peer has the first GOAWAY, and the PING behind it."""
    ending = asyncio.create_task(server.stop())
    await peer.wait_for(FrameType.GOAWAY)
    assert peer.goaways == [FIRST]
    await peer.wait_for(FrameType.PING)
    return ending


async def ended(peer: HTTP2Peer) -> End:
    """How the server ends the connection; the peer ends its half then, as clients do."""
    end = await peer.ending()
    peer.close()
    return end


async def drained(server: Served, peer: HTTP2Peer) -> "asyncio.Task[None]":
    """Begin a shutdown; returns when the peer has the last GOAWAY."""
    ending = await stop(server, peer)
    await peer.wait_for(FrameType.GOAWAY)
    return ending


# --- The connection ---


@in_each_loop
async def test_an_idle_connection_is_told_and_ended() -> None:
    async with peer_of(hello, **GRACE) as (server, peer):
        await peer.ask()
        ending = asyncio.create_task(server.stop())
        end = await ended(peer)
        await ending
        assert (end.goaways, end.by_reset, end.partial) == ((FIRST, last(1)), False, b"")
        [sent] = [frame for frame in peer.frames if frame.type == FrameType.PING]
        assert sent.flags == 0


@in_loop
async def test_a_connection_without_a_request_is_told_and_ended() -> None:
    async with peer_of(hello, **GRACE) as (server, peer):
        ending = asyncio.create_task(server.stop())
        assert (await ended(peer)).goaways == (FIRST, last(0))
        await ending


@in_jumping_loop
async def test_a_peer_that_does_not_answer_the_ping_is_waited_for_a_second() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        peer.acknowledges = False
        stream = await peer.request()
        await peer.request("GET", "/begun")
        await peer.head(3)
        ending = await stop(server, peer)
        begin = now()
        await peer.wait_for(FrameType.GOAWAY)
        assert 0.5 < now() - begin < 2.5
        assert peer.goaways == [FIRST, last(3)]
        app.go_on.set()
        assert (await peer.response(stream)).status == 200
        await ended(peer)
        await ending


@in_jumping_loop
async def test_an_idle_peer_that_does_not_answer_the_ping_holds_nothing_for_long() -> None:
    async with peer_of(hello, **GRACE) as (server, peer):
        peer.acknowledges = False
        begin = now()
        ending = asyncio.create_task(server.stop())
        assert (await ended(peer)).goaways == (FIRST, last(0))
        await ending
        assert now() - begin < 2.5


@in_loop
async def test_the_acknowledgement_of_another_ping_is_not_that_one() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        peer.acknowledges = False
        await peer.request()
        await stop(server, peer)
        await peer.write(ping(b"whatever", ack=True))
        await peer.settle()
        assert peer.goaways == [FIRST]
        app.go_on.set()
        peer.acknowledges = True


@in_loop
async def test_a_second_of_its_kind_changes_nothing() -> None:
    """A shutdown that is asked for again, as impatient operators do."""
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        stream = await peer.request()
        ending = await drained(server, peer)
        server.server.should_exit = True
        await peer.settle()
        app.go_on.set()
        assert (await peer.response(stream)).status == 200
        assert (await ended(peer)).goaways == (FIRST, last(1))
        await ending


# --- Requests ---


@in_each_loop
async def test_requests_that_are_under_way_are_answered() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        streams = [await peer.request("POST", path, body=b"body") for path in ("/", "/begun") * 5]
        await peer.head(streams[1])
        ending = await drained(server, peer)
        assert peer.goaways == [FIRST, last(19)]
        await peer.settle()
        app.go_on.set()
        for stream in streams:
            response = await peer.response(stream)
            assert (response.status, response.is_whole) == (200, True)
            assert response.body.removeprefix(b"begun ") == b"body"
        end = await ended(peer)
        assert (end.goaways, end.by_reset) == ((FIRST, last(19)), False)
        await ending


@in_each_loop
async def test_a_request_that_crosses_the_first_goaway_is_served() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        peer.acknowledges = False
        await peer.request()
        ending = await stop(server, peer)
        # The client has not seen it yet, or has not dealt with it
        crossing = await peer.request("POST", "/quick", body=b"crossing")
        assert (await peer.response(crossing)).body == b"crossing"
        [asked] = [frame for frame in peer.frames if frame.type == FrameType.PING and not frame.flags]
        await peer.write(ping(asked.payload, ack=True))
        peer.acknowledges = True
        await peer.wait_for(FrameType.GOAWAY)
        assert peer.goaways == [FIRST, last(crossing)]
        app.go_on.set()
        assert (await peer.response(1)).status == 200
        await ended(peer)
        await ending


@in_each_loop
async def test_a_request_behind_the_last_goaway_is_passed_over() -> None:
    """All but its effect on what both sides remember: compressed fields, and the connection's window."""
    app = Slow()
    app.go_on.set()
    async with peer_of(app, **GRACE) as (server, peer):
        upload = await peer.begin("POST", "/upload")
        await peer.send(upload, b"first ")
        ending = await drained(server, peer)
        assert peer.goaways == [FIRST, last(upload)]
        before = peer.send_window
        late = [await peer.request("POST", "/late", "x-new: value", body=bytes(60_000)) for _ in range(20)]
        await peer.write(rst_stream(late[0]))
        await peer.settle()
        assert [peer.of(stream).is_over for stream in late] == [False] * 20
        assert before - peer.send_window < 700_000, "the window is given back"
        # The fields of these trailers are in the table because of the request that was passed over
        await peer.send(upload, b"last")
        await peer.write(headers(upload, peer.block([(b"x-new", b"value")])))
        response = await peer.response(upload)
        assert (response.status, response.body) == (200, b"first last")
        assert (await ended(peer)).goaways == (FIRST, last(upload))
        await ending
    assert app.targets == ["/upload"]


@in_loop
async def test_a_request_whose_head_is_cut_by_the_last_goaway() -> None:
    """Its stream has not begun: it is passed over as a whole."""
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        peer.acknowledges = False
        stream = await peer.request()
        ending = await stop(server, peer)
        block = peer.block(request_fields("GET", "/late"))
        await peer.write(headers(3, block[:3], end_headers=False))
        [asked] = [frame for frame in peer.frames if frame.type == FrameType.PING and not frame.flags]
        await peer.write(continuation(3, block[3:]) + ping(asked.payload, ack=True))
        await peer.wait_for(FrameType.GOAWAY)
        assert peer.goaways[-1].last_stream in (1, 3)
        app.go_on.set()
        for served in (stream, *([3] if peer.goaways[-1].last_stream == 3 else [])):
            assert (await peer.response(served)).status == 200
        await ended(peer)
        await ending


@in_each_loop
async def test_uploads_go_on() -> None:
    """With the credit that they need."""
    app = Slow()
    app.go_on.set()
    size = 2_000_000
    async with peer_of(app, **GRACE) as (server, peer):
        upload = await peer.begin("POST", "/")
        await peer.send(upload, bytes(1000))
        ending = await drained(server, peer)
        await peer.send(upload, bytes(size - 1000), end_stream=True)
        response = await peer.response(upload)
        assert (response.status, response.body) == (200, bytes(size))
        await ended(peer)
        await ending


@in_loop
async def test_a_client_that_leaves_while_the_server_ends(caplog: pytest.LogCaptureFixture) -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        await peer.request()
        ending = await drained(server, peer)
        peer.close()
        app.go_on.set()
        await ending
    assert not error_records(caplog)


@in_jumping_loop
async def test_a_response_without_end_is_ended_when_the_grace_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        heard.append(await receive())

    async with peer_of(app, timeout_graceful_shutdown=3) as (server, peer):
        stream = await peer.request()
        await peer.head(stream)
        begin = now()
        ending = asyncio.create_task(server.stop())
        assert (await ended(peer)).goaways[0] == FIRST
        await ending
        assert 3 <= now() - begin < 4
        assert not peer.of(stream).is_whole
    assert heard == [{"type": "http.disconnect"}]
    assert not [record for record in caplog.records if record.exc_info]


@in_each_loop
async def test_requests_are_served_as_long_as_connections_are_accepted() -> None:
    """For timeout_drain: whoever balances the load has not heard of it yet."""
    async with peer_of(hello, timeout_drain=1, **GRACE) as (server, peer):
        ending = asyncio.create_task(server.stop())
        while not server.context.draining:
            await asyncio.sleep(0.001)
        assert (await peer.ask()).body == b"hello"
        other: HTTP2Peer = await server.connect()
        await other.open()
        assert (await other.ask()).body == b"hello"
        for each in (peer, other):
            end = await ended(each)
            assert (end.goaways[0], end.goaways[-1]) == (FIRST, last(1))
        await ending


# --- WebSockets ---


async def close(websocket: WebSocket) -> None:
    """Answer the server's Close, and end the stream when the server does."""
    await websocket.write(close_frame(1012))
    assert await websocket.client.rest() == b""
    await websocket.client.end()


@in_each_loop
async def test_websockets_are_closed_with_1012() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        websocket = await open_websocket(peer)
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await close(websocket)
        assert websocket.response.is_whole
        end = await ended(peer)
        assert (end.goaways, end.by_reset) == ((FIRST, last(1)), False)
        await ending
    assert app.websocket.messages == [disconnected(1012)]


@in_each_loop
async def test_a_request_outlives_the_websockets_beside_it() -> None:
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        websockets = [await open_websocket(peer) for _ in range(10)]
        stream = await peer.request()
        ending = asyncio.create_task(server.stop())
        for websocket in websockets:
            assert await websocket.closing() == (1012, "")
            await close(websocket)
        await peer.settle()
        assert not peer.of(stream).is_over
        app.go_on.set()
        assert (await peer.response(stream)).status == 200
        assert (await ended(peer)).goaways == (FIRST, last(stream))
        await ending


@pytest.mark.parametrize("answers", [False, True])
@in_jumping_loop
async def test_a_websocket_whose_client_does_not_end_it_holds_nothing(answers: bool) -> None:
    """Neither by a Close nor, if so, by the end of its half."""
    app = Slow()
    async with peer_of(app, **GRACE) as (server, peer):
        websocket = await open_websocket(peer)
        begin = now()
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        if answers:
            await websocket.write(close_frame(1012))
        await ended(peer)
        await ending
        assert now() - begin < 4
    assert app.websocket.messages == [disconnected(1012)]


@in_each_loop
async def test_what_a_websocket_has_said_before_it_is_closed_arrives() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
        assert message["code"] == 1012

    async with peer_of(app, **GRACE) as (server, peer):
        websocket = await open_websocket(peer)
        await websocket.write(frame(TEXT, b"say"))
        assert await websocket.receive() == bytes(1_000_000)
        ending = asyncio.create_task(server.stop())
        assert await websocket.closing() == (1012, "")
        await close(websocket)
        await ended(peer)
        await ending
