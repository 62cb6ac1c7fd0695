"""The wires on which tests of ASGI's semantics run, each test on each of them by `@each_wire`."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import wire as rawwire
from anyclient import Client, Request, Response
from backpressure import KERNEL_BYTES
from http1client import HTTP1Client
from http2client import HTTP2Client
from http2peer import WINDOW
from netstringclient import NetstringClient
from netstringwire import NetstringWire

from fastasgi import Server
from fastasgi.core.contracts import WorkerContext


@dataclass(frozen=True)
class Wire:
    """A wire: the client that speaks it, and the server that does so.

    `extensions` are those of HTTP scopes on it, and `version` is HTTP's. `settings` is what its servers are
    made with. `lost` is what a client asks for in vain behind a request that fails. `window` says how many
    bytes may be under way to a client that reads nothing, about.
    """

    name: str
    client_type: type[Client]
    extensions: tuple[str, ...]
    server_type: type[Server] = Server
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = "1.1"
    lost: tuple[Request, ...] = (Request(),)
    window: int = KERNEL_BYTES


ALWAYS = ("http.response.early_hint", "http.response.trailers")
FILES = ("http.response.pathsend", "http.response.zerocopysend")

HTTP1 = Wire("HTTP/1.1", HTTP1Client, ALWAYS + FILES)
HTTP2 = Wire("HTTP/2", HTTP2Client, ALWAYS + FILES, version="2", lost=(), window=2 * WINDOW)
LLHTTP = Wire("HTTP/1.1 by httptools", HTTP1Client, ALWAYS + FILES, settings={"http": "httptools"})


class NetstringServer(Server):
    """A Server that speaks netstrings too."""

    def on_context(self, context: WorkerContext) -> None:
        context.opener.register(NetstringWire())


NETSTRINGS = Wire("netstrings", NetstringClient, ALWAYS, NetstringServer)

WIRES_IN_TURN = [HTTP1, NETSTRINGS]
WIRES = [*WIRES_IN_TURN, HTTP2]


def _each(wires: list[Wire]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wire", wires, ids=[wire.name for wire in wires])


each_wire = _each(WIRES)
# For tests of connections on which one request is served at a time, and whose client may end its side alone.
# What HTTP/2 does instead is in wires/test_http2_exchange.py
each_wire_in_turn = _each(WIRES_IN_TURN)
# For tests of what an open WebSocket does with its sink: on netstrings that is the same as on HTTP/1.1
each_carrier = _each([HTTP1, HTTP2])
each_wire_and_parser = _each([*WIRES, LLHTTP])  # for tests of what parsers of HTTP/1.1 heads may differ in


class Served(rawwire.Served):
    """A running server and its clients, which know no wire."""

    async def connect(self, *, sends_preface: bool = True, **options: Any) -> Client:
        """A new connection; other options as asyncio.open_connection takes them."""
        client = await super().connect(**options)
        if sends_preface:
            client.writer.write(client.preface)
        return client

    async def ask(self, method: str = "GET", target: str = "/", *fields: str, body: bytes = b"") -> Response:
        """The answer on a connection of its own, on which nothing comes behind it."""
        client = await self.connect()
        response = await client.ask(method, target, *fields, body=body)
        if response.is_whole:
            client.half_close()
        assert await client.rest() == b""
        return response


@contextlib.asynccontextmanager
async def served(app: rawwire.App, wire: Wire, **settings: Any) -> AsyncIterator[Served]:
    """A server and its clients on this wire; settings and their defaults are those of wire.served()."""
    kinds = {"server_type": wire.server_type, "client_type": wire.client_type, "served_type": Served}
    async with rawwire.served(app, **kinds, **{**wire.settings, **settings}) as running:
        yield running


async def ask(
    app: rawwire.App,
    wire: Wire,
    method: str = "GET",
    target: str = "/",
    *fields: str,
    body: bytes = b"",
    **settings: Any,
) -> Response:
    """What a server with this application answers to one request."""
    async with served(app, wire, **settings) as running:
        return await running.ask(method, target, *fields, body=body)


async def answers(app: rawwire.App, wire: Wire, *requests: Request, **settings: Any) -> list[Response]:
    """What a server with this application answers to requests sent at once, until it ends the connection."""
    async with served(app, wire, **settings) as running:
        client = await running.connect()
        await client.put(*requests)
        return await client.responses()
