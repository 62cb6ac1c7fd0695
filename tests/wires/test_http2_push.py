"""Server push (RFC 9113 section 8.4), by ASGI's extension "HTTP/2 Server Push"."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from http2peer import FrameType, HTTP2Peer, Setting, goaway, rst_stream
from http2served import peer_of
from wire import error_records, in_each_loop, in_loop, respond, served

PUSH = "http.response.push"


async def push(send: Any, path: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    await send({"type": PUSH, "path": path, "headers": headers})


class Pushing:
    """Answers ``/`` with these pushes and ``page``; anything else with its target.

    `scopes` are those of all calls. Paths of ``/held`` wait for `go_on`, or for the client's leaving.
    """

    def __init__(self, *paths: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.paths = paths
        self.headers = headers
        self.scopes: list[dict[str, Any]] = []
        self.received: list[Any] = []
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/":
            for path in self.paths:
                await push(send, path, self.headers)
            return await respond(send, b"page")
        self.received.append(await receive())
        if scope["path"].startswith("/held"):
            leaving = asyncio.ensure_future(receive())
            going_on = asyncio.ensure_future(self.go_on.wait())
            await asyncio.wait([leaving, going_on], return_when=asyncio.FIRST_COMPLETED)
            going_on.cancel()
            if leaving.done():
                return self.received.append(leaving.result())
            leaving.cancel()
        await respond(send, scope["raw_path"] + b"?" + scope["query_string"])


# --- What is pushed ---


@in_each_loop
async def test_a_promise_and_its_response() -> None:
    app = Pushing("/style.css?v=1", "/caf%C3%A9", headers=[(b"Accept", b"text/css"), (b"x-a", b"b")])
    async with peer_of(app) as (_, peer):
        page = await peer.ask()
        assert (page.status, page.body) == (200, b"page")
        for stream, path in ((2, b"/style.css?v=1"), (4, b"/caf%C3%A9")):
            fields = page.promised[stream]
            assert dict(fields[:4]) == {
                b":method": b"GET",
                b":scheme": b"http",
                b":authority": b"x",
                b":path": path,
            }
            assert fields[4:] == [(b"accept", b"text/css"), (b"x-a", b"b")]
        style, other = await peer.response(2), await peer.response(4)
        assert (style.status, style.body) == (200, b"/style.css?v=1")
        assert (other.status, other.body) == (200, b"/caf%C3%A9?")
        # RFC 9113 section 8.4.1: before anything that refers to it, and that is the response at the earliest
        kinds = [(frame.type, frame.stream) for frame in peer.frames if frame.stream]
        assert kinds[:3] == [(FrameType.PUSH_PROMISE, 1), (FrameType.PUSH_PROMISE, 1), (FrameType.HEADERS, 1)]


@in_loop
async def test_the_scope_of_a_pushed_response() -> None:
    app = Pushing("/caf%C3%A9?v=1", headers=[(b"Accept", b"text/css")])
    async with peer_of(app) as (_, peer):
        await peer.ask("GET", "/", "user-agent: me")
        await peer.response(2)
    page, pushed = app.scopes
    different = {"path", "raw_path", "query_string", "headers", "extensions", "state"}
    for name in page.keys() - different:
        assert pushed[name] == page[name], name
    assert pushed["path"] == "/café"
    assert pushed["raw_path"] == b"/caf%C3%A9"
    assert pushed["query_string"] == b"v=1"
    assert pushed["headers"] == [(b"host", b"x"), (b"accept", b"text/css")]
    assert page["extensions"].keys() - pushed["extensions"].keys() == {PUSH}
    assert app.received == [{"type": "http.request", "body": b"", "more_body": False}]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/café?v=é", b"/caf%C3%A9?v=%C3%A9"),
        ("/a b", b"/a%20b"),
        ("/a#b", b"/a%23b"),
        ("/a\r\nb\0", b"/a%0D%0Ab%00"),
        ("/a;b=c,d@e:f/(g)?h=i&j=%2F+~", b"/a;b=c,d@e:f/(g)?h=i&j=%2F+~"),
    ],
)
@in_loop
async def test_characters_that_no_url_has_are_quoted(path: str, target: bytes) -> None:
    """ASGI has the path decoded, but a query can only be told in it as it is in a URL."""
    async with peer_of(Pushing(path)) as (_, peer):
        page = await peer.ask()
        assert dict(page.promised[2])[b":path"] == target
        raw_path, _, query = target.partition(b"?")
        assert (await peer.response(2)).body == raw_path + b"?" + query


@in_loop
async def test_between_the_parts_of_a_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/":
            return await respond(send, b"pushed")
        await push(send, "/a")
        await send({"type": "http.response.start", "status": 200})
        await push(send, "/b")
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await push(send, "/c")
        await send({"type": "http.response.body", "body": b"last"})

    async with peer_of(app) as (_, peer):
        page = await peer.ask()
        assert page.body == b"firstlast"
        assert list(page.promised) == [2, 4, 6]
        for stream in page.promised:
            assert (await peer.response(stream)).body == b"pushed"


@in_loop
async def test_a_promise_larger_than_a_frame() -> None:
    value = b"x" * 40_000
    app = Pushing("/a", headers=[(b"x-large", value)])
    async with peer_of(app, limit_request_head=10**6) as (_, peer):
        page = await peer.ask()
        assert page.promised[2][-1] == (b"x-large", value)
        assert FrameType.CONTINUATION in [frame.type for frame in peer.frames]
        assert (await peer.response(2)).body == b"/a?"


@in_loop
async def test_fields_that_http2_has_not_are_left_out_of_a_promise() -> None:
    """RFC 9113 section 8.2.2."""
    given = [(b"connection", b"x-a"), (b"keep-alive", b"1"), (b"upgrade", b"h2c"), (b"x-a", b"b")]
    async with peer_of(Pushing("/a", headers=given)) as (_, peer):
        page = await peer.ask()
        assert page.promised[2][4:] == [(b"x-a", b"b")]
        assert (await peer.response(2)).status == 200


@in_loop
async def test_a_pushed_response_waits_for_its_window() -> None:
    async with peer_of(Pushing("/a"), (Setting.INITIAL_WINDOW_SIZE, 0)) as (_, peer):
        stream = await peer.request()
        await peer.credit(stream, 100)
        assert (await peer.response(stream)).body == b"page"
        assert (await peer.head(2)).status == 200
        await peer.settle()
        assert peer.of(2).body == b""
        await peer.credit(2, 100)
        assert (await peer.response(2)).body == b"/a?"


@in_loop
async def test_the_access_log_has_pushed_responses(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with peer_of(Pushing("/a"), access_log=True) as (_, peer):
            await peer.ask()
            await peer.response(2)
    lines = [record.getMessage() for record in caplog.records if '"GET ' in record.getMessage()]
    assert [line.partition(" - ")[2] for line in sorted(lines)] == [
        '"GET / HTTP/2" 200',
        '"GET /a HTTP/2" 200',
    ]


# --- Where nothing is pushed ---


async def pushes_nothing(app: Pushing, peer: HTTP2Peer) -> None:
    """The message does nothing then, and the response is as always."""
    page = await peer.ask()
    assert (page.body, page.promised) == (b"page", {})
    assert PUSH not in app.scopes[-1]["extensions"]


@in_loop
async def test_to_a_client_that_wants_no_pushes() -> None:
    app = Pushing("/a")
    async with peer_of(app, (Setting.ENABLE_PUSH, 0)) as (_, peer):
        await pushes_nothing(app, peer)
        await peer.set((Setting.ENABLE_PUSH, 1))
        assert list((await peer.ask()).promised) == [2]
        assert PUSH in app.scopes[-2]["extensions"]
        await peer.set((Setting.ENABLE_PUSH, 0))
        await pushes_nothing(app, peer)


@in_loop
async def test_by_http_1_1() -> None:
    app = Pushing()
    async with served(app) as server:
        await server.talk(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert PUSH not in app.scopes[0]["extensions"]


@in_loop
async def test_out_of_a_pushed_response() -> None:
    """RFC 9113 section 8.4: promises are sent on streams that the client has opened."""
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await push(send, "/again")
        await respond(send, b"page")

    async with peer_of(app) as (_, peer):
        assert list((await peer.ask()).promised) == [2]
        pushed = await peer.response(2)
        assert (pushed.body, pushed.promised) == (b"page", {})
        await peer.settle()
    assert len(scopes) == 2


@pytest.mark.parametrize("path", ["", "a", "http://x/a", "*", "/\udc80"])
@in_loop
async def test_what_is_no_path(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The application hears of it, and the connection goes on."""
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            try:
                await push(send, path)
            except ValueError as error:
                errors.append(error)
        await respond(send, b"page")

    async with peer_of(app) as (_, peer):
        for _ in range(2):
            page = await peer.ask()
            assert (page.body, page.promised) == (b"page", {})
        assert len(errors) == 2
    assert not error_records(caplog)


