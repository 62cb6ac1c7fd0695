"""Server: how it stops, and what signals do to it."""

import asyncio
import inspect
import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorder import GET, Recorder, Stubborn, hello
from serving import WAIT_S, ServerProcess, fetch, port_of, serving
from wire import in_each_loop, in_loop

import fastasgi
from fastasgi import Config, Server, launch, shutdown


class Disconnected(Recorder):
    """Its requests wait for their client to go."""

    async def wait(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.events.append("disconnected")


each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


# Stopping


@in_each_loop
async def test_a_running_request_ends_before_the_application_is_stopped() -> None:
    app = Recorder()
    async with serving(app) as running:
        request = asyncio.create_task(fetch(port_of(running), GET))
        await app.begun.wait()
        running.should_exit = True
        app.release.set()
        assert (await request).endswith(b"hi")
    assert app.events == ["startup", "answered", "shutdown"]


@in_each_loop
async def test_an_idle_connection_does_not_delay_the_end() -> None:
    async with serving(hello, timeout_keep_alive=WAIT_S) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(GET.encode())
        await reader.readuntil(b"hi")
        running.should_exit = True
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("application", "expected", "logged"),
    [
        (Disconnected, ["startup", "disconnected", "shutdown"], ["Disconnecting"]),
        (Recorder, ["startup", "cancelled", "shutdown"], ["Disconnecting", "Cancelling"]),
        (Stubborn, ["startup", "ignored", "shutdown"], ["Disconnecting", "Cancelling", "Giving up"]),
    ],
)
@in_each_loop
async def test_requests_that_never_end_are_ended_in_phases(
    application: type[Recorder],
    expected: list[str],
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shutdown, "PHASE_TIMEOUT_S", 0.05)

    app = application()
    async with serving(app, timeout_graceful_shutdown=0.05, log_config=None) as running:
        request = asyncio.create_task(fetch(port_of(running), GET))
        await app.begun.wait()
    assert app.events == expected
    app.release.set()
    await request
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [message.split(" 1 request(s)")[0] for message in errors] == logged


@in_each_loop
async def test_a_forced_exit_waits_for_nothing() -> None:
    app = Recorder()
    async with serving(app, timeout_graceful_shutdown=WAIT_S * 2) as running:
        request = asyncio.create_task(fetch(port_of(running), GET))
        await app.begun.wait()
        running.handle_exit(signal.SIGINT, None)
        assert (running.should_exit, running.force_exit) == (True, False)
        running.handle_exit(signal.SIGTERM, None)
        assert running.force_exit
        running._captured_signals.clear()
        await request
    assert app.events == ["startup", "cancelled", "shutdown"]


def test_hangups_never_end_at_once() -> None:
    """A terminal that closes sends SIGHUP, and its shell once more."""
    running = launch.StandaloneServer(Config(hello))
    for number in (signal.SIGHUP, signal.SIGHUP):
        running.handle_exit(number, None)
        assert (running.should_exit, running.force_exit) == (True, False)
    running.handle_exit(signal.SIGTERM, None)
    assert running.force_exit


@in_each_loop
async def test_a_cancelled_serve_still_stops_the_application() -> None:
    app = Recorder()
    ready = asyncio.Event()

    async def notify() -> None:
        ready.set()

    serve = asyncio.create_task(Server(Config(app, port=0, callback_notify=notify)).serve())
    await ready.wait()
    serve.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serve
    assert app.events == ["startup", "shutdown"]


@in_each_loop
async def test_the_server_ends_after_its_number_of_requests(caplog: pytest.LogCaptureFixture) -> None:
    ready = asyncio.Event()

    async def notify() -> None:
        ready.set()

    settings = {"limit_max_requests": 2, "log_config": None, "log_level": "info"}
    running = Server(Config(hello, port=0, callback_notify=notify, **settings))
    serve = asyncio.create_task(running.serve())
    await ready.wait()
    port = port_of(running)
    assert (await fetch(port)).endswith(b"hi")
    assert not running.should_exit
    assert (await fetch(port)).endswith(b"hi")
    await serve
    assert "Maximum number of requests reached. Terminating process." in caplog.messages


def test_jitter_is_added_to_the_number_of_requests() -> None:
    running = Server(Config(hello, limit_max_requests=10, limit_max_requests_jitter=3))
    assert {running._max_requests() for _ in range(200)} == {10, 11, 12, 13}


def test_should_exit_can_be_set_from_another_thread() -> None:
    ready = threading.Event()

    async def notify() -> None:
        ready.set()

    running = Server(Config(hello, port=0, callback_notify=notify))
    thread = threading.Thread(target=running.run)
    thread.start()
    assert ready.wait(WAIT_S)
    running.should_exit = True
    thread.join(WAIT_S)
    assert not thread.is_alive()
    running.should_exit = True  # its loop is closed now


def test_run_serves_in_another_thread_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"fd": listener.fileno(), "limit_max_requests": 1}
        thread = threading.Thread(target=fastasgi.run, args=(hello,), kwargs=settings)
        thread.start()
        assert asyncio.run(fetch(listener.getsockname()[1])).endswith(b"hi")
        thread.join(WAIT_S)
    assert not thread.is_alive()


@in_each_loop
async def test_should_exit_before_the_start_stops_at_once() -> None:
    app = Recorder()
    running = Server(Config(app, port=0))
    running.should_exit = True
    await running.serve()
    assert app.events == ["startup", "shutdown"]


