"""Memory stays bounded: a slow client holds `send` back, a slow application stops the socket being read."""

import asyncio
import collections
import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backpressure import KERNEL_BYTES, MIB, send_until_stalled, until_stalled
from serving import ServerProcess
from wire import (
    in_each_loop,
    in_loop,
    read_body,
    request,
    respond,
    served,
)

GIB = 2**30


# --- Whether anybody is held back ---


@pytest.mark.parametrize("form", ["chunked", "content-length"])
@pytest.mark.parametrize("size", [1000, 5 * MIB])
@in_each_loop
async def test_send_waits_for_a_client_that_does_not_read(form: str, size: int) -> None:
    total = 64 * MIB // size * size
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        headers = [(b"content-length", b"%d" % total)] if form == "content-length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while sent < total:
            sent += size
            await send({"type": "http.response.body", "body": bytes(size), "more_body": sent < total})

    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        assert await until_stalled(lambda: sent) < KERNEL_BYTES + size
        received = 0
        await client.reader.readuntil(b"\r\n\r\n")
        if form == "content-length":
            while received < total:
                received += len(await client.reader.read(MIB))
        else:
            while piece := int(await client.reader.readuntil(b"\r\n"), 16):
                received += piece
                while piece:
                    piece -= len(await client.reader.read(piece))
                await client.reader.readexactly(2)
        assert received == total
        client.reset()


