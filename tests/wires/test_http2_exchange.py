"""What ASGI's exchanges are on HTTP/2 where they are otherwise on wires that serve one request at a time.

There a request that fails, or a client that leaves, ends the connection; here it ends a stream. And windows
hold applications and clients back where there only the socket does.
"""

import asyncio
from typing import Any

import pytest
from anyclient import INTERNAL_ERROR
from backpressure import MIB, until_stalled
from clientframes import TEXT, frame
from exchanges import DISCONNECT, MORE, START, Oops
from http2peer import WINDOW, ErrorCode, HTTP2Peer, data, rst_stream
from websocketapps import disconnected
from websocketwire import accept, close_frame
from wire import (
    Served,
    error_records,
    in_each_loop,
    in_loop,
    move_clock,
    now,
    read_body,
    respond,
    served,
    shift_clock,
    traceback_of,
)

PATIENCE_S = 5.0  # in which an application may send to nobody
STREAM_WINDOW = 256 * 1024  # http2_initial_stream_window_size


async def opened(server: Served, *values: tuple[int, int]) -> HTTP2Peer:
    """A new connection, whose settings are known on both sides."""
    peer: HTTP2Peer = await server.connect()
    await peer.open(*values)
    return peer


def serving(app: Any, **settings: Any) -> Any:
    return served(app, client_type=HTTP2Peer, **settings)


# --- Requests of one connection ---


@in_each_loop
async def test_requests_run_at_once_and_are_answered_in_any_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/1":
            await go_on.wait()
        await respond(send, scope["path"].encode())

    go_on = asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        first = await peer.request("GET", "/1")
        assert (await peer.ask("GET", "/2")).body == b"/2"
        assert not peer.of(first).status
        go_on.set()
        assert (await peer.response(first)).body == b"/1"


