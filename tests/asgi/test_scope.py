"""The HTTP connection scope (ASGI HTTP specification 2.5)."""

from pathlib import Path
from typing import Any

import pytest
from scopes import Scopes, has_ipv6
from wire import CLOSE, each_parser, in_each_loop, in_loop, request, respond, served


async def scope_of(data: bytes, **settings: Any) -> dict[str, Any]:
    app = Scopes()
    async with served(app, **settings) as server:
        await server.talk(data)
    [scope] = app
    return scope


EXTENSIONS_1_0 = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
EXTENSIONS_1_1 = {**EXTENSIONS_1_0, "http.response.early_hint": {}, "http.response.trailers": {}}


@each_parser
@in_each_loop
async def test_the_whole_scope_of_each_request_of_a_connection(http: str) -> None:
    app = Scopes()
    async with served(app, http=http) as server:
        client = await server.connect()
        for _ in range(3):
            await client.ask(
                request("POST /a%20b?c=%20d HTTP/1.1", "X-Name: Value", "content-length: 0", "x-name: other")
            )
        expected = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", server.port),
            "client": client.writer.get_extra_info("sockname"),
            "scheme": "http",
            "method": "POST",
            "root_path": "",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "query_string": b"c=%20d",
            "headers": [
                (b"host", b"x"), (b"x-name", b"Value"), (b"content-length", b"0"), (b"x-name", b"other"),
            ],
            "state": {},
            "extensions": EXTENSIONS_1_1,
        }  # fmt: skip
    assert app == [expected] * 3


@each_parser
@in_loop
async def test_http_1_0(http: str) -> None:
    scope = await scope_of(b"GET / HTTP/1.0\r\n\r\n", http=http)
    assert (scope["http_version"], scope["headers"], scope["query_string"]) == ("1.0", [], b"")
    assert scope["extensions"] == EXTENSIONS_1_0


@each_parser
@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/%C3%A9%e2%82%ac", "/é€"),
        ("/%F0%9F%90%8D", "/🐍"),
        ("/a%2Fb%3Fc%23d%25e", "/a/b?c#d%e"),
        ("/a+b", "/a+b"),
        ("/%2e%2e/..//./a", "/../..//./a"),
        ("/%00%0a%7f", "/\0\n\x7f"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz%41%", "/%zzA%"),
        ("/%%41", "/%A"),
        ("/%2541", "/%41"),
        ("/%ff%C3", "/\ufffd\ufffd"),
        ("/" + "%41" * 2000, "/" + "A" * 2000),
        ("/" + "a" * 5000 + "%C3%A9", "/" + "a" * 5000 + "é"),
        ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
    ],
)
@in_loop
async def test_the_path_is_decoded_and_the_raw_path_is_not(target: str, path: str, http: str) -> None:
    scope = await scope_of(request(f"GET {target}?%41 HTTP/1.1", CLOSE), http=http)
    assert scope["path"] == path
    assert scope["raw_path"] == target.encode()
    assert scope["query_string"] == b"%41"


@pytest.mark.parametrize("query", ["", "a=b&c=d", "a?b", "%zz", "a+b%20c", "/../", "=", "&&", "[]|^{}\\"])
@in_loop
async def test_the_query_string_is_left_as_it_is(query: str) -> None:
    scope = await scope_of(request(f"GET /?{query} HTTP/1.1", CLOSE))
    assert (scope["path"], scope["query_string"]) == ("/", query.encode())


