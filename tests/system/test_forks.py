"""What an application forks or starts: no part of the server, and nothing that holds its end up."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import WAIT_S, ServerProcess, Start, fetch, processes_in, signal_set

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# What the children of an application say of themselves
CHILDREN = """
import contextlib, faulthandler, multiprocessing, os, signal, subprocess, sys, threading, time, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside threads
forking = multiprocessing.get_context("fork")
NAMES = "TERM HUP QUIT USR1 USR2 ALRM CHLD TTIN TTOU WINCH"

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whoever else writes

def look(kind):
    handlers = [signal.getsignal(signal.Signals[f"SIG{name}"]) for name in NAMES.split()]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and set(handlers) == {signal.SIG_DFL}:
        handlers = "own"
    blocked = len(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    say(kind, handlers, signal.set_wakeup_fd(-1), blocked, faulthandler.unregister(signal.SIGUSR2))

def live():
    os.close(1)  # whose end the test waits for
    os.close(2)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(600)

def run(kind):
    process = forking.Process(target=look, args=(kind,))
    process.start()
    process.join()

def start(**options):
    process = forking.Process(target=live, **options)
    process.start()
    return process

def end(process):
    process.terminate()
    process.join()

def run_thread(call, *arguments):
    thread = threading.Thread(target=call, args=arguments)
    thread.start()
    thread.join()

def execute():
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    fields = dict(line.split(":\\t") for line in status.splitlines())
    for kind, field in (("blocks", "SigBlk"), ("ignores", "SigIgn")):
        numbers = [number for number in range(1, 32) if int(fields[field], 16) >> (number - 1) & 1]
        say("program", kind, *(signal.Signals(number).name for number in numbers))
"""

# What they are to say: their own handlers, no wake-up descriptor, nothing blocked, no stacks
OWN = "own -1 0 False"
SEEN = [f"{kind} {OWN}" for kind in ("process", "thread", "pool", "executor")]
SEEN += ["program blocks", "program ignores"]

APP = (
    CHILDREN
    + """
import concurrent.futures

def begin():
    run("process")
    run_thread(run, "thread")
    end(start())
    started = start(daemon=True), start()
    pool = forking.Pool(1)
    pool.apply(look, ("pool",))
    executor = concurrent.futures.ProcessPoolExecutor(1, forking)
    executor.submit(look, "executor").result()
    execute()
    return *started, pool, executor

def finish(daemon, process, pool, executor):
    # The daemon is left to multiprocessing, which ends it with the interpreter
    end(process)
    pool.terminate()
    pool.join()
    executor.shutdown()
    say("finished")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        begun = begin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        finish(*begun)
        await send({"type": "lifespan.shutdown.complete"})
        return
    pid = os.fork()
    if pid == 0:
        look("fork")
        os._exit(0)
    os.waitpid(pid, 0)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""
)


KINDS = ("process", "thread", "pool", "executor", "program", "fork")
MODES = [(), ("--workers", "2"), ("--workers", "2", "--preload"), ("--reload",)]
PROMPTLY_S = 8.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server in a process group of its own; whatever is left in its folder is killed."""
    started = []

    def start(source: str, *arguments: str, hangup: signal.Handlers = signal.SIG_DFL) -> ServerProcess:
        (tmp_path / "app.py").write_text(source)
        with signal_set(signal.SIGHUP, hangup):
            started.append(ServerProcess(tmp_path, "app:app", "--port", "0", *arguments, leads_group=True))
        return started[-1]

    yield start
    for pid in processes_in(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.close()


def end_promptly(process: ServerProcess, number: int) -> int:
    """The exit code after SIGTERM, or after Ctrl-C, which reaches the whole group."""
    asked_at = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.process.pid, number)
        code = process.wait()
    else:
        code = process.end(number)
    assert time.monotonic() - asked_at < PROMPTLY_S, process.log
    return code


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_children_of_every_kind(
    start: Start, tmp_path: Path, mode: tuple[str, ...], number: int, loop: str
) -> None:
    process = start(APP, "--loop", loop, *mode)
    workers = 2 if "--workers" in mode else 1
    process.wait_for(f"(?s)(Application startup complete.*){{{workers}}}")
    asyncio.run(fetch(process.port))
    code = end_promptly(process, number)
    assert code == (-signal.SIGTERM if number == signal.SIGTERM and not mode else 0)
    seen = [line for line in process.output.splitlines() if line.split()[0] in KINDS]
    assert sorted(seen) == sorted(SEEN * workers + [f"fork {OWN}"])
    assert process.output.count("finished") == workers
    if code == 0:
        assert processes_in(tmp_path) == []


IMPORTED = (
    CHILDREN
    + """