# Signals and processes

WAITING = """
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = (await receive())["type"]
                print(message, flush=True)
                await send({"type": message + ".complete"})
            print("buffered")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()
"""


@each_loop
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_stops_gracefully(
    start: Callable[..., ServerProcess], loop: str, number: int, code: int
) -> None:
    process = start(WAITING, "app:app", "--port", "0", "--loop", loop)
    assert process.port
    assert process.end(number) == code
    assert process.output == "lifespan.startup\nlifespan.shutdown\nbuffered\n"
    lines = [line.split("[")[0].strip() for line in process.errors]
    assert lines[0] == "INFO:     Started server process"
    assert lines[-1] == "INFO:     Finished server process"
    assert "Traceback" not in process.log


@each_loop
def test_a_second_signal_ends_at_once(start: Callable[..., ServerProcess], loop: str) -> None:
    process = start(WAITING, "app:app", "--port", "0", "--loop", loop)
    with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as client:
        client.sendall(GET.encode())
        received = b""
        while b"begun" not in received:
            received += client.recv(65536)
        process.process.send_signal(signal.SIGTERM)
        process.wait_for(r"Waiting for 1 connection\(s\) and 1 request\(s\) to end")
        assert process.end(signal.SIGTERM) == -signal.SIGTERM
    assert process.output.endswith("lifespan.shutdown\nbuffered\n")
    assert "Finished server process" in process.log


def test_a_second_signal_ends_a_startup_that_hangs(start: Callable[..., ServerProcess]) -> None:
    source = """
        import asyncio, sys

        async def app(scope, receive, send):
            print("hanging", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
    """
    process = start(source, "app:app", "--port", "0")
    process.wait_for("hanging")
    process.process.send_signal(signal.SIGINT)
    process.wait_for("Waiting for application startup to end first")
    assert process.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "Application startup was broken off" in process.log
    assert "Traceback" not in process.log


@each_loop
def test_a_deadline_that_passes_as_a_phase_begins_reaches_the_application(
    start: Callable[..., ServerProcess], loop: str
) -> None:
    source = """
    import asyncio, logging, sys, time

    def pass_the_deadline(record):
        # As a terminal that takes its time does
        if record.getMessage().startswith("Shutting down"):
            time.sleep(0.5)
        return True

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            logging.getLogger("fastasgi.error").addFilter(pass_the_deadline)
            while True:
                message = (await receive())["type"]
                await send({"type": message + ".complete"})
                if message == "lifespan.shutdown":
                    return
        print("begun", file=sys.stderr, flush=True)
        print((await receive())["type"], file=sys.stderr, flush=True)
    """
    settings = ("--timeout-request-body", "0.2", "--timeout-graceful-shutdown", "3")
    process = start(source, "app:app", "--port", "0", "--loop", loop, *settings)
    with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        process.wait_for("begun")
        assert process.end() == -signal.SIGTERM
    assert "http.disconnect" in process.log
    assert "Disconnecting" not in process.log, "the grace time had to pass"
    assert "Cannot enter into task" not in process.log


def test_a_socket_file_is_gone_after_a_signal(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    process = start(WAITING, "app:app", "--uds", "app.sock", "--uds-permissions", "600")
    process.wait_for("running on unix socket app.sock ")
    assert path.stat().st_mode & 0o777 == 0o600
    process.end()
    assert not path.exists()


def test_run_has_the_parameters_of_config() -> None:
    assert inspect.signature(fastasgi.run) == inspect.signature(Config)


EXITING = """
    import asyncio, sys

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    print("shut down", flush=True)
                    return
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        if scope["path"] != "/":
            sys.exit(5)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_sys_exit_in_a_handler_is_the_failure_of_its_request(start: Any, loop: str) -> None:
    process = start(
        EXITING,
        "app:app",
        "--port",
        "0",
        "--loop",
        loop,
        "--access-log-format",
        "{path} {status} {header[host]}",
    )
    answers = [
        asyncio.run(fetch(process.port, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        for path in ("/now", "/later", "/")
    ]
    assert [answer[9:12] for answer in answers] == [b"500", b"500", b"200"]
    assert process.end(signal.SIGINT) == 0
    assert process.output == "/now 500 x\n/later 500 x\n/ 200 x\nshut down\n"


def test_sys_exit_in_lifespan_startup_is_a_failed_startup(start: Any) -> None:
    process = start(
        """
        import sys

        async def app(scope, receive, send):
            sys.exit("no database")
        """,
        "app:app",
        "--port",
        "0",
    )
    assert process.wait() == 3
    assert "no database" in process.log
    assert "Traceback" not in process.log


def test_logging_that_the_application_sets_up_is_followed() -> None:
    lines = []

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            logging.getLogger("fastasgi.access").addFilter(keep)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def main() -> None:
        async with serving(app) as running:
            await fetch(port_of(running))

    asyncio.run(main())
    assert [line[line.index('"') :] for line in lines] == ['"GET / HTTP/1.1" 200']


@in_loop
async def test_a_server_that_serves_refuses_to_serve_again() -> None:
    """And goes on as it was."""
    async with serving(hello, log_config=None) as running:
        with pytest.raises(RuntimeError, match="serves already"):
            await running.serve()
        assert (await fetch(port_of(running))).startswith(b"HTTP/1.1 200 ")
