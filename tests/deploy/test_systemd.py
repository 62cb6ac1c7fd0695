"""The units of docs/deploy/systemd: by systemd's checks, and as a real systemd and a stand-in run them."""

import configparser
import functools
import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import Load
from serving import WAIT_S, wait_until
from shipped import program
from supervised import ENVIRONMENT, Supervised, ask, connect_to
from systemdmachine import Machine

from fastasgi import Config
from fastasgi.processes.workerlimits import EXIT_S

FOLDER = Path(__file__).parent.parent.parent / "docs" / "deploy" / "systemd"
SERVICE, SOCKET, RELOAD = (
    (FOLDER / name).read_text() for name in ("fastasgi.service", "fastasgi.socket", "notify-reload.conf")
)
MOST_EXPOSED = 3.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux")

APP = """
import asyncio, ctypes, json, mmap, os, socket

RELEASE = "1"

def can(action):
    try:
        action()
    except Exception:
        return False
    return True

def abilities():
    state = os.environ.get("STATE_DIRECTORY", "")
    return {
        "write its code": can(lambda: open("/srv/app/releases/x", "w")),
        "write /var/lib": can(lambda: open("/var/lib/x", "w")),
        "write its state": can(lambda: open(state + "/x", "w")),
        "write /tmp": can(lambda: open("/tmp/x", "w")),
        "see others' processes": os.path.exists("/proc/1/status"),
        "raw packets": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "executable memory": can(lambda: mmap.mmap(-1, 4096, prot=7)),
        "namespaces": ctypes.CDLL(None).unshare(0x10000000) == 0,
        "connect": can(lambda: socket.create_connection(("127.0.0.1", 9000))),
        "threads": can(lambda: __import__("threading").Thread(target=int).start()),
        "processes": os.system("true") == 0,
    }

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = f"{RELEASE} {os.getpid()}"
    if scope["path"] == "/abilities":
        body = json.dumps(abilities())
    if scope["path"] == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"done"})
        return
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
"""


def settings(text: str, section: str) -> dict[str, list[str]]:
    """What a section of a unit says: the values of each name."""
    found: dict[str, list[str]] = {}
    for line in text.partition(f"[{section}]\n")[2].partition("\n[")[0].splitlines():
        if line and line[0] != "#":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def version() -> int:
    text = subprocess.run([program("systemd-analyze"), "--version"], capture_output=True, text=True).stdout
    return int(text.split()[1])


# systemd's own checks


def write_units(folder: Path, service: str) -> list[str]:
    """The units with commands that are here."""
    (folder / "fastasgi.service").write_text(service.replace("/srv/app/current/venv/bin/python", "/bin/true"))
    (folder / "fastasgi.socket").write_text(SOCKET)
    return [str(folder / name) for name in ("fastasgi.service", "fastasgi.socket")]


def verify(units: list[str]) -> str:
    """What systemd-analyze finds wrong. It also loads units of this machine, which are no matter of ours."""
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{Path(units[0]).parent}:"}
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *units],
        capture_output=True, text=True, timeout=WAIT_S, env=environment,
    )  # fmt: skip
    return "".join(line for line in done.stderr.splitlines(True) if "fastasgi" in line)


def test_the_units_are_correct(tmp_path: Path) -> None:
    assert verify(write_units(tmp_path, SERVICE)) == ""


def test_a_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    assert "KilMode" in verify(write_units(tmp_path, SERVICE.replace("\nKillMode", "\nKilMode")))


def test_the_drop_in_is_correct_for_newer_systemd(tmp_path: Path) -> None:
    if version() < 253:
        pytest.skip("Type=notify-reload needs systemd 253")
    units = write_units(tmp_path, SERVICE)
    (tmp_path / "fastasgi.service.d").mkdir()
    (tmp_path / "fastasgi.service.d" / "notify-reload.conf").write_text(RELOAD)
    assert verify(units) == ""


def test_little_is_exposed(tmp_path: Path) -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", write_units(tmp_path, SERVICE)[0]],
        capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    match = re.search(r"Overall exposure level for fastasgi.service: ([0-9.]+)", done.stdout)
    assert match, done.stderr
    assert float(match[1]) < MOST_EXPOSED


# What belongs together


def test_the_time_to_stop_is_enough() -> None:
    """D + G + 8, by the settings that the unit's command has, and not much more."""
    config = Config("app:app")
    command = shlex.split(settings(SERVICE, "Service")["ExecStart"][0])
    assert not [option for option in command if option.startswith("--timeout-") and "keep" not in option]
    needed = math.ceil(config.timeout_drain + config.grace_timeout_s + EXIT_S)
    assert needed == 28
    assert needed <= int(settings(SERVICE, "Service")["TimeoutStopSec"][0]) <= needed + 5


