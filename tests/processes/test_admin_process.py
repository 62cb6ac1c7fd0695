"""The process of the admin listener: it answers whatever the workers do, and nobody waits for it."""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adminlistener import PATTERN, AdminClient
from certificates import Authority
from load import WAIT_S, Load
from serving import processes_in, wait_until
from supervised import APP, Supervised, counts_of, hang, suspend

from fastasgi.processes.adminprocess import INSIDE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ADMIN = ("--admin", "127.0.0.1:0")
PROMPT_S = 0.1
# /hold is C code that keeps the interpreter for itself
HOLDING_APP = APP.replace(
    'if scope["path"] == "/block":',
    'if scope["path"] == "/hold":\n        import ctypes; ctypes.PyDLL(None).usleep(60_000_000)\n'
    '    if scope["path"] == "/block":',
)


def admin_pid(server: Supervised) -> int:
    """The process that answers: the youngest child of the supervisor that runs its module; 0 if none does."""
    for pid in reversed(server.workers()):
        with contextlib.suppress(OSError):
            if INSIDE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


def start(run: Callable[..., Supervised], *arguments: str, **more: object) -> tuple[Supervised, AdminClient]:
    """A server whose admin listener answers."""
    server = run(*ADMIN, *arguments, **more)
    admin = AdminClient.of(server)
    admin.wait_for("/livez", 200)
    return server, admin