# --- Limits ---


@in_each_loop
async def test_at_most_16_at_once() -> None:
    app = Pushing(*[f"/held{n}" for n in range(20)])
    async with peer_of(app) as (_, peer):
        page = await peer.ask()
        assert page.body == b"page"
        assert list(page.promised) == list(range(2, 34, 2))
        assert (await peer.ask()).promised == {}
        app.go_on.set()
        for n, stream in enumerate(page.promised):
            assert (await peer.response(stream)).body == b"/held%d?" % n
        app.go_on.clear()
        assert list((await peer.ask()).promised) == list(range(34, 66, 2))
        app.go_on.set()
        await peer.response(64)


@pytest.mark.parametrize("most", [0, 3])
@in_loop
async def test_no_more_than_the_client_allows(most: int) -> None:
    app = Pushing(*[f"/held{n}" for n in range(5)])
    async with peer_of(app, (Setting.MAX_CONCURRENT_STREAMS, most)) as (_, peer):
        assert len((await peer.ask()).promised) == most
        app.go_on.set()
        for n in range(most):
            assert (await peer.response(2 + 2 * n)).status == 200


@in_loop
async def test_pushed_responses_do_not_count_as_the_clients_streams() -> None:
    app = Pushing(*[f"/held{n}" for n in range(5)])
    async with peer_of(app, http2_max_concurrent_streams=2) as (_, peer):
        assert len((await peer.ask()).promised) == 5
        streams = [await peer.request("GET", "/held") for _ in range(2)]
        await peer.settle()
        assert [peer.of(stream).reset for stream in streams] == [None, None]
        app.go_on.set()
        for stream in streams:
            assert (await peer.response(stream)).status == 200


