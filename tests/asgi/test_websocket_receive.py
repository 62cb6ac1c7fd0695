"""receive of WebSockets: in tasks of the application, given up, by several at once."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from clientframes import TEXT, frame
from eachwire import Wire, each_wire, served
from websocketapps import text
from websocketwire import accept, open_websocket
from wire import in_each_loop

# --- Tasks of an application ---


@each_wire
@in_each_loop
async def test_concurrent_sends_keep_the_boundaries_of_messages(wire: Wire) -> None:
    sizes = [0, 1, 125, 126, 1000, 20000, 70000, 200000]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)

        async def speak(number: int) -> None:
            for size in sizes:
                await send({"type": "websocket.send", "bytes": bytes([number]) * size})

        await asyncio.gather(*[speak(number) for number in range(10)])

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        received: dict[int, list[int]] = {number: [] for number in range(10)}
        empty = 0
        for _ in range(len(sizes) * 10):
            message = await websocket.receive()
            assert isinstance(message, bytes)
            if message:
                assert set(message) == {message[0]}
                received[message[0]].append(len(message))
            else:
                empty += 1
        assert await websocket.closing() == (1000, "")
    assert empty == 10
    assert all(lengths == sizes[1:] for lengths in received.values())


async def wait_for(receive: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(), 0.001)


async def cancel_at_once(receive: Any) -> None:
    task = asyncio.ensure_future(receive())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancel_later(receive: Any) -> None:
    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def gathered(receive: Any) -> None:
    both = asyncio.gather(receive(), receive())
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


async def scoped(receive: Any) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await receive()


@pytest.mark.parametrize("give_up", [wait_for, cancel_at_once, cancel_later, gathered, scoped])
@each_wire
@in_each_loop
async def test_a_cancelled_receive_loses_no_message(wire: Wire, give_up: Callable[[Any], Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        for _ in range(3):
            await give_up(receive)
            await send(text("given up"))
            message = await receive()
            await send(text(message["text"]))

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        for number in range(3):
            assert await websocket.receive() == "given up"
            await websocket.send(f"{number}")
            assert await websocket.receive() == f"{number}"
        assert await websocket.closing() == (1000, "")


@each_wire
@in_each_loop
async def test_a_receive_that_is_cancelled_as_its_message_comes_loses_none(wire: Wire) -> None:
    """The waiter is woken and cancelled in one turn of the loop."""
    received = []
    total = 200

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while len(received) < total:
            task = asyncio.create_task(receive())
            done, _ = await asyncio.wait([task], timeout=0)
            if done:
                received.append(task.result()["text"])
                continue
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received.append((await task)["text"])

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        for number in range(total):
            await websocket.send(str(number))
            if number % 5 == 0:
                await asyncio.sleep(0)
        assert await websocket.closing() == (1000, "")
    assert received == [str(number) for number in range(total)]


@each_wire
@in_each_loop
async def test_several_receivers_share_the_messages(wire: Wire) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)

        async def take() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])

        await asyncio.gather(*[take() for _ in range(5)])

    async with served(app, wire) as server:
        websocket = await open_websocket(server)
        await websocket.write(*[frame(TEXT, b"%d" % i) for i in range(100)])
        await websocket.close()
        await server.context.registry.wait_idle()
    assert sorted(received, key=int) == [str(i) for i in range(100)]
