"""The admin listener on real sockets, served by fastasgi with the settings that it has."""

import asyncio
import json
import logging
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from adminserved import BEARER, TOKEN, FakeSource, idle_socket, serving_admin
from certificates import Authority
from http2peer import HTTP2Peer
from serving import WAIT_S, fetch, port_of
from wire import in_each_loop, in_loop

from fastasgi.admin import app as app_module
from fastasgi.admin import events
from fastasgi.admin.listener import PATIENCE_S

ASK = "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n"


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are so large that no socket's buffers hold a few of them."""
    monkeypatch.setattr(events.json, "dumps", lambda document: "x" * 1_000_000)


async def curl(*arguments: str) -> tuple[int, bytes]:
    """Its exit code and what it prints."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--max-time", f"{WAIT_S}", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output


async def until(condition: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Clients


@in_each_loop
async def test_curl_asks_over_tcp(source: FakeSource) -> None:
    async with serving_admin(source) as server:
        address = f"127.0.0.1:{port_of(server)}"
        assert await curl(f"http://{address}/livez") == (0, b"the supervisor runs\n")
        assert await curl("--fail", f"http://{address}/readyz", "--http2-prior-knowledge") == (
            0,
            b"2 of 2 workers serve\n",
        )
        code, output = await curl("--fail", f"http://{address}/status")
        assert code == 0
        assert json.loads(output)
        code, _ = await curl("--fail", f"http://evil.example:{port_of(server)}/status",
                             "--resolve", f"evil.example:{port_of(server)}:127.0.0.1")  # fmt: skip
        assert code == 22


@in_loop
async def test_curl_asks_over_a_unix_socket(source: FakeSource, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving_admin(source, f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
        for host, is_let_in in (("localhost", True), ("localhost:80", True), ("evil.example", False)):
            code, output = await curl("--fail", "--unix-socket", str(path), f"http://{host}/status")
            assert (code == 0) == is_let_in, output
        code, output = await curl("--unix-socket", str(path), "http://anything/livez")
        assert output == b"the supervisor runs\n"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@in_loop
async def test_httpx_asks_by_tls_with_the_token(
    source: FakeSource, authority: Authority, version: str
) -> None:
    pair = authority.issue()
    async with serving_admin(source, token=TOKEN, **pair.settings) as server:
        address = f"https://localhost:{port_of(server)}"
        context = ssl.create_default_context(cafile=str(authority.path))
        is_http2 = version == "HTTP/2"
        async with httpx.AsyncClient(
            verify=context, base_url=address, http1=not is_http2, http2=is_http2
        ) as client:
            response = await client.get("/livez")
            assert (response.text, response.http_version) == ("the supervisor runs\n", version)
            assert (await client.get("/status")).status_code == 401
            response = await client.get("/status", headers={"authorization": f"Bearer {TOKEN}"})
            assert response.status_code == 200
            response = await client.post("/login", data={"token": "wrong"})
            assert response.status_code == 401
            response = await client.post("/login", data={"token": TOKEN}, headers={"origin": address})
            assert response.status_code == 303
            assert response.headers["set-cookie"].endswith("; Secure")
            assert (await client.get("/status")).status_code == 200


@in_loop
async def test_http2_asks_for_an_authority(source: FakeSource) -> None:
    async with serving_admin(source) as server:
        port = port_of(server)
        for authority, status in (
            ("localhost", 200),
            (f"localhost:{port}", 200),
            ("127.0.0.1", 200),
            ("[::1]:1", 200),
            ("evil.example", 421),
            (f"evil.example:{port}", 421),
            ("localhost.", 421),
        ):
            peer = await HTTP2Peer.connect(port)
            await peer.open()
            stream = await peer.begin("GET", "/status", authority=authority, end_stream=True)
            assert (await peer.response(stream)).status == status, authority
            peer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://evil.example/status HTTP/1.1\r\nhost: localhost", 421),
        ("GET http://localhost/status HTTP/1.1\r\nhost: localhost", 200),
        ("GET http://localhost:1/status HTTP/1.1\r\nhost: evil.example", 200),  # RFC 9112 section 3.2.2
        ("GET http://localhost@evil.example/status HTTP/1.1\r\nhost: localhost", 400),
        ("GET /status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example", 400),
        ("GET /status HTTP/1.1\r\nhost: evil.example\r\nhost: localhost", 400),
        ("GET /status HTTP/1.1\r\nhost : localhost", 400),
        ("GET /status HTTP/1.1\r\nx: y\r\n host: localhost", 400),
        ("GET /status HTTP/1.1\r\nhost: evil.example\r\nx-forwarded-host: localhost", 421),
        ("GET /status HTTP/1.1\r\nhost: evil.example\r\nforwarded: host=localhost", 421),
        ("GET /status HTTP/1.1\r\nhost:", 421),
        ("GET /status HTTP/1.0", 421),
        ("GET /status HTTP/1.0\r\nhost: localhost", 200),
        ("GET //localhost/status HTTP/1.1\r\nhost: evil.example", 421),
        ("GET /%73tatus HTTP/1.1\r\nhost: localhost", 200),  # the same path
        ("GET /%2e%2e/status HTTP/1.1\r\nhost: localhost", 404),
        ("GET /assets/%2e%2e/access.py HTTP/1.1\r\nhost: localhost", 404),
        ("GET /assets/..%2f..%2fapp.py HTTP/1.1\r\nhost: localhost", 404),
        ("GET /status%00 HTTP/1.1\r\nhost: localhost", 404),
        ("GET /status?x=%0d%0aset-cookie:%20a=b HTTP/1.1\r\nhost: localhost", 200),
        ("POST /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0", 405),
        ("HEAD /status HTTP/1.1\r\nhost: localhost", 200),
        ("CONNECT localhost:80 HTTP/1.1\r\nhost: localhost", 501),
        ("OPTIONS * HTTP/1.1\r\nhost: localhost", 405),
        ("GET /status HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
         "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", 200),
    ],
)  # fmt: skip
@in_loop
async def test_attackers_are_told_nothing(source: FakeSource, head: str, status: int) -> None:
    async with serving_admin(source) as server:
        head = head.replace("\r\nconnection: upgrade", "\r\nconnection: upgrade, close")
        closing = "" if "upgrade" in head else "\r\nconnection: close"
        answer = await fetch(port_of(server), f"{head}{closing}\r\n\r\n")
        assert status_of(answer) == status, answer
        if head.startswith("HEAD"):
            assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /livez HTTP/1.1\r\nhost: x\r\ncookie: " + "a=b; " * 4000, 431),
        ("GET /livez?" + "x" * 5000 + " HTTP/1.1\r\nhost: x", 414),
        ("GET /livez HTTP/1.1\r\nhost: x" + "\r\nx: y" * 200, 431),
        ("POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 100000", 413),
    ],
)
@in_loop
async def test_large_requests_are_refused(source: FakeSource, head: str, status: int) -> None:
    async with serving_admin(source, token=TOKEN) as server:
        answer = await fetch(port_of(server), f"{head}\r\nconnection: close\r\n\r\n")
        assert status_of(answer) == status


@in_loop
async def test_what_else_is_configured_by_the_environment_does_not_matter(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with serving_admin(source) as server:
        answer = await fetch(port_of(server), ASK.format("/livez", "x"))
        assert status_of(answer) == 200


@in_loop
async def test_proxies_are_believed_nothing(
    source: FakeSource, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with serving_admin(source, token=TOKEN) as server:
        head = f"GET /status HTTP/1.1\r\nhost: x\r\n{BEARER}x\r\nx-forwarded-for: 192.0.2.9\r\n"
        answer = await fetch(port_of(server), f"{head}connection: close\r\n\r\n")
        assert status_of(answer) == 401
    assert "The admin listener has refused a wrong token from 127.0.0.1" in caplog.messages


# Events


async def next_event(reader: asyncio.StreamReader) -> dict[str, str]:
    """The fields of the next event of a stream that has any."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(WAIT_S):
        while line := await reader.readline():
            name, colon, value = line.decode().rstrip("\r\n").partition(": ")
            if colon and name in ("event", "data", "retry"):
                fields[name] = value
            elif "event" in fields:
                return fields
    raise AssertionError(f"the stream has ended: {fields}")


