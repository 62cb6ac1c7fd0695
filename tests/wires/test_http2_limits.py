"""Limits of HTTP/2 requests: they are those of HTTP/1.1, and what they refuse takes nothing else with it."""

import asyncio
from typing import Any

import pytest
from anyclient import INTERNAL_ERROR
from exchanges import DISCONNECT, MORE, START
from http2peer import ErrorCode, HTTP2Peer, Response, Setting, rst_stream
from jumpingloop import in_jumping_loop
from scopes import Scopes
from wire import echo, error_records, hello, in_each_loop, in_loop, now, read_body, request, respond, served


def serving(app: Any, **settings: Any) -> Any:
    return served(app, client_type=HTTP2Peer, **settings)


async def opened(server: Any) -> HTTP2Peer:
    """A new connection, whose settings are known on both sides."""
    peer: HTTP2Peer = await server.connect()
    await peer.open()
    return peer


def assert_refused(response: Response, status: int, reset: int | None = None) -> None:
    assert (response.status, response.is_whole, response.reset) == (status, True, reset)
    assert response[b"content-type"] == INTERNAL_ERROR[b"content-type"]
    assert response[b"content-length"] == b"%d" % len(response.body)
    assert response.body


# --- How many ---


@in_each_loop
async def test_limit_concurrency_refuses_the_request_and_not_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        if scope["path"] == "/wait":
            await go_on.wait()
        await respond(send, b"ok")

    go_on = asyncio.Event()
    async with serving(app, limit_concurrency=2) as server:
        peer, other = await opened(server), await opened(server)
        waiting = [await peer.request("GET", "/wait") for _ in range(2)]
        await peer.settle()
        for client in (peer, other):
            refused = await client.ask("GET", "/refused")
            assert_refused(refused, 503)
            assert refused[b"retry-after"] == b"1"
        go_on.set()
        for stream in waiting:
            assert (await peer.response(stream)).body == b"ok"
        assert (await other.ask("GET", "/later")).body == b"ok"
        assert peer.goaways == other.goaways == []
    assert paths == ["/wait", "/wait", "/later"]
    assert error_records(caplog) == []


# --- How large ---


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
@in_each_loop
async def test_limit_request_body(told: bool) -> None:
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await echo(scope, receive, send)

    async with serving(app, limit_request_body=1000) as server:
        peer = await opened(server)
        for size in (1000, 1001):
            fields = [f"content-length: {size}"] if told else []
            stream = await peer.begin("POST", "/", *fields)
            await peer.send(stream, bytes(size), end_stream=True)
            response = await peer.response(stream)
            if size == 1000:
                assert len(response.body) == len(b"POST /? ") + size
            else:
                await peer.settle()
                assert response.status == 413
        assert (await peer.ask()).status == 200
        assert peer.goaways == []
    assert calls == 2


