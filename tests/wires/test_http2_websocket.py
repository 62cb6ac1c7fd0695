"""WebSockets on streams of HTTP/2 (RFC 8441)."""

import asyncio
from typing import Any

import pytest
from backpressure import MIB, STALL_S, until_stalled
from clientframes import BINARY, PING, TEXT, fragments, frame
from http2peer import ErrorCode, HTTP2Peer, Setting, data, headers
from http2served import peer_of
from http2tunnel import VERSION, Tunnel, open_tunnel, open_websocket
from websocketapps import BODY_MESSAGE, CONNECT, START_MESSAGE, Recorder, accepting, disconnected
from websocketwire import DEFLATE, WebSocket, accept, close_frame, echo
from wire import KEY, Reads, error_records, in_each_loop, in_loop, move_clock, respond
from wsproto.connection import Connection as WSProtoConnection
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, TextMessage
from wsproto.extensions import PerMessageDeflate

NORMAL = disconnected(1000)
LOST = disconnected(1006)


async def echo_or_hello(scope: Any, receive: Any, send: Any) -> None:
    await (echo(scope, receive, send) if scope["type"] == "websocket" else respond(send, b"hello"))


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application is not called")


async def still_serves(peer: HTTP2Peer) -> None:
    """The connection goes on, whatever came of a stream."""
    response = await peer.ask()
    assert (response.status, response.body) == (200, b"hello")
    assert peer.goaways == []


# --- The handshake ---


@in_loop
async def test_it_is_offered() -> None:
    async with peer_of(echo) as (_, peer):
        assert peer.settings[Setting.ENABLE_CONNECT_PROTOCOL] == 1


@in_loop
async def test_without_websockets_it_is_not_offered() -> None:
    async with peer_of(never, ws="none") as (_, peer):
        assert Setting.ENABLE_CONNECT_PROTOCOL not in peer.settings
        tunnel = await open_tunnel(peer, VERSION)
        assert tunnel.response.status == 501


@in_each_loop
async def test_a_handshake_is_answered_with_200() -> None:
    async with peer_of(echo) as (_, peer):
        websocket = await open_websocket(peer)
        assert websocket.response.headers == []
        await websocket.send("hello")
        assert await websocket.receive() == "hello"
        assert await websocket.close() == (1000, "")


@in_loop
async def test_the_scope() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    async with peer_of(app) as (_, peer):
        fields = ("sec-websocket-protocol: a, b", "origin: http://x", "cookie: a=1", "cookie: b=2")
        assert await (await open_websocket(peer, *fields, target="/caf%C3%A9?x=y")).close() == (1000, "")
    [scope] = scopes
    told = {
        name: scope[name] for name in ("type", "http_version", "scheme", "path", "raw_path", "query_string")
    }
    assert told == {
        "type": "websocket",
        "http_version": "2",
        "scheme": "ws",
        "path": "/café",
        "raw_path": b"/caf%C3%A9",
        "query_string": b"x=y",
    }
    assert scope["subprotocols"] == ["a", "b"]
    assert "method" not in scope
    assert scope["headers"] == [
        (b"host", b"x"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"origin", b"http://x"),
        (b"cookie", b"a=1; b=2"),
    ]


