"""Whole connections: sinks on sockets in an event loop, with applications and clients."""

import asyncio
import contextlib
import gc
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from fuzz import http_applications, websocket_applications
from fuzz.http_applications import DeliberateError, Stage
from fuzz.socket_peer import SocketPeer
from serving import LineRoute
from watchedsinks import WatchedAcceptor

from fastasgi import Config
from fastasgi.core.contracts import WorkerContext
from fastasgi.logs.accesslog import AccessLog
from fastasgi.wires.opening import Opening

FILE_BYTES = 150_000
READ_TURNS = 4  # in which a server reads what was sent, if it reads
QUIET_TURNS = 8  # more than an application lets pass between two messages
MAX_TURNS = 5000
MAX_STEPS = 2000
# What the largest send() of an application may leave behind in a sink whose peer takes nothing.
MAX_HELD = 1_000_000

DEFAULTS: dict[str, Any] = {
    "headers": [("server", "fuzzed")],
    "date_header": False,
    "timeout_keep_alive": 5.0,
    "timeout_request_head": 10.0,
    "limit_request_line": 8192,
    "limit_request_head": 65_536,
    "limit_request_fields": 128,
    "limit_request_body": 0,
    "limit_concurrency": None,
    "header_underscores": "allow",
}
ACCESS_LOG_FORMATS = [None, "json", "{client} {path} {query} {status} {user_agent} {header[n]}"]

STEADY = {"http": http_applications.STEADY, "websocket": websocket_applications.STEADY}
COMPLETING = {"http": http_applications.COMPLETING, "websocket": websocket_applications.COMPLETING}
FAILING = {"http": http_applications.FAILING, "websocket": websocket_applications.FAILING}
REPERTOIRES = [COMPLETING, {kind: COMPLETING[kind] + FAILING[kind] for kind in COMPLETING}]


