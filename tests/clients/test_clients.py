"""Real clients: curl, httpx, and h11 as a client that checks every byte by its own grammar."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
from clientsapp import BODY, app
from wire import Client, Served, in_each_loop, in_loop, served

# --- curl ---

with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def curl(server: Served, *arguments: str, stdin: bytes = b"") -> bytes:
    """What curl writes; it must succeed. `URL` in the arguments is the server's."""
    base = f"http://127.0.0.1:{server.port}"
    command = ["curl", "-sS", "--max-time", "10", *[x.replace("URL", base) for x in arguments]]
    done = await asyncio.to_thread(
        subprocess.run, command, input=stdin, capture_output=True, check=False, timeout=15
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@with_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
@pytest.mark.parametrize("path", ["/whole", "/stream"])
@in_each_loop
async def test_curl_downloads(version: str, path: str) -> None:
    async with served(app) as server:
        assert await curl(server, version, f"URL{path}") == BODY


@with_curl
@in_loop
async def test_curl_keeps_its_connection() -> None:
    async with served(app) as server:
        shown = await curl(
            server, "URL/whole", "URL/stream", "URL/echo", "-o", "/dev/null", "-o", "/dev/null",
            "-o", "/dev/null", "-w", "%{http_code} %{num_connects} %{size_download}\n",
        )  # fmt: skip
        size = len(BODY)
        assert shown.decode().splitlines() == [f"200 1 {size}", f"200 0 {size}", "200 0 0"]


@with_curl
@pytest.mark.parametrize(
    "arguments",
    [
        ["--data-binary", "@-"],
        ["--data-binary", "@-", "-H", "Expect: 100-continue"],
        ["-T", "-"],
        ["-T", "-", "-H", "Expect: 100-continue"],
        ["--http1.0", "--data-binary", "@-"],
    ],
    ids=" ".join,
)
@in_loop
async def test_curl_uploads(arguments: list[str]) -> None:
    async with served(app) as server:
        shown = await curl(server, *arguments, "-D", "/dev/stderr", "URL/echo?a=b", stdin=BODY)
        assert shown == BODY


@with_curl
@in_loop
async def test_curl_waits_for_100_and_gets_it() -> None:
    async with served(app) as server:
        shown = await curl(
            server, "--expect100-timeout", "9", "-H", "Expect: 100-continue", "-i", "-d", "abc", "URL/echo"
        )
        assert shown.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert shown.endswith(b"\r\n\r\nabc")


@with_curl
@in_loop
async def test_curl_that_waits_for_100_takes_a_refusal() -> None:
    async with served(app) as server:
        shown = await curl(
            server, "--expect100-timeout", "9", "-H", "Expect: 100-continue", "-i", "-d", "abc", "URL/refuse"
        )
        assert shown.startswith(b"HTTP/1.1 413 ")
        assert shown.endswith(b"\r\n\r\nno")


@with_curl
@in_loop
async def test_curl_asks_by_other_methods() -> None:
    async with served(app) as server:
        assert (await curl(server, "-I", "URL/whole")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert (await curl(server, "-i", "URL/empty")).startswith(b"HTTP/1.1 204 No Content\r\n")
        seen = await curl(server, "-i", "-X", "DELETE", "URL/echo?x")
        assert b'x-seen: ["DELETE", "1.1", "x"]\r\n' in seen
        seen = await curl(server, "-i", "-X", "OPTIONS", "--request-target", "*", "URL")
        assert seen.endswith(b"not found")


@with_curl
@in_loop
async def test_curl_shows_early_hints_and_trailers() -> None:
    async with served(app) as server:
        shown = await curl(server, "-i", "URL/hints")
        assert shown.startswith(
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK"
        )
        assert b"x-sum: 5\r\n" in await curl(server, "-i", "URL/trailers")


@with_curl
@in_loop
async def test_curl_by_a_proxys_target_and_a_unix_socket(tmp_path: Path) -> None:
    async with served(app) as server:
        proxied = await curl(server, "-x", "URL", "-i", "http://elsewhere.test/echo?a")
        assert b'x-seen: ["GET", "1.1", "a"]\r\n' in proxied
    path = str(tmp_path / "socket")
    async with served(app, uds=path) as server:
        assert await curl(server, "--unix-socket", path, "http://host.test/whole") == BODY


# --- httpx ---


@contextlib.asynccontextmanager
async def httpx_client() -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    async with (
        served(app) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client,
    ):
        yield server, client


@in_each_loop
async def test_httpx_over_one_connection() -> None:
    async with httpx_client() as (server, client):
        for path in ("/whole", "/stream"):
            assert (await client.get(path)).content == BODY
        assert (await client.head("/whole")).content == b""
        assert (await client.get("/empty")).status_code == 204
        assert (await client.get("/none")).status_code == 404
        assert (await client.post("/echo", content=BODY)).content == BODY
        response = await client.put("/echo", params={"a": "é"}, json={"a": [1]})
        assert response.json() == {"a": [1]}
        assert json.loads(response.headers["x-seen"]) == ["PUT", "1.1", "a=%C3%A9"]
        assert server.context.registry.connection_count == 1


@in_loop
async def test_httpx_uploads_chunks() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BODY), 7_777):
            yield BODY[start : start + 7_777]
            await asyncio.sleep(0)

    async with httpx_client() as (_, client):
        for _ in range(2):
            response = await client.post("/echo", content=chunks())
            assert response.request.headers["transfer-encoding"] == "chunked"
            assert response.content == BODY


