"""Applications whose finalizers send: the collector may run them in any Python code that the server calls."""

import asyncio
import contextlib
import functools
import gc
import itertools
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from certificates import Authority
from clientframes import TEXT, frame
from forgotten import collector_off, forget
from websocketwire import WebSocket, accept, open_websocket
from wire import Client, in_each_loop, request, respond, served

# A coroutine that is thrown away can't wait, as for a client that reads too slowly
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored .*<coroutine object forgotten")

CLIENTS = 4
MESSAGES = 60 * int(os.environ.get("DRILL", "1"))
SIZES = (10, 3000, 20_000)  # within one block, beyond its first size, and beyond what is copied
FORGOTTEN = "forgotten "


def collecting_first(method: Any) -> Any:
    @functools.wraps(method)
    def collect_and_call(*arguments: Any, **options: Any) -> Any:
        gc.collect()
        return method(*arguments, **options)

    return collect_and_call


@pytest.fixture
def busy_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collector runs wherever the server calls Python code of the event loop or of ssl.

    That is when a flush is left to the end of the loop's turn, and over TLS within each write.
    """
    for loop_type in (uvloop.Loop, asyncio.BaseEventLoop):
        monkeypatch.setattr(loop_type, "call_soon", collecting_first(loop_type.call_soon))
    for name in ("read", "write", "unwrap", "do_handshake"):
        monkeypatch.setattr(ssl.SSLObject, name, collecting_first(getattr(ssl.SSLObject, name)))
    with collector_off():
        yield


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the server, and options of its clients' connections."""
    if request.param == "plain":
        return {}, {}
    authority = Authority(tmp_path)
    return authority.issue().settings, {"ssl": authority.client(), "server_hostname": "localhost"}


@in_each_loop
async def test_every_frame_of_a_websocket_is_whole(transport: Any, busy_collector: None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            text = message["text"]
            for size in SIZES:
                forget(
                    send, sent, {"type": "websocket.send", "text": (FORGOTTEN + text)[:40].ljust(size, "f")}
                )
            await send({"type": "websocket.send", "text": text})

    async def use(websocket: WebSocket, number: int) -> None:
        # None too large to be copied: in its write, which comes before send() returns, finalizers are refused
        texts = [
            f"{number} {i} ".ljust(size, "e") for i, size in zip(range(MESSAGES), itertools.cycle(SIZES[:2]))
        ]
        for i in range(0, MESSAGES, 3):
            await websocket.write(*[frame(TEXT, text.encode()) for text in texts[i : i + 3]])
            for text in texts[i : i + 3]:
                while (answer := await websocket.receive()) != text:
                    assert re.fullmatch(rf"{FORGOTTEN}{number} \d+ e*f*", answer), answer[:60]

    sent: list[str] = []
    settings, options = transport
    async with served(app, ws_per_message_deflate=False, **settings) as server:
        websockets = [await open_websocket(server, **options) for _ in range(CLIENTS)]
        await asyncio.gather(*[use(websocket, number) for number, websocket in enumerate(websockets)])
    assert sent.count("a message") > MESSAGES


@in_each_loop
async def test_every_chunk_of_a_stream_is_whole(transport: Any, busy_collector: None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await respond(send, scope["query_string"])
            return
        await send({"type": "http.response.start", "status": 200})
        for i in range(MESSAGES):
            size = SIZES[i % 3]
            forget(send, sent, {"type": "http.response.body", "body": b"f" * size, "more_body": True})
            await send({"type": "http.response.body", "body": b"e" * size, "more_body": True})
            if i % 4 == 0:
                await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    async def use(client: Client, number: int) -> None:
        for _ in range(2):
            await client.write(
                request() + b"".join(request(f"GET /plain?{number}-{i} HTTP/1.1") for i in range(10))
            )
            response = await client.response()
            assert response.chunks is not None
            chunks = [chunk for chunk in response.chunks if chunk.startswith(b"e")]
            assert chunks == [b"e" * SIZES[i % 3] for i in range(MESSAGES)]
            assert all(set(chunk) in ({ord("e")}, {ord("f")}) for chunk in response.chunks)
            for i in range(10):
                assert (await client.response()).body == b"%d-%d" % (number, i)

    sent: list[str] = []
    settings, options = transport
    async with served(app, **settings) as server:
        clients = [await server.connect(**options) for _ in range(CLIENTS)]
        await asyncio.gather(*[use(client, number) for number, client in enumerate(clients)])
    assert sent.count("a message") > MESSAGES


@in_each_loop
async def test_a_finalizer_may_end_the_response_that_is_being_written(
    transport: Any, busy_collector: None
) -> None:
    """The connection is closed behind it, once what was before it has left."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"e", "more_body": True})
        with contextlib.suppress(RuntimeError, OSError):  # once the finalizer has ended it
            while True:
                forget(send, sent, {"type": "http.response.body", "body": b"end"})
                await send({"type": "http.response.body", "body": b"e" * 200, "more_body": True})
                await asyncio.sleep(0)

    sent: list[str] = []
    settings, options = transport
    async with served(app, **settings) as server:
        for _ in range(10):
            client = await server.connect(**options)
            response = await client.ask(request())
            assert response.chunks is not None
            assert response.chunks[-1] == b"end"
            assert await client.rest() == b""