def test_the_watchdog_is_longer_than_the_supervisor_is_silent() -> None:
    assert int(settings(SERVICE, "Service")["WatchdogSec"][0]) >= 10


def test_nginx_finds_the_socket() -> None:
    [path] = settings(SOCKET, "Socket")["ListenStream"]
    nginx = (FOLDER.parent / "nginx.conf").read_text()
    assert f"server unix:{path};" in nginx
    user = re.search(r"(?m)^user (.+);$", nginx)
    assert user
    assert settings(SOCKET, "Socket")["SocketUser"] == [user[1]]
    # Idle connections are closed by nginx, which sends the next request
    ours = re.search(r"--timeout-keep-alive (\d+)", SERVICE)
    theirs = re.search(r"keepalive_timeout (\d+)s;", nginx)
    assert ours
    assert theirs
    assert int(theirs[1]) < int(ours[1])


def test_the_drop_in_only_changes_how_a_reload_is_told() -> None:
    parser = configparser.ConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(RELOAD)
    assert dict(parser["Service"]) == {"Type": "notify-reload", "ExecReload": ""}


# A stand-in for systemd, which any Linux can be

LAUNCHER = """
import fcntl, os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind("app.sock")
sock.listen()
os.dup2(fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="fastasgi.socket")
os.environ.update(WATCHDOG_PID=str(os.getpid()), NOTIFY_SOCKET=os.getcwd() + "/notify")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """What the service tells its manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(WAIT_S)
        yield sock


def next_message(told: socket.socket) -> list[str]:
    return told.recv(4096).decode().split("\n")


def until(told: socket.socket, line: str) -> None:
    """Pass over reports to the watchdog, which may come between any others."""
    while line not in (lines := next_message(told)):
        assert lines == ["WATCHDOG=1"], (line, lines)


def test_the_command_as_a_service_manager_starts_it(tmp_path: Path, told: socket.socket) -> None:
    service = settings(SERVICE, "Service")
    (command,) = service["ExecStart"]
    assert command.count("127.0.0.1:9000") == 1
    words = shlex.split(command.replace("127.0.0.1:9000", "127.0.0.1:0"))
    assert words[0] == service["WorkingDirectory"][0] + "/venv/bin/python"
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    watchdog_s = 4
    environment = {**ENVIRONMENT, "WATCHDOG_USEC": f"{watchdog_s * 1_000_000}", "WEB_CONCURRENCY": "2"}
    launcher = (sys.executable, "launcher.py", sys.executable)
    server = Supervised(tmp_path, *words[1:], environment=environment, command=launcher)
    try:
        until(told, "READY=1")
        with Load(functools.partial(connect_to, tmp_path / "app.sock"), 4) as load:
            load.wait_for_answers()
            # What ExecReload does
            assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
            server.write_app(APP)
            server.send(signal.SIGHUP)
            until(told, "RELOADING=1")
            until(told, "READY=1")
            load.wait_for_answers()
        assert not load.failures
        until(told, "WATCHDOG=1")
        heard_at = time.monotonic()
        until(told, "WATCHDOG=1")
        assert time.monotonic() - heard_at < watchdog_s
        server.send(signal.SIGTERM)
        until(told, "STOPPING=1")
        assert server.wait() == 0
        assert "Traceback" not in server.log
    finally:
        server.close()


# A real systemd