@contextlib.contextmanager
def asked(server: Supervised, path: str, count: int) -> Iterator[None]:
    """Connections on each of which a request has been sent whose answer does not come."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            socks.append(server.connect())
            socks[-1].sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        yield
    finally:
        for sock in socks:
            sock.close()


# While the server is busy


@pytest.mark.parametrize("path", ["/block", "/hold"])
def test_it_answers_while_all_loops_are_blocked(run: Callable[..., Supervised], path: str) -> None:
    server, admin = start(run, "--workers", "2", source=HOLDING_APP)
    admin.wait_for("/readyz", 200)
    server.wait_for_workers(2)
    # Whichever worker has a request blocks, but it may have taken more connections before
    with asked(server, path, 12):
        reason = admin.wait_for("/readyz", 503, 10)
        assert "no worker's event loop has turned for 3 s" in reason
        for asks in ("/livez", "/status"):
            assert admin.time_s(asks) < PROMPT_S
        assert admin.get("/livez")[0] == 200
        server.send(signal.SIGQUIT)
        assert server.wait() == 0


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_it_answers_during_a_slow_import(run: Callable[..., Supervised], preload: tuple[str, ...]) -> None:
    slow = f"{APP}\nimport time\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    server, admin = start(run, "--workers", "1", *preload, source=slow)
    assert admin.get("/readyz") == (503, "none of 1 workers serves yet\n")
    assert admin.time_s() < PROMPT_S
    (server.folder / "go").touch()
    assert admin.wait_for("/readyz", 200) == "1 of 1 workers serve\n"
    server.assert_ends()


def test_it_answers_during_a_slow_start_up_of_the_application(run: Callable[..., Supervised]) -> None:
    slow = APP.replace(
        "            message = await receive()\n",
        "            message = await receive()\n"
        "            while not os.path.exists('go'): await asyncio.sleep(0.05)\n",
    )
    server, admin = start(run, "--workers", "1", source=slow)
    server.wait_for("Waiting for application startup")
    assert admin.get("/readyz")[0] == 503
    assert admin.get("/livez")[0] == 200
    (server.folder / "go").touch()
    admin.wait_for("/readyz", 200)
    server.assert_ends()


def test_it_says_not_ready_from_the_signal_on_and_answers_to_the_last_request(
    run: Callable[..., Supervised],
) -> None:
    server, admin = start(run, "--workers", "1", "--timeout-graceful-shutdown", "60")
    admin.wait_for("/readyz", 200)
    with hang(server):
        server.send(signal.SIGTERM)
        assert admin.wait_for("/readyz", 503) == "the server is stopping\n"
        server.wait_for("Waiting for 1 connection")
        assert admin.get("/livez")[0] == 200
        assert list(admin.workers().values()) == ["leaving"]
        server.send(signal.SIGTERM)
    assert server.wait() == 0, server.log
    assert admin.status("/livez") == 0
    assert processes_in(server.folder) == []
    assert "Traceback" not in server.log


def test_it_says_not_ready_while_all_workers_are_withdrawn(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "1")
    admin.wait_for("/readyz", 200)
    server.send(signal.SIGWINCH)
    assert admin.wait_for("/readyz", 503) == "all workers are withdrawn\n"
    assert admin.get("/livez")[0] == 200
    server.send(signal.SIGTTIN)
    admin.wait_for("/readyz", 200)
    server.assert_ends()


def test_signals_to_the_whole_group_end_it_with_the_server(run: Callable[..., Supervised]) -> None:
    """As Ctrl-C in a terminal, or a service manager, sends them."""
    server, admin = start(run, "--workers", "1", "--timeout-graceful-shutdown", "60")
    admin.wait_for("/readyz", 200)
    pid = admin_pid(server)
    with hang(server):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
        server.send(signal.SIGTERM)
        admin.wait_for("/readyz", 503)
        assert admin_pid(server) == pid
        server.send(signal.SIGTERM)
    assert server.wait() == 0, server.log


# Workers and the process itself die


def test_the_death_of_a_worker_is_seen_and_counted(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "1", source=f"{APP}\nif os.path.exists('slow'): time.sleep(60)\n")
    admin.wait_for("/readyz", 200)
    (worker,) = admin.workers()
    (server.folder / "slow").touch()
    os.kill(worker, signal.SIGKILL)
    server.wait_for("has died")
    admin.wait_for("/readyz", 503, 1)
    assert worker not in admin.workers()
    (counts,) = counts_of(server)
    assert {cause: number for cause, number in counts.ends.items() if number} == {"SIGKILL": 1}
    server.send(signal.SIGQUIT)
    assert server.wait() == 0


def test_another_process_takes_the_place_of_one_that_dies(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "1")
    server.wait_for_workers(1)
    for count in (1, 2):
        pid = wait_until(lambda: admin_pid(server), "the process")
        os.kill(pid, signal.SIGKILL)
        server.wait_for_count("The admin listener's process", count)
        assert f"[{pid}] has ended: signal SIGKILL" in server.log
        admin.wait_for("/livez", 200)
        admin.wait_for("/readyz", 200)
        assert admin_pid(server) not in (pid, 0)
    assert server.get().endswith("v1")
    server.assert_ends()


def test_a_process_that_can_not_stay_is_not_started_in_a_loop(run: Callable[..., Supervised]) -> None:
    """The server serves meanwhile."""
    log = Path(run.folder / "log.json")  # type: ignore[attr-defined]
    handlers = {"stderr": {"class": "logging.StreamHandler"}}
    root = {"level": "INFO", "handlers": ["stderr"]}
    text = json.dumps({"version": 1, "disable_existing_loggers": False, "handlers": handlers, "root": root})
    log.write_text(text)
    server = run("--workers", "1", *ADMIN, "--log-config", "log.json")
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)  # before that the worker needs the file, too
    log.unlink()
    pid = admin_pid(server)
    os.kill(pid, signal.SIGKILL)
    server.wait_for_count("The admin listener's process", 4)
    begin = time.monotonic()
    server.wait_for_count("The admin listener's process", 5)
    assert time.monotonic() - begin > 1
    assert server.get().endswith("v1")
    assert "Traceback" not in server.log
    assert "Error: log_config 'log.json'" in server.log
    log.write_text(text)
    admin.wait_for("/livez", 200)
    server.assert_ends()


def test_a_process_goes_on_with_its_token_though_the_file_is_gone(run: Callable[..., Supervised]) -> None:
    token = Path(run.folder / "token")  # type: ignore[attr-defined]
    token.write_text("0123456789abcdef\n")
    server = run("--workers", "1", *ADMIN, "--admin-token-file", "token")
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)  # before that the worker needs the file, too
    token.unlink()
    pid = admin_pid(server)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: admin_pid(server) not in (0, pid), "another process")
    admin.wait_for("/livez", 200)
    assert admin.status("/status") == 401
    server.assert_ends()


def test_a_process_that_hangs_is_replaced(run: Callable[..., Supervised], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import fastasgi.processes.adminprocess as module\nmodule.HANG_S = 1.5\n"
    )
    server = run("--workers", "1", *ADMIN, environment={**os.environ, "PYTHONPATH": str(tmp_path)})
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)
    suspend(admin_pid(server))
    server.wait_for(r"The admin listener's process \[\d+\] hangs, and is replaced")
    admin.wait_for("/readyz", 200)
    server.assert_ends()


def test_a_suspended_process_holds_up_nobody(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "2")
    server.wait_for_workers(2)
    pid = admin_pid(server)
    suspend(pid)
    with Load(server.connect) as load:
        for count in range(1, 4):
            server.send(signal.SIGTTIN)
            server.wait_for_workers(2 + count)
        server.send(signal.SIGHUP)
        server.wait_for("Reloaded")
        load.wait_for_answers()
    assert not load.failures
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: len(admin.workers()) == 5, "the newest report")
    suspend(pid)
    begin = time.monotonic()
    assert server.end() == 0, server.log
    assert time.monotonic() - begin < 5
    assert processes_in(server.folder) == []


def test_it_ends_with_a_supervisor_that_is_killed(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "1")
    server.wait_for_workers(1)
    with admin.connect() as idle:
        pid = admin_pid(server)
        server.send(signal.SIGKILL)
        wait_until(lambda: pid not in processes_in(server.folder), "the end of the process", 3)
        assert idle.recv(1) == b""
    assert admin.status("/livez") == 0


def test_a_suspended_supervisor_is_not_live(run: Callable[..., Supervised]) -> None:
    server, admin = start(run, "--workers", "1")
    admin.wait_for("/readyz", 200)
    suspend(server.pid)
    assert "the supervisor has been silent for" in admin.wait_for("/livez", 503, 10)
    assert admin.get("/readyz")[0] == 503
    os.kill(server.pid, signal.SIGCONT)
    admin.wait_for("/livez", 200)
    admin.wait_for("/readyz", 200)
    server.assert_ends()


# Reloads


def test_a_reload_brings_settings_to_it(run: Callable[..., Supervised]) -> None:
    """A changed setting of its own brings another process; others go on with the one that there is."""
    token = Path(run.folder / "token")  # type: ignore[attr-defined]
    token.write_text("0123456789abcdef\n")
    server, admin = start(run, "--workers", "1", "--admin-token-file", "token")
    admin.wait_for("/readyz", 200)
    pid = admin_pid(server)
    server.send(signal.SIGHUP)
    server.wait_for("Reloaded")
    assert admin_pid(server) == pid
    token.write_text("fedcba9876543210\n")
    with Load(admin.connect, path="/livez") as load:
        server.send(signal.SIGHUP)
        server.wait_for_count("Reloaded", 2)
        wait_until(lambda: admin_pid(server) not in (pid, 0) and pid not in server.workers(), "another one")
        load.wait_for_answers()
    assert not load.failures
    connection = admin.connect()
    with connection:
        connection.sendall(
            b"GET /status HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer fedcba9876543210\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 200"
    server.assert_ends()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_new_supervisor_takes_over_with_no_gap(
    run: Callable[..., Supervised], preload: tuple[str, ...]
) -> None:
    server, admin = start(run, "--workers", "1", *preload)
    admin.wait_for("/readyz", 200)
    with Load(admin.connect, path="/readyz") as load:
        server.send(signal.SIGUSR2)
        new = int(server.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
        assert server.process.wait(WAIT_S) == 0
        load.wait_for_answers(50)
        server.pid = new
        wait_until(lambda: len(server.workers()) == 2, "a worker and the admin listener's process")
        load.wait_for_answers()
    assert not load.failures
    assert list(admin.workers().values()) == ["serving"]
    assert sum(counts.starts for counts in counts_of(server)) == 2
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert "Traceback" not in server.log


def test_a_new_supervisor_that_fails_leaves_the_old_one_answering(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--admin", "unix:admin.sock")
    admin = AdminClient(server.folder / "admin.sock")
    admin.wait_for("/readyz", 200)
    with Load(admin.connect, path="/readyz") as load:
        server.write_app("def app(:\n")
        server.send(signal.SIGUSR2)
        server.wait_for("The new supervisor did not start; this one goes on")
        load.wait_for_answers()
    assert not load.failures
    server.assert_ends()
    assert not (server.folder / "admin.sock").exists()


def test_a_new_supervisor_may_have_another_address(run: Callable[..., Supervised]) -> None:
    folder: Path = run.folder  # type: ignore[attr-defined]
    (folder / "c.toml").write_text("[tool.fastasgi]\nworkers = 1\n")
    server = run("--config", "c.toml")
    server.wait_for_workers(1)
    for name in ("one", "two", ""):
        line = f"admin = 'unix:{name}'\n" if name else ""
        (server.folder / "c.toml").write_text(f"[tool.fastasgi]\nworkers = 1\n{line}")
        server.send(signal.SIGUSR2)
        ends = rf"Supervisor \[(\d+)\] takes over[\s\S]*Finished supervisor process \[{server.pid}\]"
        server.pid = int(server.wait_for(ends)[1])
        server.errors.clear()
        if name:
            AdminClient(folder / name).wait_for("/readyz", 200)
    server.send(signal.SIGTERM)
    wait_until(lambda: not processes_in(server.folder), "the end of all processes")
    assert not [path for path in folder.iterdir() if path.is_socket()]


# Addresses


def test_an_address_in_use_ends_the_start(run: Callable[..., Supervised]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        server = run("--uds", "app.sock", "--workers", "1", "--admin", where)
        assert server.wait() == 3
    assert server.errors == [
        f"Error: admin {where!r}: can't listen on {where}: the port is in use; stop the other server or "
        "choose another port, 0 for any\n"
    ]
    assert not (server.folder / "app.sock").exists()


def test_a_unix_socket_is_its_owners_alone(run: Callable[..., Supervised]) -> None:
    path = run.folder / "admin.sock"  # type: ignore[attr-defined]
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = run("--workers", "1", "--uds-permissions", "666", "--admin", "unix:admin.sock")
    admin = AdminClient(path)
    assert admin.wait_for("/readyz", 200) == "1 of 1 workers serve\n"
    assert path.stat().st_mode & 0o777 == 0o600
    server.assert_ends()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to be another user")
def test_it_becomes_the_user_and_reads_secrets_before(run: Callable[..., Supervised]) -> None:
    folder: Path = run.folder  # type: ignore[attr-defined]
    for parent in (folder, *folder.parents[:-1]):
        if parent.stat().st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(0o755)
    (folder / "token").write_text("0123456789abcdef\n")
    (folder / "token").chmod(0o600)
    server, admin = start(
        run, "--workers", "1", "--user", "nobody", "--umask", "027", "--admin-token-file", "token"
    )
    admin.wait_for("/readyz", 200)
    pid = admin_pid(server)
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"Uid:\s+65534\s+65534", status)
    assert re.search(r"Umask:\s+0027", status)
    assert admin.get("/status")[0] == 401
    server.assert_ends()


def test_it_speaks_tls_with_the_certificate_of_the_server_and_follows_it(
    run: Callable[..., Supervised],
) -> None:
    authority = Authority(run.folder)  # type: ignore[attr-defined]
    server = run("--workers", "1", *ADMIN, *authority.issue("localhost").arguments)
    assert server.wait_for(r"Admin listener on (\w+)")[1] == "https"
    where = ("127.0.0.1", int(server.wait_for(PATTERN)[1]))
    server.wait_for_workers(1)

    def serial() -> str:
        with socket.create_connection(where) as sock:
            sock.settimeout(WAIT_S)
            with authority.client().wrap_socket(sock, server_hostname="localhost") as tls:
                return str(tls.getpeercert()["serialNumber"])  # type: ignore[index]

    before = serial()
    authority.issue("localhost")
    wait_until(lambda: serial() != before, "the renewed certificate")
    server.assert_ends()