@pytest.mark.parametrize("begun", [False, True], ids=["before the start", "in the body"])
@in_each_loop
async def test_a_request_that_fails_takes_no_other_with_it(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/works":
            await go_on.wait()
            await respond(send, b"ok")
            return
        if begun:
            await send(START)
            await send(MORE)
        raise Oops

    go_on = asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        works = await peer.request("GET", "/works")
        failed = await peer.response(await peer.request("GET", "/fails"))
        if begun:
            assert (failed.body, failed.is_whole, failed.reset) == (b"ok", False, ErrorCode.INTERNAL_ERROR)
        else:
            assert (failed.status, failed.body, failed.reset) == (500, INTERNAL_ERROR.body, None)
        go_on.set()
        assert (await peer.response(works)).body == b"ok"
        assert (await peer.ask("GET", "/works")).body == b"ok"
        assert peer.goaways == []
    assert isinstance(traceback_of(caplog), Oops)


@in_loop
async def test_connection_close_of_an_application_means_nothing() -> None:
    """RFC 9113 section 8.2.2."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok", headers=[(b"Connection", b"close"), (b"keep-alive", b"1"), (b"a", b"b")])

    async with serving(app) as server:
        peer = await opened(server)
        for _ in range(2):
            response = await peer.ask()
            assert response.headers == [(b"a", b"b"), (b"content-length", b"2")]
        assert peer.goaways == []


# --- A client that resets a stream ---


@pytest.mark.parametrize("state", ["in the request's body", "before the response", "in the response's body"])
@in_each_loop
async def test_a_reset_is_told_at_once_and_to_its_request_alone(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stays":
            await told
            await respond(send, b"ok")
            return
        assert (await receive())["more_body"] is (state == "in the request's body")
        if state == "in the response's body":
            await send(START)
            await send(MORE)
        waits.set()
        messages.append(await receive())
        told.set_result(now())
        messages.append(await receive())
        await send(MORE if state == "in the response's body" else START)

    waits, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    messages: list[Any] = []
    async with serving(app) as server:
        peer = await opened(server)
        stays = await peer.request("GET", "/stays")
        left = await peer.begin("POST")
        await peer.send(left, b"body", end_stream=state != "in the request's body")
        await waits.wait()
        left_at = now()
        await peer.write(rst_stream(left))
        assert await told - left_at < 0.5
        assert (await peer.response(stays)).body == b"ok"
        await peer.settle()
        assert server.context.registry.exchange_count == 0
        assert peer.goaways == []
    assert messages == [DISCONNECT, DISCONNECT]
    assert error_records(caplog) == []


@pytest.mark.parametrize("hears", [True, False], ids=["hears of it", "does not ask"])
@in_each_loop
async def test_send_behind_a_reset_does_nothing_for_a_while_and_then_raises(
    hears: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(MORE)
        if hears:
            assert await receive() == DISCONNECT
        else:
            await reset.wait()
        await send(MORE)
        shift_clock(PATIENCE_S - 1)
        await send(MORE)
        shift_clock(1.1)
        with pytest.raises(OSError, match="disconnected"):
            await send(MORE)
        raised.set()

    reset, raised = asyncio.Event(), asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        left = await peer.request()
        await peer.head(left)
        await peer.write(rst_stream(left))
        await peer.settle()
        reset.set()
        await raised.wait()
    assert error_records(caplog) == []


@in_each_loop
async def test_a_send_that_is_held_back_returns_when_its_stream_is_reset() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(100):
            sent += 1000
            await send({**MORE, "body": bytes(1000)})
            if returned.is_set():
                return
        returned.set()

    returned = asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        peer.returns_credit = False
        left = await peer.request("GET", "/left")
        assert await until_stalled(lambda: sent) < 100_000 + WINDOW
        await peer.write(rst_stream(left))
        await peer.settle()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)


@in_loop
async def test_the_access_log_tells_of_resets(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/before":
            await receive()
            assert await receive() == DISCONNECT
            return
        await respond(send, b"ok")
        await reset.wait()

    reset = asyncio.Event()
    settings = {"access_log": True, "log_level": "info", "access_log_format": "{path} {status} {bytes}"}
    async with serving(app, **settings) as server:
        peer = await opened(server)
        for path in ("/before", "/behind"):
            stream = await peer.request("GET", path)
            if path == "/behind":
                await peer.response(stream)
            await peer.write(rst_stream(stream))
            await peer.settle()
        reset.set()
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert lines == ["/before 499 0", "/behind 200 2"]


# --- A client that ends or resets the connection ---


@in_each_loop
async def test_the_end_of_the_connection_is_that_of_all_its_requests() -> None:
    """At once: no window comes any more, and no client of HTTP/2 ends its side alone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting.release()
        assert await receive() == DISCONNECT
        told.append(now())

    waiting = asyncio.Semaphore(0)
    told: list[float] = []
    async with serving(app) as server:
        peer = await opened(server)
        for _ in range(3):
            await peer.request()
            await waiting.acquire()
        left_at = now()
        peer.half_close()
        await server.context.registry.wait_idle()
    assert len(told) == 3
    assert max(told) - left_at < 0.5


@in_each_loop
async def test_a_reset_is_seen_while_a_body_is_not_received(caplog: pytest.LogCaptureFixture) -> None:
    """The socket is read on: it is the window that is shut."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await left.wait()
        assert await receive() == DISCONNECT

    begun, left = asyncio.Event(), asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        stream = await peer.begin("POST")
        await peer.write(peer.encode_data(stream, bytes(STREAM_WINDOW)))
        await begun.wait()
        peer.reset()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        left.set()
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


# --- Windows ---


@in_each_loop
async def test_a_window_holds_its_application_back_and_no_other() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["path"] == "/small":
            await respond(send, b"ok")
            return
        await send(START)
        while sent < MIB:
            sent += 1000
            await send({**MORE, "body": bytes(1000)})
        await send({"type": "http.response.body"})

    async with serving(app) as server:
        peer = await opened(server)
        await peer.credit(0, MIB)
        peer.returns_credit = False
        large = await peer.request("GET", "/large")
        assert WINDOW < await until_stalled(lambda: sent) < 3 * WINDOW
        assert (await peer.ask("GET", "/small")).body == b"ok"
        await peer.credit(large, 2 * MIB)
        assert (await peer.response(large)).length == sent


@in_each_loop
async def test_an_application_that_does_not_receive_holds_its_client_back_and_no_other() -> None:
    """The connection's window is larger than a stream's, and returned for what others have received."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await go_on.wait()
        await respond(send, b"%d" % len(await read_body(receive)))

    go_on = asyncio.Event()
    async with serving(app) as server:
        peer = await opened(server)
        late = await peer.begin("POST", "/late")
        await peer.send(late, bytes(STREAM_WINDOW))
        for _ in range(3):
            await peer.settle()
            assert peer.room(late) == 0
            assert (await peer.ask("POST", "/", body=bytes(3 * MIB))).body == b"%d" % (3 * MIB)
        go_on.set()
        await peer.send(late, bytes(STREAM_WINDOW), end_stream=True)
        assert (await peer.response(late)).body == b"%d" % (2 * STREAM_WINDOW)


# --- WebSockets ---

SHAKE = (":protocol: websocket", "sec-websocket-version: 13")


async def shake(peer: HTTP2Peer, path: str) -> int:
    """The stream of a WebSocket that is asked for, once it has an answer."""
    stream = await peer.begin("CONNECT", path, *SHAKE)
    await peer.head(stream)
    return stream


@in_each_loop
async def test_websockets_and_requests_share_a_connection() -> None:
    received: dict[str, list[Any]] = {"/a": [], "/b": []}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send, b"ok")
            return
        if scope["path"] == "/denied":
            await send({"type": "websocket.close"})
            return
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            received[scope["path"]].append(message["text"])
            await send({"type": "websocket.send", "text": "got " + message["text"]})
        received[scope["path"]].append(message)

    async with serving(app) as server:
        peer = await opened(server)
        first, second = await shake(peer, "/a"), await shake(peer, "/b")
        denied = await peer.response(await shake(peer, "/denied"))
        assert (denied.status, denied.is_whole) == (403, True)
        for stream, text in ((first, b"1"), (second, b"2")):
            await peer.write(peer.encode_data(stream, frame(TEXT, text)))
        assert (await peer.ask()).body == b"ok"
        for stream, text in ((first, b"got 1"), (second, b"got 2")):
            await peer.until(lambda stream=stream, text=text: text in peer.of(stream).body, "an answer")
        await peer.write(rst_stream(first))
        await peer.settle()
        assert received["/a"] == ["1", disconnected(1006)]
        await peer.write(peer.encode_data(second, frame(TEXT, b"3")))
        await peer.until(lambda: peer.of(second).body.endswith(b"got 3"), "an answer")
        await peer.write(data(second, end_stream=True))
        await peer.response(second)
        assert received["/b"] == ["2", "3", disconnected(1006)]
        assert (await peer.ask()).body == b"ok"
        assert peer.goaways == []


