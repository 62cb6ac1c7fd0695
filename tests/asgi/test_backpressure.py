"""Memory stays bounded: a slow client holds `send` back, a slow application stops the socket being read."""

import asyncio
import collections
import contextlib
import gc
from typing import Any

import pytest
from anyclient import Request, Response
from backpressure import KERNEL_BYTES, MIB, send_until_stalled, until_stalled
from eachwire import Wire, each_wire, each_wire_in_turn, served
from wire import in_each_loop, in_loop, read_body, respond, shift_clock

# --- Whether anybody is held back ---


@pytest.mark.parametrize("form", ["chunked", "content-length"])
@pytest.mark.parametrize("size", [1000, 5 * MIB])
@each_wire
@in_each_loop
async def test_send_waits_for_a_client_that_does_not_read(wire: Wire, form: str, size: int) -> None:
    total = max(4 * wire.window // size, 2) * size
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        headers = [(b"content-length", b"%d" % total)] if form == "content-length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while sent < total:
            sent += size
            await send({"type": "http.response.body", "body": bytes(size), "more_body": sent < total})

    async with served(app, wire) as server:
        client = await server.connect(limit=1000)
        await client.put(Request())
        assert await until_stalled(lambda: sent) < wire.window + size
        assert len((await client.response()).body) == total
        client.reset()


@pytest.mark.parametrize("form", ["chunked", "content-length"])
@each_wire_in_turn
@in_each_loop
async def test_the_socket_is_not_read_while_the_application_does_not_receive(wire: Wire, form: str) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        has_length = form == "content-length"
        await client.begin(length=total if has_length else None)
        piece = client.encode_piece(bytes(MIB), has_length=has_length, is_last=False)
        sent = await send_until_stalled(client.socket, piece, total)
        assert sent < KERNEL_BYTES
        go_on.set()
        rest = len(piece) - sent % len(piece)
        client.writer.write(piece[-rest:] if rest < len(piece) else b"")
        whole = -(-sent // len(piece))
        for _ in range(64 - whole):
            await client.write(piece)
        await client.write(client.encode_piece(b"", has_length=has_length, is_last=True))
        assert (await client.response()).body == b"%d" % total


@each_wire_in_turn
@in_each_loop
async def test_pipelined_requests_are_not_read_while_one_runs(wire: Wire) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await respond(send, b"ok")

    async with served(app, wire) as server:
        client = await server.connect()
        piece = client.encode(Request()) * 1000
        sent = await send_until_stalled(client.socket, piece, 64 * MIB)
        assert sent < KERNEL_BYTES
        go_on.set()
        for _ in range(1000):
            assert (await client.response()).body == b"ok"
        client.reset()


@each_wire_in_turn
@in_loop
async def test_pipelined_requests_of_a_client_that_does_not_read_are_not_answered(wire: Wire) -> None:
    """A small request with a large response must not fill the memory either."""
    answered = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answered
        answered += 1
        await respond(send, bytes(MIB))

    async with served(app, wire) as server:
        client = await server.connect(limit=1000)
        await send_until_stalled(client.socket, client.encode(Request()) * 1000, 64 * MIB)
        assert answered * MIB < KERNEL_BYTES
        before = answered
        for _ in range(before + 100):
            assert await client.response() == Response(200, body=bytes(MIB))
        assert answered >= before + 100
        client.reset()


@each_wire
@in_loop
async def test_an_application_that_sends_much_lets_others_run(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client, other = await server.connect(), await server.connect()
        await client.put(Request())
        reading = asyncio.create_task(client.response())
        assert (await other.ask("GET", "/other")).body == b"ok"
        await reading


# --- What requests and connections leave behind ---


def kept() -> dict[str, int]:
    """How many objects of fastasgi's there are, but for a stall, which a busy machine may cause."""
    names = [f"{type(value).__module__}.{type(value).__name__}" for value in gc.get_objects()]
    return collections.Counter(
        name for name in names if name.startswith("fastasgi.") and name != "fastasgi.system.stalls.Stall"
    )


PATIENCE_S = 5.0  # in which an application may send to nobody

LEAVING = ["/answered", "/waits", "/cancels", "/errs", "/works on", "/left", "/streams"]


async def end_by_path(scope: Any, receive: Any, send: Any) -> None:
    """Ends as its path says, or when its client leaves."""
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


@pytest.mark.parametrize("path", LEAVING)
@each_wire
@in_each_loop
async def test_nothing_is_left_for_the_garbage_collector(wire: Wire, path: str) -> None:
    async def use(server: Any) -> None:
        client = await server.connect()
        await client.put(Request("GET", path.replace(" ", "%20")))
        if path != "/left":
            await client.head()
        client.reset()
        server.clients.clear()

    async def until_idle(server: Any) -> None:
        registry = server.context.registry
        while registry.connection_count:
            await asyncio.sleep(0)
        for _ in range(10):  # what an application goes on sending is dropped for a while
            await asyncio.sleep(0)
        shift_clock(PATIENCE_S)
        await registry.wait_idle()

    async with served(end_by_path, wire) as server:
        await use(server)
        await until_idle(server)
        gc.collect()
        gc.disable()
        try:
            before = kept()
            for _ in range(10):
                await use(server)
            await until_idle(server)
            await asyncio.sleep(0)
            assert kept() == before
        finally:
            gc.enable()
