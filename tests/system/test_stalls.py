"""What the log says of an event loop that does not turn and of a start-up that takes long."""

import asyncio
import contextlib
import ctypes
import functools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from serving import WAIT_S, ServerProcess
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websocketwire import open_websocket
from wire import Served, in_each_loop, in_loop, request, respond, served

from fastasgi.processes import longstarts
from fastasgi.processes.messages import BEAT, READY, STANDS
from fastasgi.processes.workerprocess import WorkerProcess
from fastasgi.system import stalls

STALL_S = 0.4

PATCH = """
import fastasgi.config
import fastasgi.system.stalls as stalls
fastasgi.config.STALL_S = stalls.AGAIN_S = 0.4
stalls.ASK_S, stalls.PAIR_S = 0.05, 0
import fastasgi.processes.longstarts
fastasgi.processes.longstarts.STILL_STARTING_S = 0.4
"""


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastasgi.config.STALL_S", STALL_S)
    monkeypatch.setattr(stalls, "ASK_S", 0.05)
    monkeypatch.setattr(stalls, "PAIR_S", 0)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines about stalls."""
    return lambda: [text for text in map(str, caplog.messages) if "has been blocked" in text]


def block(seconds: float = 2 * STALL_S) -> None:
    time.sleep(seconds)


async def blocking(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"].startswith("/block"):
        block()
    await respond(send, b"ok")


@in_each_loop
async def test_a_handler_that_blocks_is_named_once_a_stall(told: Callable[[], list[str]]) -> None:
    async with served(blocking) as server:
        client = await server.connect()
        for path in ("/", "/block", "/", "/block/again", "/"):
            assert (await client.ask(request(f"GET {path}?secret=1 HTTP/1.1"))).status == 200
    lines = told()
    assert len(lines) == 2
    for line, path in zip(lines, ("/block", "/block/again"), strict=True):
        assert f" s: GET {path} is in block (" in line
        assert ") < blocking (" in line
        assert "secret" not in line
        assert "fastasgi" not in line.partition("is in")[2].replace("tests", "")


@in_loop
async def test_a_path_can_not_write_lines_of_its_own(told: Callable[[], list[str]]) -> None:
    async with served(blocking) as server:
        await server.talk(request("GET /block%0aERROR%1b[0m" + "x" * 5000 + " HTTP/1.1", "connection: close"))
    (line,) = told()
    assert "GET /block%0AERROR%1B" in line
    assert line.isprintable()
    assert len(line) < 1500


@in_loop
async def test_a_request_is_named_whose_endpoint_runs_in_a_task_of_a_middleware(
    told: Callable[[], list[str]],
) -> None:
    async def endpoint(request: Any) -> Any:
        block()
        return PlainTextResponse("ok")

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def socket_endpoint(websocket: Any) -> None:
        await websocket.accept()
        block()
        await websocket.close()

    app = Starlette(routes=[Route("/page", endpoint), WebSocketRoute("/live", socket_endpoint)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    async with served(app) as server:
        await server.talk(request("GET /page HTTP/1.1", "connection: close"))
        websocket = await open_websocket(server, target="/live")
        assert await websocket.closing() == (1000, "")
    first, second = told()
    assert "GET /page is in block (" in first
    assert "WebSocket /live is in block (" in second


@in_loop
async def test_c_code_that_holds_the_interpreter_is_named_afterwards(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        sum(range(count))  # one call, in which no other thread runs
        await respond(send, b"ok")

    begin = time.process_time()
    sum(range(10**7))
    count = int(10**7 * 4 * STALL_S / (time.process_time() - begin))
    async with served(app) as server:
        await server.talk(request("GET /sum HTTP/1.1", "connection: close"))
    (line,) = told()
    assert " s, by code that did not let other threads run: GET /sum is in " in line


@in_loop
async def test_c_code_that_waits_with_the_interpreter_is_no_suspension(told: Callable[[], list[str]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        ctypes.PyDLL(None).usleep(int(3 * STALL_S * 1e6))
        await respond(send, b"ok")

    async with served(app) as server:
        await server.talk(request("GET /wait HTTP/1.1", "connection: close"))
    (line,) = told()
    assert " s, by code that did not let other threads run: GET /wait is in " in line


@in_each_loop
async def test_what_blocks_outside_of_a_request_is_named(told: Callable[[], list[str]]) -> None:
    async with served(blocking):
        asyncio.get_running_loop().call_soon(block)
        await asyncio.sleep(0)
    (line,) = told()
    assert line.partition(" s: ")[2].startswith("block (")


@in_each_loop
async def test_a_request_is_named_that_waits_for_the_task_that_blocks(told: Callable[[], list[str]]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        block()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        match scope["path"]:
            case "/gather":
                await asyncio.gather(work(), asyncio.sleep(0))
            case "/wait":
                await asyncio.wait([asyncio.create_task(work())])
            case "/wait_for":
                await asyncio.wait_for(work(), WAIT_S)
            case "/asyncio":
                async with asyncio.TaskGroup() as group:
                    group.create_task(work())
            case "/anyio":
                async with anyio.create_task_group() as anyio_group:
                    anyio_group.start_soon(work)
        await respond(send, b"ok")

    paths = ["/gather", "/wait", "/wait_for", "/asyncio", "/anyio"]
    async with served(app) as server:
        client = await server.connect()
        for path in paths:
            assert (await client.ask(request(f"GET {path} HTTP/1.1"))).status == 200
    assert [line.partition(" s: ")[2].partition(" (")[0] for line in told()] == [
        f"GET {path} is in block" for path in paths
    ]


class CallableApp:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await blocking(scope, receive, send)


@pytest.mark.parametrize("app", [CallableApp(), functools.partial(blocking)], ids=["object", "partial"])
@in_loop
async def test_applications_of_each_kind(told: Callable[[], list[str]], app: Any) -> None:
    async with served(app) as server:
        await server.talk(request("GET /block HTTP/1.1", "connection: close"))
    (line,) = told()
    assert " s: GET /block is in block (" in line


@in_loop
async def test_what_blocks_after_the_response_is_named(told: Callable[[], list[str]]) -> None:
    async def later() -> None:
        block()

    async def endpoint(request: Any) -> Any:
        return PlainTextResponse("ok", background=BackgroundTask(later))

    async with served(Starlette(routes=[Route("/mail", endpoint)])) as server:
        await server.talk(request("GET /mail HTTP/1.1", "connection: close"))
    (line,) = told()
    assert "GET /mail is in block (" in line


@in_each_loop
async def test_the_start_and_the_end_of_an_application_may_block(told: Callable[[], list[str]]) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        block()
        yield
        block()

    async with served(Starlette(lifespan=lifespan), lifespan="on"):
        pass
    lines = told()
    assert len(lines) == 2
    assert all(" s: block (" in line and "lifespan (" in line for line in lines)


@in_loop
async def test_a_pair_of_lines_and_then_a_count(
    told: Callable[[], list[str]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "PAIR_S", 1000)
    async with served(blocking, log_stall=0.1) as server:
        client = await server.connect()
        for each in range(3):
            assert (await client.ask(request(f"GET /block/{each} HTTP/1.1"))).status == 200
    assert len(told()) == 1
    lines = [text for text in map(str, caplog.messages) if "event loop" in text]
    assert len(lines) == 3
    assert re.search(r"turns again after [01]\.\d+ s: GET /block/0 is in block", lines[1])
    assert re.search(r"was blocked 2 more times, for [01]\.\d+ s at the most", lines[2])


@in_each_loop
async def test_a_log_handler_that_raises_stops_nobody(
    told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))

    def refuse(*arguments: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(stalls.logger, "warning", refuse)
        async with served(blocking) as server:
            client = await server.connect()
            for path in ("/block", "/block", "/"):
                assert (await client.ask(request(f"GET {path} HTTP/1.1"))).status == 200
    (context,) = errors
    assert str(context["exception"]) == "disk full"


@in_loop
async def test_names_of_code_can_not_write_lines_of_their_own(told: Callable[[], list[str]]) -> None:
    names: dict[str, Any] = {"block": block}
    exec(compile("def odd(): block()", "a\nERROR\x1b[0m\udc80.py", "exec"), names)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names["odd"]()
        await respond(send, b"ok")

    async with served(app) as server:
        await server.talk(request("GET / HTTP/1.1", "connection: close"))
    (line,) = told()
    assert r"odd (a\nERROR\x1b[0m\udc80.py:1)" in line
    assert line.isprintable()


@in_loop
async def test_deep_recursion_is_cut(told: Callable[[], list[str]]) -> None:
    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            block()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deeper(800)
        await respond(send, b"ok")

    async with served(app) as server:
        await server.talk(request("GET /deep HTTP/1.1", "connection: close"))
    (line,) = told()
    assert "GET /deep is in block (" in line
    assert line.endswith("< ...")


@in_loop
async def test_who_is_in_a_debugger_is_left_alone(told: Callable[[], list[str]]) -> None:
    module: dict[str, Any] = {"__name__": "pdb", "block": block}
    exec("def interaction(): block()", module)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        module["interaction"]()
        await respond(send, b"ok")

    async with served(app) as server:
        await server.talk(request("GET / HTTP/1.1", "connection: close"))
    assert told() == []


def test_a_loop_that_does_not_run_does_not_stall(told: Callable[[], list[str]]) -> None:
    async def ask(server: Served) -> None:
        client = await server.connect()
        assert (await client.ask(request())).status == 200

    with asyncio.Runner() as runner:
        running = served(blocking)
        server = runner.run(running.__aenter__())
        runner.run(ask(server))
        block()
        runner.run(ask(server))
        block()
        runner.run(running.__aexit__(None, None, None))
    assert told() == []


def test_the_watch_ends_with_the_server() -> None:
    def watches() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "fastasgi-stall-watch"]

    async def serve() -> list[threading.Thread]:
        async with served(blocking):
            return watches()

    (watch,) = asyncio.run(serve())
    watch.join(WAIT_S)
    assert watches() == []


@pytest.fixture
def run(tmp_path: Path, start: Callable[..., ServerProcess]) -> Callable[..., ServerProcess]:
    """Starts a server whose times are short: ``run(source, *arguments)``."""
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return lambda source, *arguments: start(
        source, "app:app", "--port", "0", "--lifespan", "off", *arguments, environment=environment
    )


WAITS = """
import os, time
while not os.path.exists("go"):
    time.sleep(0.02)
