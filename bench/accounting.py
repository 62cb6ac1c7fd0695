"""CPU time and memory of a process tree, and of the machine, from Linux's /proc.

A tree is a root process, its descendants, and all processes of its session: so an orphan whose parent has
ended still counts.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CPUTime:
    """Seconds of CPU time, in user space and in the kernel."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        """Both together."""
        return self.user_s + self.system_s

    def __sub__(self, earlier: "CPUTime") -> "CPUTime":
        return CPUTime(self.user_s - earlier.user_s, self.system_s - earlier.system_s)


@dataclass(frozen=True)
class ProcessStat:
    """A line of /proc/PID/stat (proc(5)). Times are ticks; those of children are of the reaped ones."""

    pid: int
    state: str
    parent: int
    session: int
    user: int
    system: int
    children_user: int
    children_system: int


def parse_stat(line: str) -> ProcessStat:
    """Read a line of /proc/PID/stat. The name in it may hold blanks and parentheses."""
    pid = int(line.split(" ", 1)[0])
    fields = line.rsplit(")", 1)[1].split()
    return ProcessStat(pid, fields[0], int(fields[1]), int(fields[3]), *map(int, fields[11:15]))


def read_processes() -> list[ProcessStat]:
    """All processes that live now; one that ends meanwhile is left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found.append(parse_stat(Path(f"/proc/{name}/stat").read_text()))
    return found


def select_tree(processes: list[ProcessStat], root: int) -> list[ProcessStat]:
    """The processes of the tree whose root is the process, and session, `root`."""
    children: dict[int, list[ProcessStat]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    pending = [process for process in processes if process.pid == root or process.session == root]
    found = {}
    while pending:
        process = pending.pop()
        if process.pid not in found:
            found[process.pid] = process
            pending += children.get(process.pid, ())
    return list(found.values())


def tree_pids(root: int) -> list[int]:
    """The processes of a tree that run now. What has ended and was not waited for yet doesn't."""
    return [process.pid for process in select_tree(read_processes(), root) if process.state not in "ZX"]


def tree_cpu(root: int) -> CPUTime:
    """CPU time so far of a tree, with that of children which have ended and were waited for.

    The kernel counts in ticks, mostly of 10 ms.
    """
    tree = select_tree(read_processes(), root)
    return CPUTime(
        sum(process.user + process.children_user for process in tree) / TICKS_PER_S,
        sum(process.system + process.children_system for process in tree) / TICKS_PER_S,
    )


def tree_memory_mib(root: int) -> float:
    """Memory of a tree in MiB: the proportional set size, in which pages shared by processes count once."""
    total_kib = 0
    for pid in tree_pids(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024


def cores_busy_s(cores: frozenset[int]) -> float:
    """Seconds so far in which these cores ran anything at all, time stolen by a hypervisor included."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _wait, interrupt, soft, steal = map(int, fields[:8])
            total += user + nice + system + interrupt + soft + steal
    return total / TICKS_PER_S


def listener_inodes(port: int) -> set[str]:
    """The inodes of the TCP sockets that listen on `port`, IPv4 and IPv6."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    found.add(fields[9])
    return found


def tree_listens(root: int, port: int) -> bool:
    """Whether a process of the tree holds a socket that listens on `port`."""
    wanted = {f"socket:[{inode}]" for inode in listener_inodes(port)}
    for pid in tree_pids(root):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{name}") in wanted:
                        return True
    return False
