"""Machines of their own for a test: network namespaces of this machine, joined by a switch.

Names hold the test's process, so that tests may run at the same time. What a process has left behind that was
killed is removed when the next network is made.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from serving import WAIT_S, wait_until

PREFIX = "fastasgi-test"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SWITCH = "switch"

Result = TypeVar("Result")


def ip(*arguments: str) -> str:
    """What the program of iproute2 says. Raises CalledProcessError, with what it complains of."""
    result = subprocess.run(
        [shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    if result.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def why_not() -> str:
    """Why there can be no network here; nothing if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    try:
        with Network() as network:
            network.add_host("host", "10.0.0.1")
    except OSError as error:
        return f"no network namespaces here: {error}"
    return ""


def _started_at(pid: int) -> str:
    """When a process has been started, in ticks; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _kill_in(name: str) -> None:
    """Kill all processes of a namespace, and wait for their end."""

    def are_gone() -> bool:
        pids = ip("netns", "pids", name).split()
        # All stand before the first one dies, so that none sees another's death
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), number)
        return not pids

    wait_until(are_gone, f"the end of the processes in {name}")


def _remove(name: str) -> None:
    # Another test process may remove the same remains
    with contextlib.suppress(OSError):
        _kill_in(name)
        ip("netns", "delete", name)


def sweep() -> None:
    """Remove the namespaces of test processes that have ended without doing so."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        found = re.fullmatch(rf"{PREFIX}-(\d+)-(\d+)-.*", path.name)
        if found and _started_at(int(found[1])) != found[2]:
            _remove(path.name)


class Network:
    """A switch, and hosts that are connected to it."""

    _numbers = iter(range(1, 1_000_000))

    def __init__(self) -> None:
        sweep()
        pid = os.getpid()
        self._prefix = f"{PREFIX}-{pid}-{_started_at(pid)}-{next(self._numbers)}"
        self._hosts: list[str] = []
        self._add(SWITCH)
        try:
            ip("-n", self.name_of(SWITCH), "link", "add", "bridge", "type", "bridge")
            ip("-n", self.name_of(SWITCH), "link", "set", "bridge", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name_of(self, host: str) -> str:
        """The name of a host's namespace."""
        return f"{self._prefix}-{host}"

    def _add(self, host: str) -> None:
        ip("netns", "add", self.name_of(host))
        self._hosts.append(host)

    def add_host(self, host: str, address: str) -> None:
        """A host with this address, of a network of 24 bits."""
        self._add(host)
        name, switch = self.name_of(host), self.name_of(SWITCH)
        ip("-n", switch, "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", switch, "link", "set", f"to-{host}", "master", "bridge", "up")
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")

    def cut_off(self, host: str) -> None:
        """From now on all packets from and to a host are lost, and nobody is told."""
        ip("-n", self.name_of(SWITCH), "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        """Have packets reach the host again."""
        ip("-n", self.name_of(SWITCH), "link", "set", f"to-{host}", "up")

    def command(self, host: str, *command: str) -> tuple[str, ...]:
        """A command that runs another one on a host, in the same process."""
        ip_path = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip"
        return (ip_path, "netns", "exec", self.name_of(host), *command)

    def processes_on(self, host: str) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name_of(host)).split()]

    def kill_all_on(self, host: str) -> None:
        """SIGKILL to all processes of a host; they have ended afterwards."""
        _kill_in(self.name_of(host))

    def enter(self, host: str) -> None:
        """Move the calling thread to a host: sockets that it makes from now on are the host's."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (FOLDER / self.name_of(host)).open("rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def call_on(self, host: str, function: Callable[[], Result]) -> Result:
        """Call a function on a host, in a thread of its own."""
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                self.enter(host)
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """End all processes of all hosts, and remove these."""
        for host in reversed(self._hosts):
            _remove(self.name_of(host))
        self._hosts.clear()


@contextlib.contextmanager
def network(hosts: dict[str, str]) -> Iterator[Network]:
    """A network with these hosts, by name and address."""
    with Network() as made:
        for host, address in hosts.items():
            made.add_host(host, address)
        yield made
