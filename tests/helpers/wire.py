"""A raw client and a server in the same event loop, for tests that look at the bytes of a connection."""

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from serving import port_of, serving

from fastasgi import Config

TEST_S = 20.0 * int(os.environ.get("DRILL", "1"))

App = Callable[[Any, Any, Any], Awaitable[None]]


# --- Event loops ---


def run_in(
    factory: Callable[[], asyncio.AbstractEventLoop], test: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    """Run an asynchronous test in a new event loop; an error that only the loop hears of fails it."""
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(TEST_S):
            await test(**arguments)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert not problems, f"left to the event loop's exception handler: {problems}"


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes an event loop of this kind, a value of the setting `loop`."""
    return Config(None, loop=loop, log_config=None).get_loop_factory()


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an asynchronous test in the default event loop, see run_in()."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_in(loop_factory("auto"), test, arguments)

    return run


def in_each_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an asynchronous test in each kind of event loop, see run_in()."""

    @functools.wraps(test)
    def run(loop: str, **arguments: Any) -> None:
        run_in(loop_factory(loop), test, arguments)

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])
    return pytest.mark.parametrize("loop", ["uvloop", "asyncio"])(run)


def now() -> float:
    """The running loop's time in seconds."""
    return asyncio.get_running_loop().time()


def shift_clock(offset_s: float) -> None:
    """Have the running loop's time so many seconds later from now on."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + offset_s  # type: ignore[method-assign]


async def in_turn_of_its_own(callback: Callable[[], None]) -> None:
    """Run it in a callback of the loop, outside any task."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: done.set_result(callback()))
    await done


# --- The client ---


@dataclass
class Response:
    """A response as it came over the wire; `chunks` is None where it was not chunked."""

    version: bytes
    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    chunks: list[bytes] | None = None
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __getitem__(self, name: bytes) -> bytes:
        """The value of a header that must be there once."""
        [value] = [value for other, value in self.headers if other.lower() == name]
        return value

    def __contains__(self, name: bytes) -> bool:
        return any(other.lower() == name for other, _ in self.headers)


class Connection:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def socket(self) -> Any:
        return self.writer.get_extra_info("socket")

    @property
    def address(self) -> Any:
        """The client's own address, as its socket says it."""
        return self.writer.get_extra_info("sockname")

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """All bytes up to the server's end of the connection."""
        return await self.reader.read()

    def half_close(self) -> None:
        """End the client's side of the connection."""
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Client(Connection):
    """Sends bytes. Reading a response fails where its bytes break RFC 9112."""

    async def ask(self, data: bytes, method: str = "GET") -> Response:
        await self.write(data)
        return await self.response(method)

    async def shake(self, *fields: str, target: str = "/", behind: bytes = b"") -> Response:
        """Ask for a WebSocket, with these frames right behind that."""
        return await self.ask(handshake(*fields, target=target) + behind)

    async def response(self, method: str = "GET") -> Response:
        """The next response to a request of this method, interim ones included."""
        response = await self._head()
        if response.status < 200 or method == "HEAD" or response.status in (204, 304):
            return response
        if b"transfer-encoding" in response:
            assert response[b"transfer-encoding"] == b"chunked"
            assert b"content-length" not in response
            await self._chunked_body(response)
        elif b"content-length" in response:
            response.body = await self.reader.readexactly(int(response[b"content-length"]))
        else:
            assert response[b"connection"] == b"close"
            response.body = await self.reader.read()
        return response

    async def _line(self) -> bytes:
        line = await self.reader.readuntil(b"\n")
        assert line.endswith(b"\r\n")
        assert b"\r" not in line[:-2]
        return line[:-2]

    async def _fields(self) -> list[tuple[bytes, bytes]]:
        fields = []
        while line := await self._line():
            name, colon, value = line.partition(b": ")
            assert colon, line
            fields.append((name, value))
        return fields

    async def _head(self) -> Response:
        version, status, reason = (await self._line()).split(b" ", 2)
        assert version == b"HTTP/1.1"
        return Response(version, int(status), reason, await self._fields())

    async def _chunked_body(self, response: Response) -> None:
        response.chunks = []
        while size := int(await self._line(), 16):
            response.chunks.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        response.body = b"".join(response.chunks)
        response.trailers = await self._fields()


# --- The server ---


