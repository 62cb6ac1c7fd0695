"""A command that runs as in a container: PID 1 of its namespaces, no root, no capabilities, files read-only.

It has this machine's files, but for /srv, which has this process's Python and packages, and /tmp.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TypeVar

from serving import WAIT_S, ServerProcess, wait_until

ADDRESS = "192.0.2.10"  # by which others reach the container
UID = 10001
CLONE_NEWNET = 0x40000000
PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "mount")

# Arguments: the folder of the application, python's two folders, and the command
PRELUDE = rf"""
set -eu
app=$1 base=$2 packages=$3
shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs /srv
mkdir -p /srv/app /srv/python /srv/packages /srv/venv/bin /srv/venv/lib
mount --bind "$app" /srv/app
mount --bind "$base" /srv/python
mount --bind "$packages" /srv/packages
ln -s /srv/python/bin/$VERSION /srv/venv/bin/python
mkdir /srv/venv/lib/$VERSION
ln -s /srv/packages /srv/venv/lib/$VERSION/site-packages
echo home = /srv/python/bin > /srv/venv/pyvenv.cfg
printf '#!/srv/venv/bin/python\nfrom fastasgi.__main__ import command\ncommand()\n' > /srv/venv/bin/fastasgi
chmod 755 /srv /srv/venv/bin/fastasgi
mount -t tmpfs tmpfs /tmp
mount -o remount,bind,ro /
mount -o remount,ro /srv
ip link set lo up
ip address add {ADDRESS}/32 dev lo
cd /srv/app
exec setpriv --reuid {UID} --regid {UID} --clear-groups \
    --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

T = TypeVar("T")


def reason_against() -> str:
    """Why nothing can run like this here; empty if it can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"{missing[0]} is not installed"
    done = subprocess.run(["unshare", "-mpnf", "--mount-proc", "true"], capture_output=True, text=True)
    return done.stderr.strip()


class Contained(ServerProcess):
    """The command, which runs in /srv/app; that has the files of a folder."""

    def __init__(self, folder: Path, *command: str, environment: dict[str, str]) -> None:
        # What mkdtemp has made is for root alone
        folder.chmod(0o755)
        version = "python{}.{}".format(*sys.version_info)
        own = {
            **environment,
            "PATH": f"/srv/venv/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": "/srv/python/lib",
            "VERSION": version,
        }
        folders = (str(folder), sys.base_prefix, sysconfig.get_path("platlib"))
        unshare = ("unshare", "-mpnf", "--mount-proc", "sh", "-c", PRELUDE, "prelude")
        super().__init__(folder, *command, environment=own, command=(*unshare, *folders))

    @property
    def pid(self) -> int:
        """Of its PID 1, as seen from here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_until(children.read_text, lambda: self.log).split()[0])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to PID 1 and wait for its end: the exit code."""
        os.kill(self.pid, number)
        return self.wait()

    def close(self) -> None:
        """End all of its processes: they share the end of PID 1."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        super().close()

    def within(self, action: Callable[[], T]) -> T:
        """What a function returns that runs in the container's network. Sockets that it makes stay there."""
        with ThreadPoolExecutor(1) as pool:  # a thread of its own, which does nothing else afterwards
            return pool.submit(self._enter_network, action).result(WAIT_S)

    def _enter_network(self, action: Callable[[], T]) -> T:
        with open(f"/proc/{self.pid}/ns/net") as network:
            if ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET):
                raise OSError("its network can't be entered")
        return action()

    def connect(self, port: int, source: str = "") -> socket.socket:
        """A connection to it, from this address of its machine."""
        return self.within(lambda: socket.create_connection((ADDRESS, port), WAIT_S, (source, 0)))

    def get(self, path: str, port: int, **fields: str) -> HTTPResponse:
        """Its answer to a GET, asked by its address and with these fields."""
        connection = HTTPConnection(ADDRESS, port, timeout=WAIT_S)
        connection.sock = self.connect(port)
        connection.request("GET", path, headers={name.replace("_", "-"): fields[name] for name in fields})
        return connection.getresponse()

    def status(self, path: str, port: int, **fields: str) -> int:
        """The status of that answer; 0 if there is none."""
        with contextlib.suppress(OSError, AssertionError):
            return self.get(path, port, **fields).status
        return 0

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that runs beside it, as `docker exec` does it, with this Python's folders."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n"]
        environment = {
            **os.environ,
            "PATH": f"/srv/venv/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": "/srv/python/lib",
        }
        return subprocess.run(
            [*enter, *command], capture_output=True, text=True, timeout=WAIT_S, env=environment
        )

    def processes(self) -> dict[int, str]:
        """Name and state of each of its processes, such as "sleep Z", by its number in there."""
        listed = self.run("sh", "-c", "cat /proc/[0-9]*/stat").stdout.splitlines()
        found = (re.match(r"(\d+) \((.*)\) (\w)", line) for line in listed)
        return {int(match[1]): f"{match[2]} {match[3]}" for match in found if match}