@in_each_loop
async def test_a_body_that_grows_too_large_behind_the_start_of_its_response() -> None:
    """There is no status that could say so any more."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(MORE)
        messages.append(await receive())
        heard.set()

    messages: list[Any] = []
    heard = asyncio.Event()
    async with serving(app, limit_request_body=1000) as server:
        peer = await opened(server)
        stream = await peer.begin("POST")
        await peer.send(stream, b"x")
        await peer.head(stream)
        await peer.send(stream, bytes(1000))
        response = await peer.response(stream)
        assert (response.status, response.is_whole, response.reset) == (200, False, ErrorCode.CANCEL)
        await heard.wait()
        assert peer.goaways == []
    assert messages == [DISCONNECT]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@in_loop
async def test_limit_request_line_is_that_of_the_same_line_on_http1(method: str) -> None:
    statuses: dict[int, list[int]] = {}
    async with served(hello, limit_request_line=100) as server:
        for length in range(70, 100):
            target = "/" + "a" * (length - 1)
            answer = await server.talk(request(f"{method} {target} HTTP/1.1", "connection: close"))
            statuses[length] = [int(answer.split()[1])]
        server.client_type = HTTP2Peer
        peer = await opened(server)
        for length, seen in statuses.items():
            seen.append((await peer.ask(method, "/" + "a" * (length - 1))).status)
        assert peer.goaways == []
    assert {tuple(seen) for seen in statuses.values()} == {(200, 200), (414, 414)}


@pytest.mark.parametrize(
    ("settings", "fields", "larger"),
    [
        ({"limit_request_fields": 20}, ["x: y"] * 18, ["x: y"] * 25),
        ({"limit_request_fields": 20}, ["cookie: a=b"] * 200, ["x: y"] * 25),
        ({"limit_request_head": 5000}, ["x: " + "y" * 4000], ["x: " + "y" * 6000]),
        ({"limit_request_head": 5000}, ["cookie: a=b"] * 80, ["cookie: a=b"] * 300),
    ],
    ids=["fields", "crumbs are one field", "head", "crumbs have a size"],
)
@in_loop
async def test_limits_of_heads(settings: dict[str, int], fields: list[str], larger: list[str]) -> None:
    async with serving(hello, **settings) as server:
        peer = await opened(server)
        assert (await peer.ask("GET", "/", *fields)).status == 200
        assert_refused(await peer.ask("GET", "/", *larger), 431)
        assert (await peer.ask("GET", "/", *fields)).status == 200
        assert peer.goaways == []


# --- How long ---


@in_jumping_loop
async def test_timeout_keep_alive_ends_an_idle_connection_gently() -> None:
    async with serving(hello, timeout_keep_alive=5) as server:
        peer = await opened(server)
        assert (await peer.ask()).status == 200
        idle_at = now()
        end = await peer.ending()
        assert 4.9 < now() - idle_at < 8
        assert [(goaway.code, goaway.last_stream) for goaway in end.goaways] == [(ErrorCode.NO_ERROR, 1)]
        assert not end.by_reset
        peer.close()


@in_jumping_loop
async def test_timeout_keep_alive_does_not_hold_for_a_slow_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(10)
        await respond(send, b"ok")

    async with serving(app, timeout_keep_alive=2, timeout_request_body=2) as server:
        peer = await opened(server)
        assert (await peer.ask()).body == b"ok"


@in_jumping_loop
async def test_timeout_request_body_is_answered_and_leaves_other_streams() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await read_body(receive)
        else:
            await asyncio.sleep(10)
            await respond(send, b"ok")

    async with serving(app, timeout_request_body=3) as server:
        peer = await opened(server)
        other = await peer.request()
        late = await peer.begin("POST", "/late", "content-length: 10")
        await peer.send(late, b"abc")
        await peer.response(late)
        await peer.settle()
        assert_refused(peer.of(late), 408, ErrorCode.NO_ERROR)
        assert (await peer.response(other)).body == b"ok"
        assert peer.goaways == []


# --- Who asks, and for what ---


@in_loop
async def test_health_path() -> None:
    async with serving(hello, health_path="/health", limit_concurrency=1) as server:
        peer = await opened(server)
        assert (await peer.ask("GET", "/health")).status == 200
        assert (await peer.ask("GET", "/health")).body != b"hello"
        assert (await peer.ask("GET", "/")).body == b"hello"


@pytest.mark.parametrize("trusts", [True, False], ids=["trusted", "not trusted"])
@in_loop
async def test_what_a_proxy_says_of_its_client(trusts: bool) -> None:
    app = Scopes()
    fields = ("x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https")
    async with serving(app, forwarded_allow_ips="127.0.0.1" if trusts else "192.0.2.1") as server:
        peer = await opened(server)
        await peer.ask("GET", "/", *fields)
        await peer.ask("GET", "/")
        stream = await peer.begin("GET", "/", end_stream=True, scheme="https")
        await peer.response(stream)
    seen = [(scope["client"][0], scope["scheme"]) for scope in app]
    if trusts:
        assert seen == [("192.0.2.7", "https"), ("127.0.0.1", "http"), ("127.0.0.1", "https")]
    else:
        assert seen == [("127.0.0.1", "http")] * 3


@in_loop
async def test_date_and_server() -> None:
    async with serving(hello, date_header=True, server_header=True) as server:
        peer = await opened(server)
        for _ in range(3):
            response = await peer.ask()
            assert response[b"server"] == b"fastasgi"
            assert response[b"date"].endswith(b" GMT")


@in_loop
async def test_resets_count_until_the_response_has_left() -> None:
    """Also where the application has made all of it, and the client's window keeps it back."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(60000))

    async with serving(app, http2_max_concurrent_streams=10) as server:
        peer: HTTP2Peer = await server.connect()
        await peer.open((Setting.INITIAL_WINDOW_SIZE, 0))
        for _ in range(40):
            stream = await peer.request()
            await peer.until(lambda stream=stream: peer.of(stream).status or peer.end, "a head, or the end")
            if peer.end:
                break
            await peer.write(rst_stream(stream))
        assert (await peer.ending()).code == ErrorCode.ENHANCE_YOUR_CALM


@in_jumping_loop
async def test_a_client_that_dribbles_behind_its_answer_is_not_waited_for() -> None:
    async with serving(hello) as server:
        peer = await opened(server)
        stream = await peer.begin("POST", "/")
        await peer.until(lambda: peer.of(stream).is_whole, "the answer")
        answered_at = now()
        while peer.of(stream).reset is None:
            await peer.send(stream, b"x")
            await asyncio.sleep(0.5)
            await peer.settle()
            assert now() - answered_at < 6
        assert peer.of(stream).reset == ErrorCode.NO_ERROR
        assert (await peer.ask()).status == 200


@in_jumping_loop
async def test_calls_that_go_on_are_no_fault_of_a_client_that_keeps_to_the_limit() -> None:
    """Most applications do not listen for http.disconnect."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await go_on.wait()
        await respond(send, b"ok")

    async with serving(app, http2_max_concurrent_streams=10) as server:
        peer = await opened(server)
        waiting = [await peer.request("GET", "/wait") for _ in range(10)]
        await peer.settle()
        await asyncio.sleep(2)  # so that giving them up is not charged
        for stream in waiting:
            await peer.write(rst_stream(stream))
        for _ in range(100):
            assert (await peer.ask()).reset == ErrorCode.REFUSED_STREAM
        go_on.set()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        assert (await peer.ask()).body == b"ok"
        assert peer.goaways == []
