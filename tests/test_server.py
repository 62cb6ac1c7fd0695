"""Server: it serves, serves again, and fails to start."""

import asyncio
import functools
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from recorder import GET, Recorder, Stubborn, hello
from serving import WAIT_S, fetch, port_of, serving
from wire import in_each_loop

from fastasgi import Config, Server, shutdown
from fastasgi.errors import BindError

# Serving


@in_each_loop
async def test_serve_in_a_running_loop() -> None:
    async with serving(hello) as running:
        assert running.started
        assert (await fetch(port_of(running))).endswith(b"\r\n\r\nhi")


@in_each_loop
async def test_the_port_is_free_again_afterwards() -> None:
    async with serving(hello) as first:
        port = port_of(first)
    async with serving(hello, port=port) as second:
        assert port_of(second) == port


@in_each_loop
async def test_settings_reach_the_wire() -> None:
    settings = {"headers": [("X-A", "b")], "date_header": False, "server_header": False}
    async with serving(hello, **settings) as running:
        answer = await fetch(port_of(running))
        head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert b"x-a: b" in head
        assert not [line for line in head if line.startswith((b"date:", b"server:"))]


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
@in_each_loop
async def test_limits_reach_the_wire(settings: dict[str, Any], head: str, status: bytes) -> None:
    async with serving(hello, **settings) as running:
        assert (await fetch(port_of(running), head)).startswith(b"HTTP/1.1 " + status)


@in_each_loop
async def test_an_idle_connection_is_closed_in_time() -> None:
    async with serving(hello, timeout_keep_alive=0.05) as running:
        assert (await fetch(port_of(running), GET)).endswith(b"hi")


@in_each_loop
async def test_requests_beyond_the_concurrency_limit_are_refused() -> None:
    app = Recorder()
    async with serving(app, limit_concurrency=1) as running:
        first = asyncio.create_task(fetch(port_of(running)))
        await app.begun.wait()
        assert (await fetch(port_of(running))).startswith(b"HTTP/1.1 503")
        app.release.set()
        assert (await first).startswith(b"HTTP/1.1 200")


@in_each_loop
async def test_lifespan_state_reaches_each_request_as_a_copy() -> None:
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = 7
            await send({"type": "lifespan.startup.complete"})
        else:
            seen.append(dict(scope["state"]))
            scope["state"]["pool"] = 0
            await hello(scope, receive, send)

    async with serving(app) as running:
        await fetch(port_of(running))
        await fetch(port_of(running))
    assert seen == [{"pool": 7}, {"pool": 7}]


@in_each_loop
async def test_an_asgi2_application_is_served_as_such() -> None:
    versions = []

    class App:
        def __init__(self, scope):
            self.scope = scope
            versions.append(scope["asgi"]["version"])

        async def __call__(self, receive, send):
            await hello(self.scope, receive, send)

    async with serving(App, lifespan="off") as running:
        assert (await fetch(port_of(running))).endswith(b"hi")
    assert versions == ["2.0"]


@in_each_loop
async def test_a_unix_socket_is_served_and_its_file_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"

    async with serving(hello, uds=path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"hi")
        writer.close()
    assert not path.exists()


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
@in_each_loop
async def test_an_inherited_descriptor_is_served(family: str, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = socket.socket(getattr(socket, family))
    listener.bind(("127.0.0.1", 0) if family == "AF_INET" else str(path))

    with listener:
        async with serving(hello, fd=listener.fileno()):
            if family == "AF_INET":
                assert (await fetch(listener.getsockname()[1])).endswith(b"hi")
            else:
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
    assert path.exists() == (family == "AF_UNIX"), "another's socket file stays"


@in_each_loop
async def test_sockets_given_are_served_and_closed() -> None:
    async def answer_both(running: Server, ports: list[int]) -> None:
        for port in ports:
            assert (await fetch(port)).endswith(b"hi")
        running.should_exit = True

    config = Config(hello, port=0)
    listeners = [config.bind_socket(), config.bind_socket()]
    ports = [sock.getsockname()[1] for sock in listeners]
    running = Server(config)
    config.callback_notify = functools.partial(answer_both, running, ports)
    await running.serve(sockets=listeners)
    assert [sock.fileno() for sock in listeners] == [-1, -1]


@in_each_loop
async def test_callback_notify_is_called_again_and_again_whatever_it_raises() -> None:
    calls = []

    running = Server(Config(hello, port=0, timeout_notify=0.01))

    async def notify() -> None:
        calls.append(True)
        if len(calls) == 1:
            raise ValueError
        running.should_exit = True

    running.config.callback_notify = notify
    await running.serve()
    assert len(calls) == 2


@in_each_loop
async def test_uvicorns_steps_one_by_one() -> None:
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


# Serving again


@in_each_loop
async def test_a_server_serves_again_as_at_first() -> None:
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

    async def note(ready: asyncio.Event) -> None:
        ready.set()

    running = Server(Config(app, port=0, health_path="/health"))
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
    assert seen == [(False, False, 0)] * 2
    assert running.started


HEALTH = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@in_each_loop
async def test_a_server_counts_its_requests_anew() -> None:
    served = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        served.append(scope["path"])

    async def request() -> None:
        await fetch(port_of(running))

    settings = {"limit_max_requests": 1, "callback_notify": request, "timeout_notify": WAIT_S}
    running = Server(Config(app, port=0, lifespan="off", **settings))
    for _ in range(2):
        await running.serve()
    assert not running.should_exit
    assert served == ["/", "/"]


@in_each_loop
async def test_signals_of_a_run_that_failed_are_not_raised_after_the_next() -> None:
    async def app(scope, receive, send):
        if running.should_exit:
            await send({"type": "lifespan.startup.complete"})
        else:
            signal.raise_signal(signal.SIGINT)
            await send({"type": "lifespan.startup.failed"})

    running = Server(Config(app, port=0))
    with pytest.raises(SystemExit):
        await running.serve()
    await running.serve()
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0, "by the handler of asyncio.Runner"


def test_the_loop_of_a_run_after_one_that_gave_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "PHASE_TIMEOUT_S", 0.05)
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


@in_each_loop
async def test_a_port_in_use_is_found_before_the_application_starts() -> None:
    app = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Server(Config(app, port=listener.getsockname()[1]))
        with pytest.raises(BindError, match="the port is in use"):
            await running.serve()
    assert not running.started
    assert app.events == []


@in_each_loop
async def test_where_listening_fails_the_application_is_stopped() -> None:
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


@in_each_loop
async def test_a_failed_application_startup_ends_with_code_3() -> None:
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    running = Server(Config(app, port=0))
    with pytest.raises(SystemExit) as caught:
        await running.serve()
    assert caught.value.code == 3
    assert not running.started
