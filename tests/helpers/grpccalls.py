"""Calls of grpcio's client, for a process of its own: its threads do not go with the forks of other tests.

They send and receive bytes as messages, by methods of a service named ``test.Echo``.
"""

import asyncio
import collections
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

DEADLINE_S = 15.0
OPTIONS = [("grpc.max_receive_message_length", 5 * 2**20), ("grpc.max_send_message_length", 5 * 2**20)]

Options = Iterable[tuple[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What came of a call. The metadata are without what grpcio adds or the server's framework does."""

    code: str
    details: str = ""
    messages: list[bytes] = field(default_factory=list)
    initial: dict[str, Any] = field(default_factory=dict)
    trailing: dict[str, Any] = field(default_factory=dict)


def call(
    target: str,
    kind: str,
    method: str,
    *messages: bytes,
    ca: bytes | None = None,
    options: Options = (),
    metadata: Sequence[tuple[str, Any]] = (),
    deadline_s: float = DEADLINE_S,
    compression: grpc.Compression | None = None,
) -> Outcome:
    """A call on a connection of its own, by grpcio's blocking API.

    `kind` is ``unary_unary``, ``unary_stream``, ``stream_unary`` or ``stream_stream``; `ca` are the
    certificates trusted, where the server speaks TLS.
    """
    arguments: Any = {"target": target, "options": [*OPTIONS, *options], "compression": compression}
    if ca is None:
        channel = grpc.insecure_channel(**arguments)
    else:
        channel = grpc.secure_channel(credentials=grpc.ssl_channel_credentials(ca), **arguments)
    received: list[bytes] = []
    with channel:
        function = getattr(channel, kind)(f"/test.Echo/{method}")
        request: Any = iter(messages) if kind.startswith("stream") else messages[0]
        limits: Any = {"timeout": deadline_s, "metadata": metadata}
        try:
            if kind.endswith("stream"):
                outcome = function(request, **limits)
                received.extend(outcome)
            else:
                answer, outcome = function.with_call(request, **limits)
                received.append(answer)
        except grpc.RpcError as error:
            outcome = error
        return Outcome(
            outcome.code().name,
            outcome.details(),
            received,
            _own(outcome.initial_metadata()),
            _own(outcome.trailing_metadata()),
        )


def _own(metadata: Any) -> dict[str, Any]:
    return {name: value for name, value in metadata or () if name.startswith("x-")}


# --- Calls that do one thing after another ---


@asynccontextmanager
async def _open(target: str) -> AsyncIterator[grpc.aio.Channel]:
    async with asyncio.timeout(DEADLINE_S), grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        yield channel


async def _outcome(running: Any, messages: list[bytes]) -> Outcome:
    return Outcome((await running.code()).name, await running.details(), messages)


def talk(target: str, *messages: bytes) -> Outcome:
    """A bidirectional call that sends a message only when the answer to the one before has come."""

    async def run() -> Outcome:
        async with _open(target) as channel:
            running = channel.stream_stream("/test.Echo/Both")()
            answers = []
            for message in messages:
                await running.write(message)
                answers.append(await running.read())
            await running.done_writing()
            assert await running.read() is grpc.aio.EOF
            return await _outcome(running, answers)

    return asyncio.run(run())


def hear_first(target: str) -> Outcome:
    """A bidirectional call that sends nothing before the initial metadata have come."""

    async def run() -> Outcome:
        async with _open(target) as channel:
            running = channel.stream_stream("/test.Echo/Both")()
            initial = _own(await running.initial_metadata())
            await running.done_writing()
            assert await running.read() is grpc.aio.EOF
            return Outcome((await running.code()).name, initial=initial)

    return asyncio.run(run())


def cancel(target: str, method: str, request: bytes, messages: int) -> tuple[Outcome, Outcome]:
    """A call that is cancelled after so many messages; and another on the same connection behind it."""

    async def run() -> tuple[Outcome, Outcome]:
        async with _open(target) as channel:
            running = channel.stream_stream(f"/test.Echo/{method}")()
            await running.write(request)
            await running.done_writing()
            answers = [await running.read() for _ in range(messages)]
            # Behind its answer the server has seen what was sent before
            await channel.unary_unary("/test.Echo/Unary")(b"")
            running.cancel()
            try:
                code = await running.code()
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
            other = channel.unary_unary("/test.Echo/Unary")(b"still here")
            return Outcome(code.name, messages=answers), await _outcome(other, [await other])

    return asyncio.run(run())


def at_once(target: str, count: int) -> list[Outcome]:
    """So many calls on one connection, unary ones and streams by turns."""

    async def unary(channel: grpc.aio.Channel, number: int) -> Outcome:
        running = channel.unary_unary("/test.Echo/Unary")(b"%d" % number)
        answer = await running
        return Outcome((await running.code()).name, "", [answer], _own(await running.initial_metadata()))

    async def stream(channel: grpc.aio.Channel, number: int) -> Outcome:
        running = channel.unary_stream("/test.Echo/Repeat")(b"%d 2000" % number)
        answers = [answer async for answer in running]
        return Outcome((await running.code()).name, "", answers, _own(await running.initial_metadata()))

    async def run() -> list[Outcome]:
        async with _open(target) as channel:
            return await asyncio.gather(*[(unary, stream)[n % 2](channel, n) for n in range(count)])

    return asyncio.run(run())


def call_on(target: str, folder: Path) -> dict[str, int]:
    """How often each code came of unary calls, eight at once, until there is a file ``stop`` in the folder.

    There is a file ``called`` once one was answered.
    """
    codes: collections.Counter[str] = collections.Counter()

    async def ask(channel: grpc.aio.Channel) -> None:
        unary = channel.unary_unary("/test.Echo/Unary")
        while not (folder / "stop").exists():
            codes[(await unary(b"hello").code()).name] += 1
            (folder / "called").touch()

    async def run() -> None:
        async with _open(target) as channel:
            await asyncio.gather(*[ask(channel) for _ in range(8)])

    asyncio.run(run())
    return dict(codes)