@each_parser
@in_loop
async def test_headers_keep_their_order_and_their_values(http: str) -> None:
    fields = ["Cookie: a=1", "Accept:*/*", "COOKIE: b=2", "X-Empty:", "x-blanks: \t a  b\t ", "X-Odd!#$%: :"]
    scope = await scope_of(request("GET / HTTP/1.1", CLOSE, *fields), http=http)
    assert scope["headers"][2:] == [
        (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"), (b"x-empty", b""),
        (b"x-blanks", b"a  b"), (b"x-odd!#$%", b":"),
    ]  # fmt: skip


@each_parser
@in_loop
async def test_the_targets_host_replaces_the_header(http: str) -> None:
    """RFC 9112 section 3.2.2."""
    scope = await scope_of(request("GET http://Other:8080/a HTTP/1.1", CLOSE), http=http)
    assert scope["headers"] == [(b"host", b"Other:8080"), (b"connection", b"close")]
    assert scope["raw_path"] == b"/a"


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path"),
    [
        ("/root", "/root/a b", b"/root/a%20b"),
        ("/root/", "/root//a b", b"/root//a%20b"),
        ("/r o/é", "/r o/é/a b", b"/r%20o/%C3%A9/a%20b"),
    ],
)
@in_loop
async def test_root_path_is_put_before_both_paths(root_path: str, path: str, raw_path: bytes) -> None:
    scope = await scope_of(request("GET /a%20b HTTP/1.1", CLOSE), root_path=root_path)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, path, raw_path)


@in_each_loop
async def test_a_unix_socket(tmp_path: Path) -> None:
    app = Scopes()
    path = tmp_path / "socket"
    async with served(app, uds=str(path)) as server:
        client = await server.connect()
        await client.ask(request())
    assert (app[0]["client"], app[0]["server"]) == (None, (str(path), None))


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@in_each_loop
async def test_ipv6() -> None:
    app = Scopes()
    async with served(app, host="::1") as server:
        client = await server.connect()
        await client.ask(request())
        assert app[0]["server"] == ("::1", server.port)
        assert app[0]["client"] == client.writer.get_extra_info("sockname")[:2]


@in_loop
async def test_state_is_a_shallow_copy_of_the_lifespans() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"].update(shared=[], number=1)
            for phase in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{phase}"
                await send({"type": f"lifespan.{phase}.complete"})
            return
        state = scope["state"]
        seen.append(dict(state, shared=list(state["shared"])))
        state["shared"].append(scope["path"])
        state["number"] += 1
        state["more"] = True
        await respond(send, b"")

    async with served(app, lifespan="on") as server:
        client = await server.connect()
        for path in ("/a", "/b"):
            await client.ask(request(f"GET {path} HTTP/1.1"))
        await server.talk(request("GET /c HTTP/1.1", CLOSE))
    assert seen == [
        {"shared": [], "number": 1},
        {"shared": ["/a"], "number": 1},
        {"shared": ["/a", "/b"], "number": 1},
    ]


@in_loop
async def test_state_is_each_requests_own_without_a_lifespan() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["state"]))
        scope["state"]["x"] = 1
        await respond(send, b"")

    async with served(app) as server:
        client = await server.connect()
        await client.ask(request())
        await client.ask(request())
    assert seen == [{}, {}]


@in_loop
async def test_the_access_log_shows_the_request_whatever_became_of_its_scope(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(Scopes(), access_log=True, log_level="info") as server:
        client = await server.connect()
        await client.ask(request("GET /a%20b?c HTTP/1.1"))
        host, port = client.writer.get_extra_info("sockname")
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert lines == [f'{host}:{port} - "GET /a%20b?c HTTP/1.1" 200']


@in_loop
async def test_the_access_log_shows_no_path_as_more_than_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2020-7694 (uvicorn)."""
    async with served(Scopes(), access_log=True, log_level="info") as server:
        client = await server.connect()
        await client.ask(request("GET /%0D%0a%1b[31m%07%C2%85%E2%80%A8?%0a HTTP/1.1"))
    [line] = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert line.isprintable()
    assert line.endswith('" 200')


@in_loop
async def test_the_access_log_counts_the_body_that_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"4")] if scope["path"] == "/short" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"abc"})

    settings = {"access_log": True, "log_level": "info", "access_log_format": "{path} {status} {bytes}"}
    async with served(app, **settings) as server:
        client = await server.connect()
        for method, path in (("GET", "/"), ("GET", "/stream"), ("HEAD", "/"), ("GET", "/short")):
            await client.ask(request(f"{method} {path} HTTP/1.1"), method)
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert lines == ["/ 200 3", "/stream 200 5", "/ 200 0", "/short 500 21"]