@in_loop
async def test_httpx_over_many_connections_at_once() -> None:
    async with httpx_client() as (server, client):
        paths = ["/whole", "/stream"] * 20
        responses = await asyncio.gather(*[client.get(path) for path in paths])
        assert [response.content == BODY for response in responses] == [True] * 40
        assert server.context.registry.connection_count > 1


@in_loop
async def test_httpx_that_leaves_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with httpx_client() as (server, client):
        async with client.stream("GET", "/stream") as response:
            async for _ in response.aiter_raw():
                break
        assert (await client.get("/empty")).status_code == 204
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


# --- h11 ---


class H11:
    """h11 on one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.connection = h11.Connection(h11.CLIENT)

    async def send(self, *events: Any) -> None:
        for event in events:
            await self.client.write(self.connection.send(event))

    async def events(self) -> list[Any]:
        """What comes up to the end of the response."""
        events: list[Any] = []
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(await self.client.reader.read(65536))
            else:
                events.append(event)
        return events

    async def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[list[Any], bytes]:
        headers = [("host", "x")]
        if body is not None:
            headers.append(("transfer-encoding", "chunked"))
        await self.send(h11.Request(method=method, target=target, headers=headers))
        if body is not None:
            await self.send(h11.Data(body))
        await self.send(h11.EndOfMessage())
        events = await self.events()
        return events, b"".join(event.data for event in events if isinstance(event, h11.Data))


@in_each_loop
async def test_h11_over_one_connection() -> None:
    async with served(app, date_header=True, server_header=True) as server:
        wire = H11(await server.connect())
        for method, target, body, expected in (
            ("GET", "/whole", None, BODY),
            ("GET", "/stream", None, BODY),
            ("HEAD", "/stream", None, b""),
            ("HEAD", "/whole", None, b""),
            ("GET", "/empty", None, b""),
            ("GET", "/none", None, b"not found"),
            ("POST", "/echo", BODY, BODY),
            ("GET", "/trailers", None, b"page"),
        ):
            events, content = await wire.ask(method, target, body)
            assert isinstance(events[0], h11.Response)
            assert {name for name, _ in events[0].headers} >= {b"date", b"server"}
            assert content == expected
            if target == "/trailers":
                assert list(events[-1].headers) == [(b"x-sum", b"5")]
            assert wire.connection.our_state is h11.DONE
            assert wire.connection.their_state is h11.DONE
            wire.connection.start_next_cycle()


@in_loop
async def test_h11_gets_informational_responses() -> None:
    async with served(app) as server:
        wire = H11(await server.connect())
        events, content = await wire.ask("GET", "/hints")
        assert isinstance(events[0], h11.InformationalResponse)
        assert (events[0].status_code, content) == (103, b"page")
        wire.connection.start_next_cycle()
        expecting = [("host", "x"), ("content-length", "3"), ("expect", "100-continue")]
        await wire.send(h11.Request(method="POST", target="/echo", headers=expecting))
        while (event := wire.connection.next_event()) is h11.NEED_DATA:
            wire.connection.receive_data(await wire.client.reader.read(65536))
        assert isinstance(event, h11.InformationalResponse)
        assert event.status_code == 100
        await wire.send(h11.Data(b"abc"), h11.EndOfMessage())
        assert h11.Data(b"abc") in await wire.events()


@in_loop
async def test_h11_sees_the_close_that_it_asks_for() -> None:
    async with served(app) as server:
        wire = H11(await server.connect())
        close = [("host", "x"), ("connection", "close")]
        await wire.send(h11.Request(method="GET", target="/whole", headers=close), h11.EndOfMessage())
        events = await wire.events()
        assert (b"connection", b"close") in list(events[0].headers)
        assert wire.connection.their_state is h11.MUST_CLOSE
        wire.connection.receive_data(await wire.client.reader.read())
        assert isinstance(wire.connection.next_event(), h11.ConnectionClosed)
