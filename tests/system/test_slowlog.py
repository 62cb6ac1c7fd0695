"""What the log says of requests that take long, and SIGUSR2 of those that run."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from serving import WAIT_S, ServerProcess
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websocketwire import open_websocket
from wire import in_each_loop, in_loop, request, respond, served

from fastasgi.system.slowlog import MOST_LINES

SLOW_S = 0.1

Lines = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines about requests that take long."""
    return lambda: [text for text in map(str, caplog.messages) if " took " in text or " so far " in text]


class Waiting:
    """An application whose requests wait, as their path says, until the log has some lines."""

    def __init__(self, told: Lines, lines: int = 1) -> None:
        self._told, self._lines = told, lines

    async def is_told(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self._told()) < self._lines:
                await asyncio.sleep(0.01)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["path"]:
            case "/gather":
                await asyncio.gather(self.is_told(), asyncio.sleep(0))
            case "/group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.is_told())
            case "/body":
                while (await receive()).get("more_body"):
                    pass
            case path if path.startswith("/wait"):
                await self.is_told()
        await respond(send, b"ok")


@pytest.mark.parametrize("access_log", [False, True])
@in_each_loop
async def test_a_request_that_keeps_the_loop_to_itself_is_told_when_it_is_over(
    told: Lines, access_log: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/blocks":
            time.sleep(2 * SLOW_S)
        await respond(send, b"ok")

    async with served(app, log_slow=SLOW_S, access_log=access_log) as server:
        client = await server.connect()
        for each in ("/", "/blocks?secret=1", "/"):
            assert (await client.ask(request(f"GET {each} HTTP/1.1"))).status == 200
        # No look follows before the server ends
    (line,) = told()
    assert re.fullmatch(r"GET /blocks took 0\.\d s", line)


@in_loop
async def test_slow_requests_that_are_over_are_counted_beyond_the_lines(told: Lines, caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        time.sleep(0.002)
        await respond(send, b"ok")

    async with served(app, log_slow=0.001, access_log=False) as server:
        client = await server.connect()
        for _ in range(MOST_LINES + 5):
            await client.ask(request())
    assert len([line for line in told() if line.startswith("GET ")]) == MOST_LINES
    assert "5 more requests took longer than log_slow" in caplog.messages


@pytest.mark.parametrize("path", ["/wait", "/gather", "/group"])
@in_each_loop
async def test_a_request_is_told_once_with_where_it_waits(told: Lines, path: str) -> None:
    async with served(Waiting(told), log_slow=SLOW_S, access_log=False) as server:
        client = await server.connect()
        for each in ("/", f"{path}?secret=1", "/"):
            assert (await client.ask(request(f"GET {each} HTTP/1.1"))).status == 200
    running, over = told()
    assert re.match(
        rf"GET {path} takes 0\.\d s so far \(received 0 bytes, sent 0\) and waits for the application: "
        r"asyncio's sleep < Waiting\.is_told \(",
        running,
    )
    assert " < Waiting.__call__ (" in running
    assert re.match(rf"GET {path} took 0\.\d s", over)
    assert "secret" not in running + over


@in_loop
async def test_a_request_whose_client_is_waited_for(told: Lines) -> None:
    async with served(Waiting(told), log_slow=SLOW_S) as server:
        client = await server.connect()
        await client.write(request("POST /body HTTP/1.1", "content-length: 4") + b"abc")
        async with asyncio.timeout(WAIT_S):
            while not told():
                await asyncio.sleep(0.01)
        await client.write(b"d")
        assert (await client.response()).status == 200
    running, _ = told()
    assert "(received 3 bytes, sent 0) and waits for its client: Waiting.__call__ (" in running


@in_loop
async def test_an_endpoint_in_a_task_of_a_middleware_is_followed(told: Lines) -> None:
    waiting = Waiting(told)

    async def endpoint(request: Any) -> Any:
        await waiting.is_told()
        return PlainTextResponse("ok")

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = Starlette(routes=[Route("/page", endpoint)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    async with served(app, log_slow=SLOW_S) as server:
        await server.talk(request("GET /page HTTP/1.1", "connection: close"))
    assert "asyncio's sleep < Waiting.is_told (" in told()[0]


@in_loop
async def test_many_are_counted(told: Lines, caplog: pytest.LogCaptureFixture) -> None:
    count = 5 * MOST_LINES
    async with served(Waiting(told, MOST_LINES), log_slow=SLOW_S) as server:
        clients = [await server.connect() for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.ask(request("GET /wait HTTP/1.1")))
    lines = told()
    assert len([line for line in lines if "so far" in line]) == MOST_LINES
    assert len([line for line in lines if "took 0" in line]) == MOST_LINES
    assert f"{count - MOST_LINES} more requests took longer than log_slow" in caplog.messages


@in_loop
async def test_websockets_last_by_nature(told: Lines) -> None:
    waiting = Waiting(told)

    async def endpoint(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.close()

    async def page(request: Any) -> Any:
        await waiting.is_told()
        return PlainTextResponse("ok")

    app = Starlette(routes=[WebSocketRoute("/live", endpoint), Route("/wait", page)])
    async with served(app, log_slow=SLOW_S) as server:
        websocket = await open_websocket(server, target="/live")
        await server.talk(request("GET /wait HTTP/1.1", "connection: close"))
        await websocket.send("x")
        assert await websocket.closing() == (1000, "")
    assert all(line.startswith("GET /wait ") for line in told())


APP = """
import asyncio, sys, time
async def child():
    print("waits", file=sys.stderr, flush=True)
    await asyncio.sleep(60)
async def app(scope, receive, send):
    if scope["path"] == "/block":
        time.sleep(60)
    if scope["path"] == "/wait":
        await asyncio.gather(child())
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""


@pytest.mark.parametrize("access_log", ["--access-log", "--no-access-log"])
def test_a_signal_has_a_worker_say_where_each_request_waits(
    start: Callable[..., ServerProcess], access_log: str
) -> None:
    arguments = ("--port", "0", "--lifespan", "off", "--workers", "1", "--timeout-graceful-shutdown", "0.1")
    server = start(APP, "app:app", *arguments, access_log)
    address = ("127.0.0.1", server.port)
    pid = int(server.wait_for(r"Started server process \[(\d+)\]")[1])
    with (
        socket.create_connection(address, WAIT_S) as waiting,
        socket.create_connection(address, WAIT_S) as blocking,
    ):
        waiting.sendall(b"GET /wait?secret=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        server.wait_for("waits")
        blocking.sendall(b"GET /block?secret=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        server.wait_for("has been blocked for")
        os.kill(pid, signal.SIGUSR2)
        server.wait_for(
            rf"(?s)most recent call first.*Process \[{pid}\]:\n"
            r"Its event loop: GET /block is in app \(app.py:8\)\n"
            r"GET /wait waits: asyncio's sleep < child \(app.py:5\) < app \(app.py:10\)\n"
        )
    assert "secret" not in server.log.partition("most recent call first")[2]
    server.process.kill()
