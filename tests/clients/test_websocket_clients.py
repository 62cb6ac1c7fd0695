"""WebSocket clients that people use, against a server in a process of its own."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets.asyncio.client as websockets
from serving import WAIT_S, ServerProcess
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate
from wire import KEY

APP = """
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    if scope["path"] == "/denied":
        await send({"type": "websocket.http.response.start", "status": 401,
                    "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "websocket.http.response.body", "body": b"who are you?"})
        return
    if scope["path"] == "/closed":
        await send({"type": "websocket.close"})
        return
    await receive()
    if scope["path"] == "/fails":
        raise ValueError
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None),
                "headers": [(b"x-server", b"here")]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 3456, "reason": "as you wish"})
        elif message.get("text") == "raise":
            raise ValueError
        elif message.get("text") == "return":
            return
        else:
            await send({**message, "type": "websocket.send"})
    print(message["code"], message["reason"], flush=True)
"""

MESSAGES = ["", "hello", "żółw 🐢" * 100, "x" * 200_000, b"", b"\0\xff" * 1000, bytes(2**20)]


@pytest.fixture
def server(start: Callable[..., ServerProcess]) -> ServerProcess:
    return start(APP, "app:app", "--port", "0", "--lifespan", "off", "--ws-max-size", str(2**20))


def run(test: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT_S):
            await test

    asyncio.run(bounded())


def url(server: ServerProcess, path: str = "/", scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.port}{path}"


# --- websockets ---


@pytest.mark.parametrize(
    "extensions",
    [
        None,
        [Deflate()],
        [Deflate(server_no_context_takeover=True, client_no_context_takeover=True)],
        [Deflate(server_max_window_bits=9, client_max_window_bits=9)],
        [Deflate(client_max_window_bits=True)],
    ],
    ids=["plain", "deflate", "no takeover", "windows of 9", "any window"],
)
def test_websockets(server: ServerProcess, extensions: Any) -> None:
    async def talk() -> None:
        async with websockets.connect(
            url(server), compression=None, extensions=extensions, subprotocols=["chat", "soap"], max_size=None
        ) as client:
            assert client.subprotocol == "chat"
            assert client.response.headers["x-server"] == "here"
            assert len(client.protocol.extensions) == (extensions is not None)
            for message in MESSAGES * 2:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "frag", "", "ments"])
            assert await client.recv() == "in fragments"
            await (await client.ping(b"payload"))
            await client.close(3000, "bye")
            assert (client.close_code, client.close_reason) == (3000, "")

    run(talk())
    assert server.end() == -15
    assert server.output.splitlines()[-1] == "3000 bye"


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("close", 3456, "as you wish"),
        ("raise", 1011, ""),
        (bytes(2**20 + 1), 1009, "a message has more than 1048576 bytes"),
    ],
    ids=["close", "raise", "too large"],
)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websockets_is_closed(
    server: ServerProcess, message: str | bytes, code: int, reason: str, compression: Any
) -> None:
    async def talk() -> None:
        async with websockets.connect(url(server), compression=compression) as client:
            await client.send(message)
            with pytest.raises(ConnectionClosedError) as caught:
                await client.recv()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)

    run(talk())


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/denied", 401, b"who are you?"),
        ("/closed", 403, b"Forbidden"),
        ("/fails", 500, b"Internal Server Error"),
    ],
)
def test_websockets_is_denied(server: ServerProcess, path: str, status: int, body: bytes) -> None:
    async def talk() -> None:
        with pytest.raises(InvalidStatus) as caught:
            await websockets.connect(url(server, path))
        assert caught.value.response.status_code == status
        assert caught.value.response.body == body

    run(talk())


def test_websockets_many_messages_both_ways(server: ServerProcess) -> None:
    async def talk() -> None:
        async with websockets.connect(url(server)) as client:

            async def speak() -> None:
                for number in range(3000):
                    await client.send(f"{number} " * (number % 200))

            speaking = asyncio.create_task(speak())
            for number in range(3000):
                assert await client.recv() == f"{number} " * (number % 200)
            await speaking

    run(talk())


def test_shutdown_closes_websockets_with_1012(start: Callable[..., ServerProcess]) -> None:
    server = start(APP, "app:app", "--port", "0", "--lifespan", "off", "--timeout-graceful-shutdown", "0")

    async def talk() -> None:
        async with websockets.connect(url(server)) as client:
            server.process.terminate()
            with pytest.raises(ConnectionClosedError) as caught:
                await client.recv()
            assert caught.value.rcvd.code == 1012

    run(talk())
    server.wait()
    assert server.output == "1012 \n"


# --- aiohttp ---


@pytest.mark.parametrize("compress", [0, 9, 12, 15])
def test_aiohttp(server: ServerProcess, compress: int) -> None:
    async def talk() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url(server, scheme="http"), compress=compress, protocols=["soap"], max_msg_size=0
            ) as client,
        ):
            assert client.protocol == "soap"
            assert bool(client.compress) == bool(compress)
            for message in MESSAGES:
                if isinstance(message, str):
                    await client.send_str(message)
                    assert await client.receive_str() == message
                else:
                    await client.send_bytes(message)
                    assert await client.receive_bytes() == message
            await client.send_str("close")
            closed = await client.receive()
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 3456, "as you wish")

    run(talk())


def test_aiohttp_is_denied(server: ServerProcess) -> None:
    async def talk() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(url(server, "/closed", "http"))
            assert caught.value.status == 403

    run(talk())


# --- curl ---


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    ("path", "beginning", "end"),
    [
        ("/", b"HTTP/1.1 101 Switching Protocols\r\n", b"\r\n\r\n"),
        ("/denied", b"HTTP/1.1 401 Unauthorized\r\n", b"\r\n\r\nwho are you?"),
    ],
)
def test_curl_upgrades(server: ServerProcess, path: str, beginning: bytes, end: bytes) -> None:
    """By hand, as in a terminal. It knows no frames: an open WebSocket lasts until its time is over."""
    answered = subprocess.run(
        [
            *("curl", "--http1.1", "-sSi", "-N", "--noproxy", "*", "--max-time", "3"),
            *("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"),
            *("-H", f"Sec-WebSocket-Key: {KEY}", url(server, path, "http")),
        ],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert answered.stdout.startswith(beginning), answered
    assert answered.stdout.endswith(end), answered


# --- Node's ws ---

NODE = """
const WebSocket = require("ws");
const seen = [];
const messages = ["", "hello", "\\u017c\\ud83d\\udc22".repeat(100), Buffer.alloc(0), Buffer.alloc(200000, 7)];
const perMessageDeflate = process.argv[3] === "deflate" && { threshold: 0 };
const client = new WebSocket(process.argv[2], ["soap"], { perMessageDeflate });
const same = (data, binary, sent) => binary === Buffer.isBuffer(sent) && data.equals(Buffer.from(sent));
let n = 0;
client.on("open", () => { seen.push(client.protocol, client.extensions !== ""); client.ping("p"); });
client.on("pong", (data) => { seen.push(data.toString()); client.send(messages[0]); });
client.on("message", (data, binary) => {
  if (!same(data, binary, messages[n])) throw new Error("message " + n);
  n += 1;
  client.send(n < messages.length ? messages[n] : "close");
});
client.on("close", (code, reason) => { console.log(JSON.stringify([...seen, n, code, reason.toString()])); });
"""


def node_modules() -> str | None:
    """Where Node finds the package ws, if it does."""
    if shutil.which("node") is None:
        return None
    found = subprocess.run(
        ["node", "-p", "require.resolve('ws')"], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else None


@pytest.mark.skipif(node_modules() is None, reason="needs Node and its package ws (npm, NODE_PATH)")
@pytest.mark.parametrize("compression", ["plain", "deflate"])
def test_node_ws(server: ServerProcess, compression: str, tmp_path: Path) -> None:
    (tmp_path / "client.js").write_text(NODE)
    talked = subprocess.run(
        ["node", str(tmp_path / "client.js"), url(server), compression],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert talked.stderr == ""
    assert json.loads(talked.stdout) == ["soap", compression == "deflate", "p", 5, 3456, "as you wish"]
