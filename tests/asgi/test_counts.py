"""What is counted of requests, responses and WebSockets, on each wire."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyclient import Request
from eachwire import HTTP2, Served, Wire, each_carrier, each_wire, served
from exchanges import START, Oops
from websocketwire import open_websocket
from wire import echo, hello, in_each_loop, move_clock, read_body, respond

from fastasgi import Config, Server
from fastasgi.admin.counts import Counts, read_counts
from fastasgi.core.counters import bucket_of_time

MORE = {"type": "http.response.body", "body": b"piece", "more_body": True}


class Measured(Server):
    """A Server that counts all, without anybody to ask it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.measures = True


@contextlib.asynccontextmanager
async def counted(app: Any, wire: Wire, **settings: Any) -> AsyncIterator[Served]:
    kind = type("MeasuredServer", (Measured, wire.server_type), {})
    async with served(app, dataclasses.replace(wire, server_type=kind), **settings) as server:
        yield server


def counts_of(server: Served) -> Counts:
    server.context.tell_gauges()
    (counts,) = read_counts(server.server.counters.memory)
    return counts


def told(counts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}


def protocol(wire: Wire) -> str:
    return wire.version


@each_wire
@in_each_loop
async def test_responses_by_method_and_class(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, status=int(scope["path"][1:]))

    asked = [
        ("GET", 200),
        ("GET", 404),
        ("POST", 201),
        ("PURGE", 302),
        ("HEAD", 200),
        ("GET", 200),
        ("PUT", 503),
    ]
    async with counted(app, wire) as server:
        client = await server.connect()
        for method, status in [*asked, ("GET", 699)]:
            await client.ask(method, f"/{status}")
        counts = counts_of(server)
    of = protocol(wire)
    assert counts.responses == {
        (of, "GET", "2xx"): 2,
        (of, "GET", "4xx"): 1,
        (of, "POST", "2xx"): 1,
        (of, "_OTHER", "3xx"): 1,
        (of, "HEAD", "2xx"): 1,
        (of, "PUT", "5xx"): 1,
        (of, "GET", "5xx"): 1,
    }
    assert counts.duration.total == counts.first_byte.total == 8
    assert counts.duration.counts == counts.first_byte.counts
    assert counts.exceptions == 0


