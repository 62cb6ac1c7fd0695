"""The access log of a server that runs: what changes it, what may not overtake it, the server's answers."""

import asyncio
import contextlib
import io
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from wire import Served, handshake, in_loop, post, request, respond, served

from fastasgi.logging import LOGGING_CONFIG

ACCESS, ERROR = (logging.getLogger(f"fastasgi.{name}") for name in ("access", "error"))
THEIRS = logging.getLogger("uvicorn.access")


class Screen(io.StringIO):
    """Standard output and standard error in one."""

    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal

    def lines(self, pattern: str = "") -> list[str]:
        """Those that have this, without colours and what differs from test to test."""
        text = re.sub(r"\x1b\[\d+m", "", self.getvalue())
        text = re.sub(r"127\.0\.0\.1:\d+", "client", text)
        return [line for line in text.splitlines() if re.search(pattern, line)]


@pytest.fixture
def screen() -> Screen:
    return Screen()


@contextlib.asynccontextmanager
async def logged(screen: Screen, app: Any, **settings: Any) -> AsyncIterator[Served]:
    """A server with the default configuration of logging, and both of its streams."""
    settings = {"log_config": LOGGING_CONFIG, "access_log": True, **settings}
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        async with served(app, **settings) as running:
            yield running


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await respond(send, b"hello")


