import asyncio
import functools
import inspect
import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import WAIT_S, ServerProcess, fetch, port_of, serving
from wire import in_loop

import fastasgi
from fastasgi import Config, Server, server
from fastasgi.errors import BindError

LOOPS = ["asyncio", "uvloop"]

GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


class Recorder:
    """An application whose requests wait, with a record of its lifespan and of how its requests ended."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = (await receive())["type"]
                self.events.append(message.removeprefix("lifespan."))
                await send({"type": f"{message}.complete"})
            return
        self.begun.set()
        try:
            await self.wait(receive)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        if "disconnected" not in self.events:
            await hello(scope, receive, send)
            self.events.append("answered")

    async def wait(self, receive) -> None:
        await self.release.wait()


class Disconnected(Recorder):
    """Its requests wait for their client to go."""

    async def wait(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.events.append("disconnected")


class Stubborn(Recorder):
    """Its requests ignore everything."""

    async def wait(self, receive) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.events.append("ignored")


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine in each kind of event loop, in bounded time."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")

    async def bounded(main: Any) -> Any:
        async with asyncio.timeout(WAIT_S):
            return await main

    def run(main: Any) -> Any:
        factory = Config(hello, loop=request.param, log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(bounded(main))

    return run


# Serving


def test_serve_in_a_running_loop(run: Any) -> None:
    async def main() -> None:
        async with serving(hello) as running:
            assert running.started
            assert (await fetch(port_of(running))).endswith(b"\r\n\r\nhi")

    run(main())


def test_the_port_is_free_again_afterwards(run: Any) -> None:
    async def main() -> None:
        async with serving(hello) as first:
            port = port_of(first)
        async with serving(hello, port=port) as second:
            assert port_of(second) == port

    run(main())


def test_settings_reach_the_wire(run: Any) -> None:
    async def main() -> None:
        settings = {"headers": [("X-A", "b")], "date_header": False, "server_header": False}
        async with serving(hello, **settings) as running:
            answer = await fetch(port_of(running))
            head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
            assert b"x-a: b" in head
            assert not [line for line in head if line.startswith((b"date:", b"server:"))]

    run(main())


@pytest.mark.parametrize(
    ("settings", "head", "status"),
    [
        ({"limit_request_line": 32}, f"GET /{'a' * 32} HTTP/1.1\r\nhost: x\r\n\r\n", b"414"),
        ({"limit_request_head": 64}, f"GET / HTTP/1.1\r\nhost: x\r\na: {'b' * 64}\r\n\r\n", b"431"),
        ({"limit_request_fields": 2}, "GET / HTTP/1.1\r\nhost: x\r\na: b\r\nc: d\r\n\r\n", b"431"),
        ({"limit_request_body": 2}, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n", b"413"),
        ({"timeout_request_head": 0.05}, "GET / HTTP/1.1\r\n", b"408"),
        ({"header_underscores": "refuse"}, "GET / HTTP/1.1\r\nhost: x\r\na_b: c\r\n\r\n", b"400"),
    ],
)
def test_limits_reach_the_wire(run: Any, settings: dict[str, Any], head: str, status: bytes) -> None:
    async def main() -> None:
        async with serving(hello, **settings) as running:
            assert (await fetch(port_of(running), head)).startswith(b"HTTP/1.1 " + status)

    run(main())


def test_an_idle_connection_is_closed_in_time(run: Any) -> None:
    async def main() -> None:
        async with serving(hello, timeout_keep_alive=0.05) as running:
            assert (await fetch(port_of(running), GET)).endswith(b"hi")

    run(main())


def test_requests_beyond_the_concurrency_limit_are_refused(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, limit_concurrency=1) as running:
            first = asyncio.create_task(fetch(port_of(running)))
            await app.begun.wait()
            assert (await fetch(port_of(running))).startswith(b"HTTP/1.1 503")
            app.release.set()
            assert (await first).startswith(b"HTTP/1.1 200")

    run(main())


def test_lifespan_state_reaches_each_request_as_a_copy(run: Any) -> None:
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = 7
            await send({"type": "lifespan.startup.complete"})
        else:
            seen.append(dict(scope["state"]))
            scope["state"]["pool"] = 0
            await hello(scope, receive, send)

    async def main() -> None:
        async with serving(app) as running:
            await fetch(port_of(running))
            await fetch(port_of(running))

    run(main())
    assert seen == [{"pool": 7}, {"pool": 7}]


def test_an_asgi2_application_is_served_as_such(run: Any) -> None:
    versions = []

    class App:
        def __init__(self, scope):
            self.scope = scope
            versions.append(scope["asgi"]["version"])

        async def __call__(self, receive, send):
            await hello(self.scope, receive, send)

    async def main() -> None:
        async with serving(App, lifespan="off") as running:
            assert (await fetch(port_of(running))).endswith(b"hi")

    run(main())
    assert versions == ["2.0"]


def test_a_unix_socket_is_served_and_its_file_removed(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"

    async def main() -> None:
        async with serving(hello, uds=path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(b"hi")
            writer.close()
        assert not path.exists()

    run(main())


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_an_inherited_descriptor_is_served(run: Any, family: str, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = socket.socket(getattr(socket, family))
    listener.bind(("127.0.0.1", 0) if family == "AF_INET" else str(path))

    async def main() -> None:
        async with serving(hello, fd=listener.fileno()):
            if family == "AF_INET":
                assert (await fetch(listener.getsockname()[1])).endswith(b"hi")
            else:
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()

    with listener:
        run(main())
    assert path.exists() == (family == "AF_UNIX"), "another's socket file stays"


def test_sockets_given_are_served_and_closed(run: Any) -> None:
    async def main() -> None:
        config = Config(hello, port=0)
        listeners = [config.bind_socket(), config.bind_socket()]
        ports = [sock.getsockname()[1] for sock in listeners]
        running = Server(config)
        config.callback_notify = functools.partial(answer_both, running, ports)
        await running.serve(sockets=listeners)
        assert [sock.fileno() for sock in listeners] == [-1, -1]

    async def answer_both(running: Server, ports: list[int]) -> None:
        for port in ports:
            assert (await fetch(port)).endswith(b"hi")
        running.should_exit = True

    run(main())


def test_callback_notify_is_called_again_and_again_whatever_it_raises(run: Any) -> None:
    calls = []

    async def main() -> None:
        running = Server(Config(hello, port=0, timeout_notify=0.01))

        async def notify() -> None:
            calls.append(True)
            if len(calls) == 1:
                raise ValueError
            running.should_exit = True

        running.config.callback_notify = notify
        await running.serve()

    run(main())
    assert len(calls) == 2


def test_uvicorns_steps_one_by_one(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        app.release.set()
        config = Config(app, port=0)
        running = Server(config)
        config.load()
        running.lifespan = config.lifespan_class(config)
        await running.startup()
        assert (await fetch(port_of(running))).endswith(b"hi")
        running.should_exit = True
        await running.main_loop()
        await running.shutdown()
        assert app.events == ["startup", "answered", "shutdown"]

    run(main())


# Stopping


def test_a_running_request_ends_before_the_application_is_stopped(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app) as running:
            request = asyncio.create_task(fetch(port_of(running), GET))
            await app.begun.wait()
            running.should_exit = True
            app.release.set()
            assert (await request).endswith(b"hi")
        assert app.events == ["startup", "answered", "shutdown"]

    run(main())


def test_an_idle_connection_does_not_delay_the_end(run: Any) -> None:
    async def main() -> None:
        async with serving(hello, timeout_keep_alive=WAIT_S) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
            writer.write(GET.encode())
            await reader.readuntil(b"hi")
            running.should_exit = True
            assert await reader.read() == b""
            writer.close()

    run(main())


@pytest.mark.parametrize(
    ("application", "expected", "logged"),
    [
        (Disconnected, ["startup", "disconnected", "shutdown"], ["Disconnecting"]),
        (Recorder, ["startup", "cancelled", "shutdown"], ["Disconnecting", "Cancelling"]),
        (Stubborn, ["startup", "ignored", "shutdown"], ["Disconnecting", "Cancelling", "Giving up"]),
    ],
)
def test_requests_that_never_end_are_ended_in_phases(
    run: Any,
    application: type[Recorder],
    expected: list[str],
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server, "PHASE_TIMEOUT_S", 0.05)

    async def main() -> None:
        app = application()
        async with serving(app, timeout_graceful_shutdown=0.05, log_config=None) as running:
            request = asyncio.create_task(fetch(port_of(running), GET))
            await app.begun.wait()
        assert app.events == expected
        app.release.set()
        await request

    run(main())
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [message.split(" 1 request(s)")[0] for message in errors] == logged


def test_a_forced_exit_waits_for_nothing(run: Any) -> None:
    async def main() -> None:
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

    run(main())


def test_hangups_never_end_at_once() -> None:
    """A terminal that closes sends SIGHUP, and its shell once more."""
    running = server._Service(Config(hello))
    for number in (signal.SIGHUP, signal.SIGHUP):
        running.handle_exit(number, None)
        assert (running.should_exit, running.force_exit) == (True, False)
    running.handle_exit(signal.SIGTERM, None)
    assert running.force_exit


def test_a_cancelled_serve_still_stops_the_application(run: Any) -> None:
    async def main() -> None:
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

    run(main())


def test_the_server_ends_after_its_number_of_requests(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
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

    run(main())
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


def test_should_exit_before_the_start_stops_at_once(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        running = Server(Config(app, port=0))
        running.should_exit = True
        await running.serve()
        assert app.events == ["startup", "shutdown"]

    run(main())


# Serving again


def test_a_server_serves_again_as_at_first(run: Any) -> None:
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            seen.append((running.started, running.is_draining, len(running.servers)))
            while True:
                message = (await receive())["type"]
                await send({"type": f"{message}.complete"})
                if message == "lifespan.shutdown":
                    return
        await hello(scope, receive, send)

    async def main() -> None:
        for _ in range(2):
            ready = asyncio.Event()
            running.config.callback_notify = functools.partial(note, ready)
            serve = asyncio.create_task(running.serve())
            await ready.wait()
            assert len(running.servers) == 1
            assert (await fetch(port_of(running))).endswith(b"\r\n\r\nhi")
            assert (await fetch(port_of(running), HEALTH)).startswith(b"HTTP/1.1 200")
            running.should_exit = True
            await serve
            assert running.should_exit
            running.should_exit = False

    async def note(ready: asyncio.Event) -> None:
        ready.set()

    running = Server(Config(app, port=0, health_path="/health"))
    run(main())
    assert seen == [(False, False, 0)] * 2
    assert running.started


HEALTH = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def test_a_server_counts_its_requests_anew(run: Any) -> None:
    served = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        served.append(scope["path"])

    async def request() -> None:
        await fetch(port_of(running))

    async def main() -> None:
        for _ in range(2):
            await running.serve()
        assert not running.should_exit

    settings = {"limit_max_requests": 1, "callback_notify": request, "timeout_notify": WAIT_S}
    running = Server(Config(app, port=0, lifespan="off", **settings))
    run(main())
    assert served == ["/", "/"]


def test_signals_of_a_run_that_failed_are_not_raised_after_the_next(run: Any) -> None:
    async def app(scope, receive, send):
        if running.should_exit:
            await send({"type": "lifespan.startup.complete"})
        else:
            signal.raise_signal(signal.SIGINT)
            await send({"type": "lifespan.startup.failed"})

    async def main() -> None:
        with pytest.raises(SystemExit):
            await running.serve()
        await running.serve()
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0, "by the handler of asyncio.Runner"

    running = Server(Config(app, port=0))
    run(main())


def test_the_loop_of_a_run_after_one_that_gave_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PHASE_TIMEOUT_S", 0.05)
    loops: list[asyncio.AbstractEventLoop] = []

    class OnceStubborn(Stubborn):
        async def __call__(self, scope, receive, send):
            if scope["type"] == "lifespan":
                loops.append(asyncio.get_running_loop())
            await super().__call__(scope, receive, send)

    async def begin_or_end() -> None:
        if len(loops) == 1:
            requests.append(asyncio.create_task(fetch(port_of(running))))
            await app.begun.wait()
        running.should_exit = True

    requests: list[asyncio.Task[bytes]] = []
    app = OnceStubborn()
    running = Server(Config(app, port=0, timeout_graceful_shutdown=0, callback_notify=begin_or_end))
    for _ in range(2):
        running.run()
        running.should_exit = False
    assert [loop.is_closed() for loop in loops] == [False, True]
    app.release.set()
    with asyncio.Runner(loop_factory=lambda: loops[0]) as runner:
        runner.run(asyncio.wait(requests))


# Failures to start


def test_a_port_in_use_is_found_before_the_application_starts(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            running = Server(Config(app, port=listener.getsockname()[1]))
            with pytest.raises(BindError, match="the port is in use"):
                await running.serve()
        assert not running.started
        assert app.events == []

    run(main())


def test_where_listening_fails_the_application_is_stopped(run: Any) -> None:
    async def main() -> None:
        app = Recorder()
        taken = Config(app, port=0)
        rival = taken.bind_socket()
        running = Server(Config(app, port=rival.getsockname()[1]))
        startup = app.__call__

        async def listen_first(scope, receive, send):
            rival.listen()
            await startup(scope, receive, send)

        running.config.app = listen_first
        with rival, pytest.raises(BindError, match="the port is in use"):
            await running.serve()
        assert app.events == ["startup", "shutdown"]

    run(main())


def test_a_failed_application_startup_ends_with_code_3(run: Any) -> None:
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    running = Server(Config(app, port=0))
    with pytest.raises(SystemExit) as caught:
        run(running.serve())
    assert caught.value.code == 3
    assert not running.started


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


@pytest.mark.parametrize("loop", LOOPS)
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


@pytest.mark.parametrize("loop", LOOPS)
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


UPLOADED = """
    import asyncio, logging, sys, time
    from fastasgi import Server

    UPLOAD = b"POST / HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: 3\\r\\n\\r\\n"
    begun = asyncio.Event()

    def pass_the_deadline(record):
        # As a terminal that takes its time does
        if record.getMessage().startswith(SLOW_LINE):
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
        begun.set()
        print("begun", file=sys.stderr, flush=True)
        print((await receive())["type"], file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_deadline_that_passes_as_a_phase_begins_reaches_the_application(
    start: Callable[..., ServerProcess], loop: str
) -> None:
    source = f"{UPLOADED}\n    SLOW_LINE = 'Shutting down'\n"
    settings = ("--timeout-request-body", "0.2", "--timeout-graceful-shutdown", "3")
    process = start(source, "app:app", "--port", "0", "--loop", loop, *settings)
    with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        process.wait_for("begun")
        assert process.end() == -signal.SIGTERM
    assert "http.disconnect" in process.log
    assert "Disconnecting" not in process.log, "the grace time had to pass"
    assert "Cannot enter into task" not in process.log


@pytest.mark.parametrize("loop", LOOPS)
def test_a_deadline_that_passes_before_the_first_tick_reaches_the_application(
    start: Callable[..., ServerProcess], loop: str
) -> None:
    source = f"""{UPLOADED}
    SLOW_LINE = 'fastasgi running on'
    listen = Server._listen
    clients = []

    async def listen_until_a_request_has_begun(self, *arguments):
        await listen(self, *arguments)
        reader, writer = await asyncio.open_connection(*self.servers[0].sockets[0].getsockname())
        writer.write(UPLOAD)
        await begun.wait()
        clients.append(asyncio.create_task(reader.read()))

    Server._listen = listen_until_a_request_has_begun
    """
    process = start(source, "app:app", "--port", "0", "--loop", loop, "--timeout-request-body", "0.2")
    process.wait_for("begun")
    process.wait_for("http.disconnect")
    assert process.end() == -signal.SIGTERM
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