# --- The end ---


@in_each_loop
async def test_a_client_that_does_not_want_it_resets_it(caplog: pytest.LogCaptureFixture) -> None:
    """And makes room for another one."""
    app = Pushing(*[f"/held{n}" for n in range(20)])
    async with peer_of(app) as (server, peer):
        page = await peer.ask()
        assert len(page.promised) == 16
        for stream in page.promised:
            await peer.write(rst_stream(stream))
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        assert app.received[-1] == {"type": "http.disconnect"}
        assert app.received.count({"type": "http.disconnect"}) == 16
        await peer.settle()
        assert not [stream for stream in page.promised if peer.of(stream).status]
        app.paths = ("/a",)
        assert list((await peer.ask()).promised) == [34]
        assert (await peer.response(34)).body == b"/a?"
    assert not error_records(caplog)


@in_loop
async def test_a_pushed_response_outlives_the_page() -> None:
    app = Pushing("/held")
    async with peer_of(app) as (_, peer):
        page = await peer.ask()
        assert page.is_whole
        app.go_on.set()
        assert (await peer.response(2)).body == b"/held?"


@in_loop
async def test_after_a_goaway_of_the_client() -> None:
    """RFC 9113 section 6.8: who has got one begins no more streams."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await push(send, "/a")
        await respond(send, b"page")

    async with peer_of(app) as (_, peer):
        stream = await peer.request()
        await peer.write(goaway())
        await peer.settle()
        go_on.set()
        page = await peer.response(stream)
        assert (page.body, page.promised) == (b"page", {})
        await peer.ending()


@in_loop
async def test_after_a_goaway_of_the_server() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await push(send, "/a")
        await respond(send, b"page")

    async with peer_of(app, timeout_graceful_shutdown=15) as (server, peer):
        stream = await peer.request()
        await peer.settle()
        ending = asyncio.create_task(server.stop())
        await peer.wait_for(FrameType.GOAWAY)
        go_on.set()
        page = await peer.response(stream)
        assert (page.body, page.promised) == (b"page", {})
        await peer.ending()
        peer.close()
        await ending
