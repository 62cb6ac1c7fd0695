"""What the server tells systemd, by the protocol of sd_notify(3), and who tells it."""

import itertools
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import HI_APP, WAIT_S, Start

from fastasgi.system.notify import Notifier


class ServiceManager:
    """The receiving end of NOTIFY_SOCKET. Knows which process has sent what, as systemd does."""

    def __init__(self, address: str) -> None:
        self.name = "@" + address[1:] if address[0] == "\0" else address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(WAIT_S)
        self.socket.bind(address)
        self.senders: set[int] = set()

    def next(self) -> list[str]:
        """The lines of the next message."""
        data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        [(_, _, credentials)] = control
        self.senders.add(int.from_bytes(credentials[:4], "little"))
        return data.decode().split("\n")

    def until(self, line: str) -> list[str]:
        """All lines up to this one."""
        lines: list[str] = []
        while line not in lines:
            lines += self.next()
        return lines

    def rest(self) -> list[str]:
        """The lines that are there already."""
        self.socket.setblocking(False)
        lines: list[str] = []
        try:
            while True:
                lines += self.next()
        except BlockingIOError:
            return lines

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "NOTIFY_SOCKET": self.name, **variables}


@pytest.fixture(params=["path", "abstract"])
def any_manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    path = str(tmp_path / "notify") if request.param == "path" else f"\0fastasgi-{uuid.uuid4()}"
    manager = ServiceManager(path)
    yield manager
    manager.socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


# The notifier alone


@pytest.fixture
def notifier(manager: ServiceManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Notifier]]:
    """Makes a Notifier with these environment variables."""
    made = []

    def make(**variables: str) -> Notifier:
        for name, value in {"NOTIFY_SOCKET": manager.name, **variables}.items():
            monkeypatch.setenv(name, value)
        made.append(Notifier())
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_each_message(manager: ServiceManager, notifier: Callable[..., Notifier]) -> None:
    notify = notifier()
    notify.ready()
    assert manager.next() == ["READY=1", "STATUS=Serving"]
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.reloading()
    first, second = manager.next()
    assert first == "RELOADING=1"
    at_us = int(second.removeprefix("MONOTONIC_USEC="))
    assert before_us <= at_us <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.main_pid(17)
    assert manager.next() == ["MAINPID=17", "READY=1", "STATUS=Serving"]
    notify.stopping()
    assert manager.next() == ["STOPPING=1"]
    notify.close()
    notify.ready()
    assert manager.rest() == []


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify = Notifier()
    notify.ready()
    notify.watchdog()
    assert notify.environ() == {}
    notify.close()


@pytest.mark.parametrize(("interval_s", "least", "most"), [(2, 10, 10), (4, 5, 10), (10, 2, 3), (60, 1, 1)])
def test_the_watchdog_hears_twice_in_its_interval_or_each_second(
    manager: ServiceManager,
    notifier: Callable[..., Notifier],
    monkeypatch: pytest.MonkeyPatch,
    interval_s: int,
    least: int,
    most: int,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("fastasgi.system.notify.time.monotonic", lambda: now_s)
    notify = notifier(WATCHDOG_USEC=str(interval_s * 1_000_000))
    heard_at = []
    for _ in range(10):  # called once a second
        notify.watchdog()
        if manager_has_heard(manager):
            heard_at.append(now_s)
        now_s += 1.0
    assert least <= len(heard_at) <= most
    assert heard_at[0] == 1000.0
    assert all(after - before <= interval_s / 2 for before, after in itertools.pairwise(heard_at))


def manager_has_heard(manager: ServiceManager) -> bool:
    lines = manager.rest()
    assert lines in ([], ["WATCHDOG=1"])
    return bool(lines)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "-1000000"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_where_none_is_wanted(
    manager: ServiceManager, notifier: Callable[..., Notifier], variables: dict[str, str]
) -> None:
    notify = notifier(**variables)
    notify.watchdog()
    assert manager.rest() == []


def test_the_watchdog_of_this_process(manager: ServiceManager, notifier: Callable[..., Notifier]) -> None:
    notifier(WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid())).watchdog()
    assert manager.next() == ["WATCHDOG=1"]


def test_a_service_manager_that_comes_back_hears_again(
    manager: ServiceManager, notifier: Callable[..., Notifier]
) -> None:
    notify = notifier()
    manager.socket.close()
    os.unlink(manager.name)
    notify.reloading()
    again = ServiceManager(manager.name)
    notify.ready()
    assert again.next() == ["READY=1", "STATUS=Serving"]
    again.socket.close()


def test_a_service_manager_that_does_not_read_holds_nothing_up(
    manager: ServiceManager, notifier: Callable[..., Notifier]
) -> None:
    notify = notifier()
    for _ in range(10_000):
        notify.ready()
    assert len(manager.rest()) < 20_000