@in_loop
async def test_what_the_application_accepts() -> None:
    """Fields that belong to the handshake of HTTP/1.1, or to no HTTP/2, are left out."""
    given = [
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"sec-websocket-accept", b"x"),
        (b"sec-websocket-extensions", b"x"),
        (b"connection", b"close"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
    ]
    async with peer_of(accepting(subprotocol="b", headers=given)) as (_, peer):
        websocket = await open_websocket(peer, "sec-websocket-protocol: a, b")
    assert sorted(websocket.response.headers) == [
        (b"sec-websocket-protocol", b"b"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]


@in_loop
async def test_date_and_server() -> None:
    async with peer_of(echo, date_header=True, server_header=True) as (_, peer):
        websocket = await open_websocket(peer)
        assert websocket.response[b"server"] == b"fastasgi"
        assert b"date" in websocket.response


@in_loop
async def test_a_key_means_nothing() -> None:
    """RFC 8441 section 5.1: Sec-WebSocket-Key and -Accept are not used."""
    async with peer_of(echo) as (_, peer):
        for key in (KEY, "x"):
            websocket = await open_websocket(peer, f"sec-websocket-key: {key}")
            assert websocket.response.headers == []


@pytest.mark.parametrize(
    ("fields", "end_stream", "status", "reason"),
    [
        ((), False, 400, "no Sec-WebSocket-Version"),
        (("sec-websocket-version: 12",), False, 426, "not 13"),
        (("sec-websocket-version: 8",), False, 426, "not 13"),
        (("sec-websocket-version: 013",), False, 426, "not 13"),
        ((VERSION, VERSION), False, 426, "not 13"),
        ((VERSION, "sec-websocket-extensions: a b"), False, 400, "Sec-WebSocket-Extensions"),
        ((VERSION, DEFLATE + ", x" * 5000), False, 431, "Sec-WebSocket-Extensions"),
        ((VERSION,), True, 400, "ends with its handshake"),
    ],
)
@in_loop
async def test_a_bad_handshake_is_refused(
    fields: tuple[str, ...], end_stream: bool, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer_of(never) as (server, peer):
        tunnel = await open_tunnel(peer, *fields, end_stream=end_stream)
        response = await peer.response(tunnel.stream)
        assert (response.status, response.is_whole) == (status, True)
        assert (b"sec-websocket-version" in response) == (status == 426)
        await peer.settle()
        assert response.reset == (None if end_stream else ErrorCode.NO_ERROR)
        assert server.context.registry.request_count == 0
        assert peer.goaways == []
    [record] = [record for record in caplog.records if "refused" in record.getMessage()]
    assert reason in record.getMessage()
    assert not error_records(caplog)


@pytest.mark.parametrize("protocol", ["connect-udp", "webtransport", "websockets", "x"])
@in_loop
async def test_other_protocols_are_not_implemented(protocol: str) -> None:
    """RFC 9220 section 3: a server answers so to a :protocol that it does not know."""
    async with peer_of(never) as (_, peer):
        tunnel = await open_tunnel(peer, VERSION, protocol=protocol)
        assert tunnel.response.status == 501


@in_loop
async def test_a_connect_without_a_protocol_is_not_implemented() -> None:
    async with peer_of(never) as (_, peer):
        stream = peer.next_stream
        block = peer.block([(b":method", b"CONNECT"), (b":authority", b"x:1")])
        await peer.write(headers(stream, block, end_stream=False))
        assert (await peer.head(stream)).status == 501


@pytest.mark.parametrize(
    "fields",
    [
        [":method: GET", ":scheme: http", ":path: /", ":authority: x", ":protocol: websocket"],
        [":method: CONNECT", ":path: /", ":authority: x", ":protocol: websocket"],
        [":method: CONNECT", ":scheme: http", ":authority: x", ":protocol: websocket"],
        [":method: CONNECT", ":scheme: http", ":path: /", ":authority: x", ":protocol: websocket"] * 2,
        [
            ":method: CONNECT", ":scheme: http", ":path: /", ":authority: x", ":protocol: websocket",
            "connection: upgrade",
        ],
    ],
    ids=["GET", "no scheme", "no path", "twice", "connection"],
)  # fmt: skip
@in_loop
async def test_a_malformed_handshake_is_reset(fields: list[str]) -> None:
    """RFC 8441 section 4, RFC 9113 section 8.1.1."""
    pairs = [(name.encode(), value.encode()) for name, _, value in (line.rpartition(": ") for line in fields)]
    async with peer_of(never) as (_, peer):
        await peer.write(
            headers(1, peer.block([*pairs, (b"sec-websocket-version", b"13")]), end_stream=False)
        )
        response = await peer.response(1)
        assert (response.status, response.reset) == (0, ErrorCode.PROTOCOL_ERROR)
        assert peer.goaways == []


@in_loop
async def test_a_denial_has_a_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        assert await receive() == CONNECT
        await send({**START_MESSAGE, "headers": [(b"x-why", b"because")]})
        await send({**BODY_MESSAGE, "more_body": True})
        await send({**BODY_MESSAGE, "body": b" entry"})

    async with peer_of(app) as (_, peer):
        tunnel = await open_tunnel(peer, VERSION)
        response = await peer.response(tunnel.stream)
        assert (response.status, response.body, response.is_whole) == (401, b"no entry", True)
        assert response[b"x-why"] == b"because"
        await still_serves(peer)


@in_loop
async def test_a_close_instead_of_an_accept_is_a_403() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        assert await receive() == CONNECT
        await send({"type": "websocket.close"})

    async with peer_of(app) as (_, peer):
        tunnel = await open_tunnel(peer, VERSION)
        response = await peer.response(tunnel.stream)
        assert (response.status, response.is_whole) == (403, True)
        await still_serves(peer)


@in_loop
async def test_an_application_that_fails_before_it_accepts_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        raise ValueError

    async with peer_of(app) as (_, peer):
        tunnel = await open_tunnel(peer, VERSION)
        response = await peer.response(tunnel.stream)
        assert (response.status, response.is_whole) == (500, True)
        await still_serves(peer)
    assert len(error_records(caplog)) == 1


# --- Messages ---


MESSAGES: list[str | bytes] = ["", "hello", "żółw 🐢" * 100, b"", b"\0\xff" * 1000, bytes(300_000)]


@in_each_loop
async def test_messages_both_ways() -> None:
    async with peer_of(echo) as (_, peer):
        websocket = await open_websocket(peer)
        for message in MESSAGES:
            await websocket.send(message)
            assert await websocket.receive() == message
        await websocket.write(*fragments(TEXT, [b"h", b"", b"ello"]))
        assert await websocket.receive() == "hello"
        assert await websocket.ping(b"between") == b"between"
        assert await websocket.close(3000, b"enough") == (3000, "")


@in_loop
async def test_frames_cut_at_every_byte(reads: Reads) -> None:
    """Frames of WebSockets have nothing to do with those of HTTP/2."""
    frames = b"".join(fragments(TEXT, [b"he", b"llo"])) + frame(BINARY, b"x" * 200)
    async with peer_of(echo) as (_, peer):
        peer.returns_credit = False
        for place in range(1, len(frames)):
            websocket = await open_websocket(peer)
            stream = websocket.client.stream
            await peer.write(data(stream, frames[:place], padding=place % 7) + data(stream))
            await peer.settle()
            await peer.write(data(stream, frames[place:]))
            assert await websocket.receive() == "hello"
            assert await websocket.receive() == b"x" * 200
            assert await websocket.close() == (1000, "")
            await websocket.client.end()
        websocket = await open_websocket(peer)
        stream = websocket.client.stream
        await peer.write(b"".join(data(stream, frames[i : i + 1]) for i in range(len(frames))))
        assert await websocket.receive() == "hello"
        assert await websocket.receive() == b"x" * 200


@in_each_loop
async def test_frames_before_the_200() -> None:
    """A client should wait, but what it sends is not lost."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    async with peer_of(app) as (_, peer):
        large = bytes(range(256)) * 400
        opening = asyncio.create_task(
            open_websocket(peer, behind=frame(TEXT, b"first") + frame(BINARY, large))
        )
        await peer.settle()
        go_on.set()
        websocket = await opening
        await websocket.send("last")
        assert await websocket.receive() == "first"
        assert await websocket.receive() == large
        assert await websocket.receive() == "last"


class ByWSProto:
    """A client's end by wsproto, with permessage-deflate if the server has agreed."""

    def __init__(self, websocket: WebSocket, extension: PerMessageDeflate) -> None:
        self._client = websocket.client
        extension.finalize(websocket.response[b"sec-websocket-extensions"].decode())
        self._wire = WSProtoConnection(ConnectionType.CLIENT, [extension])

    async def send(self, event: Event) -> None:
        await self._client.write(self._wire.send(event))

    async def receive(self) -> str | bytes | CloseConnection:
        """The next message, or the Close."""
        parts: list[Any] = []
        while True:
            for event in self._wire.events():
                if isinstance(event, CloseConnection):
                    return event
                assert isinstance(event, Message), event
                parts.append(event.data)
                if event.message_finished:
                    return ("" if isinstance(event, TextMessage) else b"").join(parts)
            # One frame after the other
            head = await self._client.reader.readexactly(2)
            size = head[1]
            if size >= 126:
                length = await self._client.reader.readexactly(2 if size == 126 else 8)
                head, size = head + length, int.from_bytes(length, "big")
            self._wire.receive_data(head + await self._client.reader.readexactly(size))


@pytest.mark.parametrize(
    "extension",
    [
        {},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
    ],
    ids=str,
)
@in_loop
async def test_permessage_deflate_with_wsproto(extension: dict[str, Any]) -> None:
    offered = PerMessageDeflate(**extension)
    async with peer_of(echo) as (_, peer):
        field = f"sec-websocket-extensions: permessage-deflate; {offered.offer()}"
        websocket = await open_websocket(peer, field)
        client = ByWSProto(websocket, offered)
        for message in [*MESSAGES, "x" * 100_000, "x" * 100_000]:
            event: Event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
            await client.send(event)
            assert await client.receive() == message
        # It is compressed indeed
        assert websocket.response.length < 20_000
        await client.send(TextMessage("a fragmented ", message_finished=False))
        await client.send(TextMessage("message"))
        assert await client.receive() == "a fragmented message"
        await client.send(CloseConnection(3000, "enough"))
        assert await client.receive() == CloseConnection(3000, "")


# --- The end ---


@in_each_loop
async def test_the_client_closes() -> None:
    app = Recorder()
    async with peer_of(app) as (server, peer):
        websocket = await open_websocket(peer)
        await websocket.send("hello")
        assert await websocket.close(3000, b"enough") == (3000, "")
        assert websocket.response.is_whole
        await websocket.client.end()
        await app.done.wait()
        await peer.settle()
        assert websocket.response.reset is None
        assert server.context.registry.exchange_count == 0
    assert app.messages == [
        {"type": "websocket.receive", "text": "hello"},
        disconnected(3000, "enough"),
    ]


@in_each_loop
async def test_the_server_closes() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        await accept(receive, send)
        await send({"type": "websocket.close", "code": 3000, "reason": "enough"})
        received.append(await receive())

    async with peer_of(app) as (server, peer):
        websocket = await open_websocket(peer)
        assert await websocket.closing() == (3000, "enough")
        # The client's frames up to its Close are passed over
        await websocket.write(frame(TEXT, b"late"), close_frame(3000))
        assert await websocket.client.rest() == b""
        assert websocket.response.is_whole
        await still_serves(peer)
        assert server.context.registry.exchange_count == 0
    assert received == [disconnected(3000, "enough")]


@in_loop
async def test_an_application_that_returns_closes_with_1000() -> None:
    async with peer_of(accepting()) as (_, peer):
        websocket = await open_websocket(peer)
        assert await websocket.closing() == (1000, "")
        await websocket.write(close_frame())
        assert await websocket.client.rest() == b""
        assert websocket.response.is_whole


@in_loop
async def test_an_application_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        await accept(receive, send)
        raise ValueError

    async with peer_of(app) as (_, peer):
        websocket = await open_websocket(peer)
        assert await websocket.closing() == (1011, "")
        await websocket.write(close_frame(1011))
        assert await websocket.client.rest() == b""
        await still_serves(peer)
    assert len(error_records(caplog)) == 1


@pytest.mark.parametrize("how", ["reset", "end", "connection"])
@in_each_loop
async def test_the_client_is_lost(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 8441 section 5: RST_STREAM with CANCEL stands for a reset of TCP, END_STREAM for its end."""
    app = Recorder()

    async def app_or_hello(scope: Any, receive: Any, send: Any) -> None:
        await (app(scope, receive, send) if scope["type"] == "websocket" else respond(send, b"hello"))

    async with peer_of(app_or_hello) as (server, peer):
        websocket = await open_websocket(peer)
        tunnel: Any = websocket.client
        await websocket.send("hello")
        if how == "connection":
            peer.reset()
        else:
            await (tunnel.reset() if how == "reset" else tunnel.end())
        await app.done.wait()
        if how == "end":
            assert await tunnel.rest() == b""
            assert websocket.response.is_whole
        if how != "connection":
            await still_serves(peer)
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert app.messages[1:] == [LOST]
    assert not error_records(caplog)


@in_loop
async def test_a_client_that_is_lost_within_a_frame() -> None:
    app = Recorder()
    async with peer_of(app) as (_, peer):
        websocket = await open_websocket(peer)
        await websocket.write(frame(TEXT, b"whole"), frame(TEXT, b"cut")[:-1])
        await websocket.client.end()
        assert await websocket.client.rest() == b""
        await app.done.wait()
    assert app.messages == [{"type": "websocket.receive", "text": "whole"}, LOST]


@pytest.mark.parametrize("state", ["connecting", "denying"])
@in_loop
async def test_a_client_that_resets_before_it_is_accepted(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = []
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == CONNECT
        if state == "denying":
            await send(START_MESSAGE)
            await send({**BODY_MESSAGE, "more_body": True})
        reached.set()
        received.append(await receive())
        with pytest.raises(OSError, match="disconnect"):
            await send({"type": "websocket.accept"} if state == "connecting" else BODY_MESSAGE)

    async with peer_of(app) as (server, peer):
        tunnel = Tunnel(peer, await peer.begin("CONNECT", "/", ":protocol: websocket", VERSION))
        await reached.wait()
        await tunnel.reset()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        await peer.settle()
    assert received == [LOST]
    assert not error_records(caplog)


@in_loop
async def test_a_client_that_breaks_the_protocol_loses_only_its_websocket() -> None:
    async with peer_of(echo_or_hello) as (_, peer):
        other = await open_websocket(peer)
        websocket = await open_websocket(peer)
        await websocket.write(frame(3))
        assert await websocket.closing() == (1002, "3 is no opcode")
        assert await websocket.client.rest() == b""
        assert await other.ping(b"still") == b"still"
        await still_serves(peer)


@in_loop
async def test_a_message_that_is_too_large_loses_only_its_websocket() -> None:
    async with peer_of(echo_or_hello, ws_max_size=1000) as (_, peer):
        websocket = await open_websocket(peer)
        await websocket.send(bytes(1001))
        code, _ = await websocket.closing()
        assert code == 1009
        assert await websocket.client.rest() == b""
        await still_serves(peer)


@in_loop
async def test_a_client_that_answers_no_ping_loses_only_its_websocket() -> None:
    """What is left of it is reset: nobody reads it any more."""
    app = Recorder()

    async def app_or_hello(scope: Any, receive: Any, send: Any) -> None:
        await (app(scope, receive, send) if scope["type"] == "websocket" else respond(send, b"hello"))

    async with peer_of(app_or_hello, ws_ping_interval=20, ws_ping_timeout=20) as (server, peer):
        websocket = await open_websocket(peer)
        await move_clock(server, 23)
        await websocket.next(PING)
        await move_clock(server, 46)
        assert await websocket.closing() == (1011, "keepalive ping timeout")
        assert await websocket.client.rest() == b""
        await app.done.wait()
        await still_serves(peer)
    assert app.messages == [disconnected(1011, "keepalive ping timeout")]


@in_loop
async def test_a_client_that_never_ends_its_half_holds_no_stream() -> None:
    """After the Close frames the server ends its half, and waits for the client's only for a moment."""
    async with peer_of(echo_or_hello) as (server, peer):
        websocket = await open_websocket(peer)
        assert await websocket.close() == (1000, "")
        assert (websocket.response.is_whole, websocket.response.reset) == (True, None)
        await move_clock(server, 5)
        await peer.until(lambda: websocket.response.reset == ErrorCode.NO_ERROR, "a reset")
        await still_serves(peer)


@in_loop
async def test_trailers_are_no_end_of_a_websocket() -> None:
    """RFC 9113 section 8.5: a tunnel has no frames but DATA, and those that manage the stream."""
    app = Recorder()
    async with peer_of(app) as (_, peer):
        websocket = await open_websocket(peer)
        stream = websocket.client.stream
        await peer.write(headers(stream, peer.block([(b"x", b"y")]), end_stream=True))
        assert (await peer.response(stream)).reset == ErrorCode.PROTOCOL_ERROR
        await app.done.wait()
    assert app.messages == [LOST]


# --- Many on one connection ---


@in_loop
async def test_they_take_no_place_among_connections() -> None:
    """limit_connections is about sockets."""
    async with peer_of(echo, limit_connections=2) as (server, peer):
        websockets = [await open_websocket(peer) for _ in range(5)]
        other: HTTP2Peer = await server.connect()
        await other.open()
        websockets.append(await open_websocket(other))
        for websocket in websockets:
            await websocket.send("a")
            assert await websocket.receive() == "a"
            assert await websocket.close() == (1000, "")
            await websocket.client.end()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        assert server.context.registry.connection_count == 2


@in_each_loop
async def test_a_hundred_on_one_connection() -> None:
    async with peer_of(echo) as (server, peer):
        peer.returns_credit = False
        websockets = [await open_websocket(peer) for _ in range(100)]
        refused = await open_tunnel(peer, VERSION)
        assert (refused.response.status, refused.response.reset) == (0, ErrorCode.REFUSED_STREAM)

        async def talk(websocket: WebSocket, number: int) -> None:
            for n in range(5):
                await websocket.send(f"{number}.{n}")
                assert await websocket.receive() == f"{number}.{n}"

        await asyncio.gather(*[talk(websocket, n) for n, websocket in enumerate(websockets)])
        assert await websockets[0].close() == (1000, "")
        await websockets[0].client.end()
        another = await open_websocket(peer)
        assert await another.ping(b"here") == b"here"
        for websocket in [*websockets[1:], another]:
            assert await websocket.close() == (1000, "")
            await websocket.client.end()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        assert peer.goaways == []


@in_loop
async def test_between_requests() -> None:
    async with peer_of(echo_or_hello) as (_, peer):
        websocket = await open_websocket(peer)
        for n in range(20):
            stream = await peer.request()
            await websocket.send(f"{n}")
            assert await websocket.receive() == f"{n}"
            assert (await peer.response(stream)).body == b"hello"


@in_loop
async def test_a_client_may_return_credit_for_each_message_at_once() -> None:
    """That are two WINDOW_UPDATE for each frame of a few bytes, and no attack."""
    async with peer_of(echo) as (_, peer):
        websocket = await open_websocket(peer)
        for n in range(3000):
            await websocket.send(f"{n}")
            assert await websocket.receive() == f"{n}"
        assert await websocket.close() == (1000, "")


# --- Backpressure ---


@in_each_loop
async def test_send_waits_for_a_client_whose_window_is_shut() -> None:
    """Others on the connection go on meanwhile."""
    sent = 0
    size = 10_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["path"] != "/flood":
            return await echo_or_hello(scope, receive, send)
        await accept(receive, send)
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(size)})
            sent += size

    async with peer_of(app, (Setting.INITIAL_WINDOW_SIZE, 0)) as (_, peer):
        peer.returns_credit = False
        websocket = await open_websocket(peer, target="/flood")
        stalled = await until_stalled(lambda: sent)
        assert stalled <= 64 * 1024 + 2 * size
        assert websocket.response.length == 0
        other = await open_websocket(peer)
        await peer.credit(other.client.stream, 10_000)
        await other.send("hello")
        assert await other.receive() == "hello"
        # With each byte of the window a byte comes
        stream = websocket.client.stream
        await peer.credit(stream, 1)
        await peer.until(lambda: websocket.response.length == 1, "a byte")
        await peer.credit(stream, 2 * MIB)
        await peer.credit(0, 2 * MIB)
        for _ in range(100):
            assert await websocket.receive() == bytes(size)
        assert await websocket.closing() == (1000, "")


@in_loop
async def test_a_close_waits_behind_what_the_window_holds_back() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "last words"})

    async with peer_of(app, (Setting.INITIAL_WINDOW_SIZE, 0)) as (_, peer):
        websocket = await open_websocket(peer)
        await peer.settle()
        assert (websocket.response.length, websocket.response.is_over) == (0, False)
        await peer.set((Setting.INITIAL_WINDOW_SIZE, 100))
        assert await websocket.receive() == "last words"
        assert await websocket.closing() == (1000, "")
        await websocket.write(close_frame())
        assert await websocket.client.rest() == b""
        assert websocket.response.is_whole


