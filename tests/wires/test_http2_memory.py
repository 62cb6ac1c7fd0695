"""The memory of a server process through which 1 GiB goes by HTTP/2."""

from collections.abc import Callable

import pytest
from backpressure import MIB
from http2peer import HTTP2Peer, Setting
from memory import APP, GIB, Memory, linux_only
from serving import ServerProcess
from wire import in_loop

PIECE = bytes(MIB)


@pytest.fixture
def server(start: Callable[..., ServerProcess], request: pytest.FixtureRequest) -> ServerProcess:
    return start(APP, "app:app", "--port", "0", "--no-access-log", "--loop", request.param)


by_each_loop = pytest.mark.parametrize("server", ["uvloop", "asyncio"], indirect=True)


async def warm_peer(server: ServerProcess) -> HTTP2Peer:
    """A peer that keeps no bodies, of a server whose windows have grown."""
    peer = await HTTP2Peer.connect(server.port, limit=4 * MIB)
    peer.keeps_bodies = False
    await peer.open((Setting.INITIAL_WINDOW_SIZE, 4 * MIB))
    await peer.credit(0, 4 * MIB)
    await peer.ask("POST", "/upload", body=bytes(48 * MIB))
    await peer.ask("GET", "/stream?60,65536")
    return peer


@linux_only
@by_each_loop
@in_loop
async def test_memory_of_a_large_upload(server: ServerProcess) -> None:
    peer = await warm_peer(server)
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        stream = await peer.begin("POST", "/upload")
        for _ in range(GIB // MIB):
            await peer.send(stream, PIECE)
        await peer.send(stream, b"", end_stream=True)
        assert (await peer.response(stream)).length == len(b"%d" % GIB)
    peer.writer.close()


@linux_only
@by_each_loop
@pytest.mark.parametrize("size", [65536, MIB])
@in_loop
async def test_memory_of_a_large_stream(server: ServerProcess, size: int) -> None:
    peer = await warm_peer(server)
    with Memory(server.process.pid).grows_by_less_than(8 * MIB):
        response = await peer.ask("GET", f"/stream?{GIB // size},{size}")
    assert response.length == GIB
    peer.writer.close()
