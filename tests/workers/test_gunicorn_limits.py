"""The gunicorn worker class, in gunicorn processes: times and limits, and starts that fail."""

import contextlib
import http.client
import signal
import socket
import time

import pytest
from clientframes import BINARY, frame
from gunicornprocess import ACCESS_APP, Request, Start, exchange

# Times and limits


def test_graceful_timeout(start: Start) -> None:
    gunicorn = start("--graceful-timeout", "2")
    gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    slow = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    begin = time.monotonic()
    assert gunicorn.end() == 0
    assert 1 <= time.monotonic() - begin < 10
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    assert isinstance(slow.result, http.client.RemoteDisconnected | ConnectionError)
    # Not killed: requests and application have been told
    assert gunicorn.matches("hang: cancelled|lifespan shutdown") == ["hang: cancelled", "lifespan shutdown"]
    assert not gunicorn.matches("SIGKILL")


def test_keepalive(start: Start) -> None:
    gunicorn = start("--keep-alive", "1")
    gunicorn.workers()
    with gunicorn.connect() as client:
        begin = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"connection: close" not in client.recv(65536)
        assert client.recv(65536) == b""
        assert 1 <= time.monotonic() - begin < 4.5


def test_a_stop_waits_for_idle_connections_but_not_for_long(start: Start) -> None:
    gunicorn = start("--keep-alive", "60")
    gunicorn.workers()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gunicorn.connect()) for _ in range(2)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"connection: close" not in client.recv(65536)
        begin = time.monotonic()
        gunicorn.kill(signal.SIGTERM)
        gunicorn.wait_for("Shutting down$")
        clients[0].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"connection: close" in clients[0].recv(65536)
        assert clients[1].recv(65536) == b""
        assert gunicorn.wait() == 0
        assert time.monotonic() - begin < 10


def test_max_requests_with_jitter(start: Start) -> None:
    conf = """
        def post_worker_init(worker):
            print("limit", worker.pid, worker.config.limit_max_requests, flush=True)
    """
    gunicorn = start("--max-requests", "3", "--max-requests-jitter", "2", conf=conf)
    served = [exchange(gunicorn.port)[1] for _ in range(16)]
    limits = dict(gunicorn.matches(r"^limit (\d+) (\d+)"))
    *ended, _last = dict.fromkeys(served)
    assert len(ended) >= 2
    for worker in ended:
        assert 3 <= int(limits[worker]) <= 5
        # What reached the socket before it was closed is served still
        assert int(limits[worker]) <= served.count(worker) <= int(limits[worker]) + 2


def test_max_requests_lets_requests_end(start: Start) -> None:
    gunicorn = start("--max-requests", "2")
    [first] = gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    assert exchange(gunicorn.port) == (200, str(first))
    gunicorn.wait_for("Maximum number of requests reached")
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")
    [_, second] = gunicorn.workers(2)
    assert exchange(gunicorn.port) == (200, str(second))


def test_graceful_timeout_is_kept_after_max_requests_too(start: Start) -> None:
    # The arbiter knows nothing of it, and the heartbeats go on
    gunicorn = start("--graceful-timeout", "1", "--max-requests", "1")
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    [lasted_s] = gunicorn.matches("hang: cancelled after (.*)")
    assert 0.5 <= float(lasted_s) < 2.5  # of what the phases take otherwise


def test_worker_connections(start: Start) -> None:
    gunicorn = start("--worker-connections", "1")
    gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    assert exchange(gunicorn.port)[0] == 503
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")


def test_limits_of_requests(start: Start) -> None:
    gunicorn = start(
        *("--limit-request-line", "100"),
        *("--limit-request-fields", "4"),
        *("--limit-request-field_size", "50"),
    )
    gunicorn.workers()
    port = gunicorn.port
    path = "/?" + "x" * (100 - len("GET /? HTTP/1.1"))
    assert exchange(port, path)[0] == 200
    assert exchange(port, path + "x")[0] == 414
    # Three that http.client sends, and these
    assert exchange(port, headers={"a": "b"})[0] == 200
    assert exchange(port, headers={"a": "b", "c": "d"})[0] == 431
    assert exchange(port, headers={"name": "x" * (50 - len("name: \r\n"))})[0] == 200
    assert exchange(port, headers={"name": "x" * (51 - len("name: \r\n"))})[0] == 431


