"""Applications that do with a WebSocket's handshake and messages all that applications do."""

import asyncio
import contextlib

from fuzz.http_applications import Call, DeliberateError

ACCEPT = "websocket.accept"
SEND = "websocket.send"
CLOSE = "websocket.close"
START = "websocket.http.response.start"
BODY = "websocket.http.response.body"


async def connect(call: Call) -> None:
    message = await call.receive()
    assert message == {"type": "websocket.connect"}
    # A handshake has no body.
    call.has_whole_body = True


async def accept(call: Call, *headers: tuple[bytes, bytes]) -> None:
    call.is_open = True
    await call.send({"type": ACCEPT, "headers": headers})


async def hear_one(call: Call) -> bool:
    """Receive a message; whether more may follow."""
    message = await call.receive()
    assert not call.is_disconnected, "a message after websocket.disconnect"
    if message["type"] == "websocket.disconnect":
        call.is_disconnected = True
        call.heard.append(message["code"])
        return False
    assert message["type"] == "websocket.receive"
    call.heard.append(message["text"] if "text" in message else message["bytes"])
    return True


async def hear_all(call: Call) -> None:
    while await hear_one(call):
        pass


# --- Applications whose answer depends on the client's bytes alone, not on how they arrive ---


async def listen(call: Call) -> None:
    await connect(call)
    await accept(call)
    await hear_all(call)


async def listen_later(call: Call) -> None:
    await asyncio.sleep(0)
    await connect(call)
    await asyncio.sleep(0)
    await accept(call, (b"x-later", b"1"))
    await hear_all(call)


async def deny(call: Call) -> None:
    await connect(call)
    await call.send({"type": CLOSE})


async def deny_by_response(call: Call) -> None:
    await connect(call)
    await call.send({"type": START, "status": 401, "headers": [(b"content-length", b"4")]})
    await call.send({"type": BODY, "body": b"no", "more_body": True})
    await asyncio.sleep(0)
    await call.send({"type": BODY, "body": b"no"})


STEADY = [listen, listen_later, deny, deny_by_response]

# --- Applications for any weather ---


async def echo(call: Call) -> None:
    await connect(call)
    await accept(call)
    while await hear_one(call):
        said = call.heard[-1]
        await call.send({"type": SEND, "text" if isinstance(said, str) else "bytes": said})


async def greet_and_close(call: Call) -> None:
    await connect(call)
    await accept(call)
    await call.send({"type": SEND, "text": "hello"})
    await call.send({"type": CLOSE, "code": 3000, "reason": "bye"})
    await hear_all(call)


async def close_unheard(call: Call) -> None:
    await accept(call)
    await asyncio.sleep(0)
    await call.send({"type": CLOSE})


async def flood(call: Call) -> None:
    await connect(call)
    await accept(call)
    for _ in range(call.rng.choice([2, 20, 100])):
        await call.send({"type": SEND, "bytes": b"x" * call.rng.choice([0, 1, 1000, 17_000])})
    await call.send({"type": CLOSE})


async def deny_by_large_response(call: Call) -> None:
    await connect(call)
    await call.send({"type": START, "status": 403, "headers": []})
    await call.send({"type": BODY, "body": b"x" * 200_000, "more_body": True})
    await call.send({"type": BODY, "body": b"end"})
    await hear_all(call)


async def break_rules(call: Call) -> None:
    for message in (
        {"type": SEND, "text": "early"},
        {"type": BODY, "body": b"early"},
        {"type": START, "status": 99, "headers": []},
        {"type": ACCEPT, "headers": [(b"a", b"b\r\nc: d")]},
        {"type": "nonsense"},
        {},
    ):
        with contextlib.suppress(RuntimeError, ValueError, KeyError):
            await call.send(message)
    await accept(call)
    for message in ({"type": ACCEPT}, {"type": CLOSE, "code": 1006}, {"type": SEND}):
        with contextlib.suppress(RuntimeError, ValueError, TypeError):
            await call.send(message)
    await call.send({"type": CLOSE})
    with contextlib.suppress(RuntimeError):
        await call.send({"type": SEND, "text": "too much"})


async def wait_unaccepted(call: Call) -> None:
    await connect(call)
    await hear_all(call)


async def raise_unaccepted(call: Call) -> None:
    await asyncio.sleep(0) if call.rng.random() < 0.5 else None
    raise DeliberateError


async def raise_open(call: Call) -> None:
    await accept(call)
    await asyncio.sleep(0) if call.rng.random() < 0.5 else None
    raise DeliberateError


async def return_unaccepted(call: Call) -> None:
    await connect(call)


async def return_open(call: Call) -> None:
    await accept(call)
    await call.send({"type": SEND, "bytes": b"x"})


async def return_within_denial(call: Call) -> None:
    await call.send({"type": START, "status": 403, "headers": []})
    if call.rng.random() < 0.5:
        await call.send({"type": BODY, "body": b"x", "more_body": True})


async def cancel_itself(call: Call) -> None:
    if call.rng.random() < 0.5:
        await accept(call)
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


# Those that answer the handshake, whatever else they do
COMPLETING = [
    *STEADY, echo, greet_and_close, close_unheard, flood, deny_by_large_response, break_rules, return_open,
]  # fmt: skip
FAILING = [
    wait_unaccepted, raise_unaccepted, raise_open, return_unaccepted, return_within_denial, cancel_itself,
]  # fmt: skip