@pytest.mark.parametrize("form", ["chunked", "content-length"])
@in_each_loop
async def test_the_socket_is_not_read_while_the_application_does_not_receive(form: str) -> None:
    total = 64 * MIB
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        received = 0
        while True:
            message = await receive()
            received += len(message["body"])
            if not message["more_body"]:
                break
        await respond(send, b"%d" % received)

    async with served(app) as server:
        client = await server.connect()
        if form == "chunked":
            await client.write(request("POST / HTTP/1.1", "transfer-encoding: chunked"))
            piece = b"100000\r\n" + bytes(MIB) + b"\r\n"
        else:
            await client.write(request("POST / HTTP/1.1", f"content-length: {total}"))
            piece = bytes(MIB)
        sent = await send_until_stalled(client.writer.get_extra_info("socket"), piece, total)
        assert sent < KERNEL_BYTES
        go_on.set()
        rest = len(piece) - sent % len(piece)
        client.writer.write(piece[-rest:] if rest < len(piece) else b"")
        whole = -(-sent // len(piece))
        for _ in range(64 - whole):
            await client.write(piece)
        if form == "chunked":
            await client.write(b"0\r\n\r\n")
        assert (await client.response()).body == b"%d" % total


@in_each_loop
async def test_pipelined_requests_are_not_read_while_one_runs() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await respond(send, b"ok")

    async with served(app) as server:
        client = await server.connect()
        piece = request() * 1000
        sent = await send_until_stalled(client.writer.get_extra_info("socket"), piece, 64 * MIB)
        assert sent < KERNEL_BYTES
        go_on.set()
        for _ in range(1000):
            assert (await client.response()).body == b"ok"
        client.reset()


@in_loop
async def test_pipelined_requests_of_a_client_that_does_not_read_are_not_answered() -> None:
    """A small request with a large response must not fill the memory either."""
    answered = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answered
        answered += 1
        await respond(send, bytes(MIB))

    async with served(app) as server:
        client = await server.connect(limit=1000)
        await send_until_stalled(client.writer.get_extra_info("socket"), request() * 1000, 64 * MIB)
        assert answered * MIB < KERNEL_BYTES
        before = answered
        for _ in range(before + 100):
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n"
            left = MIB
            while left:
                left -= len(await client.reader.read(left))
        assert answered >= before + 100
        client.reset()


@in_loop
async def test_an_application_that_sends_much_lets_others_run() -> None:
    """`send` that never waits would keep a fast client's stream to itself."""
    served_meanwhile = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await respond(send, b"ok")
            served_meanwhile.set()
            return
        await send({"type": "http.response.start", "status": 200})
        while not served_meanwhile.is_set():
            await send({"type": "http.response.body", "body": bytes(100), "more_body": True})
        await send({"type": "http.response.body"})

    async def read_all(client: Any) -> None:
        while await client.reader.read(MIB):
            pass

    async with served(app) as server:
        client, other = await server.connect(), await server.connect()
        await client.write(request("GET / HTTP/1.1", "connection: close"))
        reading = asyncio.create_task(read_all(client))
        assert (await other.ask(request("GET /other HTTP/1.1"))).body == b"ok"
        await reading


# --- What requests and connections leave behind ---


def kept() -> dict[str, int]:
    """How many objects of the compiled core there are."""
    names = [f"{type(value).__module__}.{type(value).__name__}" for value in gc.get_objects()]
    return collections.Counter(name for name in names if name.startswith("fastasgi._"))


LEAVING = ["/answered", "/waits", "/cancels", "/errs", "/works on", "/left", "/streams"]


@pytest.mark.parametrize("path", LEAVING)
@in_each_loop
async def test_nothing_is_left_for_the_garbage_collector(path: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/waits":
            await read_body(receive)
            await asyncio.sleep(0)
        elif path == "/cancels":
            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            task.cancel()
        elif path == "/errs":
            with contextlib.suppress(RuntimeError):
                await send({"type": "http.x"})
        elif path == "/left":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        elif path == "/streams":
            await send({"type": "http.response.start", "status": 200})
            with contextlib.suppress(OSError):
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    await asyncio.sleep(0)
            return
        await respond(send, b"ok")
        if path == "/works on":
            await asyncio.sleep(0)

    async def use(server: Any) -> None:
        client = await server.connect()
        await client.write(request(f"GET {path.replace(' ', '%20')} HTTP/1.1"))
        if path != "/left":
            await client.reader.read(10)
        client.reset()
        server.clients.clear()

    async with served(app) as server:
        await use(server)
        await server.context.registry.wait_idle()
        gc.collect()
        gc.disable()
        try:
            before = kept()
            for _ in range(10):
                await use(server)
            await server.context.registry.wait_idle()
            await asyncio.sleep(0)
            assert kept() == before
        finally:
            gc.enable()


# --- 1 GiB through a server process ---

APP = """
async def app(scope, receive, send):
    if scope["path"] == "/upload":
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    elif scope["path"] == "/stream":
        count, size = map(int, scope["query_string"].split(b","))
        piece = bytes(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(count):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": scope["query_string"].decode()})
"""


class Memory:
    """The resident memory of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def _bytes(self, name: str) -> int:
        [line] = [x for x in (self._folder / "status").read_text().splitlines() if x.startswith(f"{name}:")]
        return int(line.split()[1]) * 1024

    @contextlib.contextmanager
    def grows_by_less_than(self, most: int) -> Iterator[None]:
        (self._folder / "clear_refs").write_text("5")  # resets the peak
        before = self._bytes("VmRSS")
        yield
        growth = self._bytes("VmHWM") - before
        assert growth < most, f"{growth / MIB:.1f} MiB"


class Wire:
    """A blocking client that moves much and keeps nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._room = memoryview(bytearray(MIB))

    def head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, head
            head += byte
        return head

    def skip(self, size: int) -> int:
        """Read so many bytes, or all up to the server's end; how many they were."""
        left = size
        while left and (n := self.socket.recv_into(self._room, min(left, MIB))):
            left -= n
        return size - left


@pytest.fixture
def server(start: Callable[..., ServerProcess], request: pytest.FixtureRequest) -> ServerProcess:
    return start(APP, "app:app", "--port", "0", "--no-access-log", "--loop", request.param)


linux_only = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
by_uvloop = pytest.mark.parametrize("server", ["uvloop"], indirect=True)


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Wire]:
    """A client of the server process, once it is warm."""
    wire = Wire(server.port)
    with contextlib.closing(wire.socket):
        wire.socket.sendall(request("POST /upload HTTP/1.1", "content-length: 4000000", body=bytes(4000000)))
        wire.head()
        assert wire.skip(7) == 7
        wire.socket.sendall(request("GET /stream?60,65536 HTTP/1.1"))
        wire.head()
        wire.skip(60 * (65536 + 9) + 5)
        yield wire


@linux_only
@pytest.mark.parametrize("server", ["uvloop", "asyncio"], indirect=True)
@pytest.mark.parametrize("form", ["content-length", "chunked"])
def test_memory_of_a_large_upload(server: ServerProcess, wire: Wire, form: str) -> None:
    piece = bytes(MIB) if form == "content-length" else b"100000\r\n" + bytes(MIB) + b"\r\n"
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        field = f"content-length: {GIB}" if form == "content-length" else "transfer-encoding: chunked"
        wire.socket.sendall(request("POST /upload HTTP/1.1", field))
        for _ in range(1024):
            wire.socket.sendall(piece)
        if form == "chunked":
            wire.socket.sendall(b"0\r\n\r\n")
        wire.head()
        assert wire.socket.recv(100) == b"%d" % GIB


@linux_only
@pytest.mark.parametrize("server", ["uvloop", "asyncio"], indirect=True)
@pytest.mark.parametrize("size", [16384, 65536, MIB])
def test_memory_of_a_large_stream(server: ServerProcess, wire: Wire, size: int) -> None:
    count = GIB // size
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        wire.socket.sendall(request(f"GET /stream?{count},{size} HTTP/1.1", "connection: close"))
        wire.head()
        assert wire.skip(2 * GIB) == count * (len(b"%x\r\n\r\n" % size) + size) + len(b"0\r\n\r\n")


@linux_only
@by_uvloop
def test_memory_of_a_large_file(server: ServerProcess, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(GIB)
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        wire.socket.sendall(request(f"GET /file?{path} HTTP/1.1"))
        assert f"content-length: {GIB}\r\n".encode() in wire.head()
        assert wire.skip(GIB) == GIB
