"""A supervisor that reloads its workers, and one that a new one replaces."""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable

import pytest
from load import WAIT_S, Load
from serving import processes_in, wait_until
from supervised import APP, ENVIRONMENT, Supervised, connect_to, rows_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


# Reload


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_reloads_under_load_fail_no_request(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        for number in range(2, 7 if not preload else 4):
            server.write_app(APP.replace("v1", f"v{number}"))
            server.send(signal.SIGHUP)
            if preload:  # a new supervisor takes over
                server.wait_for_count("takes over", number - 1)
                server.pid = int(re.findall(r"Supervisor \[(\d+)\] takes over", server.log)[-1])
            else:
                server.wait_for_count("Reloaded", number - 1)
            load.wait_for_answers(of=f"v{number}")
    assert not load.failures
    assert len({body.split()[1] for body in load.answers}) == number
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def app(:\n", "SyntaxError"),
        (
            APP.replace("message = await receive()", 'raise ValueError("no database")'),
            "ValueError: no database",
        ),
        ("import os\nos._exit(9)\n", "exit code 9"),
    ],
)
def test_new_code_that_fails_is_not_served(run: Callable[..., Supervised], source: str, reason: str) -> None:
    server = run("--workers", "2", "--lifespan", "on")
    server.wait_for_workers(2)
    workers = server.workers()
    with Load(server.connect) as load:
        server.write_app(source)
        server.send(signal.SIGHUP)
        server.wait_for("Not reloaded, the workers go on as they are")
        load.wait_for_answers()
        assert reason in server.log
        assert server.workers() == workers
        server.write_app(APP.replace("v1", "v2"))
        server.send(signal.SIGHUP)
        load.wait_for_answers(of="v2")
    assert not load.failures
    assert server.count("Not reloaded") == 1
    server.assert_ends(tracebacks=reason.startswith("ValueError"))