async def tick(running: Served) -> None:
    """Have the server's clock tick once."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_soon(running.context.tick)
    loop.call_soon(done.set)
    await done.wait()


def paths(screen: Screen) -> list[str]:
    return re.findall(r"GET (\S+) HTTP", screen.getvalue())


# Changes


class Twice(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"{record.getMessage()}\n" * 2)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda: ACCESS.setLevel(logging.WARNING), []),
        (lambda: setattr(ACCESS, "disabled", True), []),
        (lambda: ACCESS.addFilter(lambda record: record.args[2] == "/2"), ["/2"]),
        (lambda: ACCESS.handlers[0].addFilter(lambda record: record.args[2] == "/2"), ["/2"]),
        (lambda: ACCESS.handlers.clear(), []),
        (lambda: setattr(ACCESS, "handlers", [Twice()]), ["/2", "/2", "/3", "/3"]),
        (lambda: ACCESS.addHandler(Twice()), ["/2", "/2", "/2", "/3", "/3", "/3"]),
        (lambda: ACCESS.handlers[0].setLevel(logging.ERROR), []),
        (
            lambda: logging.getLogger("uvicorn.access").addFilter(lambda record: record.args[2] == "/2"),
            ["/2"],
        ),
    ],
)
@pytest.mark.parametrize("is_batched", [True, False])
@in_loop
async def test_a_change_is_seen_with_the_next_batch(
    change: Callable[[], None], seen: list[str], is_batched: bool, screen: Screen
) -> None:
    if not is_batched:
        sieve = logging.Filter("")
        ACCESS.addFilter(sieve)
    async with logged(screen, hello) as running:
        client = await running.connect()
        await client.ask(request("GET /1 HTTP/1.1"))
        await tick(running)
        change()
        for path in ("/2", "/3"):
            await client.ask(request(f"GET {path} HTTP/1.1"))
    assert paths(screen) == ["/1", *seen]


@in_loop
async def test_what_was_off_at_the_start_is_turned_on(screen: Screen) -> None:
    async with logged(screen, hello, log_level="warning") as running:
        client = await running.connect()
        await client.ask(request("GET /1 HTTP/1.1"))
        ACCESS.setLevel(logging.INFO)
        await tick(running)
        await client.ask(request("GET /2 HTTP/1.1"))
        ACCESS.addFilter(lambda record: False)
        await tick(running)
        await client.ask(request("GET /3 HTTP/1.1"))
        ACCESS.filters.clear()
        await tick(running)
        await client.ask(request("GET /4 HTTP/1.1"))
    assert paths(screen) == ["/2", "/4"]


@in_loop
async def test_another_colour_is_that_of_whole_lines(screen: Screen) -> None:
    async with logged(screen, hello, use_colors=False) as running:
        client = await running.connect()
        await client.ask(request())
        await tick(running)
        ACCESS.handlers[0].formatter.use_colors = True
        await client.ask(request())
    plain, coloured = [line for line in screen.getvalue().splitlines() if "GET" in line]
    assert plain.endswith('"GET / HTTP/1.1" 200 OK')
    assert coloured.endswith('"\x1b[1mGET / HTTP/1.1\x1b[0m" \x1b[32m200 OK\x1b[0m')


# Statuses of which CPython 3.11 has other names, without a name, and of no class
@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (200, "200 OK"),
        (299, "299 "),
        (413, "413 Content Too Large"),
        (414, "414 URI Too Long"),
        (416, "416 Range Not Satisfiable"),
        (422, "422 Unprocessable Content"),
        (499, "499 "),
        (600, "600 "),
        (999, "999 "),
    ],
)
@pytest.mark.parametrize("use_colors", [False, True])
@in_loop
async def test_a_status_looks_the_same_in_a_batch_and_through_logging(
    status: int, shown: str, use_colors: bool, screen: Screen
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", status=status)

    async with logged(screen, app, use_colors=use_colors) as running:
        client = await running.connect()
        await client.ask(request())
        await tick(running)
        sieve = logging.Filter("")
        ACCESS.addFilter(sieve)
        await client.ask(request())
        ACCESS.removeFilter(sieve)
    code = {2: "\x1b[32m", 4: "\x1b[31m"}.get(status // 100, "") if use_colors else ""
    batched, alone = [line.rpartition('" ')[2] for line in screen.getvalue().splitlines() if "GET" in line]
    assert batched == alone == f"{code}{shown}" + ("\x1b[0m" if code else "")


@in_loop
async def test_a_format_has_fields_of_the_request(screen: Screen) -> None:
    async with logged(screen, hello, access_log_format="{header[X-Own]} {header[x-none]} {{}}") as running:
        client = await running.connect()
        await client.ask(request("GET / HTTP/1.1", "x-own: 1", "X-OWN: two"))
    assert screen.lines("two") == ["1, two - {}"]


# Order


@in_loop
async def test_on_a_terminal_lines_are_written_at_once(screen: Screen) -> None:
    async with logged(screen, hello) as running:
        client = await running.connect()
        await client.ask(request("GET /batched HTTP/1.1"))
        assert paths(screen) == []
        await tick(running)
        screen.is_terminal = True
        await client.ask(request("GET /at-once HTTP/1.1"))
        assert paths(screen) == ["/batched", "/at-once"]


async def failing(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] != "/raises":
        await hello(scope, receive, send)
    if scope["path"] != "/":
        raise RuntimeError("deliberate")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/":
        await hello(scope, receive, send)


FIRST = 'INFO:     client - "GET / HTTP/1.1" 200 OK'


@pytest.mark.parametrize(
    ("app", "data", "lines"),
    [
        (
            failing,
            request("GET /late HTTP/1.1"),
            ['INFO:     client - "GET /late HTTP/1.1" 200 OK', "Traceback"],
        ),
        (
            failing,
            request("GET /raises HTTP/1.1"),
            ['INFO:     client - "GET /raises HTTP/1.1" 500 Internal Server Error', "Traceback"],
        ),
        (
            silent,
            request("GET /silent HTTP/1.1"),
            [
                'INFO:     client - "GET /silent HTTP/1.1" 500 Internal Server Error',
                "ERROR:    ASGI callable returned without starting response.",
            ],
        ),
        (failing, handshake(target="/ws"), ['INFO:     client - "WebSocket /ws" [accepted]', "Traceback"]),
        (failing, handshake(target="/raises"), ['INFO:     client - "WebSocket /raises" 500', "Traceback"]),
        (
            hello,
            b"nonsense\r\n\r\n",
            [
                'INFO:     client - "- - HTTP/-" 400 Bad Request',
                "WARNING:  Request of client refused with 400: the method is malformed",
            ],
        ),
    ],
)
@in_loop
async def test_no_record_of_the_server_overtakes_a_line(
    app: Any, data: bytes, lines: list[str], screen: Screen
) -> None:
    async with logged(screen, app) as running:
        client, other = await running.connect(), await running.connect()
        await client.ask(request())
        await other.write(data)
        await other.response()
        ERROR.info("last")
        logged_lines = screen.lines("client -|of client|Traceback|callable")
        found = [line.partition(" (most")[0] for line in logged_lines]
    assert found == [FIRST, *lines]


@pytest.mark.parametrize("has_root_handler", [True, False])
@in_loop
async def test_no_error_of_an_application_overtakes_a_line(
    has_root_handler: bool, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler(screen)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler] if has_root_handler else [])
    async with logged(screen, hello) as running:
        client = await running.connect()
        await client.ask(request())
        logging.getLogger("app").warning("not yet")
        await asyncio.to_thread(logging.getLogger("app").error, "error of an application")
        assert screen.lines("GET|app|yet") == ["not yet", FIRST, "error of an application"]
        assert handler.filters or not has_root_handler
    assert handler.filters == []
    assert logging.lastResort is not None
    assert logging.lastResort.filters == []


# The server's own answers

UNKNOWN = "- - HTTP/-"
ANSWERS = {
    "nonsense": (b"nonsense\r\n\r\n", {}, f'"{UNKNOWN}" 400 Bad Request'),
    "a method only": (b"GET nowhere\r\n", {}, '"GET - HTTP/-" 400 Bad Request'),
    "a wrong version": (b"GET /x HTTP/3.0\r\n", {}, '"GET /x HTTP/-" 505 HTTP Version Not Supported'),
    "a wrong field": (b"GET /x?y HTTP/1.0\r\na b: c\r\n\r\n", {}, '"GET /x?y HTTP/1.0" 400 Bad Request'),
    "a long line": (
        b"GET /%b HTTP/1.1\r\n" % (b"x" * 100),
        {"limit_request_line": 50},
        '"GET - HTTP/-" 414 URI Too Long',
    ),
    "a long head": (
        request("GET /x HTTP/1.1", "a: " + "b" * 200),
        {"limit_request_head": 100},
        '"GET /x HTTP/1.1" 431 Request Header Fields Too Large',
    ),
    "half a line": (b"GE", {"timeout_request_head": 0.04}, f'"{UNKNOWN}" 408 Request Timeout'),
    "half a head": (
        b"GET /x?y HTTP/1.1\r\nhost: x\r\n",
        {"timeout_request_head": 0.04},
        '"GET /x?y HTTP/1.1" 408 Request Timeout',
    ),
    "a long body": (post(b"x" * 10), {"limit_request_body": 5}, '"POST / HTTP/1.1" 413 Content Too Large'),
    "a long body in chunks": (
        request("POST /x HTTP/1.1", "transfer-encoding: chunked", body=b"a\r\n0123456789\r\n"),
        {"limit_request_body": 5},
        '"POST /x HTTP/1.1" 413 Content Too Large',
    ),
    "half a body": (
        request("POST /x HTTP/1.1", "content-length: 5"),
        {"timeout_request_body": 0.04},
        '"POST /x HTTP/1.1" 408 Request Timeout',
    ),
    "a broken body": (
        request("POST /x HTTP/1.1", "transfer-encoding: chunked", body=b"z"),
        {},
        '"POST /x HTTP/1.1" 400 Bad Request',
    ),
    "too many at once": (
        request("GET /x HTTP/1.1", "x-forwarded-for: 1.2.3.4"),
        {"limit_concurrency": 1},
        '1.2.3.4:0 - "GET /x HTTP/1.1" 503 Service Unavailable',
    ),
    "an old WebSocket": (
        handshake().replace(b"version: 13", b"version: 7"),
        {},
        '"GET / HTTP/1.1" 426 Upgrade Required',
    ),
}


async def waits_for_body(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] == "HEAD":
        while (await receive())["type"] != "http.disconnect":
            pass
    while (await receive()).get("more_body"):
        pass


@pytest.mark.parametrize("case", ANSWERS)
@in_loop
async def test_an_answer_of_the_servers_own_is_a_line(case: str, screen: Screen) -> None:
    data, settings, line = ANSWERS[case]
    async with logged(screen, waits_for_body, **settings) as running:
        if "limit_concurrency" in settings:
            await (await running.connect()).write(request("HEAD / HTTP/1.1"))
        client = await running.connect()
        await client.write(data)
        await client.response()
        ERROR.info("last")
        [found] = screen.lines(" - .*HTTP")
    assert re.fullmatch(rf"INFO:     (client - )?{re.escape(line)}", found)


@in_loop
async def test_plain_http_to_tls_is_a_line(screen: Screen, tmp_path: Path) -> None:
    async with logged(screen, hello, **Authority(tmp_path).issue().settings) as running:
        assert b" 400 " in await running.talk(request())
    assert f'INFO:     client - "{UNKNOWN}" 400 Bad Request' in screen.lines()


@in_loop
async def test_a_format_has_a_dash_for_what_is_not_known(screen: Screen) -> None:
    form = "{status} {method} {path} {query} {http_version} {bytes} {duration_us} {user_agent}"
    async with logged(screen, hello, access_log_format=form) as running:
        await running.talk(b"nonsense\r\n\r\n")
        assert "400 - -  - 11 - -" in screen.lines()
    async with logged(screen, hello, access_log_format="json") as running:
        await running.talk(b"nonsense\r\n\r\n")
        [line] = [json.loads(line) for line in screen.lines("^{")]
    assert (line["method"], line["status"], line["duration_us"]) == ("-", 400, None)


@pytest.mark.parametrize("kind", ["request", "proxy header"])
@in_loop
async def test_warnings_of_refusals_are_few_and_counted(kind: str, screen: Screen) -> None:
    settings = {"proxy_protocol": "127.0.0.1"} if kind == "proxy header" else {}
    async with logged(screen, hello, **settings) as running:
        for _ in range(20):
            client = await running.connect()
            await client.write(b"nonsense\r\n\r\n")
            await client.rest()
    told = len(screen.lines("refused with 400|no PROXY header"))
    counts = [int(line.split()[1]) for line in screen.lines("more refused in the same second")]
    assert told + sum(counts) == 20
    assert 0 < len(counts) >= told / 5 - 1
    if kind == "request":
        assert len(screen.lines(UNKNOWN)) == 20
