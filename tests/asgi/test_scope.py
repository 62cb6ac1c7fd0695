"""The HTTP connection scope (ASGI HTTP specification 2.5)."""

from pathlib import Path
from typing import Any

import pytest
from eachwire import Wire, each_wire, each_wire_and_parser, served
from scopes import Scopes, has_ipv6
from wire import in_each_loop, in_loop, respond


async def scope_of(wire: Wire, target: str, **settings: Any) -> dict[str, Any]:
    app = Scopes()
    async with served(app, wire, **settings) as server:
        await server.ask("GET", target)
    [scope] = app
    return scope


@each_wire_and_parser
@in_each_loop
async def test_the_whole_scope_of_each_request_of_a_connection(wire: Wire) -> None:
    app = Scopes()
    async with served(app, wire) as server:
        client = await server.connect()
        for _ in range(3):
            await client.ask("POST", "/a%20b?c=%20d", "X-Name: Value", "content-length: 0", "x-name: other")
        expected = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": wire.version,
            "server": ("127.0.0.1", server.port),
            "client": client.address,
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
            "extensions": {name: {} for name in wire.extensions},
        }  # fmt: skip
    assert app == [expected] * 3


@each_wire_and_parser
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
async def test_the_path_is_decoded_and_the_raw_path_is_not(wire: Wire, target: str, path: str) -> None:
    scope = await scope_of(wire, f"{target}?%41")
    assert scope["path"] == path
    assert scope["raw_path"] == target.encode()
    assert scope["query_string"] == b"%41"


@pytest.mark.parametrize("query", ["", "a=b&c=d", "a?b", "%zz", "a+b%20c", "/../", "=", "&&", "[]|^{}\\"])
@each_wire
@in_loop
async def test_the_query_string_is_left_as_it_is(wire: Wire, query: str) -> None:
    scope = await scope_of(wire, f"/?{query}")
    assert (scope["path"], scope["query_string"]) == ("/", query.encode())


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path"),
    [
        ("/root", "/root/a b", b"/root/a%20b"),
        ("/root/", "/root//a b", b"/root//a%20b"),
        ("/r o/é", "/r o/é/a b", b"/r%20o/%C3%A9/a%20b"),
    ],
)
@each_wire
@in_loop
async def test_root_path_is_put_before_both_paths(
    wire: Wire, root_path: str, path: str, raw_path: bytes
) -> None:
    scope = await scope_of(wire, "/a%20b", root_path=root_path)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, path, raw_path)


@each_wire
@in_each_loop
async def test_a_unix_socket(wire: Wire, tmp_path: Path) -> None:
    app = Scopes()
    path = tmp_path / "socket"
    async with served(app, wire, uds=str(path)) as server:
        client = await server.connect()
        await client.ask()
    assert (app[0]["client"], app[0]["server"]) == (None, (str(path), None))


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@each_wire
@in_each_loop
async def test_ipv6(wire: Wire) -> None:
    app = Scopes()
    async with served(app, wire, host="::1") as server:
        client = await server.connect()
        await client.ask()
        assert app[0]["server"] == ("::1", server.port)
        assert app[0]["client"] == client.address[:2]


@each_wire
@in_loop
async def test_state_is_a_shallow_copy_of_the_lifespans(wire: Wire) -> None:
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

    async with served(app, wire, lifespan="on") as server:
        client = await server.connect()
        for path in ("/a", "/b"):
            await client.ask("GET", f"{path}")
        await server.ask("GET", "/c")
    assert seen == [
        {"shared": [], "number": 1},
        {"shared": ["/a"], "number": 1},
        {"shared": ["/a", "/b"], "number": 1},
    ]


@each_wire
@in_loop
async def test_state_is_each_requests_own_without_a_lifespan(wire: Wire) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["state"]))
        scope["state"]["x"] = 1
        await respond(send, b"")

    async with served(app, wire) as server:
        client = await server.connect()
        await client.ask()
        await client.ask()
    assert seen == [{}, {}]


@each_wire
@in_loop
async def test_the_access_log_shows_the_request_whatever_became_of_its_scope(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Scopes(), wire, access_log=True, log_level="info") as server:
        client = await server.connect()
        await client.ask("GET", "/a%20b?c")
        host, port = client.address
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert lines == [f'{host}:{port} - "GET /a%20b?c HTTP/{wire.version}" 200']


@each_wire
@in_loop
async def test_the_access_log_shows_no_path_as_more_than_one_line(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """CVE-2020-7694 (uvicorn)."""
    async with served(Scopes(), wire, access_log=True, log_level="info") as server:
        client = await server.connect()
        await client.ask("GET", "/%0D%0a%1b[31m%07%C2%85%E2%80%A8?%0a")
    [line] = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert line.isprintable()
    assert line.endswith('" 200')


@each_wire
@in_loop
async def test_the_access_log_counts_the_body_that_was_sent(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"4")] if scope["path"] == "/short" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"abc"})

    settings = {"access_log": True, "log_level": "info", "access_log_format": "{path} {status} {bytes}"}
    async with served(app, wire, **settings) as server:
        client = await server.connect()
        for method, path in (("GET", "/"), ("GET", "/stream"), ("HEAD", "/"), ("GET", "/short")):
            await client.ask(method, path)
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.access"]
    assert lines == ["/ 200 3", "/stream 200 5", "/ 200 0", "/short 500 21"]