@in_loop
async def test_a_client_that_takes_nothing_within_timeout_write_is_reset() -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        await accept(receive, send)
        with pytest.raises(OSError, match="disconnect"):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
        received.append(await receive())

    async with peer_of(app, (Setting.INITIAL_WINDOW_SIZE, 0), timeout_write=30) as (server, peer):
        websocket = await open_websocket(peer)
        await move_clock(server, 20)
        await peer.settle()
        assert not websocket.response.is_over
        await move_clock(server, 35)
        assert await websocket.client.rest() == b""
        assert websocket.response.reset == ErrorCode.CANCEL
        await peer.set((Setting.INITIAL_WINDOW_SIZE, 1000))
        await still_serves(peer)
    assert received == [LOST]


@in_each_loop
async def test_a_client_is_held_back_where_the_application_receives_nothing() -> None:
    """By the window of its stream. Others on the connection go on meanwhile."""
    go_on = asyncio.Event()
    size = 50_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/slow":
            return await echo_or_hello(scope, receive, send)
        await accept(receive, send)
        await go_on.wait()
        for _ in range(40):
            assert await receive() == {"type": "websocket.receive", "bytes": bytes(size)}

    async with peer_of(app) as (_, peer):
        websocket = await open_websocket(peer, target="/slow")
        tunnel: Any = websocket.client
        before = peer.send_window

        async def flood() -> None:
            for _ in range(40):
                await websocket.send(bytes(size))

        flooding = asyncio.create_task(flood())
        while peer.room(tunnel.stream):
            await asyncio.sleep(STALL_S)
        await asyncio.sleep(STALL_S)
        assert not flooding.done()
        assert peer.room(tunnel.stream) == 0
        assert before - peer.send_window < MIB
        other = await open_websocket(peer)
        await other.send("hello")
        assert await other.receive() == "hello"
        go_on.set()
        await flooding
        assert await websocket.closing() == (1000, "")


@in_loop
async def test_a_peer_that_resets_gives_the_connections_window_back() -> None:
    """What the application had not received counts no more, however often that happens."""

    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await respond(send, b"hello")
        await accept(receive, send)
        await go_on.wait()

    async with peer_of(app) as (_, peer):
        for _ in range(12):
            websocket = await open_websocket(peer)
            for _ in range(4):
                await websocket.send(bytes(50_000))
            await websocket.client.reset()
        await peer.settle()
        assert peer.send_window > MIB // 2
        await still_serves(peer)
        go_on.set()
