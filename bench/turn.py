"""One turn: a server is started, probed, driven, measured and stopped."""

import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import accounting, processes
from bench.clients import Address
from bench.environment import HERE, ROOT, Environment
from bench.errors import BenchError, MissingError, UnsupportedError
from bench.histogram import Histogram
from bench.machine import Cores, allow_open_files
from bench.probe import ProbeError, check_free, free_port, wait_until_up
from bench.servers import Server
from bench.workloads import Workload

READY_S = 90.0
FIGURES_S = 30.0
# So long a peak takes at most, beside its warm-up and an overload's window.
PEAK_S = 240.0
# And so long it waits for the other workers when the first one of several answers.
WORKERS_S = 1.0
POLL_S = 0.05
INHERITED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"})
# Beside its connections a process has listeners, pipes, libraries, a database's connections.
SPARE_FILES = 200
# A figure with more failures than this share of its answers is none.
MAX_FAILURES = 0.01


class CrashError(BenchError):
    """The server or the load generator ended in the middle of a turn."""


@dataclass(frozen=True)
class Setup:
    """What all turns of a run have in common."""

    environment: Environment
    groups: list[tuple[int, ...]]
    seconds: float
    warmup_s: float
    logs: Path
    port: int = 0
    """0: each turn takes one that is free."""
    fastasgi: Path | None = None
    """The build to measure."""
    database: Any = None
    """The Database, if one runs."""

    @property
    def overload_s(self) -> float:
        """The length of an overload: longer than other windows, since its queues take time to grow."""
        return 2 * self.seconds


def take_turn(setup: Setup, server: Server, work: Workload, cores: Cores) -> dict[str, Any]:
    """Status, reason and figures of one turn; what goes wrong with a server is in there and not raised."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return {"status": "ok", **_measure(setup, server, work, cores, Path(folder) / "socket")}
    except MissingError as error:
        return {"status": "missing", "reason": str(error)}
    except UnsupportedError as error:
        return {"status": "unsupported", "reason": f"not supported by this server: {error}"}
    except (BenchError, OSError) as error:
        return {"status": "failed", "reason": str(error)}


def _measure(setup: Setup, server: Server, work: Workload, cores: Cores, uds: Path) -> dict[str, Any]:
    port = setup.port or free_port()
    address = str(uds) if work.uds else ("127.0.0.1", port)
    command = server.command(work, setup.environment.place(port, uds))
    if work.database and setup.database is None:
        raise MissingError("PostgreSQL is not installed, or did not start (Debian: apt install postgresql)")
    if work.kind == "h2load" and not shutil.which("h2load"):
        raise MissingError("h2load is not installed (Debian: apt install nghttp2-client)")
    if server.needs_fastasgi and setup.fastasgi is None:
        raise MissingError("fastasgi was not built")
    allow_open_files(work.most_connections(setup.overload_s) + SPARE_FILES)
    check_free(port)
    log = setup.logs / f"{server.name}.log"
    log.write_text("")
    variables = _variables(setup, server, work)
    with processes.Processes() as group:
        started = time.monotonic()
        process = group.start(command, cores.server, log, cwd=HERE / "apps", env=variables)
        generators = Generators(setup, work, cores, address)
        if work.kind != "start":
            # They take a second to import locust; on other cores the server starts meanwhile.
            generators.start(group)
        startup_s = wait_until_up(process, address, work, log, started)
        # Nobody else knows the folder of a Unix socket.
        if not work.uds and not accounting.tree_listens(process.pid, port):
            raise ProbeError(f"another process answers on port {port}")
        if work.kind == "start":
            memory_mib = accounting.tree_memory_mib(process.pid)
            return {
                "startup_s": startup_s,
                "memory_mib": memory_mib,
                "cpu_s": accounting.tree_cpu(process.pid).total_s,
            }
        watch = Watch(process, log)
        if work.peak:
            return _await_peak(setup, work, cores, generators, watch)
        return _load(setup, work, cores, generators, watch)


def _inherited() -> dict[str, str]:
    """Those variables of the bench's environment that servers and generators get too.

    Many a server takes settings from others, such as GUNICORN_CMD_ARGS, NODE_OPTIONS or WEB_CONCURRENCY.
    """
    return {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}


def _variables(setup: Setup, server: Server, work: Workload) -> dict[str, str]:
    """The server's environment: the applications and the build of fastasgi, and the database."""
    paths = [str(HERE / "apps")] + ([str(setup.fastasgi)] if server.needs_fastasgi else [])
    variables = _inherited()
    variables |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    variables["NODE_PATH"] = str(setup.environment.node_modules)
    if work.database:
        variables |= {
            "BENCH_DATABASE": str(setup.database.sockets),
            "BENCH_POOL": str(setup.database.pool(work.workers)),
        }
    return variables