@pytest.mark.parametrize("address", ["relative", "/", "@", "/no/such/socket", "/" + "x" * 200, "vsock:2:1"])
def test_an_address_that_leads_nowhere_harms_nothing(notifier: Callable[..., Notifier], address: str) -> None:
    notify = notifier(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000")
    notify.ready()
    notify.watchdog()
    notify.stopping()


# The process


@pytest.mark.parametrize("arguments", [(), ("--workers", "2"), ("--workers", "1", "--preload")])
def test_start_and_end(start: Start, any_manager: ServiceManager, arguments: tuple[str, ...]) -> None:
    environment = any_manager.environment()
    process = start(HI_APP, "app:app", "--port", "0", *arguments, environment=environment)
    assert any_manager.next() == ["READY=1", "STATUS=Serving"]
    process.wait_for("running on")
    is_supervised = bool(arguments)
    assert process.end(signal.SIGTERM) == (0 if is_supervised else -signal.SIGTERM)
    assert any_manager.rest() == ["STOPPING=1"]
    assert any_manager.senders == {process.process.pid}


def test_a_start_that_fails_is_not_ready(start: Start, manager: ServiceManager) -> None:
    source = "async def app(scope, receive, send):\n    raise RuntimeError\n"
    process = start(source, "app:app", "--port", "0", "--lifespan", "on", environment=manager.environment())
    assert process.wait() == 3
    assert "READY=1" not in manager.rest()


def test_a_reload(start: Start, manager: ServiceManager, tmp_path: Path) -> None:
    process = start(
        HI_APP,
        "app:app",
        "--port",
        "0",
        "--workers",
        "1",
        "--lifespan",
        "off",
        environment=manager.environment(),
    )
    manager.until("READY=1")
    process.process.send_signal(signal.SIGHUP)
    first, second = manager.next()
    assert first == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=[0-9]+", second)
    assert manager.next() == ["READY=1", "STATUS=Serving"]
    # One that fails ends with READY too, since the old code goes on
    (tmp_path / "app.py").write_text("async def (")
    process.process.send_signal(signal.SIGHUP)
    assert manager.next()[0] == "RELOADING=1"
    assert manager.next() == ["READY=1", "STATUS=Serving"]
    assert process.end() == 0
    assert manager.senders == {process.process.pid}


def test_a_reload_with_preload_tells_of_itself(start: Start, manager: ServiceManager) -> None:
    """The service manager hears who is the main process before that is ready: it may listen to no other."""
    environment = manager.environment()
    process = start(HI_APP, "app:app", "--port", "0", "--workers", "1", "--preload", environment=environment)
    manager.until("READY=1")
    process.process.send_signal(signal.SIGHUP)
    assert manager.next()[0] == "RELOADING=1"
    main_pid, *state = manager.next()
    assert main_pid.startswith("MAINPID=")
    assert state == ["READY=1", "STATUS=Serving"]
    assert process.process.wait(WAIT_S) == 0
    new = int(main_pid.partition("=")[2])
    os.kill(new, signal.SIGTERM)
    assert manager.next() == ["STOPPING=1"]
    assert manager.senders == {process.process.pid, new}


def test_a_new_supervisor_becomes_the_main_process(start: Start, manager: ServiceManager) -> None:
    environment = manager.environment(WATCHDOG_USEC="2000000")
    process = start(HI_APP, "app:app", "--port", "0", "--workers", "1", environment=environment)
    manager.until("READY=1")
    process.process.send_signal(signal.SIGUSR2)
    pid = int(process.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
    try:
        assert f"MAINPID={pid}" in manager.until(f"MAINPID={pid}")
        # The old one's end is not the service's end, and the new one goes on with the watchdog
        assert "STOPPING=1" not in manager.until("WATCHDOG=1") + manager.until("WATCHDOG=1")
        assert manager.senders == {process.process.pid, pid}
    finally:
        os.kill(pid, signal.SIGTERM)
    assert process.wait() == 0
    assert "STOPPING=1" in manager.until("STOPPING=1")


@pytest.mark.parametrize("arguments", [(), ("--workers", "1")])
def test_the_watchdog_hears_in_time(
    start: Start, manager: ServiceManager, arguments: tuple[str, ...]
) -> None:
    environment = manager.environment(WATCHDOG_USEC="3000000")
    start(HI_APP, "app:app", "--port", "0", *arguments, environment=environment)
    manager.until("WATCHDOG=1")
    heard_at = time.monotonic()
    manager.until("WATCHDOG=1")
    assert time.monotonic() - heard_at < 3


def test_the_watchdog_of_another_process_is_not_ours(start: Start, manager: ServiceManager) -> None:
    environment = manager.environment(WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    process = start(HI_APP, "app:app", "--port", "0", environment=environment)
    manager.until("READY=1")
    process.end()
    assert manager.rest() == ["STOPPING=1"]


@pytest.mark.parametrize("arguments", [(), ("--workers", "1")])
def test_a_broken_notify_socket_harms_nothing(start: Start, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "soon"}
    process = start(HI_APP, "app:app", "--port", "0", *arguments, environment=environment)
    assert process.port
    process.wait_for("startup complete|unsupported")
    process.end()
    assert "Traceback" not in process.log
    assert "Error" not in process.log