@each_wire
@in_each_loop
async def test_what_runs_and_what_is_open(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.set()
        await go_on.wait()
        await respond(send)

    runs, go_on = asyncio.Event(), asyncio.Event()
    async with counted(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await runs.wait()
        counts = counts_of(server)
        assert (counts.running, counts.websockets, counts.responses) == (1, 0, {})
        assert sum(counts.open.values()) == 1
        if wire is HTTP2:
            assert counts.open["2", "plain"] == 1
        go_on.set()
        await client.response()
        counts = counts_of(server)
        assert (counts.running, sum(counts.responses.values())) == (0, 1)
        assert counts.accepted == {"plain": 1, "tls": 0}


@each_wire
@in_each_loop
async def test_a_stream_has_its_first_byte_before_its_end(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await ends.wait()
        await send({"type": "http.response.body"})

    ends = asyncio.Event()
    async with counted(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await client.until(b"piece")
        await asyncio.sleep(0.05)  # the subject: how long the response takes
        ends.set()
        await client.response()
        counts = counts_of(server)
    assert counts.first_byte.total == counts.duration.total == 1
    assert counts.duration.sum_s >= counts.first_byte.sum_s + 0.04
    assert counts.duration.counts[bucket_of_time(counts.duration.sum_s)] == 1


@each_wire
@in_each_loop
async def test_bytes(wire: Wire) -> None:
    async with counted(echo, wire) as server:
        client = await server.connect()
        await client.ask("POST", body=b"x" * 50_000)
        before = counts_of(server)
        assert 50_000 < before.bytes_received < 52_000
        assert 50_000 < before.bytes_sent < 52_000
        await client.ask()
        counts = counts_of(server)
        assert 0 < counts.bytes_received - before.bytes_received < 1000
        assert 0 < counts.bytes_sent - before.bytes_sent < 1000


@pytest.mark.parametrize("begun", [False, True], ids=["before the start", "in the body"])
@each_wire
@in_each_loop
async def test_an_application_that_raises(begun: bool, wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send(START)
            await send(MORE)
        raise Oops

    async with counted(app, wire) as server:
        client = await server.connect()
        await client.ask()
        counts = counts_of(server)
    assert counts.exceptions == 1
    assert counts.responses == {(protocol(wire), "GET", "2xx" if begun else "5xx"): 1}


@pytest.mark.parametrize("begun", [False, True], ids=["before the start", "in the body"])
@each_wire
@in_each_loop
async def test_a_client_that_leaves_is_counted_once(begun: bool, wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if begun:
            await send(START)
            await send(MORE)
        runs.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        returned.set()

    runs, returned = asyncio.Event(), asyncio.Event()
    async with counted(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await runs.wait()
        client.reset()
        await returned.wait()
        await server.context.registry.wait_idle()
        counts = counts_of(server)
    assert counts.responses == {(protocol(wire), "GET", "aborted"): 1}
    assert counts.duration.total == counts.exceptions == counts.running == 0


@each_wire
@in_each_loop
async def test_websockets(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/no":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
            await send({"type": "websocket.send", "text": "and more"})

    async with counted(app, wire) as server:
        assert (await (await server.connect()).shake(target="/no")).status == 403
        websocket = await open_websocket(server)
        await websocket.send("a")
        assert [await websocket.receive(), await websocket.receive()] == ["a", "and more"]
        counts = counts_of(server)
        assert counts.messages_sent == 2
        assert (counts.websockets, counts.running) == (1, 0)
        assert sum(number for (wire, _), number in counts.open.items() if wire == "ws") == 1
        assert counts.messages_received == 1
        assert counts.responses == {("ws", "GET", "1xx"): 1, ("ws", "GET", "4xx"): 1}
        assert counts.duration.total == 0
        websocket.client.close()
        await server.context.registry.wait_idle()
        assert counts_of(server).websockets == 0


@each_wire
@in_each_loop
async def test_refusals(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/holds":
            runs.set()
            await go_on.wait()
        await read_body(receive)
        await respond(send)

    runs, go_on = asyncio.Event(), asyncio.Event()
    async with counted(app, wire, limit_concurrency=1, limit_request_body=10) as server:
        assert (await (await server.connect()).ask("POST", body=b"x" * 11)).status == 413
        holder = await server.connect()
        await holder.put(Request(target="/holds"))
        await runs.wait()
        assert (await (await server.connect()).ask("GET", "/refused?secret")).status == 503
        go_on.set()
        await holder.response()
        counts = counts_of(server)
    of = protocol(wire)
    assert told(counts.refusals) == {"too_large": 1, "concurrency": 1}
    assert counts.responses[of, "GET", "5xx"] == counts.responses[of, "POST", "4xx"] == 1
    first, second = counts.last_refusals
    assert (first["status"], first["kind"], first["client"]) == (413, "too_large", "127.0.0.1")
    assert (second["status"], second["kind"], second["path"]) == (503, "concurrency", "/refused")
    assert "secret" not in str(counts.last_refusals)


@each_carrier
@in_each_loop
async def test_an_idle_connection_that_times_out(wire: Wire) -> None:
    async with counted(hello, wire) as server:
        client = await server.connect()
        await client.ask()
        await move_clock(server, 10)
        await client.rest()
        assert told(counts_of(server).timeouts) == {"keep_alive": 1}


@in_each_loop
async def test_nothing_is_counted_of_requests_that_nobody_asks_for() -> None:
    async with served(hello, HTTP2) as server:
        client = await server.connect()
        await client.ask()
        counts = counts_of(server)
        assert (counts.responses, counts.duration.total) == ({}, 0)
        assert counts.bytes_received > 0