class Generators:
    """The load generators' processes, one on each of their cores."""

    def __init__(self, setup: Setup, work: Workload, cores: Cores, address: Address) -> None:
        self._setup, self._work, self._cores, self._address = setup, work, cores, address
        self._log = setup.logs / "generator.log"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, group: processes.Processes) -> None:
        """Start them in this group; they wait for their jobs. Raises OSError."""
        variables = {**_inherited(), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environment, work = self._setup.environment, self._work
        command = environment.generator
        if work.peak:
            command = environment.peaks
        elif work.kind == "h2load":
            command = environment.h2load
        count = min(len(self._cores.generators), work.connections)
        if work.peak or work.kind in ("rated", "idle", "h2load"):
            count = 1
        for core in self._cores.generators[:count]:
            process = group.start(
                list(command),
                (core,),
                self._log,
                env=variables,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.processes.append(process)

    def begin(self) -> None:
        """Give them their jobs. Raises CrashError."""
        for number, process in enumerate(self.processes):
            self._tell(process, json.dumps(self._job(number)))

    def _job(self, number: int) -> dict[str, Any]:
        work, count = self._work, len(self.processes)
        return {
            "address": self._address,
            "kind": work.kind,
            "path": work.path,
            "connections": work.connections // count + (number < work.connections % count),
            "joins": work.joins,
            "fixed": work.fixed,
            "depth": work.depth,
            "rate": work.rate_per_s,
            "arrivals": work.arrivals,
            "times_capacity": work.times_capacity,
            "pool": work.pool,
            "most": work.most_connections(self._setup.overload_s),
            "tls": work.tls,
            "request": work.request.decode("latin-1"),
            "warmup_s": self._setup.warmup_s,
            "window_s": self._setup.seconds if work.has_rate else self._setup.overload_s,
        }

    def _tell(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise CrashError(f"the load generator ended: {processes.last_line(self._log)}") from None

    def tell_all(self, line: str) -> None:
        """Send each of them a line. Raises CrashError."""
        for process in self.processes:
            self._tell(process, line)

    def read_all(self, watch: "Watch", deadline_s: float) -> list[str]:
        """A line of each.

        Raises CrashError if one of them, or the server, ends before, or time runs out.
        """
        lines = []
        ends = time.monotonic() + deadline_s
        for process in self.processes:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not selector.select(POLL_S):
                    watch.check()
                    if time.monotonic() > ends:
                        raise CrashError(f"the load generator said nothing for {deadline_s:.0f} s")
            line = process.stdout.readline()
            if not line:
                raise CrashError(f"the load generator ended: {processes.last_line(self._log)}")
            lines.append(line)
        return lines


@dataclass(frozen=True)
class Watch:
    """Sees to it that the server lives."""

    process: subprocess.Popen[str]
    log: Path

    def check(self) -> None:
        """Raise CrashError if the server has ended."""
        code = self.process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            raise CrashError(
                f"the server crashed in the middle of the run with {how}: {processes.last_line(self.log)}"
            )

    def check_processes(self, pids: set[int]) -> None:
        """Raise CrashError if one of its processes has ended.

        A master that replaces its workers hides a crash from everyone but their connections.
        """
        if gone := pids - set(accounting.tree_pids(self.process.pid)):
            raise CrashError(
                f"{len(gone)} of the server's {len(pids)} processes ended in the middle of the run: "
                f"{processes.last_line(self.log)}"
            )

    def sleep(self, seconds: float) -> None:
        """Let this time pass. Raises CrashError as soon as the server has ended."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            self.check()


def _await_peak(
    setup: Setup, work: Workload, cores: Cores, generators: Generators, watch: Watch
) -> dict[str, Any]:
    """The figures of a peak, which the generator takes by itself, and what limited them."""
    root = watch.process.pid
    if work.workers > 1:
        watch.sleep(WORKERS_S)
    pids = set(accounting.tree_pids(root))
    before = _read_clocks(setup, work, cores, root)
    generators.begin()
    deadline_s = PEAK_S + setup.warmup_s + 2 * setup.overload_s
    figures: dict[str, Any] = json.loads(generators.read_all(watch, deadline_s)[0])
    clocks = _read_clocks(setup, work, cores, root) - before
    watch.check_processes(pids)
    if failure := figures.get("failure"):
        raise CrashError(failure)
    limit = limit_of(
        work,
        cores,
        rate=0.0,
        server_busy=clocks.cpu.total_s / clocks.elapsed_s / len(cores.server),
        server_cores_used=clocks.server_cores_s / clocks.elapsed_s / len(cores.server),
        generator_busy=figures.get("generator_busy", 0.0),
        generator_cores_used=clocks.generator_cores_s / clocks.elapsed_s / len(cores.generators),
        database_busy=0.0,
        # The latencies of a peak are so long that the generator's own lateness is none of them.
        lateness_s=0.0,
    )
    return figures | {"limit": limit}


def _load(setup: Setup, work: Workload, cores: Cores, generators: Generators, watch: Watch) -> dict[str, Any]:
    """Drive the load for one window and take the figures."""
    root = watch.process.pid
    resting_mib = accounting.tree_memory_mib(root)
    generators.begin()
    generators.read_all(watch, READY_S + setup.warmup_s)
    pids = set(accounting.tree_pids(root))
    before = _read_clocks(setup, work, cores, root)
    generators.tell_all("go")
    watch.sleep(setup.seconds)
    after = _read_clocks(setup, work, cores, root)
    generators.tell_all("stop")
    parts = [json.loads(line) for line in generators.read_all(watch, FIGURES_S)]
    # The load goes on until the generators' end: this is the memory of a server under load.
    memory_mib = accounting.tree_memory_mib(root)
    watch.check_processes(pids)
    window = merge(parts)
    if window["refusal"]:
        raise UnsupportedError(window["refusal"])
    return work_out(work, window, after - before, cores=cores, memory_mib=memory_mib, resting_mib=resting_mib)


@dataclass(frozen=True)
class Clocks:
    """Seconds so far, or, as a difference, of a window: all read at the same moment but for milliseconds."""

    elapsed_s: float
    cpu: accounting.CPUTime
    """Of the server."""
    database_s: float
    """CPU time of PostgreSQL."""
    server_cores_s: float
    """In which anything at all ran on the server's cores."""
    generator_cores_s: float

    def __sub__(self, earlier: "Clocks") -> "Clocks":
        return Clocks(
            self.elapsed_s - earlier.elapsed_s,
            self.cpu - earlier.cpu,
            self.database_s - earlier.database_s,
            self.server_cores_s - earlier.server_cores_s,
            self.generator_cores_s - earlier.generator_cores_s,
        )


def _read_clocks(setup: Setup, work: Workload, cores: Cores, root: int) -> Clocks:
    """All clocks, in the same order each time, so that each has a window as long as the others'."""
    return Clocks(
        time.perf_counter(),
        accounting.tree_cpu(root),
        setup.database.cpu().total_s if work.database else 0.0,
        accounting.cores_busy_s(frozenset(cores.server)),
        accounting.cores_busy_s(frozenset(cores.generators)),
    )


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The windows of several generators as one; `busy` is of the busiest."""
    latencies, lateness, failures, before = Histogram(), Histogram(), Counter[str](), Counter[str]()
    for part in parts:
        latencies.merge(Histogram(map(tuple, part["latencies"])))
        lateness.merge(Histogram(map(tuple, part["lateness"])))
        failures.update(part["failures"])
        before.update(part["failures_before"])
    return {
        "elapsed_s": sum(part["elapsed_s"] for part in parts) / len(parts),
        "count": sum(part["count"] for part in parts),
        "joined": sum(part["joined"] for part in parts),
        "received_bytes": sum(part["received_bytes"] for part in parts),
        "overdue": sum(part["overdue"] for part in parts),
        "busy": max(part["busy"] for part in parts),
        "latencies": latencies,
        "lateness": lateness,
        "failures": dict(failures),
        "failures_before": dict(before),
        "refusal": next((part["refusal"] for part in parts if part["refusal"]), ""),
    }


def work_out(
    work: Workload,
    window: dict[str, Any],
    clocks: Clocks,
    *,
    cores: Cores,
    memory_mib: float,
    resting_mib: float,
) -> dict[str, Any]:
    """The figures of a window. Raises CrashError if it holds none that could be believed.

    The generators count for a time of their own, some milliseconds off the clocks': CPU time for each request
    is CPU time a second by the clocks, over answers a second by the generators.
    """
    _check(work, window)
    if work.kind == "idle":
        each_kib = (memory_mib - resting_mib) * 1024 / work.connections
        return {"memory_mib": memory_mib, "resting_mib": resting_mib, "connection_kib": each_kib}
    rate = window["count"] / window["elapsed_s"]
    # Requests that were answered while the clocks ran.
    requests = rate * clocks.elapsed_s
    shares = {
        "server_busy": clocks.cpu.total_s / clocks.elapsed_s / len(cores.server),
        "server_cores_used": clocks.server_cores_s / clocks.elapsed_s / len(cores.server),
        "generator_busy": window["busy"],
        "generator_cores_used": clocks.generator_cores_s / clocks.elapsed_s / len(cores.generators),
        "database_busy": clocks.database_s / clocks.elapsed_s / max(len(cores.database), 1),
    }
    lateness_s = window["lateness"].quantile(0.99) if window["lateness"].counts else 0.0
    return {
        "rate": rate,
        "count": window["count"],
        "elapsed_s": window["elapsed_s"],
        "received_mib_per_s": window["received_bytes"] / window["elapsed_s"] / (1 << 20),
        "user_us": clocks.cpu.user_s / requests * 1e6,
        "system_us": clocks.cpu.system_s / requests * 1e6,
        "database_us": clocks.database_s / requests * 1e6,
        **shares,
        "limit": limit_of(work, cores, rate=rate, lateness_s=lateness_s, **shares),
        "lateness_p99_s": lateness_s,
        "memory_mib": memory_mib,
        "latencies": window["latencies"].as_pairs(),
        "overdue": window["overdue"],
        "failures": window["failures"],
    }


def _check(work: Workload, window: dict[str, Any]) -> None:
    """Raise CrashError if too much of a window failed."""
    count, failures = window["count"], sum(window["failures"].values())
    reasons = Counter(window["failures"]) + Counter(window["failures_before"])
    reason = max(reasons, key=lambda name: reasons[name], default="no reason is known")
    if work.joins and window["joined"] < work.connections:
        raise CrashError(f"{window['joined']} of {work.connections} connections had an answer: {reason}")
    if work.kind == "idle":
        if failures:
            raise CrashError(f"{failures} of {work.connections} connections did not stand: {reason}")
    elif not count:
        raise CrashError(f"nothing was answered: {reason}")
    elif failures > MAX_FAILURES * count:
        raise CrashError(f"{failures} failures beside {count} answers: {reason}")


LIMITS = {
    "server": "the server used up its cores",
    "generator": "a load generator used up its core, or was late: the server could do more",
    "shared core": "server and generator share a core, or two threads of one: the server could do more",
    "other processes": "other processes took the rest of a core: the server could do more",
    "database": "PostgreSQL used up its core: the server could do more",
    "rate": "the load has a fixed rate, which was kept up: that says nothing of the server's own",
    "waiting": "no core was used up: the latency of each answer counts",
}

BUSY = 0.9
KEPT_UP = 0.95
MAX_LATENESS_S = 0.001


def limit_of(
    work: Workload,
    cores: Cores,
    *,
    rate: float,
    server_busy: float,
    server_cores_used: float,
    generator_busy: float,
    generator_cores_used: float,
    database_busy: float,
    lateness_s: float,
) -> str:
    """What kept the figure from being higher, a key of LIMITS.

    The shares are of the cores in question: 1 is all of them.
    """
    if lateness_s > MAX_LATENESS_S:
        return "generator"
    if work.rate_per_s and rate >= KEPT_UP * work.rate_per_s:
        return "rate"
    if server_busy >= BUSY and not cores.beside:
        return "server"
    # At a fixed rate the generator turns without rest: its share of a core says nothing, how late it was
    # does.
    if generator_busy >= BUSY and work.kind != "rated":
        return "generator"
    if database_busy >= BUSY:
        return "database"
    if max(server_busy, server_cores_used, generator_cores_used) >= BUSY:
        if cores.shared:
            return "shared core"
        shares_core = bool(set(cores.database) & set(cores.generators))
        if work.database and database_busy + generator_busy >= BUSY and shares_core:
            return "database"
        return "other processes"
    return "waiting"
