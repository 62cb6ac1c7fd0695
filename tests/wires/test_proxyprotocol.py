"""Connections that begin with a PROXY header: whose they may be, what becomes of scopes, what is refused."""

import asyncio
import contextlib
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from proxywire import INET, INET6, LOCAL, UNIX, UNSPEC, v1, v2
from scopes import Scopes, bound_and_connected
from websocketwire import echo as echo_messages
from websocketwire import open_websocket
from wire import CLOSE, Client, echo, hello, in_each_loop, in_loop, request, served

from fastasgi import Config
from fastasgi.errors import ConfigError

CLIENT, SERVER = ("192.0.2.1", 56324), ("198.51.100.7", 443)
HEADER = v2(INET, CLIENT, SERVER, b"\x04\x00\x01x")
STRANGER = ("127.0.0.2", 0)  # a local address that is not trusted
HTTP = request("GET / HTTP/1.1", CLOSE)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("header", "client", "server"),
    [
        (v1("TCP4", CLIENT, SERVER), CLIENT, SERVER),
        (v1("TCP6", ("2001:db8::1", 7), ("::2", 8)), ("2001:db8::1", 7), ("::2", 8)),
        (HEADER, CLIENT, SERVER),
        (v2(INET6, ("::ffff:192.0.2.1", 7), ("::ffff:5.6.7.8", 8)), ("192.0.2.1", 7), ("5.6.7.8", 8)),
        (v2(INET6, ("2001:db8::1", 7), ("::2", 8), bytes(4096)), ("2001:db8::1", 7), ("::2", 8)),
        (v2(UNIX, b"/run/client.sock", b"/run/own.sock"), None, ("/run/own.sock", None)),
        (v2(UNIX, b"", b""), None, None),
    ],
)
@in_each_loop
async def test_the_scope_is_of_the_client_that_the_header_tells(
    header: bytes, client: tuple[str, int] | None, server: tuple[str, int | None] | None
) -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        connection = await running.connect()
        await connection.ask(header + request())
        await connection.ask(request())
        assert running.context.registry.connection_count == 1
    assert [(scope["client"], scope["server"], scope["scheme"]) for scope in app] == [
        (client, server, "http")
    ] * 2


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN a b c\r\n", v2(UNSPEC), v2(INET, CLIENT, SERVER, command=LOCAL)]
)
@in_loop
async def test_the_connections_own_addresses_where_no_client_is_told(header: bytes) -> None:
    """Who it is, nobody knows: so it may not say for whom it speaks, though the proxy might."""
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1", forwarded_allow_ips="127.0.0.1") as running:
        connection = await running.connect()
        await connection.ask(header + request("GET / HTTP/1.1", "x-forwarded-for: 6.6.6.6"))
        assert app[0]["client"] == connection.writer.get_extra_info("sockname")
        assert app[0]["server"] == ("127.0.0.1", running.port)


@pytest.mark.parametrize("header", [v1("TCP4", CLIENT, SERVER), HEADER])
@in_each_loop
async def test_a_header_in_single_bytes(header: bytes) -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        connection = await running.connect()
        connection.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header + request():
            await connection.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await connection.response()).status == 200
    assert app[0]["client"] == CLIENT


@in_each_loop
async def test_requests_and_bodies_right_behind_the_header() -> None:
    async with served(echo, proxy_protocol="127.0.0.1") as running:
        connection = await running.connect()
        body = b"x" * 300_000
        first = request("POST /a HTTP/1.1", f"content-length: {len(body)}", body=body)
        await connection.write(HEADER + first + request("GET /b HTTP/1.1"))
        assert (await connection.response()).body == b"POST /a? " + body
        assert (await connection.response()).body == b"GET /b? "


@in_loop
async def test_a_websocket_behind_the_header(caplog: pytest.LogCaptureFixture) -> None:
    async with served(
        echo_messages, proxy_protocol="127.0.0.1", access_log=True, log_level="info"
    ) as running:
        connect = running.connect

        async def connect_by_proxy(**options: Any) -> Client:
            client = await connect(**options)
            await client.write(HEADER)
            return client

        running.connect = connect_by_proxy  # type: ignore[method-assign]
        websocket = await open_websocket(running)
        await websocket.send("hello")
        assert await websocket.receive() == "hello"
        await websocket.close()
    assert '192.0.2.1:56324 - "WebSocket /" [accepted]' in [record.getMessage() for record in caplog.records]


