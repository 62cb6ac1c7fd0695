"""The HTTP connection scope, as far as HTTP/1.x makes it what it is."""

from typing import Any

from scopes import Scopes
from wire import CLOSE, each_parser, in_loop, request, served


async def scope_of(data: bytes, **settings: Any) -> dict[str, Any]:
    app = Scopes()
    async with served(app, **settings) as server:
        await server.talk(data)
    [scope] = app
    return scope


EXTENSIONS_1_0 = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
EXTENSIONS_1_1 = {**EXTENSIONS_1_0, "http.response.early_hint": {}, "http.response.trailers": {}}


@each_parser
@in_loop
async def test_http_1_0(http: str) -> None:
    scope = await scope_of(b"GET / HTTP/1.0\r\n\r\n", http=http)
    assert (scope["http_version"], scope["headers"], scope["query_string"]) == ("1.0", [], b"")
    assert scope["extensions"] == EXTENSIONS_1_0


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
