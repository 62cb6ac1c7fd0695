"""The demo application's HTTP: over the wire as `python -m fastasgi` serves it, and by hand."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import re
import socket
import sys
from typing import Any

import pytest
from demoexchange import Exchange, ended_without_a_trace, no_other_task_stays

from fastasgi.demo import app, routes, traffic
from fastasgi.demo.traffic import Traffic

WAIT_S = 20.0


# Over the wire


def fetch(
    port: int, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, target, body, headers or {}, encode_chunked=body is not None)
        response = connection.getresponse()
        return response, response.read()


def test_the_page_allows_its_own_style_and_script_and_nothing_else(port: int) -> None:
    response, body = fetch(port, "GET", "/")
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert int(response.headers["content-length"]) == len(body)
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_needs_nothing_from_outside(port: int) -> None:
    _, body = fetch(port, "GET", "/")
    references = re.findall(r'\b(?:src|href|action|data)="([^"]*)"', body.decode())
    assert references
    assert [each for each in references if not each.startswith(("data:", "#"))] == []


@pytest.mark.parametrize("path", ["/", "/about", "/ping"])
def test_head_gives_the_length_and_no_body(port: int, path: str) -> None:
    _, body = fetch(port, "GET", path)
    response, nothing = fetch(port, "HEAD", path)
    assert response.status == 200
    assert int(response.headers["content-length"]) == len(body)
    assert nothing == b""


@pytest.mark.parametrize("path", ["/live", "/stream"])
def test_head_of_an_endless_path_ends(port: int, path: str) -> None:
    response, body = fetch(port, "HEAD", path)
    assert (response.status, body) == (200, b"")


@pytest.mark.parametrize("path", ["/nothing", "/page.html", "/about/", "//"])
def test_an_unknown_path_is_404(port: int, path: str) -> None:
    response, body = fetch(port, "GET", path)
    assert response.status == 404
    assert int(response.headers["content-length"]) == len(body) > 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/live", "GET, HEAD"),
        ("GET", "/upload", "POST, PUT"),
        ("POST", "/ws", "GET, HEAD"),
        ("OPTIONS", "/echo", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    ],
)
def test_another_method_is_405(port: int, method: str, path: str, allowed: str) -> None:
    response, _ = fetch(port, method, path)
    assert response.status == 405
    assert response.headers["allow"] == allowed


def test_a_plain_request_for_the_websocket_is_told_so(port: int) -> None:
    response, body = fetch(port, "GET", "/ws")
    assert (response.status, body) == (400, b"This path speaks WebSocket\n")


def test_the_icon_is_empty(port: int) -> None:
    response, body = fetch(port, "GET", "/favicon.ico")
    assert (response.status, body) == (204, b"")


@pytest.mark.parametrize("path", ["/", "/about", "/nothing", "/live"])
def test_each_response_has_the_security_headers(port: int, path: str) -> None:
    response, _ = fetch(port, "HEAD", path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


def test_about_describes_the_server(port: int) -> None:
    _, body = fetch(port, "GET", "/about")
    about = json.loads(body)
    assert about["asgi"]["version"] == "3.0"
    assert about["http_version"] == "1.1"
    assert about["python"].endswith(sys.version.split()[0])
    assert all(isinstance(name, str) for name in about["extensions"])


def test_echo_shows_the_request(port: int) -> None:
    _, body = fetch(port, "PUT", "/echo/caf%C3%A9?day=%20", "<b>grüß</b>".encode(), {"X-One": "1"})
    seen = json.loads(body)
    assert seen["method"] == "PUT"
    assert seen["path"] == "/echo/café"
    assert seen["raw_path"] == "/echo/caf%C3%A9"
    assert seen["query_string"] == "day=%20"
    assert ["x-one", "1"] in seen["headers"]
    assert seen["body"] == "<b>grüß</b>"
    assert seen["body_bytes"] == 13
    assert seen["server"] == ["127.0.0.1", port]


def test_echo_refuses_a_large_body(port: int) -> None:
    response, _ = fetch(port, "POST", "/echo", bytes(routes.ECHO_LIMIT_BYTES))
    assert response.status == 200
    response, _ = fetch(port, "POST", "/echo", bytes(routes.ECHO_LIMIT_BYTES + 1))
    assert response.status == 413


def test_the_stream_arrives_before_it_is_complete(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        client.sendall(b"GET /stream?interval_ms=1000 HTTP/1.1\r\nhost: test\r\n\r\n")
        received = b""
        while b"Each " not in received:
            piece = client.recv(65536)
            assert piece
            received += piece
    assert b"transfer-encoding: chunked" in received.lower()
    assert b"nobody" not in received


def test_the_stream_is_whole(port: int) -> None:
    response, body = fetch(port, "GET", "/stream?interval_ms=0")
    assert response.headers["content-length"] is None
    assert body.startswith(b"Each word of this paragraph ")
    assert body.endswith(b" talking to nobody. \n")


@pytest.mark.parametrize("interval", ["-1", "1001", "x", "1.5", "%D9%A3", "000001", "9" * 5000])
def test_the_stream_refuses_a_wrong_interval(port: int, interval: str) -> None:
    response, body = fetch(port, "GET", f"/stream?interval_ms={interval}")
    assert response.status == 400
    assert b"interval_ms must be a whole number from 0 to 1000" in body


def read_event(response: http.client.HTTPResponse) -> tuple[str, Any]:
    name, data, end = (response.readline().decode() for _ in range(3))
    assert end == "\n"
    return name.removeprefix("event: ").strip(), json.loads(data.removeprefix("data: "))


def test_the_live_counters_follow_the_traffic(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/live")
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        name, history = read_event(response)
        assert name == "history"
        assert len(history) <= traffic.HISTORY_LENGTH
        _, before = read_event(response)
        for _ in range(5):
            fetch(port, "POST", "/upload", bytes(1000))
        name, after = read_event(response)
        while after["served"] < before["served"] + 5:
            name, after = read_event(response)
        assert name == "sample"
        assert after["in_flight"] >= 1
        assert after["received_bytes"] >= before["received_bytes"] + 5000
        assert after["sent_bytes"] > before["sent_bytes"]
        assert after["time_s"] > before["time_s"]
        assert set(after) == set(traffic.Sample.__annotations__)


def test_an_upload_is_counted(port: int) -> None:
    size = 3 * 1024 * 1024 + 7
    _, body = fetch(port, "POST", "/upload", bytes(size))
    counted = json.loads(body)
    assert counted["bytes"] == size
    assert counted["messages"] >= 1
    _, body = fetch(port, "PUT", "/upload", iter([b"ab", b"c" * 100_000]), {"transfer-encoding": "chunked"})
    assert json.loads(body)["bytes"] == 100_002


def test_a_declared_upload_past_the_limit_is_refused_unread(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        length = routes.UPLOAD_LIMIT_BYTES + 1
        client.sendall(b"POST /upload HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % length)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


# By hand


@pytest.mark.parametrize("path", ["/live", "/stream"])
def test_a_long_response_ends_when_the_client_leaves(path: str) -> None:
    async def run() -> None:
        exchange = Exchange(path=path, query_string=b"interval_ms=1000", state={"traffic": Traffic()})
        exchange.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        await exchange.expect("http.response.start")
        assert (await exchange.expect("http.response.body"))["more_body"]
        exchange.incoming.put_nowait({"type": "http.disconnect"})
        assert await ended_without_a_trace(exchange.task)
        assert exchange.outgoing.empty()

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/live", "/stream"])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_long_response_ends_when_send_fails(
    path: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "SAMPLE_INTERVAL_S", 0.001)

    async def run() -> None:
        counters = Traffic()
        sampler = asyncio.create_task(counters.sample_forever())
        sent = []

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == failing:
                raise ConnectionResetError("the client has gone")

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        scope["state"] = {"traffic": counters}
        await asyncio.wait_for(app(scope, asyncio.Queue().get, send), WAIT_S)
        assert len(sent) == failing
        sampler.cancel()
        assert await no_other_task_stays()

    asyncio.run(run())


def test_the_live_counters_end_with_the_lifespan() -> None:
    async def run() -> None:
        state: dict[str, Any] = {}
        lifespan = Exchange(type="lifespan", state=state)
        lifespan.incoming.put_nowait({"type": "lifespan.startup"})
        await lifespan.expect("lifespan.startup.complete")
        exchange = Exchange(path="/live", state=state)
        await exchange.expect("http.response.start")
        await exchange.expect("http.response.body")
        lifespan.incoming.put_nowait({"type": "lifespan.shutdown"})
        await lifespan.expect("lifespan.shutdown.complete")
        assert await ended_without_a_trace(exchange.task)
        last = None
        while not exchange.outgoing.empty():
            last = exchange.outgoing.get_nowait()
        assert last == {"type": "http.response.body", "body": b"", "more_body": False}

    asyncio.run(run())


def test_each_lifespan_has_its_own_counters() -> None:
    async def run() -> None:
        states: list[dict[str, Any]] = [{}, {}]
        for state in states:
            lifespan = Exchange(type="lifespan", state=state)
            lifespan.incoming.put_nowait({"type": "lifespan.startup"})
            await lifespan.expect("lifespan.startup.complete")
            lifespan.incoming.put_nowait({"type": "lifespan.shutdown"})
            await lifespan.task
        assert states[0]["traffic"] is not states[1]["traffic"]

    asyncio.run(run())


def test_an_upload_that_breaks_off_is_dropped() -> None:
    async def run() -> None:
        exchange = Exchange(method="POST", path="/upload", state={"traffic": Traffic()})
        exchange.incoming.put_nowait({"type": "http.request", "body": b"abc", "more_body": True})
        exchange.incoming.put_nowait({"type": "http.disconnect"})
        assert await ended_without_a_trace(exchange.task)
        assert exchange.outgoing.empty()

    asyncio.run(run())


def test_a_chunked_upload_past_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "UPLOAD_LIMIT_BYTES", 5)

    async def run() -> None:
        exchange = Exchange(method="POST", path="/upload", state={"traffic": Traffic()})
        exchange.incoming.put_nowait({"type": "http.request", "body": b"abc", "more_body": True})
        exchange.incoming.put_nowait({"type": "http.request", "body": b"def", "more_body": True})
        assert (await exchange.expect("http.response.start"))["status"] == 413

    asyncio.run(run())


def test_the_demo_works_below_a_root_path() -> None:
    async def run() -> None:
        exchange = Exchange(path="/under/ping", root_path="/under", state={"traffic": Traffic()})
        assert (await exchange.expect("http.response.start"))["status"] == 200
        assert (await exchange.expect("http.response.body"))["body"] == b"pong\n"

    asyncio.run(run())


def test_without_a_lifespan_the_demo_says_what_it_needs() -> None:
    async def run() -> None:
        exchange = Exchange()
        assert (await exchange.expect("http.response.start"))["status"] == 503
        assert b"lifespan on" in (await exchange.expect("http.response.body"))["body"]

    asyncio.run(run())
