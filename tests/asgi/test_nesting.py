"""Applications that turn the event loop inside a request, as nest_asyncio and some debuggers do.

What a client has sent is lent to the connection that understands it: no read meanwhile may touch it.
"""

import asyncio
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from clientframes import BINARY, TEXT, frame
from nestingloop import in_nesting_loop, nest, nested
from websocketwire import WebSocket, accept
from wire import Client, handshake, post, read_body, request, respond, served

CLIENTS = 8
PIPELINED = 6
ROUNDS = 3 * int(os.environ.get("DRILL", "1"))
WARNING = "The application turns the event loop inside a request"


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the server, and options of its clients' connections."""
    if request.param == "plain":
        return {}, {}
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    return pair.settings, {"ssl": authority.client(), "server_hostname": "localhost"}


def warnings_of(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith(WARNING) for record in caplog.records)


@in_nesting_loop
async def test_each_client_gets_its_own_answers(transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        nest()
        await respond(send, body)

    async def use(client: Client, number: int) -> None:
        for turn in range(ROUNDS):
            bodies = [b"%d %d %d " % (number, turn, i) * 40 for i in range(PIPELINED)]
            await client.write(b"".join(map(post, bodies)))
            for body in bodies:
                assert (await client.response()).body == body

    settings, options = transport
    async with served(app, **settings) as server:
        clients = [await server.connect(**options) for _ in range(CLIENTS)]
        await asyncio.gather(*[use(client, number) for number, client in enumerate(clients)])
    assert warnings_of(caplog) == 1


@in_nesting_loop
async def test_each_websocket_gets_its_own_messages(transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Also the frames that came in the same read as the handshake."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            nest()
            await send({"type": "websocket.send", "text": message["text"]})

    async def use(client: Client, number: int) -> None:
        texts = [f"{number} {i} " * 30 for i in range(4 * ROUNDS)]
        frames = [frame(TEXT, text.encode()) for text in texts]
        await client.write(handshake() + b"".join(frames[:4]))
        websocket = WebSocket(client, await client.response())
        for i in range(0, len(texts), 4):
            if i:
                await websocket.write(*frames[i : i + 4])
            assert [await websocket.receive() for _ in range(4)] == texts[i : i + 4]

    settings, options = transport
    async with served(app, **settings) as server:
        clients = [await server.connect(**options) for _ in range(CLIENTS)]
        await asyncio.gather(*[use(client, number) for number, client in enumerate(clients)])
    assert warnings_of(caplog) == 1


@in_nesting_loop
async def test_a_large_body_is_whole(transport: Any) -> None:
    """The kernel writes it into objects that the application gets; the tick gives back free ones."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        digest = hashlib.sha256()
        while True:
            message = await receive()
            asyncio.get_running_loop().call_soon(server.context.tick)
            nest()
            digest.update(message["body"])
            if not message["more_body"]:
                break
        nest()
        await respond(send, digest.hexdigest().encode())

    async def use(client: Client) -> None:
        for size in (1_500_000, 300_000):
            body = os.urandom(size)
            # The next request is in the read of the body's end
            await client.write(post(body) + post(b"small"))
            assert (await client.response()).body == hashlib.sha256(body).hexdigest().encode()
            assert (await client.response()).body == hashlib.sha256(b"small").hexdigest().encode()

    settings, options = transport
    async with served(app, **settings) as server:
        clients = [await server.connect(**options) for _ in range(3)]
        await asyncio.gather(*map(use, clients))


@pytest.mark.parametrize("coding", ["length", "chunked"])
@in_nesting_loop
async def test_a_request_may_wait_inside_for_what_its_own_connection_brings(
    transport: Any, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As synchronous code that calls run_until_complete(request.body())."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        message = await receive()
        waits.set()
        body = message["body"]
        while message["more_body"]:
            message = nested(receive())
            body += message["body"]
        nest()
        nested(respond(send, body))

    calls: list[str] = []
    waits = asyncio.Event()
    first, second = b"a" * 100, b"b" * 100
    if coding == "length":
        pieces = [request("POST / HTTP/1.1", "content-length: 200", body=first), second]
    else:
        pieces = [
            request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"64\r\n" + first + b"\r\n"),
            b"64\r\n" + second + b"\r\n0\r\n\r\n",
        ]
    settings, options = transport
    async with served(app, **settings) as server:
        client = await server.connect(**options)
        for _ in range(3):
            waits.clear()
            await client.write(pieces[0])
            await waits.wait()
            await client.write(pieces[1] + post(b"next"))
            assert (await client.response()).body == first + second
            assert (await client.response()).body == b"next"
    assert calls == ["/"] * 6
    assert warnings_of(caplog) == 1


@in_nesting_loop
async def test_a_websocket_may_wait_inside_for_an_answer(transport: Any) -> None:
    """What it has sent leaves, though the read event that woke it goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        message = await receive()
        while message["type"] == "websocket.receive":
            nested(send({"type": "websocket.send", "bytes": b"got " + message["bytes"]}))
            message = nested(receive())

    settings, options = transport
    async with served(app, **settings) as server:
        client = await server.connect(**options)
        await client.write(handshake())
        websocket = WebSocket(client, await client.response())
        # Two in a segment: the second comes while the first is worked on
        await websocket.write(frame(BINARY, b"0"), frame(BINARY, b"1"))
        assert [await websocket.receive() for _ in range(2)] == [b"got 0", b"got 1"]
        for i in range(2, 5):
            await websocket.send(b"%d" % i)
            assert await websocket.receive() == b"got %d" % i
        client.close()


@in_nesting_loop
async def test_the_next_request_does_not_wait_for_what_the_one_before_does_after_its_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["path"].encode())
        if scope["path"] == "/first":
            nested(done.wait())

    done = asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request("GET /first HTTP/1.1") + request("GET /second HTTP/1.1"))
        assert (await client.response()).body == b"/first"
        assert (await client.response()).body == b"/second"
        done.set()


@pytest.mark.parametrize("leaves", ["close", "reset"])
@in_nesting_loop
async def test_a_client_may_leave_while_its_request_turns_the_loop(
    leaves: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            waits.set()
            message = nested(receive())
            while message["type"] != "http.disconnect":
                message = nested(receive())
            left.set()
            return
        await respond(send, b"ok")

    waits, left = asyncio.Event(), asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request() + request("GET /behind HTTP/1.1"))
        await waits.wait()
        client.close() if leaves == "close" else client.reset()
        await left.wait()
        other = await server.connect()
        assert (await other.ask(request("GET /other HTTP/1.1"))).body == b"ok"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