WEBSOCKET_APP = """
    import asyncio

    async def app(scope, receive, send):
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "open"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        print("disconnected with", message["code"], flush=True)
"""


def shake_hands(client: socket.socket, fields: str = "") -> bytes:
    """The answer to a WebSocket handshake."""
    client.sendall(
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        + fields.encode()
        + b"\r\n"
    )
    return client.recv(65536)


def test_websockets(start: Start) -> None:
    gunicorn = start(
        "--websocket-max-message-size", "4", "--limit-request-field_size", "60", app=WEBSOCKET_APP
    )
    with gunicorn.connect() as client:
        assert shake_hands(client).startswith(b"HTTP/1.1 101 ")
        client.sendall(frame(BINARY, b"1234") + frame(BINARY, b"12345"))
        received = b""
        while b"\x03\xf1" not in received:  # 1009 (RFC 6455 section 7.4.1)
            received += client.recv(65536)
        assert b"\x82\x041234\x88" in received
    gunicorn.wait_for("^disconnected with 1009$")
    with gunicorn.connect() as client:
        answer = shake_hands(client, f"name: {'x' * 60}\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_zero_is_no_limit(start: Start) -> None:
    gunicorn = start(
        *("--limit-request-line", "0"), *("--limit-request-fields", "0"), *("--limit-request-field_size", "0")
    )
    gunicorn.workers()
    headers = {f"a{i}": "b" for i in range(500)} | {"name": "x" * 100_000}
    assert exchange(gunicorn.port, "/?" + "x" * 100_000, headers)[0] == 200


# Start-up failures


def test_a_failed_startup_halts_the_arbiter(start: Start) -> None:
    source = """
        async def app(scope, receive, send):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    gunicorn = start(app=source)
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] no database$")
    gunicorn.wait_for(r"Reason: Worker failed to boot\.")
    assert not gunicorn.matches("Traceback")


@pytest.mark.parametrize(
    ("source", "code", "pattern"),
    [
        ("import nothing_at_all", 3, "ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("application = None", 4, "Failed to find attribute 'app' in 'app'"),
        (
            "def app(environ, respond): pass",
            3,
            r"\[ERROR\] the application takes two arguments, as WSGI does: .* goes into CONFIG_KWARGS",
        ),
    ],
)
def test_an_application_that_cannot_be_loaded(start: Start, source: str, code: int, pattern: str) -> None:
    gunicorn = start(app=source)
    assert gunicorn.wait() == code
    gunicorn.wait_for(pattern)


def test_an_application_may_be_made_by_a_call(start: Start) -> None:
    source = """
        def make(word):
            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": word.encode()})
            return app
    """
    gunicorn = start(app=source, target="app:make('made')")
    assert exchange(gunicorn.port, "/") == (200, "made")


# Hooks


def test_hooks(start: Start) -> None:
    conf = """
        def say(*words):
            print("hook", *words, flush=True)

        def post_worker_init(worker):
            say("post_worker_init", worker.pid)

        def pre_request(worker, request):
            say("pre_request", worker.pid, request.method, request.path, request.headers[0])

        def post_request(worker, request, environ, response):
            say("post_request", environ["PATH_INFO"], response.status, response.headers)
            raise ValueError("raised in a hook")

        def worker_exit(server, worker):
            say("worker_exit", worker.pid)
    """
    gunicorn = start(conf=conf, app=ACCESS_APP)
    [worker] = gunicorn.workers()
    assert exchange(gunicorn.port, "/ok") == (200, "12345")
    gunicorn.wait_for("ValueError: raised in a hook")
    assert gunicorn.end() == 0
    assert gunicorn.matches("^hook (.*)") == [
        f"post_worker_init {worker}",
        f"pre_request {worker} GET /ok ('HOST', '127.0.0.1:{gunicorn.port}')",
        "post_request /ok 200 OK [('X-Res', 'out')]",
        f"worker_exit {worker}",
    ]


def test_a_hook_that_raises_fails_its_request(start: Start) -> None:
    conf = """
        def pre_request(worker, request):
            raise ValueError("raised in a hook")
    """
    gunicorn = start("--access-logfile", "-", "--access-logformat", "access %(s)s", conf=conf)
    assert exchange(gunicorn.port)[0] == 500
    gunicorn.wait_for("^access 500$")
