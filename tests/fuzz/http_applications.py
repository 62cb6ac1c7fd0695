"""Applications that do with a request all that applications do; a fuzzer picks one for each request."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Application = Callable[["Call"], Awaitable[None]]

START = "http.response.start"
BODY = "http.response.body"


class DeliberateError(Exception):
    """What a failing application raises: the one traceback that may be logged."""


@dataclass
class Call:
    """One call of the application and what it has seen."""

    scope: dict[str, Any]
    receive: Callable[[], Awaitable[dict[str, Any]]]
    send: Callable[[dict[str, Any]], Awaitable[None]]
    rng: Random
    file: str
    name: str = ""
    body: list[bytes] = field(default_factory=list)
    has_whole_body: bool = False
    is_open: bool = False  # a WebSocket that it has accepted
    heard: list[str | bytes | int] = field(default_factory=list)  # its messages, and the code of its end
    is_disconnected: bool = False
    has_ended: bool = False

    async def receive_one(self) -> bool:
        """Receive a message; whether more of the body may follow."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            self.is_disconnected = True
            return False
        assert message["type"] == "http.request"
        assert not self.has_whole_body, "http.request after the end of the body"
        assert not self.is_disconnected, "http.request after http.disconnect"
        self.body.append(message["body"])
        self.has_whole_body = not message["more_body"]
        return message["more_body"]

    async def receive_all(self) -> None:
        while await self.receive_one():
            pass

    async def start(self, status: int = 200, *headers: tuple[bytes, bytes], **options: Any) -> None:
        await self.send({"type": START, "status": status, "headers": headers, **options})

    async def put(self, body: bytes, more: bool = False) -> None:
        await self.send({"type": BODY, "body": body, "more_body": more})

    @property
    def digest(self) -> bytes:
        return hashlib.md5(b"".join(self.body), usedforsecurity=False).hexdigest().encode()


# --- Applications whose answer depends on the request alone, not on how it arrives ---


async def echo(call: Call) -> None:
    await call.receive_all()
    if call.has_whole_body:
        await call.start(200, (b"x-digest", call.digest))
        await call.put(call.scope["path"].encode("utf-8", "replace") + call.digest)


async def suspended_echo(call: Call) -> None:
    for _ in range(call.rng.randint(1, 3)):
        await asyncio.sleep(0)
    await call.receive_all()
    await asyncio.sleep(0)
    if call.has_whole_body:
        await call.start(201)
        await call.put(b"")


async def late_stream(call: Call) -> None:
    await call.receive_all()
    if not call.has_whole_body:
        return
    await call.start(200, trailers=True)
    for size in (1, 0, 100, 20_000):
        await call.put(b"s" * size, more=True)
        await asyncio.sleep(0)
    await call.put(call.digest)
    await call.send({"type": "http.response.trailers", "headers": [(b"t", b"1")]})


async def late_bodiless(call: Call) -> None:
    await call.receive_all()
    if call.has_whole_body:
        await call.start(call.rng.choice([204, 304]))
        await call.put(b"")


async def late_large(call: Call) -> None:
    await call.receive_all()
    if call.has_whole_body:
        await call.start(200, (b"content-length", b"40000"), (b"connection", b"keep-alive"))
        await call.put(b"l" * 40_000)


STEADY = [echo, suspended_echo, late_stream, late_bodiless, late_large]

# --- Applications for any weather ---


async def ignore(call: Call) -> None:
    await call.start(200)
    await call.put(b"ignored")


async def ignore_later(call: Call) -> None:
    await asyncio.sleep(0)
    await call.start(200, (b"connection", b"close"))
    await call.put(b"ignored")


async def duplex(call: Call) -> None:
    await call.start(200)
    while await call.receive_one():
        await call.put(call.body[-1], more=True)
    await call.put(b"", more=False)


async def stream(call: Call) -> None:
    await call.start(200)
    for n in range(call.rng.choice([2, 20, 200])):
        await call.put(b"x" * call.rng.choice([0, 1, 1000, 17_000]), more=True)
        if n % 7 == 0:
            await asyncio.sleep(0)
    await call.put(b"end")


async def large(call: Call) -> None:
    await call.start(200)
    await call.put(b"x" * 400_000, more=True)
    await call.put(b"y" * 200_000)


async def send_path(call: Call) -> None:
    await call.start(200)
    await call.send({"type": "http.response.pathsend", "path": call.file})


async def send_descriptor(call: Call) -> None:
    with open(call.file, "rb") as file:
        await call.start(200)
        for _ in range(3):
            piece = {"type": "http.response.zerocopysend", "file": file, "count": 9, "more_body": True}
            await call.send(piece)
        await call.put(b"end")


async def send_path_later(call: Call) -> None:
    await call.start(200)
    sending = asyncio.ensure_future(call.send({"type": "http.response.pathsend", "path": call.file}))
    await asyncio.sleep(0)
    await sending


async def hint(call: Call) -> None:
    if "http.response.early_hint" in call.scope["extensions"]:
        await call.send({"type": "http.response.early_hint", "links": [b"</s.css>; rel=preload"]})
    await call.start(200)
    await call.put(b"hinted")