"""

BLOCKS = """
import time
async def app(scope, receive, send):
    time.sleep(float(scope["path"][1:]))
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""


def test_a_process_that_was_suspended_has_not_stalled(run: Callable[..., ServerProcess]) -> None:
    server = run(BLOCKS)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as client:
        for begin_s in (0.0, 0.1):
            client.sendall(f"GET /{begin_s} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            os.kill(server.process.pid, signal.SIGSTOP)
            begin = time.monotonic()
            while time.monotonic() - begin < 1.0:
                time.sleep(0.1)
            os.kill(server.process.pid, signal.SIGCONT)
        client.sendall(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n")
        server.wait_for("has been blocked for .* s: GET /1 is in app")
    assert server.log.count("has been blocked") == 1
    server.end()


def test_a_worker_that_is_killed_is_named_with_its_request(run: Callable[..., ServerProcess]) -> None:
    server = run(BLOCKS, "--workers", "1", "--timeout-worker-healthcheck", "0.3")
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as client:
        client.sendall(b"GET /30 HTTP/1.1\r\nhost: x\r\n\r\n")
        server.wait_for(
            r"Worker \[\d+\] has blocked its event loop for 0.3 seconds \(timeout_worker_healthcheck\) "
            r"and is "
            r"replaced: GET /30 is in app \(app.py:4\)\. Its stacks:"
        )
        assert client.recv(4096) == b""
    server.wait_for(r"(?s)Started server.*Started server")
    server.end()


def test_reload_has_no_health_check(run: Callable[..., ServerProcess]) -> None:
    pytest.importorskip("watchfiles")
    server = run(BLOCKS, "--reload", "--timeout-worker-healthcheck", "0.3")
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as client:
        client.sendall(b"GET /2.5 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    server.end()
    assert "is replaced" not in server.log


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["spawn", "preload"])
def test_an_import_that_takes_long_is_told_again_and_again(
    tmp_path: Path, run: Callable[..., ServerProcess], preload: tuple[str, ...]
) -> None:
    server = run(f"{WAITS}{BLOCKS}", "--workers", "1", *preload)
    what = "The application is still being imported" if preload else r"Worker \[\d+\] is still starting"
    server.wait_for(rf"(?s)({what} after \d+ seconds: <module> \(app.py:[34]\).*){{2}}")
    (tmp_path / "go").touch()
    server.wait_for("Started server")
    assert server.end() == 0


def test_a_lifespan_that_takes_long_is_told_where_it_waits(
    tmp_path: Path, run: Callable[..., ServerProcess]
) -> None:
    server = run(
        "import asyncio, contextlib, os\n"
        "from starlette.applications import Starlette\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    while not os.path.exists('go'): await asyncio.sleep(0.02)\n"
        "    yield\n"
        "app = Starlette(lifespan=lifespan)\n",
        *("--workers", "1", "--lifespan", "on"),
    )
    server.wait_for(r"Worker \[\d+\] is still starting after \d+ seconds: lifespan \(app.py:5\) < ")
    (tmp_path / "go").touch()
    server.wait_for("startup complete")
    assert server.end() == 0


def test_a_start_beyond_its_limit_names_the_setting(run: Callable[..., ServerProcess]) -> None:
    server = run(f"{WAITS}{BLOCKS}", "--workers", "1", "--timeout-worker-startup", "2")
    server.wait_for(
        r"Worker \[\d+\] is not ready after 2 seconds \(timeout_worker_startup\) and is replaced: <module> "
    )
    assert server.wait() == 3


def test_what_a_worker_says_comes_in_any_pieces() -> None:
    said = READY + BEAT + STANDS + b"in m. r w (a.py:1)\n" + BEAT + STANDS + "…\n".encode() + BEAT
    for size in range(1, len(said) + 1):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = WorkerProcess(0, 0, ours, None)
            heard, places = b"", []
            for at in range(0, len(said), size):
                theirs.sendall(said[at : at + size])
                heard += process.hear()
                places.append(process.stands_at)
            assert heard == READY + 3 * BEAT
            assert places[-1] == "…"
            assert size > 1 or "in m. r w (a.py:1)" in places
            theirs.close()
            assert process.hear() is None


def test_the_line_of_an_import_comes_from_the_main_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(longstarts, "STILL_STARTING_S", 0.05)
    with longstarts.told_of_import(), caplog.at_level("INFO"):
        block(0.2)
    count = len(caplog.messages)
    assert count >= 2
    assert all("seconds: block (" in text for text in caplog.messages)
    block(0.1)
    assert len(caplog.messages) == count