class Served:
    """A running server and its clients."""

    def __init__(self, server: Any, client_type: Any = Client) -> None:
        self.server = server
        self.client_type = client_type
        self.port = port_of(server) if server.config.uds is None else None
        self.clients: list[Any] = []

    @property
    def context(self) -> Any:
        """The server's WorkerContext."""
        return self.server.context

    async def connect(self, **options: Any) -> Any:
        """A new connection; options as asyncio.open_connection takes them."""
        options.setdefault("limit", 2**24)
        if self.server.config.uds is not None:
            path = None if "sock" in options else self.server.config.uds
            streams = await asyncio.open_unix_connection(path, **options)
        elif "sock" in options:
            streams = await asyncio.open_connection(**options)
        else:
            streams = await asyncio.open_connection(self.server.config.host, self.port, **options)
        self.clients.append(self.client_type(*streams))
        return self.clients[-1]

    async def talk(self, data: bytes) -> bytes:
        """What the server answers on a connection of its own, up to its end."""
        client = await self.connect()
        await client.write(data)
        return await client.rest()

    async def stop(self) -> None:
        """Begin the server's shutdown as a signal does, and wait until it has no connection any more."""
        self.server.should_exit = True
        await self.context.registry.wait_idle()


@contextlib.asynccontextmanager
async def served(
    app: App, *, client_type: Any = Client, served_type: Any = Served, **settings: Any
) -> AsyncIterator[Any]:
    """A server that sends no date and server headers, unless asked to, and logs to the root logger.

    Its clients leave before it is stopped: a test of what a shutdown does to them calls `stop` itself.
    """
    defaults = {
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "date_header": False,
        "server_header": False,
        "timeout_graceful_shutdown": 0,
    }
    async with serving(app, **{**defaults, **settings}) as server:
        running = served_type(server, client_type)
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


async def talk(app: App, data: bytes, **settings: Any) -> bytes:
    """What a server with this application answers to `data` until it closes the connection."""
    async with served(app, **settings) as running:
        return await running.talk(data)


def request(line: str = "GET / HTTP/1.1", *fields: str, body: bytes = b"") -> bytes:
    """A request with `host: x` and these further header lines; the body as it is."""
    return "".join(f"{part}\r\n" for part in (line, "host: x", *fields, "")).encode("latin-1") + body


def post(body: bytes) -> bytes:
    """A POST with this body, by its length."""
    return request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body)


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


CLOSE = "connection: close"
SERVER_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: 21\r\n\r\nInternal Server Error"
)

each_parser = pytest.mark.parametrize("http", ["fastasgi", "httptools"])


# --- The handshake of WebSockets (RFC 6455 section 4) ---

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
OPENING = (
    "upgrade: websocket",
    "connection: Upgrade",
    f"sec-websocket-key: {KEY}",
    "sec-websocket-version: 13",
)


def handshake(*fields: str, target: str = "/") -> bytes:
    """The request that opens a WebSocket, with these further header lines."""
    return request(f"GET {target} HTTP/1.1", *OPENING, *fields)


async def move_clock(running: Served, offset_s: float) -> None:
    """Have one tick of the worker at so many seconds from now."""
    loop = asyncio.get_running_loop()
    time = loop.time
    ticked = loop.create_future()

    def tick() -> None:
        loop.time = lambda: time() + offset_s  # type: ignore[method-assign]
        try:
            running.context.tick()
        finally:
            del loop.time
        ticked.set_result(None)

    loop.call_soon(tick)
    await ticked


# --- What the server has read ---


class Reads:
    """The bytes that all connections have brought, and what happened in each read event, in order."""

    def __init__(self) -> None:
        self.total = 0
        self.events: list[str] = []
        self._changed = asyncio.Event()

    def note(self, n: int) -> None:
        self.total += n
        self._changed.set()

    async def until(self, total: int) -> None:
        """Return when so many bytes have been read and dealt with."""
        while self.total < total:
            self._changed.clear()
            await self._changed.wait()


# --- Applications ---


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"hello")


async def respond(send: Any, body: bytes = b"", status: int = 200, headers: Any = (), **start: Any) -> None:
    """A whole response in two messages."""
    await send({"type": "http.response.start", "status": status, "headers": headers, **start})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Any) -> bytes:
    """The whole body of the request."""
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, the target and the body of the request."""
    body = await read_body(receive)
    line = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')} "
    await respond(send, line.encode() + body)


# --- What a log must say ---


def error_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged as an error."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def traceback_of(caplog: pytest.LogCaptureFixture) -> BaseException:
    """The exception of the one error that was logged."""
    [record] = error_records(caplog)
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    return record.exc_info[1]


# --- Requests, and what `echo` answers ---

GET = request("GET / HTTP/1.1", CLOSE)
GET_1_0 = request("GET / HTTP/1.0")
LAST = request("GET /last HTTP/1.1", CLOSE)
LAST_ECHO = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\nGET /last? "


def echoed(body: bytes, *fields: bytes) -> bytes:
    """The response of `echo`."""
    head = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *fields, b"", b""]
    return b"\r\n".join(head) + body