async def push(call: Call) -> None:
    if "http.response.push" in call.scope["extensions"]:
        for n in range(call.rng.choice([1, 3, 20])):
            await call.send({"type": "http.response.push", "path": f"/pushed?{n}", "headers": []})
    await call.start(200)
    await call.put(b"pushed")


async def await_disconnect(call: Call) -> None:
    await call.start(200)
    await call.put(b"x", more=True)
    while not call.is_disconnected:
        await call.receive_one()
    with contextlib.suppress(OSError):
        await call.put(b"nobody gets this")


async def race(call: Call) -> None:
    receiving = [asyncio.ensure_future(call.receive()) for _ in range(3)]
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(call.receive(), 0)
    await call.start(200)
    try:
        await asyncio.gather(call.put(b"a", more=True), call.put(b"b", more=True))
    finally:
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
    await call.put(b"raced")


async def cancel_each_other(call: Call) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def wait_and_cancel() -> None:
        await call.receive()
        await call.receive()
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()

    tasks += [asyncio.create_task(wait_and_cancel()) for _ in range(3)]
    await asyncio.sleep(0)
    await call.start(200)
    await call.put(b"x")
    await asyncio.gather(*tasks, return_exceptions=True)


async def work_on(call: Call) -> None:
    await call.start(200)
    await call.put(b"done")
    for _ in range(5):
        await asyncio.sleep(0)
    await call.receive_all()


async def break_rules(call: Call) -> None:
    for message in (
        {"type": BODY, "body": b"early"},
        {"type": START, "status": 99, "headers": []},
        {"type": START, "status": 200, "headers": [(b"a", b"b\r\nc: d")]},
        {"type": START, "status": 200, "headers": [(b"content-length", b"-1")]},
        {"type": "nonsense"},
        {},
    ):
        with contextlib.suppress(RuntimeError, ValueError, KeyError):
            await call.send(message)
    await call.start(200, (b"transfer-encoding", b"chunked"))
    with contextlib.suppress(RuntimeError):
        await call.start(200)
    with contextlib.suppress(TypeError):
        await call.send({"type": BODY, "body": "text"})
    await call.put(b"after all")
    with contextlib.suppress(RuntimeError):
        await call.put(b"too much")


async def raise_early(call: Call) -> None:
    raise DeliberateError


async def raise_before_body(call: Call) -> None:
    await call.start(200)
    raise DeliberateError


async def raise_midway(call: Call) -> None:
    await call.start(200)
    await call.put(b"half", more=True)
    await asyncio.sleep(0)
    raise DeliberateError


async def raise_in_place_midway(call: Call) -> None:
    await call.start(200, (b"content-length", b"10"))
    await call.put(b"half", more=True)
    raise DeliberateError


async def break_length(call: Call) -> None:
    await call.start(200, (b"content-length", b"10"))
    with contextlib.suppress(RuntimeError):
        await call.put(b"x" * 11)
    with contextlib.suppress(RuntimeError):
        await call.put(b"x")


async def return_early(call: Call) -> None:
    await asyncio.sleep(0) if call.rng.random() < 0.5 else None


async def return_without_body(call: Call) -> None:
    await call.start(200)


async def return_without_trailers(call: Call) -> None:
    await call.start(200, trailers=True)
    await call.put(b"x")


async def cancel_itself(call: Call) -> None:
    if call.rng.random() < 0.5:
        await call.start(200)
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


# Those that end their response, whatever else they do
COMPLETING = [
    *STEADY, ignore, ignore_later, duplex, stream, large, send_path, send_descriptor, send_path_later, hint,
    race, cancel_each_other, work_on, break_rules,
]  # fmt: skip
PUSHING = [push]  # the same, where a wire has server push
FAILING = [
    await_disconnect, raise_early, raise_before_body, raise_midway, raise_in_place_midway, break_length,
    return_early, return_without_body, return_without_trailers, cancel_itself,
]  # fmt: skip


class Stage:
    """The ASGI application: runs for each request one of `repertoire`, drawn by `rng` from those for the
    scope's type; keeps the calls.

    `steps` counts what the applications ask of the server: an application that still runs is known by it,
    since a message may leave no other trace (a body that answers HEAD).
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.reset(Random(0), {})

    def reset(self, rng: Random, repertoire: dict[str, list[Application]]) -> None:
        self.rng = rng
        self.repertoire = repertoire
        self.calls: list[Call] = []
        self.steps = 0

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Count a call, and return what the server's own callable does: its awaitable."""

        def call(*arguments: Any) -> Any:
            self.steps += 1
            return function(*arguments)

        return call

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        application = self.rng.choice(self.repertoire[scope["type"]])
        rng = Random(self.rng.random())
        call = Call(scope, self._counted(receive), self._counted(send), rng, self.file, application.__name__)
        self.calls.append(call)
        try:
            await application(call)
        except OSError:
            if call.rng.random() < 0.5:
                raise
        finally:
            call.has_ended = True
