"""The admin listener of a server without a supervisor: a thread, which begins and ends with the server."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adminlistener import AdminClient
from recorder import hello
from serving import ServerProcess, fetch, port_of, serving, wait_until
from wire import in_each_loop

from fastasgi import Config, Server
from fastasgi.errors import BindError

ADMIN = "127.0.0.1:0"


def threads() -> list[str]:
    """The threads of admin listeners in this process."""
    return [thread.name for thread in threading.enumerate() if thread.name == "fastasgi-admin"]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a Unix socket, which ``unix:admin.sock`` names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "admin.sock"


async def ask(admin: AdminClient, path: str) -> tuple[int, str]:
    """What it answers, while this event loop turns."""
    return await asyncio.to_thread(admin.get, path)


@in_each_loop
async def test_it_answers_while_the_event_loop_is_blocked(path: Path) -> None:
    async with serving(hello, admin="unix:admin.sock"):
        admin = AdminClient(path)
        # This blocks the event loop of the server
        assert admin.get("/livez") == (200, "the process runs\n")
        assert admin.get("/readyz") == (200, "the server accepts connections\n")
        assert admin.workers() == {os.getpid(): "serving"}
        admin.wait_for("/readyz", 503, 6)
        assert admin.get("/readyz") == (503, "the event loop has not turned for 3 s\n")
    assert not path.exists()
    assert not threads()


@in_each_loop
async def test_the_socket_is_its_owners_alone(path: Path) -> None:
    async with serving(hello, admin="unix:admin.sock", uds_permissions=0o666):
        assert path.stat().st_mode & 0o777 == 0o600


@in_each_loop
async def test_it_says_not_ready_before_and_after(path: Path) -> None:
    admin = AdminClient(path)
    goes_on, hangs = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await goes_on.wait()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            hangs.set()
            await goes_on.wait()
            await hello(scope, receive, send)

    server = Server(Config(app, port=0, admin="unix:admin.sock"))
    serve = asyncio.create_task(server.serve())
    await asyncio.to_thread(admin.wait_for, "/livez", 200)
    assert await ask(admin, "/readyz") == (503, "the application is starting\n")
    goes_on.set()
    await asyncio.to_thread(admin.wait_for, "/readyz", 200)
    goes_on.clear()
    answer = asyncio.create_task(fetch(port_of(server)))
    await hangs.wait()
    server.should_exit = True
    assert await asyncio.to_thread(admin.wait_for, "/readyz", 503) == "the server is stopping\n"
    assert (await ask(admin, "/livez"))[0] == 200
    goes_on.set()
    assert (await answer).startswith(b"HTTP/1.1 200")
    await serve
    assert not threads()


@in_each_loop
async def test_an_address_in_use_comes_out_of_serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server(Config(hello, port=0, admin=where))
        with pytest.raises(BindError, match=rf"admin '{where}': can't listen on {where}: the port is in use"):
            await server.serve()
    assert not server.started
    assert not threads()


@in_each_loop
async def test_an_address_of_the_server_in_use_ends_the_listener(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Server(Config(hello, port=other.getsockname()[1], admin="unix:admin.sock"))
        with pytest.raises(BindError):
            await server.serve()
    assert not path.exists()
    assert not threads()


@in_each_loop
async def test_a_server_that_serves_twice(path: Path) -> None:
    admin = AdminClient(path)
    server = Server(Config(hello, port=0, admin="unix:admin.sock"))
    for _ in range(2):
        server.should_exit = False
        serve = asyncio.create_task(server.serve())
        await asyncio.to_thread(admin.wait_for, "/readyz", 200)
        server.should_exit = True
        await serve
        assert not path.exists()
    assert not threads()


@in_each_loop
async def test_two_servers_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(hello, admin="unix:one"):
        async with serving(hello, admin="unix:two") as second:
            for name in ("one", "two"):
                assert AdminClient(tmp_path / name).get("/readyz")[0] == 200
            third = Server(Config(hello, port=0, admin="unix:two"))
            with pytest.raises(BindError, match="a server listens there"):
                await third.serve()
            assert second.started
        assert AdminClient(tmp_path / "one").get("/livez")[0] == 200
        assert len(threads()) == 1
    assert not threads()


@in_each_loop
async def test_it_ends_when_serve_is_cancelled(path: Path) -> None:
    serve = asyncio.create_task(Server(Config(hello, port=0, admin="unix:admin.sock")).serve())
    await asyncio.to_thread(AdminClient(path).wait_for, "/readyz", 200)
    serve.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serve
    assert not path.exists()
    wait_until(lambda: not threads(), "the end of the thread", 3)


@in_each_loop
async def test_the_end_waits_for_no_dashboard(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(hello, admin="unix:admin.sock"):
        with AdminClient(path).connect() as sock:
            sock.sendall(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"event: whole" in await asyncio.to_thread(_read_to, sock, b"event: whole")
            begin = time.monotonic()
    assert time.monotonic() - begin < 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _read_to(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        data += sock.recv(65536)
    return data


@in_each_loop
async def test_it_logs_where_it_is_and_nothing_else_and_leaves_the_access_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(hello, admin="unix:admin.sock", log_config=None) as running:
        assert (await ask(AdminClient(path), "/livez"))[0] == 200
        await fetch(port_of(running))
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in messages if text.startswith("Started server")] == [messages[1]]
    assert messages[0].startswith("Admin listener on unix socket ")
    assert next(text for text in messages if "HTTP/1.1" in text).endswith('"GET / HTTP/1.1" 200')
    assert len([text for text in messages if "Shutting down" in text]) == 1


@in_each_loop
async def test_what_the_environment_says_of_workers_is_not_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    async with serving(hello, admin="unix:admin.sock", workers=1):
        assert AdminClient(path).get("/livez")[0] == 200


@in_each_loop
async def test_a_thread_that_fails_leaves_the_server(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        server = Server(Config(hello, port=0, admin=ADMIN, log_config=None))
        listener = server.admin_listener()
        await listener.__aenter__()
    assert caplog.messages == ["The admin listener can't be started: can't start new thread"]
    await listener.__aexit__(None, None, None)


SCRIPT = """
import sys, fastasgi

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hi"})

if __name__ == "__main__":
    fastasgi.run(app, port=0, **eval(sys.argv[1]))
"""

Run = Callable[..., ServerProcess]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Run]:
    """Runs a script which serves an application object, with these settings."""
    (tmp_path / "script.py").write_text(SCRIPT)
    started: list[ServerProcess] = []

    def script(**settings: Any) -> ServerProcess:
        command = (sys.executable, "script.py", repr(settings))
        started.append(ServerProcess(tmp_path, command=command))
        return started[-1]

    yield script
    for server in started:
        server.close()


def test_run_with_an_application_object(script: Run) -> None:
    server = script(admin=ADMIN)
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)
    assert server.end() == -signal.SIGTERM
    assert "Traceback" not in server.log
    assert server.log.count("Started") == 1


def test_run_with_an_address_in_use_ends_with_one_line(script: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = script(admin=f"127.0.0.1:{other.getsockname()[1]}")
        assert server.wait() == 3
    assert len(server.errors) == 1
    assert server.errors[0].startswith("Error: admin '127.0.0.1:")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root to be another user")
def test_run_as_another_user_binds_and_reads_secrets_before(script: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # in which nobody may make a file
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    script(user="nobody", admin="unix:admin.sock", admin_token_file="token")
    admin = AdminClient(tmp_path / "admin.sock")
    admin.wait_for("/readyz", 200)
    assert admin.get("/status")[0] == 401
