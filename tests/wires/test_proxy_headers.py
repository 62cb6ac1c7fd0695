"""Proxy headers as the server takes them: peers on real sockets, scopes, the access log, settings."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from scopes import Scopes, bound_and_connected, has_ipv6
from starlette.requests import Request
from wire import CLOSE, OPENING, Client, Served, each_parser, in_each_loop, in_loop, request, respond, served

from fastasgi import Config
from fastasgi.errors import ConfigError
from fastasgi.middleware.proxy_headers import ProxyHeadersMiddleware
from fastasgi.settings.sources import collect, make_config

STRANGER = ("127.0.0.2", 0)  # a local address that is not trusted by default
FIELDS = (
    "X-Forwarded-For: 6.6.6.6, 1.2.3.4:99",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: example.org",
    "X-Forwarded-Port: 8443",
    "X-Forwarded-Prefix: /api",
    'Forwarded: for="[2001:db8::1]:7";proto=https;host=example.net',
)


async def ask(server: Served, *fields: str, line: str = "GET /a HTTP/1.1", **options: Any) -> Client:
    client = await server.connect(**options)
    await client.ask(request(line, *fields))
    return client


@each_parser
@in_each_loop
async def test_client_and_scheme_by_default(http: str) -> None:
    app = Scopes()
    async with served(app, http=http) as server:
        client = await ask(server, *FIELDS)
        await client.ask(request("GET / HTTP/1.1", "x-forwarded-for: 5.6.7.8"))
        await client.ask(request("GET / HTTP/1.1", "x-forwarded-PROTO: https"))
        await client.ask(request())
        own = client.writer.get_extra_info("sockname")
        expected = [(("1.2.3.4", 99), "https"), (("5.6.7.8", 0), "http"), (own, "https"), (own, "http")]
        assert [(scope["client"], scope["scheme"]) for scope in app] == expected
        assert app[0]["server"] == ("127.0.0.1", server.port)
    assert (app[0]["root_path"], app[0]["path"], dict(app[0]["headers"])[b"host"]) == ("", "/a", b"x")
    assert len(app[0]["headers"]) == 7


@in_each_loop
async def test_spoofed_fields_of_an_untrusted_peer_are_passed_on_and_not_believed() -> None:
    app = Scopes()
    async with served(app, forwarded_headers=["forwarded", "x-forwarded-prefix"]) as server:
        client = await ask(server, *FIELDS, local_addr=STRANGER)
        assert app[0]["client"] == client.writer.get_extra_info("sockname")
    assert (app[0]["scheme"], app[0]["path"], app[0]["root_path"]) == ("http", "/a", "")
    assert len(app[0]["headers"]) == 7


@in_loop
async def test_forwarded_headers_of_an_untrusted_peer_are_stripped_if_asked_for() -> None:
    app = Scopes()
    fields = (
        *FIELDS,
        "X-Forwarded-Ssl: on",
        "X_Forwarded_For: 6.6.6.6",
        "X-Forward: 1",
        "X-Real: 2",
        "Forwardeds: 3",
    )
    async with served(app, strip_forwarded_headers=True) as server:
        client = await ask(server, *fields, local_addr=STRANGER)
        await client.ask(request("GET / HTTP/1.1", *FIELDS))
        await ask(server, *fields)
    kept = [(b"host", b"x"), (b"x-forward", b"1"), (b"x-real", b"2"), (b"forwardeds", b"3")]
    assert app[0]["headers"] == kept
    assert app[1]["headers"] == kept[:1]
    assert len(app[2]["headers"]) == 12


@in_loop
async def test_no_proxy_headers() -> None:
    app = Scopes()
    async with served(app, proxy_headers=False, strip_forwarded_headers=True) as server:
        client = await ask(server, *FIELDS)
        await ask(server, *FIELDS, local_addr=STRANGER)
        assert app[0]["client"] == client.writer.get_extra_info("sockname")
    assert [(scope["scheme"], scope["headers"]) for scope in app] == [("http", [(b"host", b"x")])] * 2
    async with served(app, proxy_headers=False, forwarded_allow_ips="*") as server:
        await ask(server, *FIELDS)
    assert (app[2]["scheme"], len(app[2]["headers"])) == ("http", 7)


@in_loop
async def test_nobody_is_trusted_by_an_empty_list() -> None:
    app = Scopes()
    async with served(app, forwarded_allow_ips="") as server:
        client = await ask(server, *FIELDS)
        assert app[0]["client"] == client.writer.get_extra_info("sockname")


@pytest.mark.parametrize("trusted", ["127.0.0.0/30", "10.0.0.1, 127.0.0.2", ["10.0.0.1", "127.0.0.2"], "*"])
@in_loop
async def test_peers_that_are_trusted(trusted: str | list[str]) -> None:
    app = Scopes()
    async with served(app, forwarded_allow_ips=trusted) as server:
        await ask(server, "x-forwarded-for: 1.2.3.4", local_addr=STRANGER)
    assert app[0]["client"] == ("1.2.3.4", 0)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@in_loop
async def test_a_peer_with_an_ipv6_address() -> None:
    app = Scopes()
    async with served(app, host="::1") as server:
        await ask(server, "x-forwarded-for: 2001:db8::1, ::1")
    assert app[0]["client"] == ("2001:db8::1", 0)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@in_loop
async def test_a_peer_with_an_ipv4_address_on_a_socket_for_both() -> None:
    app = Scopes()
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::", 0))
        async with served(app, fd=listening.fileno(), forwarded_allow_ips="127.0.0.1") as server:
            await ask(server, "x-forwarded-for: 1.2.3.4", "x-no: 1")
    assert app[0]["client"] == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("trusted", "is_believed"),
    [(None, False), ("unix", True), ("unix:{}", True), ("{}", True), ("*", True), ("unix:{}x", False)],
)
@in_each_loop
async def test_the_peers_of_a_unix_socket(tmp_path: Path, trusted: str | None, is_believed: bool) -> None:
    app = Scopes()
    path = str(tmp_path / "socket")
    trusted = trusted and trusted.format(path)
    async with served(app, uds=path, forwarded_allow_ips=trusted) as server:
        await ask(server, "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https")
    assert app[0]["client"] == (("1.2.3.4", 0) if is_believed else None)
    assert app[0]["scheme"] == ("https" if is_believed else "http")


@in_each_loop
async def test_a_client_that_calls_itself_as_a_trusted_socket_is_not_believed(tmp_path: Path) -> None:
    app = Scopes()
    path, trusted = tmp_path / "socket", tmp_path / "trusted"
    async with served(app, uds=str(path), forwarded_allow_ips=f"unix:{trusted}") as server:
        await ask(server, "x-forwarded-for: 6.6.6.6", sock=bound_and_connected(trusted, path))
    assert app[0]["client"] is None


@pytest.mark.parametrize("trusted", ["unix:socket", "unix:./socket", "unix:{}/socket"])
@pytest.mark.parametrize("uds", ["socket", "./socket", "{}/socket"])
@in_loop
async def test_relative_and_absolute_paths_of_one_unix_socket(
    uds: str, trusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Scopes()
    monkeypatch.chdir(tmp_path)
    async with served(app, uds=uds.format(tmp_path), forwarded_allow_ips=trusted.format(tmp_path)) as server:
        await ask(server, "x-forwarded-for: 1.2.3.4")
    assert app[0]["client"] == ("1.2.3.4", 0)


@in_loop
async def test_a_relative_path_is_known_after_the_application_has_changed_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Scopes()
    monkeypatch.chdir(tmp_path)
    async with served(app, uds="socket", forwarded_allow_ips="unix:socket") as server:
        monkeypatch.chdir("/")
        sock = bound_and_connected(tmp_path / "client", tmp_path / "socket")
        await ask(server, "x-forwarded-for: 1.2.3.4", sock=sock)
        monkeypatch.chdir(tmp_path)
    assert app[0]["client"] == ("1.2.3.4", 0)


@in_each_loop
async def test_a_peer_that_resets_its_connection_is_not_taken_for_one_of_a_unix_socket() -> None:
    """The kernel has forgotten its address when the connection is accepted, but not what it sent."""
    app = Scopes()
    async with served(app, forwarded_allow_ips="unix, 127.0.0.1") as server:
        for _ in range(50):
            # Not through the event loop, which would accept meanwhile
            with socket.create_connection(("127.0.0.1", server.port), 20, STRANGER) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(request("GET / HTTP/1.1", "x-forwarded-for: 6.6.6.6"))
        await ask(server)  # accepted behind the others
    assert ("6.6.6.6", 0) not in [scope["client"] for scope in app]


@in_loop
async def test_all_that_can_be_believed() -> None:
    app = Scopes()
    names = [f"x-forwarded-{name}" for name in ("for", "proto", "host", "port", "prefix")]
    async with served(app, forwarded_headers=names, root_path="/root") as server:
        await ask(server, *FIELDS)
    [scope] = app
    assert (scope["client"], scope["scheme"]) == (("1.2.3.4", 99), "https")
    assert scope["server"] == ("example.org", 8443)
    assert scope["headers"][0] == (b"host", b"example.org:8443")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
        "/api/root",
        "/api/root/a",
        b"/api/root/a",
    )


@pytest.mark.parametrize("root_path", ["", "/root"])
@in_loop
async def test_options_of_the_server_as_a_whole_has_no_path(root_path: str) -> None:
    app = Scopes()
    async with served(app, forwarded_headers="x-forwarded-prefix", root_path=root_path) as server:
        await ask(server, "x-forwarded-prefix: /api", line="OPTIONS * HTTP/1.1")
        await ask(server, line="OPTIONS * HTTP/1.1")
    assert [(scope["path"], scope["raw_path"]) for scope in app] == [("*", b"*")] * 2
    assert [scope["root_path"] for scope in app] == [f"/api{root_path}", root_path]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (["x-forwarded-port: 8443"], "https://inner.example:8443/api/a?b"),
        (["x-forwarded-port: 443"], "https://inner.example/api/a?b"),
        (["x-forwarded-host: example.org", "x-forwarded-port: 8443"], "https://example.org:8443/api/a?b"),
        (["x-forwarded-host: example.org:81", "x-forwarded-port: 443"], "https://example.org/api/a?b"),
        (["x-forwarded-host: example.org:81"], "https://example.org:81/api/a?b"),
    ],
)
@in_loop
async def test_the_url_that_starlette_makes(fields: list[str], url: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, str(Request(scope).url).encode())

    names = [f"x-forwarded-{name}" for name in ("proto", "host", "port", "prefix")]
    async with served(app, forwarded_headers=names) as server:
        client = await server.connect()
        lines = ["GET /a?b HTTP/1.1", "host: inner.example:81", "x-forwarded-proto: https",
                 "x-forwarded-prefix: /api", *fields, "", ""]  # fmt: skip
        answer = await client.ask("\r\n".join(lines).encode())
    assert answer.body.decode() == url


@in_loop
async def test_forwarded_can_be_believed_instead() -> None:
    app = Scopes()
    async with served(app, forwarded_headers="Forwarded, x-forwarded-prefix") as server:
        await ask(server, *FIELDS)
    [scope] = app
    assert (scope["client"], scope["scheme"], scope["path"]) == (("2001:db8::1", 7), "https", "/api/a")
    assert (scope["server"], scope["headers"][0]) == (("example.net", 443), (b"host", b"example.net"))


@in_each_loop
async def test_a_websocket_behind_a_proxy(caplog: pytest.LogCaptureFixture) -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.close"})

    async with served(app, access_log=True, log_level="info") as server:
        await ask(server, *OPENING, "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https")
    assert (scopes[0]["type"], scopes[0]["client"], scopes[0]["scheme"]) == (
        "websocket",
        ("1.2.3.4", 0),
        "wss",
    )
    assert '1.2.3.4:0 - "WebSocket /a" 403' in [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("form", [None, "{client} {path}", "json"])
@in_loop
async def test_the_access_log_shows_the_client_of_the_scope(
    form: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Scopes(), access_log=True, log_level="info", access_log_format=form) as server:
        await ask(server, "x-forwarded-for: 1.2.3.4:99")
        await ask(server, "x-forwarded-for: 2001:db8::1")
    first, second = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert "1.2.3.4:99" in first
    assert "2001:db8::1:0" in second


@in_loop
async def test_malformed_and_oversized_fields_are_no_error_for_the_client() -> None:
    app = Scopes()
    async with served(app) as server:
        client = await server.connect()
        for value in ("unknown", "[::1", "1.2.3.4:x", "\xff", "x" * 60000, "10.0.0.1," * 6000):
            answer = await client.ask(
                request("GET / HTTP/1.1", f"x-forwarded-for: {value}", "x-forwarded-proto: gopher")
            )
            assert answer.status == 200
        own = client.writer.get_extra_info("sockname")
        assert [scope["client"] for scope in app] == [own] * 5 + [("10.0.0.1", 0)]
        assert {scope["scheme"] for scope in app} == {"http"}


@in_loop
async def test_a_flood_of_forwarded_headers_is_refused_as_any_other() -> None:
    app = Scopes()
    flood = ["x-forwarded-for: 1.2.3.4"] * 101
    async with served(app) as server:
        assert b" 431 " in await server.talk(request("GET / HTTP/1.1", *flood))
        assert b" 200 " in await server.talk(request("GET / HTTP/1.1", *flood[:98], CLOSE))
    assert [scope["client"] for scope in app] == [("1.2.3.4", 0)]


@in_loop
async def test_each_request_of_a_proxys_connection_has_a_client_of_its_own() -> None:
    """Also pipelined, and a request without fields between."""
    app = Scopes()
    async with served(app) as server:
        client = await server.connect()
        await client.write(
            request("GET / HTTP/1.1", "x-forwarded-for: 1.2.3.4")
            + request()
            + request("GET / HTTP/1.1", "x-forwarded-for: 5.6.7.8")
        )
        for _ in range(3):
            assert (await client.response()).status == 200
        own = client.writer.get_extra_info("sockname")
    assert [scope["client"] for scope in app] == [("1.2.3.4", 0), own, ("5.6.7.8", 0)]


@in_loop
async def test_the_middleware_around_an_application_of_ours_does_no_harm() -> None:
    app = Scopes()
    async with served(ProxyHeadersMiddleware(app, "127.0.0.1")) as server:
        await ask(server, "x-forwarded-for: 6.6.6.6, 1.2.3.4")
    async with served(ProxyHeadersMiddleware(app, "127.0.0.1"), proxy_headers=False) as server:
        await ask(server, "x-forwarded-for: 6.6.6.6, 1.2.3.4")
    assert [scope["client"] for scope in app] == [("1.2.3.4", 0)] * 2


# --- Settings ---


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    config = Config("app:app")
    assert config.proxy_headers
    assert config.forwarded_allow_ips == ["127.0.0.1", "::1"]
    assert config.forwarded_headers == ["x-forwarded-for", "x-forwarded-proto"]
    assert Config("app:app", proxy_headers=False).forwarding is None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"forwarded_allow_ips": "localhost"}, "forwarded_allow_ips 'localhost': give an address"),
        (
            {"forwarded_allow_ips": ["10.0.0.1/8"]},
            "forwarded_allow_ips '10.0.0.1/8' has bits .* write 10.0.0.0/8",
        ),
        (
            {"forwarded_allow_ips": "fe80::1%eth0"},
            "forwarded_allow_ips 'fe80::1%eth0' has a zone, .* leave it out$",
        ),
        ({"forwarded_headers": "x-real-ip"}, "forwarded_headers 'x-real-ip': give some of x-forwarded-for, "),
        (
            {"forwarded_headers": "forwarded,x-forwarded-for"},
            "forwarded_headers: forwarded and x-forwarded-for ",
        ),
        ({"forwarded_allow_ips": 5}, "forwarded_allow_ips 5: give texts"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Config("app:app", **settings)


def test_the_variable_that_uvicorn_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1,unix")
    assert Config("app:app").forwarded_allow_ips == ["10.0.0.1", "unix"]
    assert Config("app:app", forwarded_allow_ips="*").forwarded_allow_ips == ["*"]
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "")
    assert Config("app:app").forwarded_allow_ips == []


@pytest.mark.parametrize(
    ("options", "environ", "expected", "origin"),
    [
        ({}, {"FORWARDED_ALLOW_IPS": "10.0.0.1, ::1"}, ["10.0.0.1", "::1"],
        "environment FORWARDED_ALLOW_IPS"),
        (
            {}, {"FORWARDED_ALLOW_IPS": "*", "FASTASGI_FORWARDED_ALLOW_IPS": "10.0.0.2"}, ["10.0.0.2"],
            "environment FASTASGI_FORWARDED_ALLOW_IPS",
        ),
        (
            {"forwarded_allow_ips": ("10.0.0.3,10.0.0.4", "unix")}, {"FORWARDED_ALLOW_IPS": "*"},
            ["10.0.0.3", "10.0.0.4", "unix"], "command line --forwarded-allow-ips",
        ),
    ],
)  # fmt: skip
def test_where_trust_comes_from(
    options: dict[str, Any], environ: dict[str, str], expected: list[str], origin: str
) -> None:
    given = collect(Config, {"app": "app:app", **options}, environ)
    assert given["forwarded_allow_ips"].origin == origin
    assert make_config(Config, given).forwarded_allow_ips == expected


def test_the_command_line(start: Any) -> None:
    source = """
        async def app(scope, receive, send):
            if scope["type"] == "http":
                body = repr((scope["client"], scope["scheme"], len(scope["headers"]))).encode()
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": body})
    """

    def answer(port: int, source_address: tuple[str, int]) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 20, source_address) as sock:
            sock.sendall(request("GET / HTTP/1.1", *FIELDS, CLOSE))
            with sock.makefile("rb") as file:
                return file.read().partition(b"\r\n\r\n")[2]

    server = start(
        source, "--port", "0", "--forwarded-allow-ips", "127.0.0.2,10.0.0.0/8", "--strip-forwarded-headers",
        "--forwarded-header", "forwarded", "app:app",
    )  # fmt: skip
    assert answer(server.port, STRANGER) == b"(('2001:db8::1', 7), 'https', 8)"
    assert answer(server.port, ("127.0.0.1", 0)).endswith(b"'http', 2)")
    server.end()
    assert "2001:db8::1:7 - " in server.output

    server = start(source, "--port", "0", "--no-proxy-headers", "app:app")
    assert answer(server.port, ("127.0.0.1", 0)).endswith(b"'http', 8)")