@in_each_loop
async def test_a_websocket_that_its_client_does_not_end_is_let_go() -> None:
    """Its closing handshake is over: the stream is not kept for a client that never ends its side."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert await receive() == disconnected(1000)

    async with serving(app, http2_max_concurrent_streams=1) as server:
        peer = await opened(server)
        stream = await shake(peer, "/")
        await peer.write(peer.encode_data(stream, close_frame()))
        assert (await peer.response(stream)).is_whole
        await move_clock(server, 5.0)
        await peer.settle()
        assert peer.of(stream).reset == ErrorCode.NO_ERROR
        assert peer.of(await shake(peer, "/")).status == 200


# --- While the server ends ---


@in_each_loop
async def test_what_is_not_served_any_more_is_told() -> None:
    """An idle connection is not kept for one more request: the client can tell that it was not served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await respond(send, b"ok")

    go_on = asyncio.Event()
    async with serving(app, timeout_graceful_shutdown=15) as server:
        server.server.is_succeeded = True
        peer = await opened(server)
        begun = await peer.request()
        ending = asyncio.create_task(server.stop())
        await peer.until(lambda: len(peer.goaways) == 2, "two GOAWAY frames")
        late = await peer.request()
        go_on.set()
        assert (await peer.response(begun)).body == b"ok"
        assert not peer.of(late).status
        end = await peer.ending()
        assert [goaway.last_stream for goaway in end.goaways] == [2**31 - 1, begun]
        assert {goaway.code for goaway in end.goaways} == {ErrorCode.NO_ERROR}
        peer.close()
        await ending
