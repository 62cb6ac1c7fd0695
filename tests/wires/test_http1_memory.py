"""The memory of a server process through which 1 GiB goes by HTTP/1.1."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backpressure import MIB
from memory import APP, GIB, Memory, linux_only
from serving import ServerProcess
from wire import request


class BlockingClient:
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


by_uvloop = pytest.mark.parametrize("server", ["uvloop"], indirect=True)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[BlockingClient]:
    """A client of the server process, once it is warm."""
    client = BlockingClient(server.port)
    with contextlib.closing(client.socket):
        client.socket.sendall(
            request("POST /upload HTTP/1.1", "content-length: 4000000", body=bytes(4000000))
        )
        client.head()
        assert client.skip(7) == 7
        client.socket.sendall(request("GET /stream?60,65536 HTTP/1.1"))
        client.head()
        client.skip(60 * (65536 + 9) + 5)
        yield client


@linux_only
@pytest.mark.parametrize("server", ["uvloop", "asyncio"], indirect=True)
@pytest.mark.parametrize("form", ["content-length", "chunked"])
def test_memory_of_a_large_upload(server: ServerProcess, client: BlockingClient, form: str) -> None:
    piece = bytes(MIB) if form == "content-length" else b"100000\r\n" + bytes(MIB) + b"\r\n"
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        field = f"content-length: {GIB}" if form == "content-length" else "transfer-encoding: chunked"
        client.socket.sendall(request("POST /upload HTTP/1.1", field))
        for _ in range(1024):
            client.socket.sendall(piece)
        if form == "chunked":
            client.socket.sendall(b"0\r\n\r\n")
        client.head()
        assert client.socket.recv(100) == b"%d" % GIB


@linux_only
@pytest.mark.parametrize("server", ["uvloop", "asyncio"], indirect=True)
@pytest.mark.parametrize("size", [16384, 65536, MIB])
def test_memory_of_a_large_stream(server: ServerProcess, client: BlockingClient, size: int) -> None:
    count = GIB // size
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        client.socket.sendall(request(f"GET /stream?{count},{size} HTTP/1.1", "connection: close"))
        client.head()
        assert client.skip(2 * GIB) == count * (len(b"%x\r\n\r\n" % size) + size) + len(b"0\r\n\r\n")


@linux_only
@by_uvloop
def test_memory_of_a_large_file(server: ServerProcess, client: BlockingClient, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(GIB)
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        client.socket.sendall(request(f"GET /file?{path} HTTP/1.1"))
        assert f"content-length: {GIB}\r\n".encode() in client.head()
        assert client.skip(GIB) == GIB