@in_loop
async def test_the_logs_show_the_client_that_the_header_tells(caplog: pytest.LogCaptureFixture) -> None:
    async with served(hello, proxy_protocol="127.0.0.1", access_log=True, log_level="info") as running:
        await running.talk(HEADER + HTTP)
        await running.talk(HEADER + b"GET\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records]
    assert '192.0.2.1:56324 - "GET / HTTP/1.1" 200' in lines
    assert any(line.startswith("Request of 192.0.2.1:56324 refused with 400") for line in lines)


@pytest.mark.parametrize(
    ("trusted", "expected"), [("127.0.0.1", CLIENT), ("192.0.2.0/24", ("1.2.3.4", 0)), ("*", ("6.6.6.6", 0))]
)
@in_loop
async def test_forwarded_headers_count_where_the_told_client_is_trusted(
    trusted: str, expected: tuple[str, int]
) -> None:
    """The proxy passes bytes on unread: that it is trusted says nothing of the headers in them."""
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1", forwarded_allow_ips=trusted) as running:
        client = await running.connect()
        await client.ask(HEADER + request("GET / HTTP/1.1", "x-forwarded-for: 6.6.6.6, 1.2.3.4"))
    assert app[0]["client"] == expected


@pytest.mark.parametrize("proxies", ["unix", "unix:{}", "*"])
@in_each_loop
async def test_a_unix_socket(tmp_path: Path, proxies: str) -> None:
    app = Scopes()
    path = str(tmp_path / "socket")
    async with served(app, uds=path, proxy_protocol=proxies.format(path)) as running:
        client = await running.connect()
        await client.ask(HEADER + request())
    assert (app[0]["client"], app[0]["server"]) == (CLIENT, SERVER)


# --- Who may send one ---


async def closed(client: Client) -> bytes:
    """What the server has sent when the connection has ended, in order or not."""
    try:
        return await client.rest()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("header", [v1("TCP4", CLIENT, SERVER), HEADER, b"PROXY ", HEADER[:12]])
@in_each_loop
async def test_a_forged_header_of_an_untrusted_peer_closes_at_once(
    header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        client = await running.connect(local_addr=STRANGER)
        await client.write(header + (HTTP if len(header) > 12 else b""))
        assert await closed(client) == b""
        assert running.context.registry.connection_count == 0
    assert app == []
    [line] = warnings(caplog)
    assert line.startswith("Connection of 127.0.0.2:")
    assert line.endswith("closed: a PROXY header of a peer that proxy_protocol does not name")


@in_each_loop
async def test_a_client_that_calls_itself_as_a_trusted_socket_sends_a_forged_header(tmp_path: Path) -> None:
    app = Scopes()
    path, trusted = tmp_path / "socket", tmp_path / "trusted"
    async with served(app, uds=str(path), proxy_protocol=f"unix:{trusted}") as running:
        client = await running.connect(sock=bound_and_connected(trusted, path))
        await client.write(HEADER + HTTP)
        assert await closed(client) == b""
    assert app == []


@in_each_loop
async def test_an_untrusted_peer_without_a_header_is_served_as_itself() -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        client = await running.connect(local_addr=STRANGER)
        for part in (b"P", b"R", b"O", request("PROPFIND / HTTP/1.1")[3:]):
            await client.write(part)
            await asyncio.sleep(0)
        assert (await client.response()).status == 200
        assert app[0]["client"] == client.writer.get_extra_info("sockname")
    assert app[0]["method"] == "PROPFIND"


@in_loop
async def test_a_proxy_line_where_the_protocol_is_off_is_a_malformed_request() -> None:
    app = Scopes()
    async with served(app) as running:
        assert b" 400 " in await running.talk(v1("TCP4", CLIENT, SERVER) + HTTP)
        assert b" 400 " in await running.talk(HEADER + HTTP)
    assert app == []


# --- What is refused ---


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HTTP, "no PROXY header comes first"),
        (b"\x16\x03\x01\x02\x00\x01", "no PROXY header comes first"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999", "a malformed PROXY line"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "a malformed PROXY line"),
        (b"PROXY UNKNOWN\n", "a malformed PROXY line"),
        (b"PROXY TCP4 not-an-address ", "a malformed PROXY line"),
        (b"PROXY GARBAGE ", "a PROXY line of an unknown protocol"),
        (b"PROXY TCP9 ", "a PROXY line of an unknown protocol"),
        (b"PROXY UNKNOWN " + b"x" * 1_000_000, "a PROXY line is too long"),
        (HEADER[:12] + b"\x31\x11\x00\x0c", "a PROXY header of an unknown version or command"),
        (HEADER[:12] + b"\x21\x11\x00\x0b" + bytes(11), "a PROXY header too short for its addresses"),
        (HEADER + HEADER + HTTP, None),
    ],
)
@in_each_loop
async def test_a_malformed_header_closes_at_once(
    data: bytes, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        client = await running.connect()
        with contextlib.suppress(ConnectionError):
            await client.write(data)
        answer = await closed(client)
        client.close()
        await running.context.registry.wait_idle()
    assert app == []
    [line] = warnings(caplog)
    if reason is None:
        assert answer.startswith(b"HTTP/1.1 400 ")  # the second header is an HTTP request, and none
    else:
        assert answer == b""
        assert line.endswith(f" closed: {reason}")


@in_each_loop
async def test_a_malformed_header_on_a_unix_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(hello, uds=str(tmp_path / "socket"), proxy_protocol="unix") as running:
        assert await running.talk(HTTP) == b""
    assert warnings(caplog) == ["Connection of a unix socket closed: no PROXY header comes first"]


@pytest.mark.parametrize(("sent", "is_logged"), [(b"PROXY TCP4 1", True), (HEADER[:-1], True), (b"", False)])
@in_each_loop
async def test_an_incomplete_header_has_the_heads_time(
    sent: bytes, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(hello, proxy_protocol="127.0.0.1", timeout_request_head=0.1) as running:
        client = await running.connect()
        await client.write(sent)
        assert await closed(client) == b""
        await running.context.registry.wait_idle()
    lines = ["its PROXY header did not arrive within timeout_request_head"] if is_logged else []
    assert [line.partition(" closed: ")[2] for line in warnings(caplog)] == lines


@in_loop
async def test_header_and_head_have_one_time_together() -> None:
    loop = asyncio.get_running_loop()
    async with served(hello, proxy_protocol="127.0.0.1", timeout_request_head=0.4) as running:
        client = await running.connect()
        started = loop.time()
        await client.write(HEADER[:-1])
        await asyncio.sleep(0.3)
        await client.write(HEADER[-1:] + b"GET / HT")
        assert b" 408 " in await client.rest()
        assert loop.time() - started < 0.4 + 3 * running.context.tick_interval_s + 0.1


@pytest.mark.parametrize(("sent", "is_logged"), [(HEADER[:-1], True), (b"", False)])
@in_each_loop
async def test_a_peer_that_leaves_within_its_header(
    sent: bytes, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(hello, proxy_protocol="127.0.0.1") as running:
        client = await running.connect()
        await client.write(sent)
        client.writer.write_eof()
        assert await closed(client) == b""
        await running.context.registry.wait_idle()
    lines = ["it has ended within its PROXY header"] if is_logged else []
    assert [line.partition(" closed: ")[2] for line in warnings(caplog)] == lines


@in_each_loop
async def test_a_health_check_that_ends_by_a_reset_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Scopes()
    async with served(app, proxy_protocol="127.0.0.1") as running:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", running.port), 20) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(v2(UNSPEC, command=LOCAL))
        client = await running.connect()  # accepted behind the others
        await client.ask(HEADER + request())
        client.close()
        await running.context.registry.wait_idle()
    assert warnings(caplog) == []


@in_loop
async def test_a_slow_header_of_the_largest_size_is_held_once() -> None:
    app = Scopes()
    header = v2(INET, CLIENT, SERVER, bytes(65535 - 12))
    async with served(app, proxy_protocol="127.0.0.1") as running:
        client = await running.connect()
        for start in range(0, len(header), 1000):
            await client.write(header[start : start + 1000])
            await asyncio.sleep(0)
        assert (await client.ask(request())).status == 200
    assert app[0]["client"] == CLIENT


@in_loop
async def test_a_connection_without_its_header_does_not_hold_a_shutdown_up() -> None:
    loop = asyncio.get_running_loop()
    async with served(hello, proxy_protocol="127.0.0.1", timeout_graceful_shutdown=10) as running:
        clients: list[Client] = [await running.connect() for _ in range(2)]
        await clients[0].write(HEADER[:7])
        await clients[1].write(HEADER)
        while running.context.registry.connection_count < 2:
            await asyncio.sleep(0)
        started = loop.time()
        await running.stop()
        assert loop.time() - started < 5


# --- Settings ---


def test_the_setting() -> None:
    assert Config("app:app").proxy_peers is None
    assert Config("app:app", proxy_protocol=[]).proxy_peers is None
    config = Config("app:app", proxy_protocol="10.0.0.0/8, unix")
    assert config.proxy_protocol == ["10.0.0.0/8", "unix"]
    assert config.proxy_peers is not None
    assert "10.1.2.3" in config.proxy_peers
    with pytest.raises(ConfigError, match=r"^proxy_protocol 'on': give an address"):
        Config("app:app", proxy_protocol="on")
