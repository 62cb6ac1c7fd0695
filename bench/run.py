"""A run: the servers take turns at each workload, for several rounds."""

import contextlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import database, machine, results
from bench.environment import ROOT, Environment
from bench.errors import BenchError, UsageError
from bench.servers import SERVERS, Server
from bench.turn import Setup, take_turn
from bench.workloads import WORKLOADS, Workload

# A server that can't do a workload in one round can't in the next.
FINAL = ("unsupported", "missing")


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    servers: tuple[Server, ...]
    workloads: tuple[Workload, ...]
    seconds: float
    rounds: int
    warmup_s: float
    port: int = 0


def carry_out(plan: Plan, environment: Environment, folder: Path) -> dict[str, Any]:
    """Make the run; its results, which are also in `folder` after each turn. Raises BenchError.

    KeyboardInterrupt ends the run and not the results: they say so. So does the end of who reads what this
    prints.
    """
    build = None
    if any(server.needs_fastasgi for server in plan.servers):
        try:
            build = environment.build_working_tree()
        except BenchError as error:
            environment.notes.append(str(error))
    versions = environment.versions()
    found: dict[str, Any] = {
        "format": results.FORMAT,
        "machine": machine.describe(ROOT) | {"python": environment.python_version()},
        "versions": versions,
        "settings": {"seconds": plan.seconds, "rounds": plan.rounds, "warmup_s": plan.warmup_s},
        "servers": {server.name: _describe_server(server, versions) for server in plan.servers},
        "workloads": {work.name: _describe(work) for work in plan.workloads},
        "notes": environment.notes,
        "interrupted": False,
        "turns": [],
    }
    groups = machine.sibling_groups(os.sched_getaffinity(0))
    setup = Setup(environment, groups, plan.seconds, plan.warmup_s, _logs(folder), plan.port, build)
    try:
        with contextlib.ExitStack() as stack:
            if any(work.database for work in plan.workloads):
                setup = _with_database(setup, stack, found)
            for work in plan.workloads:
                _take_rounds(plan, setup, work, found, folder)
    except KeyboardInterrupt:
        found["interrupted"] = True
    except BrokenPipeError:
        found["interrupted"] = True
        results.save(folder, found)
        raise
    results.save(folder, found)
    if found["interrupted"]:
        print("\nbench: interrupted; what was measured is kept", file=sys.stderr)
    return found


def _logs(folder: Path) -> Path:
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def _with_database(setup: Setup, stack: contextlib.ExitStack, found: dict[str, Any]) -> Setup:
    cores = machine.share_cores(setup.groups, 1, database=True)
    try:
        return replace(setup, database=stack.enter_context(database.running(cores.database)))
    except (BenchError, OSError) as error:
        found["notes"].append(str(error))
        return setup


def _take_rounds(plan: Plan, setup: Setup, work: Workload, found: dict[str, Any], folder: Path) -> None:
    """All rounds of one workload. The servers alternate, so that what slows the machine slows all of them."""
    out: set[str] = set()
    cores = machine.share_cores(setup.groups, work.workers, work.database)
    found["workloads"][work.name]["cores"] = cores.as_json()
    for number in range(plan.rounds):
        for server in plan.servers:
            if server.name in out or not server.takes_part(work):
                continue
            turn = take_turn(setup, server, work, cores)
            found["turns"].append({"workload": work.name, "server": server.name, "round": number, **turn})
            results.save(folder, found)
            print(describe_turn(work, server, turn), flush=True)
            if turn["status"] in FINAL:
                out.add(server.name)


def _describe_server(server: Server, versions: dict[str, str]) -> dict[str, str]:
    names = list(server.packages) + (["node"] if server.name == "node" else [])
    shown = [
        f"{name} {versions[name.lower().replace('_', '-')]}"
        for name in names
        if name.lower().replace("_", "-") in versions
    ]
    return {"title": server.title, "settings": server.settings, "versions": ", ".join(shown)}


def _describe(work: Workload) -> dict[str, Any]:
    names = ("title", "kind", "connections", "depth", "rate_per_s", "workers", "tls", "unit")
    return {name: getattr(work, name) for name in names}


def describe_turn(work: Workload, server: Server, turn: dict[str, Any]) -> str:
    """A line for the terminal."""
    start = f"{work.name:19} {server.name:18}"
    if turn["status"] != "ok":
        return f"{start} {turn['status']}: {turn['reason']}"
    if work.kind == "start":
        return f"{start} {turn['startup_s'] * 1e3:9.0f} ms to the first answer, {turn['memory_mib']:.0f} MiB"
    if work.kind == "burst":
        first = f"{turn['median_s'] * 1e3:.0f} ms, at worst {turn['worst_s'] * 1e3:.0f} ms"
        standing = f"{turn['standing_during_s'] * 1e3:.0f} ms, {turn['standing_ratio']:.2f} times as before"
        return f"{start} first answers within {first}; of standing connections 99 % within {standing}"
    if work.kind == "overload":
        return f"{start} {turn['goodput']:9.2f} of {turn['capacity']:.0f} a second answered in time"
    if work.kind == "idle":
        return f"{start} {turn['memory_mib']:9.0f} MiB, {turn['connection_kib']:.1f} KiB a connection"
    return (
        f"{start} {turn['rate']:9.0f} {work.unit}/s  "
        f"CPU {turn['user_us']:6.1f} user {turn['system_us']:6.1f} system us"
        f"  busy: server {turn['server_busy']:4.0%} "
        f"generator {turn['generator_busy']:4.0%}  limit: {turn['limit']}"
    )


def choose(names: str, known: dict[str, Any], what: str) -> tuple[Any, ...]:
    """The members of `known` with these names, separated by commas, or all. Raises UsageError."""
    if names == "all":
        return tuple(known.values())
    chosen = []
    for name in names.split(","):
        if name not in known:
            raise UsageError(f"--{what}: there is no {name!r}; choose from: all {' '.join(known)}")
        chosen.append(known[name])
    return tuple(chosen)


def plan_of(servers: str, workloads: str, seconds: float, rounds: int, warmup_s: float, port: int) -> Plan:
    """The plan that the options ask for. Raises UsageError."""
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds {seconds}: choose more than 0 and at most 3600")
    if not 0 <= warmup_s <= 3600:
        raise UsageError(f"--warmup {warmup_s}: choose from 0 to 3600")
    if not 0 < rounds <= 1000:
        raise UsageError(f"--rounds {rounds}: choose from 1 to 1000")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: choose from 0 to 65535")
    chosen, works = choose(servers, SERVERS, "servers"), choose(workloads, WORKLOADS, "workloads")
    if not any(server.takes_part(work) for server in chosen for work in works):
        raise UsageError(f"--workloads {workloads}: none is for {servers}; choose hello, or other servers")
    return Plan(chosen, works, seconds, rounds, warmup_s, port)