def test_a_reload_inside_a_reload_brings_the_newest_code(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    with Load(server.connect) as load:
        server.write_app(APP.replace("v1", "v2") + "\ntime.sleep(0.5)\n")
        server.send(signal.SIGHUP)
        server.wait_for("Reloading")
        wait_until(lambda: len(server.workers()) > 2, "a successor")
        server.write_app(APP.replace("v1", "v3"))
        server.send(signal.SIGHUP)
        server.wait_for_reload(2)
        assert {server.version() for _ in range(20)} == {"v3"}
    assert not load.failures
    server.assert_ends()


def test_a_reload_while_the_first_workers_start_brings_the_newest_code(
    run: Callable[..., Supervised],
) -> None:
    server = run("--workers", "2", source=f"{APP}\nopen('imported', 'a').close(); time.sleep(1)\n")
    wait_until((server.folder / "imported").exists, "the import of the old code")
    server.write_app(APP.replace("v1", "v2"))
    server.send(signal.SIGHUP)
    server.wait_for_reload(2)
    assert {server.version() for _ in range(20)} == {"v2"}
    server.assert_ends()


def test_fewer_workers_inside_a_reload(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "3")
    server.wait_for_workers(3)
    with Load(server.connect) as load:
        server.send(signal.SIGHUP)
        for count in (2, 1):
            server.send(signal.SIGTTOU)
            server.wait_for(rf"\b{count} worker\(s\) from now on")
        server.wait_for_reload(1)
    assert not load.failures
    server.assert_ends()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_the_end_inside_a_reload(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    server = run("--workers", "2", *preload)
    server.wait_for_workers(2)
    server.write_app(APP + "\ntime.sleep(1)\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) > 2, "a successor")
    server.assert_ends()


def test_workers_that_die_inside_a_reload(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    server.write_app(APP.replace("v1", "v2"))
    old = server.workers()
    server.send(signal.SIGHUP)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait_for_reload(2)
    assert {server.version() for _ in range(20)} == {"v2"}
    server.assert_ends()


def test_a_failed_reload_to_fewer_workers_keeps_them_all(run: Callable[..., Supervised]) -> None:
    (run.folder / "pyproject.toml").write_text("[tool.fastasgi]\nworkers = 3\n")
    server = run()
    server.wait_for_workers(3)
    workers = server.workers()
    server.write_app("import time\ntime.sleep(1.5)\nraise ValueError\n")
    (run.folder / "pyproject.toml").write_text("[tool.fastasgi]\nworkers = 1\n")
    server.send(signal.SIGHUP)
    server.wait_for("Not reloaded")
    assert server.workers() == workers
    server.write_app(APP.replace("v1", "v2"))
    server.send(signal.SIGHUP)
    server.wait_for_reload(1)
    assert server.version() == "v2"
    server.assert_ends(tracebacks=1)


def test_a_reload_follows_a_link_to_another_release(run: Callable[..., Supervised]) -> None:
    for release in ("v1", "v2"):
        (run.folder / release).mkdir()
        (run.folder / release / "shop.py").write_text(APP.replace("v1", release))
    link = run.folder / "current"
    link.symlink_to("v1")
    server = Supervised(
        link, "shop:app", "--port", "0", "--workers", "1", environment={**ENVIRONMENT, "PWD": str(link)}
    )
    try:
        server.wait_for_workers(1)
        assert server.version() == "v1"
        link.unlink()
        link.symlink_to("v2")
        server.send(signal.SIGHUP)
        server.wait_for_reload(1)
        assert server.version() == "v2"
        assert server.end() == 0
    finally:
        server.close()


@pytest.mark.parametrize("end", ["reload", "kill"])
def test_many_restarts_leave_no_row_behind(run: Callable[..., Supervised], end: str) -> None:
    server = run("--workers", "2")
    server.wait_for_workers(2)
    for number in range(1, 6):
        if end == "reload":
            server.send(signal.SIGHUP)
            server.wait_for_reload(2, number)
        else:
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait_for_workers(2 + number)
    wait_until(lambda: rows_of(server).count(True) == 2, lambda: rows_of(server))
    assert len(rows_of(server)) <= 6, (
        "rows are given again: of two workers, and of two more that have their last requests"
    )
    server.assert_ends()


# A new supervisor


def test_a_new_supervisor_takes_over_under_load(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2", "--pid-file", "pid")
    server.wait_for_workers(2)
    pid_file = server.folder / "pid"
    assert int(pid_file.read_text()) == server.pid
    with Load(server.connect) as load:
        server.write_app(APP.replace("v1", "v2"))
        server.send(signal.SIGUSR2)
        new = int(server.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
        assert int(pid_file.read_text()) == new
        assert server.process.wait(WAIT_S) == 0
        assert int(pid_file.read_text()) == new
        load.wait_for_answers(50, of="v2")
        server.pid = new
        assert {int(body.split()[0]) for body in [server.get() for _ in range(20)]} <= set(server.workers())
        server.send(signal.SIGTTIN)
        wait_until(lambda: len(server.workers()) == 3, "a third worker")
        server.wait_for_workers(5)
        load.wait_for_answers()
    assert not load.failures
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert not pid_file.exists()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_new_supervisor_that_fails_leaves_all_as_it_was(
    run: Callable[..., Supervised], preload: tuple[str, ...]
) -> None:
    server = run("--workers", "2", "--pid-file", "pid", "--uds", "s", *preload)
    server.wait_for_workers(2)
    workers = server.workers()
    with Load(functools.partial(connect_to, server.folder / "s")) as load:
        server.write_app("def app(:\n")
        for count in (1, 2):
            server.send(signal.SIGUSR2)
            server.wait_for_count("The new supervisor did not start; this one goes on", count)
        load.wait_for_answers()
        assert server.workers() == workers
        assert int((server.folder / "pid").read_text()) == server.pid
    assert not load.failures
    assert server.end() == 0
    assert not (server.folder / "pid").exists()
    assert not (server.folder / "s").exists()


def test_more_workers_with_a_new_supervisor_that_fails(run: Callable[..., Supervised]) -> None:
    """Nothing waits for a worker that only the new one was to have."""
    server = run("--config", "c.toml", source=APP, environment={**ENVIRONMENT, "FASTASGI_WORKERS": "1"})
    assert server.wait() == 2, "no such file"
    (server.folder / "c.toml").write_text("[tool.fastasgi]\nworkers = 1\n")
    server = run("--config", "c.toml")
    server.wait_for_workers(1)
    (server.folder / "c.toml").write_text("[tool.fastasgi]\nworkers = 4\n")
    server.write_app("import time\ntime.sleep(1)\n1 / 0\n")
    with Load(server.connect) as load:
        server.send(signal.SIGUSR2)
        server.wait_for("The new supervisor did not start; this one goes on")
        load.wait_for_answers()
    assert not load.failures
    assert load.slowest_s < 0.9
    server.send(signal.SIGTERM)
    assert server.wait() == 0


def test_signals_to_both_supervisors(run: Callable[..., Supervised]) -> None:
    """As `pkill -USR2` sends them: one of them remains."""
    server = run("--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(1)\n")
    server.wait_for_workers(1)
    (server.folder / "slow").touch()
    server.send(signal.SIGUSR2)
    server.wait_for_count("Started supervisor process", 2)
    new = int(re.findall(r"Started supervisor process \[(\d+)\]", server.log)[-1])
    for pid in (server.pid, new, server.pid, new):
        os.kill(pid, signal.SIGUSR2)
    server.wait_for("takes over")
    assert server.process.wait(WAIT_S) == 0
    assert server.count("Started supervisor process") == 2
    server.pid = new
    assert server.version() == "v1"
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")


def test_the_end_before_a_new_supervisor_takes_over(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(2)\n")
    server.wait_for_workers(1)
    (server.folder / "slow").touch()
    server.send(signal.SIGUSR2)
    server.wait_for_count("Started supervisor process", 2)
    assert server.end() == 0
    wait_until(lambda: not processes_in(server.folder), "the end of all processes", 5)
    assert "Traceback" not in server.log
    assert "takes over" not in server.log
