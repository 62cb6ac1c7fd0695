"""The gunicorn worker class, in gunicorn processes: it serves, beats and heeds signals."""

import http.client
import math
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from gunicornprocess import APP, Gunicorn, Request, Start, exchange, read, write_module
from http2load import HTTP2Load
from load import Load
from serving import wait_until
from waiting import BLOCKING_APP, answers_to_waiting

HTTP2 = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")

# Serving


def test_it_serves_and_stops_gracefully(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    assert exchange(gunicorn.port) == (200, str(worker))
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    gunicorn.kill(signal.SIGTERM)
    gunicorn.wait_for("Shutting down$")
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")
    assert gunicorn.wait() == 0
    assert gunicorn.matches("^lifespan .*") == ["lifespan startup", "lifespan shutdown"]
    # The server's own lines are in gunicorn's form; nothing is warned of at the defaults
    gunicorn.wait_for(rf"^\[.*\] \[{worker}\] \[INFO\] Application startup complete\.$")
    assert not gunicorn.matches(r"\[(WARNING|ERROR)\]|Traceback")


def test_clients_that_wait_when_it_is_stopped_are_served(start: Start) -> None:
    gunicorn = start(app=BLOCKING_APP)
    gunicorn.workers()
    answers = answers_to_waiting(gunicorn.port, lambda: gunicorn.kill(signal.SIGTERM), gunicorn.folder)
    assert [answer for answer in answers if not answer.endswith(b"hi")] == []
    assert gunicorn.wait() == 0


def test_several_binds(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    gunicorn = start("-b", "127.0.0.1:0", "-b", "127.0.0.1:0", "-b", f"unix:{path}")
    [worker] = gunicorn.workers()
    assert len(set(gunicorn.ports)) == 2
    for where in (*gunicorn.ports, path):
        assert exchange(where) == (200, str(worker))
    # A worker that ends leaves the socket's file, the arbiter removes it
    os.kill(worker, signal.SIGTERM)
    [_, second] = gunicorn.workers(2)
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert exchange(path) == (200, str(second))
    assert gunicorn.end() == 0
    assert not os.path.exists(path)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the platform has no SO_REUSEPORT")
def test_reuse_port(start: Start) -> None:
    with socket.socket() as reserved:
        # Bound and not listening: it keeps the port and gets no connection
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        gunicorn = start("--reuse-port", "-w", "2", "-b", f"127.0.0.1:{port}")
        both = {str(worker) for worker in gunicorn.workers(2)}
        seen: set[str] = set()
        wait_until(lambda: seen.add(exchange(port)[1]) or seen == both, lambda: (seen, both))


def test_preload_app(start: Start) -> None:
    gunicorn = start("--preload", "-w", "2")
    first, second = gunicorn.workers(2)
    assert gunicorn.matches("imported in .*") == [f"imported in {gunicorn.process.pid}"]
    assert exchange(gunicorn.port)[1] in (str(first), str(second))


# Heartbeats


@pytest.mark.parametrize("path", ["/block", "/stubborn"])
def test_a_blocked_event_loop_is_found(start: Start, path: str) -> None:
    conf = """
        def worker_abort(worker):
            print("worker_abort", worker.pid, flush=True)
    """
    gunicorn = start("--timeout", "1", conf=conf)
    [blocked] = gunicorn.workers()
    request = Request(gunicorn.port, path)
    gunicorn.wait_for(rf"WORKER TIMEOUT \(pid:{blocked}\)")
    [_, second] = gunicorn.workers(2)
    assert exchange(gunicorn.port) == (200, str(second))
    gunicorn.wait_for(rf"Worker \(pid:{blocked}\) exited with code 1\.")
    assert gunicorn.matches("^worker_abort .*") == [f"worker_abort {blocked}"]
    assert request.result == (500, "Internal Server Error")
    # The log says where it was blocked
    assert ("time.sleep(60)" in gunicorn.log) == (path == "/block")


def test_a_busy_event_loop_that_turns_is_left_alone(start: Start) -> None:
    gunicorn = start("--timeout", "1")
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/busy")
    gunicorn.wait_for("busy: begins")
    # Also while it stops: the arbiter doesn't know of this signal
    os.kill(worker, signal.SIGTERM)
    assert request.result == (200, "busy")
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    assert not gunicorn.matches("WORKER TIMEOUT")


def test_heartbeats_without_a_timeout(start: Start) -> None:
    source = """
        from fastasgi.workers import FastASGIWorker

        class Counting(FastASGIWorker):
            async def callback_notify(self):
                print("beat", flush=True)
                await super().callback_notify()
    """
    gunicorn = start("-k", "counting.Counting", "--timeout", "0", conf=write_module("counting", source))
    gunicorn.workers()
    assert exchange(gunicorn.port)[0] == 200
    assert 1 <= len(gunicorn.matches("^beat$")) < 10  # one a second


def test_a_worker_ends_when_its_arbiter_dies(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    gunicorn.kill(signal.SIGKILL)
    gunicorn.wait()
    gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
    told = gunicorn.matches("Parent changed, shutting down|lifespan shutdown")
    assert told == ["Parent changed, shutting down", "lifespan shutdown"]


# Signals


def test_a_child_of_the_application_is_no_worker(start: Start) -> None:
    app = (
        APP
        + """
async def child(scope, receive, send):
    import multiprocessing
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    looking = context.Process(target=look, args=(writing,))
    looking.start()
    writing.close()
    looking.join()
    living = context.Process(target=time.sleep, args=(600,))
    living.start()
    living.terminate()
    living.join()
    await answer(send, f"{reading.recv()} {living.exitcode}".encode())

def look(writing):
    names = "TERM HUP QUIT USR1 USR2 ABRT CHLD WINCH"
    handlers = {signal.getsignal(signal.Signals[f"SIG{name}"]) for name in names.split()}
    assert handlers == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    writing.send(signal.set_wakeup_fd(-1))
"""
    )
    gunicorn = start(app=app)
    gunicorn.workers()
    assert exchange(gunicorn.port, "/child") == (200, f"-1 {-signal.SIGTERM}")
    assert gunicorn.end() == 0
    assert "lifespan shutdown" in gunicorn.log


def test_hup_under_load(start: Start) -> None:
    gunicorn = start("-w", "2", *HTTP2)
    old = gunicorn.workers(2)
    with Load(gunicorn.connect) as load, HTTP2Load(gunicorn.connect, 1) as http2_load:
        for worker in old:
            load.wait_for_answers(of=str(worker))
        (gunicorn.folder / "app.py").write_text(APP.replace('b"%d" % os.getpid()', 'b"new"'))
        gunicorn.kill(signal.SIGHUP)
        for worker in old:
            gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
        load.wait_for_answers(of="new")
        http2_load.wait_for_answers(of="new")
    assert not load.failures
    assert not http2_load.failures


def test_ttin_and_ttou_under_load(start: Start) -> None:
    gunicorn = start(*HTTP2)
    [first] = gunicorn.workers()
    with Load(gunicorn.connect) as load, HTTP2Load(gunicorn.connect, 1) as http2_load:
        load.wait_for_answers(of=str(first))
        gunicorn.kill(signal.SIGTTIN)
        [_, second] = gunicorn.workers(2)
        load.wait_for_answers(of=str(second))
        gunicorn.kill(signal.SIGTTOU)
        gunicorn.wait_for(rf"Worker exiting \(pid: {first}\)")
        load.wait_for_answers(of=str(second))
        http2_load.wait_for_answers(of=str(second))
    assert not load.failures
    assert not http2_load.failures


def test_the_arbiters_repeated_sigterm_breaks_nothing_off(start: Start) -> None:
    gunicorn = start()
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    os.kill(worker, signal.SIGTERM)
    gunicorn.wait_for("Shutting down$")
    os.kill(worker, signal.SIGTERM)
    # For longer than all phases of a forced shutdown take
    gunicorn.wait_for("slow: waits", len(gunicorn.matches("slow: waits")) + 10)
    (gunicorn.folder / "release").touch()
    assert request.result == (200, "slow")


def test_usr2_under_load(start: Start) -> None:
    gunicorn = start("-p", "pid")
    [first] = gunicorn.workers()
    with Load(gunicorn.connect) as load:
        load.wait_for_answers(of=str(first))
        gunicorn.kill(signal.SIGUSR2)
        [_, second] = gunicorn.workers(2)
        load.wait_for_answers(of=str(second))
        assert gunicorn.end() == 0
        load.wait_for_answers(of=str(second))
    assert not load.failures
    new_arbiter = int(gunicorn.matches(r"Listening at: .* \((\d+)\)")[1])
    gunicorn.wait_for("Master has been promoted")
    wait_until(lambda: read(gunicorn.folder / "pid") == f"{new_arbiter}\n")
    os.kill(new_arbiter, signal.SIGTERM)
    gunicorn.wait_for("Shutting down: Master", 2)


def test_usr1_reopens_logs(start: Start) -> None:
    gunicorn = start("--access-logfile", "access", "--error-logfile", "error", "--capture-output")
    error, access = gunicorn.folder / "error", gunicorn.folder / "access"
    wait_until(lambda: "startup complete" in read(error))
    [port] = re.findall(r"https?://127\.0\.0\.1:(\d+)", error.read_text())
    assert exchange(int(port), "/?one")[0] == 200
    error.rename(gunicorn.folder / "error.old")
    access.rename(gunicorn.folder / "access.old")
    gunicorn.kill(signal.SIGUSR1)

    def is_reopened() -> bool:
        # By arbiter and worker: each has its own descriptor
        assert exchange(int(port), "/?two")[0] == 200
        return "?two" in read(access)

    wait_until(is_reopened)
    assert "?one" in (gunicorn.folder / "access.old").read_text()
    assert gunicorn.end() == 0
    assert "Finished server process" in error.read_text()
    assert "imported in" in (gunicorn.folder / "error.old").read_text()


def test_winch_means_nothing_to_a_worker(start: Start) -> None:
    gunicorn = start("--log-level", "debug")
    [worker] = gunicorn.workers()
    os.kill(worker, signal.SIGWINCH)
    gunicorn.wait_for("worker: SIGWINCH ignored")
    assert exchange(gunicorn.port) == (200, str(worker))


def test_winch_stops_the_workers_of_a_daemon(start: Start) -> None:
    gunicorn = start("--daemon", "-p", "pid", "--log-file", "log")
    assert gunicorn.wait() == 0
    arbiter = int(wait_until(lambda: read(gunicorn.folder / "pid")))
    try:
        [worker] = gunicorn.workers()
        os.kill(arbiter, signal.SIGWINCH)
        gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
        os.kill(arbiter, signal.SIGTTIN)
        [_, second] = gunicorn.workers(2)
        assert exchange(gunicorn.port) == (200, str(second))
    finally:
        os.kill(arbiter, signal.SIGTERM)
        gunicorn.wait_for("Shutting down: Master")


def test_int_is_quick(start: Start) -> None:
    conf = """
        def worker_int(worker):
            print("worker_int", worker.pid, flush=True)
    """
    gunicorn = start(conf=conf)
    [worker] = gunicorn.workers()
    request = Request(gunicorn.port, "/hang")
    slow = Request(gunicorn.port, "/slow")
    gunicorn.wait_for("slow: begins")
    begin = time.monotonic()
    # As a terminal does: the worker gets this signal, and SIGQUIT from the arbiter
    os.killpg(gunicorn.process.pid, signal.SIGINT)
    assert gunicorn.wait() == 0
    assert time.monotonic() - begin < 10  # of graceful_timeout's 30
    assert isinstance(request.result, http.client.IncompleteRead | ConnectionError)
    assert isinstance(slow.result, http.client.RemoteDisconnected | ConnectionError)
    assert gunicorn.matches("^worker_int .*") == [f"worker_int {worker}"]
    assert gunicorn.matches("lifespan shutdown")


HANGING_IMPORT = """
    import time

    print("starts", flush=True)
    time.sleep(60)
"""

HANGING_START = """
    import asyncio

    async def app(scope, receive, send):
        print("starts", flush=True)
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize("source", [HANGING_IMPORT, HANGING_START])
def test_int_while_a_worker_starts_is_no_failure(start: Start, source: str) -> None:
    gunicorn = start(app=source)
    gunicorn.wait_for("starts")
    begin = time.monotonic()
    os.killpg(gunicorn.process.pid, signal.SIGINT)
    assert gunicorn.wait() == 0
    assert time.monotonic() - begin < 10  # of graceful_timeout's 30
    assert not gunicorn.matches("exited with code|failed to boot")


def test_term_while_a_worker_starts_is_kept_within_graceful_timeout(start: Start) -> None:
    gunicorn = start("--graceful-timeout", "1", app=HANGING_START)
    gunicorn.wait_for("starts")
    [worker] = map(int, gunicorn.matches(r"Booting worker with pid: (\d+)"))
    os.kill(worker, signal.SIGTERM)
    gunicorn.wait_for("starts", 2)  # in its successor
    assert not gunicorn.matches("exited with code|SIGKILL")


# The reloader

RELOADER_INTERVAL_S = 1.0  # between two looks of gunicorn's polling one


def change(gunicorn: Gunicorn, worker: int, source: str) -> None:
    """Write the application anew, until the worker's reloader has noticed.

    It compares with what it finds when it first looks, a moment after the worker is ready.
    """
    written_at = -math.inf

    def is_noticed() -> bool:
        nonlocal written_at
        if time.monotonic() - written_at > 3 * RELOADER_INTERVAL_S:
            (gunicorn.folder / "app.py").write_text(source)
            written_at = time.monotonic()
        return bool(gunicorn.matches(rf"\[{worker}\] \[INFO\] Worker reloading: .*app\.py modified"))

    wait_until(is_noticed, lambda: gunicorn.log)


def test_reload(start: Start) -> None:
    gunicorn = start("--reload", "--reload-engine", "poll")
    [first] = gunicorn.workers()
    change(gunicorn, first, "def (")
    [_, second] = gunicorn.workers(2)
    assert gunicorn.matches("SyntaxError: invalid syntax")
    status, body = exchange(gunicorn.port)
    assert (status, body) == (500, "The application has a syntax error, see the log.")
    change(gunicorn, second, APP)
    [_, _, third] = gunicorn.workers(3)
    assert exchange(gunicorn.port) == (200, str(third))
    for worker in (first, second):
        gunicorn.wait_for(rf"Worker exiting \(pid: {worker}\)")