pool = forking.Pool(1, look, ("pool",))
run("process")
daemon = start(daemon=True)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_children_of_an_import_that_workers_share(start: Start, tmp_path: Path, number: int) -> None:
    process = start(IMPORTED, "--workers", "2", "--preload")
    process.wait_for("(?s)(Application startup complete.*){2}")
    assert end_promptly(process, number) == 0
    seen = [line for line in process.output.splitlines() if line.split()[0] in KINDS]
    # A pool replaces workers that Ctrl-C has ended
    assert set(seen) == {f"pool {OWN}", f"process {OWN}"}
    assert "can only join a child process" not in process.log
    assert processes_in(tmp_path) == []


LATE = (
    CHILDREN
    + """
import atexit

supervisor = os.getpid()
pool = forking.Pool(1, maxtasksperchild=1)

def lose_worker():
    if os.getpid() != supervisor:
        return  # workers have a copy of the pool, without its threads
    worker, = pool._pool
    pool.apply(os.getpid)  # after which the worker ends, and the pool is to replace it
    while pool._worker_handler.is_alive() and pool._pool in ([worker], []):
        time.sleep(0.01)

atexit.register(lose_worker)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
"""
)


def test_a_pool_replaces_a_worker_that_ends_with_the_supervisor(start: Start, tmp_path: Path) -> None:
    process = start(LATE, "--workers", "1", "--preload")
    process.wait_for("Application startup complete")
    assert end_promptly(process, signal.SIGTERM) == 0
    assert "at interpreter shutdown" not in process.log
    assert processes_in(tmp_path) == []


STARTING = (
    CHILDREN
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        execute()
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
"""
)


@pytest.mark.parametrize("mode", [(), ("--workers", "1"), ("--workers", "1", "--preload")], ids=" ".join)
def test_under_nohup_programs_of_the_application_ignore_hangups(start: Start, mode: tuple[str, ...]) -> None:
    process = start(STARTING, *mode, hangup=signal.SIG_IGN)
    process.wait_for("Application startup complete")
    process.end(signal.SIGTERM)
    assert process.output == HANGUP_IGNORED


def test_under_nohup_they_do_so_for_a_new_supervisor_too(start: Start) -> None:
    process = start(STARTING, "--workers", "1", hangup=signal.SIG_IGN)
    process.wait_for("Application startup complete")
    process.process.send_signal(signal.SIGUSR2)
    assert process.process.wait(WAIT_S) == 0
    assert "".join(process.process.stdout.readline() for _ in range(4)) == 2 * HANGUP_IGNORED


HANGUP_IGNORED = "program blocks\nprogram ignores SIGHUP\n"


PID = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


@pytest.mark.parametrize("mode", [(), ("--preload",)], ids=" ".join)
def test_what_a_terminal_sends_means_nothing_to_a_worker(start: Start, mode: tuple[str, ...]) -> None:
    process = start(PID, "--workers", "1", "--no-access-log", *mode)
    pid = asyncio.run(fetch(process.port)).split()[-1]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(int(pid), number)
    assert asyncio.run(fetch(process.port)).split()[-1] == pid
    assert end_promptly(process, signal.SIGTERM) == 0
    assert "Traceback" not in process.log