TEST_DROP_IN = """
[Service]
Environment=LD_LIBRARY_PATH=/srv/python/lib PYTHONDONTWRITEBYTECODE=1
StandardOutput=append:/srv/test/output
StandardError=append:/srv/test/log
WatchdogSec=3
RestartSec=100ms
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    units = {
        "fastasgi.service": SERVICE,
        "fastasgi.socket": SOCKET,
        "fastasgi.service.d/test.conf": TEST_DROP_IN,
    }
    if version() >= 253:
        units["fastasgi.service.d/notify-reload.conf"] = RELOAD
    try:
        machine = Machine(tmp_path_factory.mktemp("machine"), units)
    except OSError as error:
        pytest.skip(f"no systemd can be run here: {error}")
    try:
        machine.release("1", APP)
        machine.release("2", APP.replace('RELEASE = "1"', 'RELEASE = "2"'))
        yield machine
    finally:
        machine.close()


@pytest.fixture
def machine(running: Machine) -> Machine:
    """With release 1 and a new log. Tests leave it as they please, but for the files of units."""
    running.link("1")
    running.systemctl("stop", "fastasgi.socket", "fastasgi.service")
    running.systemctl("reset-failed")
    (running.shared / "log").unlink(missing_ok=True)
    running.systemctl("start", "fastasgi.socket", "fastasgi.service")
    return running


def connect(machine: Machine) -> socket.socket:
    return connect_to(machine.path("/run/fastasgi/app.sock"))


def get(machine: Machine, path: str = "/") -> str:
    with connect(machine) as sock:
        return ask(sock, path)


def log(machine: Machine) -> str:
    return (machine.shared / "log").read_text()


def reload(machine: Machine, release: str) -> None:
    times = log(machine).count("Reloaded")
    machine.link(release)
    machine.systemctl("reload", "fastasgi")
    wait_until(lambda: log(machine).count("Reloaded") > times, lambda: log(machine))


def replace_supervisor(machine: Machine) -> None:
    before = machine.show("fastasgi", "MainPID")
    machine.systemctl("kill", "--kill-whom=main", "--signal=USR2", "fastasgi")
    wait_until(lambda: "Finished supervisor" in log(machine), lambda: log(machine))
    assert machine.show("fastasgi", "MainPID") != before


def test_releases_come_and_go_without_a_failed_request(machine: Machine) -> None:
    with Load(functools.partial(connect, machine), 4) as load:
        load.wait_for_answers(of="1 ")
        reload(machine, "2")
        load.wait_for_answers(of="2 ")
        reload(machine, "1")
        load.wait_for_answers(of="1 ")
        # Another supervisor, and so another fastasgi or Python
        machine.link("2")
        replace_supervisor(machine)
        load.wait_for_answers(of="2 ")
    assert not load.failures
    assert machine.show("fastasgi", "NRestarts") == "0"
    assert get(machine).startswith("2 ")


def test_a_broken_release_changes_nothing(machine: Machine) -> None:
    machine.release("3", "async def (")
    machine.link("3")
    machine.systemctl("reload", "fastasgi")
    wait_until(lambda: "Not reloaded" in log(machine), lambda: log(machine))
    assert get(machine).startswith("1 ")
    assert machine.systemctl("is-active", "fastasgi") == "active"


def test_what_the_application_can_and_can_not(machine: Machine) -> None:
    abilities = json.loads(get(machine, "/abilities"))
    able = {name for name, is_able in abilities.items() if is_able}
    assert able == {"write its state", "write /tmp", "connect", "threads", "processes"}


def test_a_restart_lets_clients_wait(machine: Machine) -> None:
    """On fresh connections: one that is kept open ends with the server that it was made to."""
    with Load(functools.partial(connect, machine), 3, kept=False) as load:
        load.wait_for_answers()
        machine.systemctl("restart", "fastasgi")
        load.wait_for_answers()
    assert not load.failures


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_stop_waits_for_requests_and_leaves_nothing(machine: Machine, is_replaced: bool) -> None:
    if is_replaced:
        replace_supervisor(machine)
    with connect(machine) as sock:
        sock.settimeout(WAIT_S)
        sock.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        data = b""
        while b"begun" not in data:
            data += sock.recv(4096)
        # Without the socket, the next client would start it again
        machine.systemctl("stop", "fastasgi.socket", "fastasgi.service")
        while b"done" not in data:
            piece = sock.recv(4096)
            assert piece, data
            data += piece
    assert machine.show("fastasgi", "Result") == "success"
    assert machine.show("fastasgi", "ActiveState") == "inactive"
    assert not machine.path("/run/fastasgi/app.sock").exists()


def test_a_supervisor_that_hangs_is_replaced(machine: Machine) -> None:
    before = machine.show("fastasgi", "MainPID")
    machine.run("kill", "-STOP", before)
    wait_until(lambda: machine.show("fastasgi", "NRestarts") == "1", lambda: log(machine))
    wait_until(lambda: machine.systemctl("is-active", "fastasgi", check=False) == "active")
    assert get(machine).startswith("1 ")
    assert machine.show("fastasgi", "MainPID") != before


def test_a_worker_that_is_killed_does_not_end_the_others(machine: Machine) -> None:
    victim = get(machine).split()[1]
    machine.run("kill", "-KILL", victim)
    wait_until(lambda: f"Worker [{victim}]" in log(machine), lambda: log(machine))
    wait_until(lambda: get(machine).split()[1] != victim)
    assert machine.show("fastasgi", "NRestarts") == "0"
    # The kernel has a word too: its out-of-memory killer is no reason for systemd to end the unit
    assert machine.show("fastasgi", "OOMPolicy") == "continue"


def test_a_wrong_setting_is_not_tried_again(machine: Machine) -> None:
    machine.systemctl("stop", "fastasgi.service")
    machine.systemctl("set-environment", "FASTASGI_BACKLOG=many")
    machine.systemctl("start", "fastasgi.service", check=False)
    machine.systemctl("unset-environment", "FASTASGI_BACKLOG")
    assert machine.show("fastasgi", "ExecMainStatus") == "2"
    wait_until(lambda: machine.show("fastasgi", "ActiveState") == "failed")
    assert machine.show("fastasgi", "NRestarts") == "0"