async def open_events(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
    assert status_of(head) == 200, head
    assert b"content-type: text/event-stream" in head
    return reader, writer


@in_each_loop
async def test_a_dashboard_hears_what_happens_each_second(source: FakeSource) -> None:
    async with serving_admin(source) as server:
        reader, writer = await open_events(port_of(server))
        first = await next_event(reader)
        assert (first["event"], first["retry"]) == ("whole", "2000")
        assert json.loads(first["data"])
        for _ in range(2):
            event = await next_event(reader)
            assert event["event"] == "update"
            assert json.loads(event["data"])
        writer.close()


@in_each_loop
async def test_streams_end_with_the_listener(source: FakeSource, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with serving_admin(source) as server:
        clients = [await open_events(port_of(server)) for _ in range(5)]
        for reader, _ in clients:
            await next_event(reader)
        peer = await HTTP2Peer.connect(port_of(server))
        await peer.open()
        stream = await peer.begin("GET", "/events", authority="localhost", end_stream=True)
        await peer.head(stream)
        began_at = loop.time()
        server.should_exit = True
        response = await peer.response(stream)
        assert (response.status, response.reset) == (200, None)
        peer.close()
    assert loop.time() - began_at < PATIENCE_S
    for reader, writer in clients:
        rest = await reader.read()
        assert rest.endswith(b"\r\n0\r\n\r\n")  # the end of a chunked body that was not cut off
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@in_loop
async def test_a_bounded_number_listens(source: FakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_CLIENTS", 16)
    async with serving_admin(source) as server:
        port = port_of(server)
        ask = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n"
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        for _, writer in clients:
            writer.write(ask)
        heads = [await reader.readuntil(b"\r\n\r\n") for reader, _ in clients]
        assert sorted(map(status_of, heads)) == [200] * 16 + [503] * 284
        refused = next(head for head in heads if status_of(head) == 503)
        assert b"\r\nretry-after: " in refused
        # Everybody else is still answered, and who leaves makes room
        assert status_of(await fetch(port, ASK.format("/status", "localhost"))) == 200
        for _, writer in clients:
            writer.close()
        app = server.config.loaded_app
        await until(lambda: app._events.client_count == 0)
        _, writer = await open_events(port)
        writer.close()


@in_loop
async def test_a_fault_ends_no_stream(source: FakeSource, caplog: pytest.LogCaptureFixture) -> None:
    async with serving_admin(source) as server:
        reader, writer = await open_events(port_of(server))
        await next_event(reader)
        source.error = ValueError("boom")
        async with asyncio.timeout(WAIT_S):
            while not (await reader.readline()).startswith(b": "):
                pass
        source.error = None
        assert (await next_event(reader))["event"] == "update"
        writer.close()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The admin listener can't make a document"
    ]


@pytest.mark.usefixtures("large")
@in_loop
async def test_a_dashboard_that_reads_nothing_is_dropped(source: FakeSource, idle: ExitStack) -> None:
    async with serving_admin(source, timeout_write=0.5) as server:
        app = server.config.loaded_app
        port = port_of(server)
        ask = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n"
        for _ in range(8):
            idle.enter_context(idle_socket(port, ask))
        await until(lambda: app._events.client_count == 8)
        # Meanwhile others hear
        reader, writer = await open_events(port)
        assert (await next_event(reader))["event"] == "whole"
        assert (await next_event(reader))["event"] == "update"
        await until(lambda: app._events.client_count == 1)
        writer.close()


@in_loop
async def test_a_scrape_that_reads_nothing_is_dropped(
    source: FakeSource, idle: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "exposition", lambda *arguments: (b"x" * 20_000_000, "text/plain"))
    async with serving_admin(source, timeout_write=0.5) as server:
        port = port_of(server)
        for _ in range(8):
            idle.enter_context(idle_socket(port, ASK.format("/metrics", "localhost").encode()))
        await until(lambda: len(server.server_state.connections) == 8)
        assert status_of(await fetch(port, ASK.format("/readyz", "x"))) == 200
        await until(lambda: not server.server_state.connections)


@in_loop
async def test_a_shutdown_waits_for_nobody_who_reads_nothing(
    source: FakeSource, idle: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events.json, "dumps", lambda document: "x" * 20_000_000)
    loop = asyncio.get_running_loop()
    async with serving_admin(source) as server:
        app = server.config.loaded_app
        idle.enter_context(idle_socket(port_of(server), ASK.format("/events", "localhost").encode()))
        await until(lambda: app._events.client_count)
        began_at = loop.time()
    assert loop.time() - began_at < PATIENCE_S + 0.8


@pytest.fixture
def idle() -> Iterator[ExitStack]:
    """Closes sockets in the end."""
    with ExitStack() as stack:
        yield stack