class Errors(logging.Handler):
    """Errors that were logged with a traceback, other than those that applications raise on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, DeliberateError | asyncio.CancelledError):
            self.found.append(error)


@dataclass
class Server:
    """One worker: its application and settings."""

    stage: Stage
    settings: dict[str, Any]
    context: WorkerContext
    acceptor: WatchedAcceptor

    def close(self) -> None:
        """Forget the last case, and watch no socket any more."""
        self.stage.reset(Random(0), STEADY)
        self.acceptor.close()


@dataclass
class Client:
    """What a fuzzed client has done, and the bytes it still has to send."""

    peer: SocketPeer
    port: int
    parts: list[bytes]
    sent: bytearray = field(default_factory=bytearray)
    is_disturbed: bool = False  # it or the server has ended something early
    was_reset: bool = False  # by the server

    def poll(self) -> None:
        """Take what has come."""
        self.peer.poll()


class Connections:
    """Runs cases, each in an event loop and with a worker that cases share.

    A wire is a subclass. Of the settings in `variants`, added to DEFAULTS, each server has one; of the
    applications in `repertoires` each case has one.
    """

    variants: list[dict[str, Any]]
    repertoires = REPERTOIRES

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name, "file")
        self._file.write_bytes(b"f" * FILE_BYTES)
        self._errors = Errors()
        self._logger = logging.Logger("fuzz")
        self._logger.addHandler(self._errors)
        self._loops = [uvloop.new_event_loop(), asyncio.new_event_loop()]
        for loop in self._loops:
            loop.set_exception_handler(lambda _, problem: self._errors.found.append(problem))
        self._servers: dict[tuple[int, int, int], Server] = {}
        self._clock_s = 0.0

    def new_client(self, room: int | None, port: int, parts: list[bytes]) -> Client:
        """A client that has to send these parts, and takes so much, see SocketPeer."""
        return Client(SocketPeer(room), port, parts)

    def check_client(self, server: Server, client: Client) -> None:
        """Check what the client of a case that is over has got, and what its applications have seen."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the loops; fails where connections or exchanges of ended cases are left."""
        while self._servers:
            self._servers.popitem()[1].close()
        for loop in self._loops:
            loop.close()
        self._folder.cleanup()
        gc.collect()
        kinds = Counter(type(kept).__name__ for kept in gc.get_objects() if is_ours(kept))
        assert not kinds, kinds

    # --- Cases ---

    def check_chaos(self, rng: Random, streams: Sequence[list[bytes]]) -> None:
        """Whatever clients, applications and a shutdown do, each client gets responses or a close."""
        loop = self._loops[rng.random() < 0.3]
        shuts_down = rng.random() < 0.05
        server = self._make_server(rng, loop) if shuts_down else self._server(rng, loop)
        server.stage.reset(Random(rng.random()), rng.choice(self.repertoires))
        loop.run_until_complete(self._run_chaos(rng, server, streams, shuts_down))
        if shuts_down:
            server.close()

    async def _run_chaos(
        self, rng: Random, server: Server, streams: Sequence[list[bytes]], shuts_down: bool
    ) -> None:
        clients = []
        for number, parts in enumerate(streams):
            room = rng.choice([None, None, 0, 1000, 100_000])
            clients.append(await self._connect(server, number, parts, room, rng.random() < 0.5))
        for _ in range(MAX_STEPS):
            sending = [client for client in clients if client.parts]
            if not sending:
                break
            await self._step(rng, server, rng.choice(sending), clients, shuts_down)
            assert all(client.peer.held_bytes < MAX_HELD for client in clients)
        await self._settle(server, clients)
        for client in clients:
            client.peer.take(None)
        await self._settle(server, clients)
        for client in clients:
            client.was_reset = client.peer.is_reset
        await self._end(server, clients, resets=rng.random() < 0.3)
        for client in clients:
            self.check_client(server, client)

    async def _step(
        self, rng: Random, server: Server, client: Client, clients: list[Client], shuts_down: bool
    ) -> None:
        kind = rng.random()
        if kind < 0.6:
            await self._feed(client, is_read_alone=True)
        elif kind < 0.8:
            await self._feed(client, is_read_alone=False)
        elif kind < 0.93:
            await self._turn(clients, rng.randint(1, 3))
        elif kind < 0.97:
            await self._call(client.peer.take, rng.choice([100, 10_000, 200_000]))
        elif kind < 0.98:
            for other in clients:
                other.is_disturbed = True
            await self._call(self._tick, server, rng.choice([0.1, 1.0, 6.0, 20.0]))
        elif kind < 0.99:
            client.parts.clear()
            client.is_disturbed = True
            await self._call(client.peer.feed_eof if rng.random() < 0.5 else client.peer.leave)
        elif shuts_down:
            for other in clients:
                other.is_disturbed = True
            context = server.context
            await self._call(
                rng.choice([context.drain, context.drain, context.disconnect, context.cancel, context.abort])
            )

    # --- Workers and clients ---

    def _server(self, rng: Random, loop: asyncio.AbstractEventLoop, variants: int | None = None) -> Server:
        """One of the servers, with one of so many variants of the settings; None: of all."""
        variant = rng.randrange(len(self.variants) if variants is None else variants)
        key = (self._loops.index(loop), variant, rng.randrange(3))
        if key not in self._servers:
            self._servers[key] = self._make_server(Random(repr(key)), loop, key[1])
        return self._servers[key]

    def _make_server(self, rng: Random, loop: asyncio.AbstractEventLoop, variant: int = 0) -> Server:
        stage = Stage(str(self._file))
        settings = {**DEFAULTS, **self.variants[variant]}
        log = AccessLog(format=rng.choice(ACCESS_LOG_FORMATS), route=LineRoute(str.encode))
        config = Config(stage, log_config=None, **settings)
        config.load()
        context = WorkerContext(
            loop,
            rng.choice([stage, lambda *arguments: stage(*arguments)]),
            config,
            state={"a": []} if config.root_path else {},
            logger=self._logger,
            access_log=rng.choice([None, log]),
        )
        context.opener = Opening(context, config)
        return Server(stage, settings, context, WatchedAcceptor(context, None))

    async def _connect(
        self, server: Server, port: int, parts: list[bytes], room: int | None, waits: bool
    ) -> Client:
        client = self.new_client(room, port, list(parts))
        if waits and client.parts:
            self._send_part(client)
        await self._call(client.peer.open, server.acceptor, port)
        return client

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call from the event loop, where no task is current, as the poller is called."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        asyncio.get_running_loop().call_soon(call)
        return await future

    def _send_part(self, client: Client) -> None:
        part = client.parts.pop(0)
        rest = client.peer.feed(part)
        client.sent += part[: len(part) - len(rest)]
        if rest:
            client.parts.insert(0, rest)

    async def _feed(self, client: Client, is_read_alone: bool) -> None:
        """Send the next part, as far as the socket takes it. Read alone, the server has its time to do so."""
        self._send_part(client)
        if not client.peer.can_send:
            client.parts.clear()
        for _ in range(READ_TURNS if is_read_alone else 0):
            if client.peer.read_bytes == len(client.sent):
                break
            await self._turn([client])

    async def _feed_all(self, client: Client) -> None:
        for _ in range(MAX_TURNS):
            if not client.parts:
                return
            await self._feed(client, is_read_alone=True)
        raise AssertionError("the server does not read on")

    async def _turn(self, clients: list[Client], count: int = 1) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            for client in clients:
                client.poll()

    async def _settle(self, server: Server, clients: list[Client]) -> None:
        """Let the loop run until nothing more happens."""
        before: Any = None
        quiet = 0
        for _ in range(MAX_TURNS):
            for client in clients:
                if client.parts and client.peer.can_send:
                    self._send_part(client)
            await self._turn(clients)
            context = server.context
            output_sizes = [len(client.peer.output) for client in clients]
            now = (
                context.registry.exchange_count,
                context.registry.request_count,
                server.stage.steps,
                output_sizes,
                [client.peer.read_bytes for client in clients],
            )
            quiet = quiet + 1 if now == before else 0
            if quiet > QUIET_TURNS:
                return
            before = now
        raise AssertionError("the server does not come to rest")

    def _tick(self, server: Server, seconds: float) -> None:
        """Let time pass for the worker."""
        loop = server.context.loop
        self._clock_s += seconds
        now = loop.time() + self._clock_s
        loop.time = lambda: now
        try:
            server.context.tick()
        finally:
            del loop.time

    async def _end(self, server: Server, clients: list[Client], resets: bool) -> None:
        """Let the clients leave; all that belongs to their connections must end."""
        for client in clients:
            await self._call(client.peer.leave if resets else client.peer.feed_eof)
        context = server.context
        for _ in range(1000):
            await self._settle(server, clients)
            if context.registry.connection_count == 0 and context.registry.exchange_count == 0:
                break
            await self._call(self._tick, server, 30.0)
            await asyncio.sleep(0.001)
            for client in clients:
                # Of one that has only ended its side the server need not hear while reading is paused
                await self._call(client.peer.leave)
        assert all(client.peer.is_lost for client in clients)
        assert context.registry.connection_count == 0
        assert context.registry.exchange_count == 0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(context.registry.wait_idle(), 1)
        assert all(call.has_ended for call in server.stage.calls)
        if self._errors.found:
            found, self._errors.found = self._errors.found, []
            raise AssertionError(f"errors that nobody caused on purpose: {found}") from next(
                (error for error in found if isinstance(error, BaseException)), None
            )


def is_ours(kept: object) -> bool:
    """Whether this is an object of the compiled core."""
    module = type(kept).__module__
    return isinstance(module, str) and module in (
        "fastasgi.core.contracts", "fastasgi.core.task", "fastasgi.asgi.exchange", "fastasgi.asgi.http",
        "fastasgi.asgi.websocket", "fastasgi.wires.http1", "fastasgi.wires.http2",
        "fastasgi.wires.http2stream", "fastasgi.wires.streamtable", "fastasgi.wires.tunnel",
        "fastasgi.wires.websocket", "fastasgi.sinks.socketsink", "fastasgi.sinks.poller",
        "fastasgi.sinks.acceptor", "watchedsinks",
    ) and type(kept).__name__ not in ("Ready", "cython_function_or_method")  # fmt: skip
