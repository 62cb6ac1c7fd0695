"""A PostgreSQL of the bench's own: in a temporary folder, on a Unix socket, with TechEmpower's tables."""

import contextlib
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import accounting, processes
from bench.errors import BenchError, MissingError

START_S = 30.0
POLL_S = 0.05
POOL = 16
# The fortunes of TechEmpower's specification, by their ids.
FORTUNES = (
    "fortune: No such file or directory",
    "A computer scientist is someone who fixes things that aren't broken.",
    "After enough decimal places, nobody gives a damn.",
    "A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1",
    "A computer program does what you tell it to do, not what you want it to do.",
    "Emacs is a nice operating system, but I prefer UNIX. — Tom Christaensen",
    "Any program that runs right is obsolete.",
    "A list is only as strong as its weakest link. — Donald Knuth",
    "Feature: A bug with seniority.",
    "Computers make very fast, very accurate mistakes.",
    '<script>alert("This should not be displayed in a browser alert box.");</script>',
    "フレームワークのベンチマーク",
)
SCHEMA = """
CREATE TABLE world (id integer PRIMARY KEY, randomnumber integer NOT NULL);
INSERT INTO world SELECT n, 1 + floor(random() * 10000)::integer FROM generate_series(1, 10000) AS n;
CREATE TABLE fortune (id integer PRIMARY KEY, message text NOT NULL);
"""


def find_program(name: str) -> str:
    """The path of one of PostgreSQL's programs; Debian keeps them out of PATH. Raises MissingError."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    path = str(versions[-1]) if versions else shutil.which(name)
    if not path:
        raise MissingError(f"{name} is not installed (Debian: apt install postgresql)")
    return path


class Database:
    """A running server. `sockets` is the folder that clients take as its host."""

    def __init__(self, group: processes.Processes, folder: Path, cores: tuple[int, ...]) -> None:
        self.sockets = folder
        self._log = folder / "log"
        self._log.touch()
        options: dict[str, object] = {"cwd": folder}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            owner = pwd.getpwnam(_unprivileged_user())
            for path in (folder, self._log):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            options |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        data = folder / "data"
        initdb = [find_program("initdb"), "-D", str(data)]
        initdb += ["-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        done = processes.run(initdb, **options)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise BenchError(f"initdb failed: {lines[-1]}")
        # TechEmpower's own settings that matter for reads: memory, no waiting for a disk.
        settings = [
            "listen_addresses=",
            "shared_buffers=256MB",
            "fsync=off",
            "synchronous_commit=off",
            "jit=off",
        ]
        command = [find_program("postgres"), "-D", str(data), "-k", str(folder)]
        command += [part for setting in settings for part in ("-c", setting)]
        self._process = group.start(command, cores, self._log, **options)
        self._wait_until_up()
        rows = ", ".join(
            f"({number}, '{text.replace(chr(39), chr(39) * 2)}')" for number, text in enumerate(FORTUNES, 1)
        )
        self._query("postgres", "CREATE DATABASE bench")
        self._query("bench", f"{SCHEMA} INSERT INTO fortune VALUES {rows}; ANALYZE")

    def _query(self, database: str, text: str) -> None:
        command = [find_program("psql"), "-h", str(self.sockets), "-U", "bench", "-d", database, "-q"]
        command += ["-v", "ON_ERROR_STOP=1", "-c", text]
        done = processes.run(command)
        if done.returncode:
            raise BenchError(f"psql: {done.stderr.strip()}")

    def _wait_until_up(self) -> None:
        ends = time.monotonic() + START_S
        ready = [find_program("pg_isready"), "-q", "-h", str(self.sockets)]
        while processes.run(ready).returncode:
            if self._process.poll() is not None or time.monotonic() > ends:
                raise BenchError(f"PostgreSQL did not start: {processes.last_line(self._log)}")
            time.sleep(POLL_S)

    @staticmethod
    def pool(workers: int) -> int:
        """Connections for each of so many workers: the same number for every server."""
        return max(1, POOL // workers)

    def cpu(self) -> accounting.CPUTime:
        """CPU time so far, of all its processes."""
        return accounting.tree_cpu(self._process.pid)


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingError("there is no user postgres or nobody to run PostgreSQL as")


@contextlib.contextmanager
def running(cores: tuple[int, ...]) -> Iterator[Database]:
    """A database for the length of the block; nothing of it is left. Raises BenchError."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-pg-", ignore_cleanup_errors=True) as folder,
        processes.Processes() as group,
    ):
        yield Database(group, Path(folder), cores)
