"""A machine whose PID 1 is a real systemd, in namespaces of its own, for units of docs/deploy.

It has this machine's files, but for /etc/passwd, /run, /srv, /tmp and /var, and loads no units but those of
a test. Its network is a loopback interface that nobody else has.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from serving import WAIT_S, wait_until

SYSTEMD = Path("/lib/systemd/systemd")
TARGETS = ("basic", "sysinit", "sockets", "network", "shutdown", "umount", "final", "exit", "test")
USERS = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\napp:x:999:999::/srv/app:/bin/sh\n"
GROUPS = "root:x:0:\nwww-data:x:33:\napp:x:999:\n"

# Runs as PID 1 of its namespaces, and becomes systemd. Arguments: the folder of the test, python's two
PRELUDE = r"""
set -eu
shared=$1 base=$2 packages=$3
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$shared/passwd" /etc/passwd
mount --bind "$shared/group" /etc/group
mount -t tmpfs tmpfs /srv
mkdir /srv/test /srv/python /srv/packages
mount --bind "$shared" /srv/test
mount --bind "$base" /srv/python
mount --bind "$packages" /srv/packages
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var
mkdir -p /var/lib /var/cache /var/tmp
mount -t tmpfs tmpfs /run
mkdir /srv/app
chmod 755 /srv /srv/app /run /var
cd /srv/app
ip link set lo up
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/srv/test/units \
    /lib/systemd/systemd --unit=test.target --log-level=notice --log-target=console
"""


class Machine:
    """It is up when made. Raises OSError where there can't be one.

    ``release`` makes a folder with an application and a venv in /srv/app/releases. ``shared`` is /srv/test.
    """

    def __init__(self, folder: Path, units: dict[str, str]) -> None:
        self.shared = folder
        (folder / "units").mkdir()
        for name in TARGETS:
            (folder / "units" / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
        for name, text in units.items():
            path = folder / "units" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (folder / "passwd").write_text(USERS)
        (folder / "group").write_text(GROUPS)
        self.console = folder / "console.log"
        self._group = _cgroup_folder() / f"fastasgi-{os.getpid()}-{folder.name}"
        self._boot()

    def _boot(self) -> None:
        if missing := [name for name in ("unshare", "nsenter", "ip", "systemctl") if not shutil.which(name)]:
            raise OSError(f"there is no {missing[0]}")
        if not SYSTEMD.exists():
            raise OSError("there is no systemd")
        self._group.mkdir()
        join = f"echo $$ > {self._group}/cgroup.procs && exec unshare --kill-child -fmpuniC --mount-proc "
        arguments = [self.shared, sys.base_prefix, sysconfig.get_path("platlib")]
        with self.console.open("wb") as console:
            self._unshare = subprocess.Popen(
                ["sh", "-c", join + 'sh -c "$0" prelude "$@"', PRELUDE, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        try:
            wait_until(self._is_up, self._tell)
        except AssertionError as error:
            self.close()
            raise OSError(str(error)) from None

    def _tell(self) -> str:
        return self.console.read_text()

    @property
    def pid(self) -> int:
        """Of its PID 1, as seen from here; 0 if it has none."""
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        with contextlib.suppress(OSError):
            return int(children.read_text().split()[0]) if children.read_text() else 0
        return 0

    def _is_up(self) -> bool:
        assert self._unshare.poll() is None, self._tell()
        return bool(self.pid) and self.systemctl("is-active", "test.target", check=False) == "active"

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints that is run in there."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-n", "-i", "-C", *command],
            capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self._tell()}"
        return done.stdout.strip()

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", *arguments, check=check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def path(self, inside: str) -> Path:
        """Where a path in there is found from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def release(self, name: str, source: str) -> None:
        """Make a release of an application, with the Python and the packages of this process."""
        folder = self.path(f"/srv/app/releases/{name}")
        major, minor = sys.version_info[:2]
        version = f"python{major}.{minor}"
        library = folder / "venv/lib" / version
        library.mkdir(parents=True)
        (folder / "venv/bin").mkdir()
        (folder / "main.py").write_text(source)
        (folder / "venv/pyvenv.cfg").write_text("home = /srv/python/bin\n")
        (folder / "venv/bin/python").symlink_to(f"/srv/python/bin/{version}")
        (library / "site-packages").symlink_to("/srv/packages")
        folder.parent.chmod(0o777)  # only the unit keeps the application from writing there

    def link(self, name: str) -> None:
        """Have /srv/app/current lead to this release."""
        self.run("ln", "-sfn", f"releases/{name}", "/srv/app/current")

    def close(self) -> None:
        self._unshare.kill()  # which takes all of its processes along
        self._unshare.wait(WAIT_S)
        # systemd's own groups are in this one, the innermost to be removed first
        wait_until(self._remove_groups, f"{self._group} can be removed")

    def _remove_groups(self) -> bool:
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(self._group, topdown=False):
                os.rmdir(folder)
        return not self._group.exists()


def _cgroup_folder() -> Path:
    """Where groups of version 2 can be made. Raises OSError."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(path)
    raise OSError("there is no cgroup2 that can be written to")
