"""What a reader of the figures has to know of the machine, and which of its cores do what."""

import itertools
import os
import platform
import resource
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import BenchError

MAX_GENERATORS = 4


@dataclass(frozen=True)
class Cores:
    """Which cores the server, the load generators (a process each) and the database run on."""

    server: tuple[int, ...]
    generators: tuple[int, ...]
    database: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...] = field(default=(), compare=False)
    """The machine's cores, those that are threads of a physical one together."""

    @property
    def shared(self) -> bool:
        """Whether a generator runs on a core of the server, or on another thread of the same physical one."""
        return bool(set(self.server) & set(self.generators)) or self.beside

    @property
    def beside(self) -> bool:
        """Whether a generator runs on another thread of one of the server's physical cores.

        Each slows the other there, which the kernel's account of their CPU time doesn't show.
        """
        return any(
            core != other
            for group in self.groups
            for core in set(group) & set(self.server)
            for other in set(group) & set(self.generators)
        )

    def as_json(self) -> dict[str, list[int]]:
        """For the results."""
        return {
            "server": list(self.server),
            "generators": list(self.generators),
            "database": list(self.database),
        }


def sibling_groups(cores: set[int]) -> list[tuple[int, ...]]:
    """The cores, those that share a physical one together."""
    groups: dict[str, list[int]] = {}
    for core in sorted(cores):
        path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        try:
            name = path.read_text()
        except OSError:
            name = str(core)
        groups.setdefault(name, []).append(core)
    return [tuple(group) for group in groups.values()]


def share_cores(groups: list[tuple[int, ...]], workers: int, database: bool) -> Cores:
    """Give each worker a physical core, the rest to database and generators; share if they are too few.

    A worker's sibling thread stays idle, since what ran there would slow the worker; unless there is no other
    place for a worker, or else for the generators.
    """
    by_thread = [core for threads in itertools.zip_longest(*groups) for core in threads if core is not None]
    server = tuple(by_thread[: max(workers, 1)])
    rest = [core for group in groups if not set(group) & set(server) for core in group]
    if not rest:
        rest = [core for core in by_thread if core not in server] or [server[-1]]
    database_cores = (rest.pop(),) if database and len(rest) > 1 else (rest[-1],)
    return Cores(server, tuple(rest[:MAX_GENERATORS]), database_cores if database else (), tuple(groups))


def allow_open_files(count: int) -> None:
    """Let this process, and those that it starts, have as many open files as the system allows it.

    Raises BenchError if that is less than `count`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchError(
            f"it takes {count} open files, and this shell allows {hard}: raise its hard limit (ulimit -n)"
        )


def describe(root: Path) -> dict[str, Any]:
    """The machine, kernel, Python and commit, for the results."""
    processor = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "commit": _git(root, "rev-parse", "HEAD"),
        "changed": bool(_git(root, "status", "--porcelain", "--", "fastasgi", "setup.py")),
        "load_before": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(root: Path, *arguments: str) -> str:
    """What git says, or "unknown" outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
