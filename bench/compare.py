"""Two commits compared: both are built, and take turns at some workloads."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine
from bench.environment import Environment
from bench.errors import UsageError
from bench.figures import Ratio, cpu_us, ratio_of_pairs
from bench.servers import SERVERS
from bench.turn import Setup, take_turn
from bench.workloads import Workload


@dataclass(frozen=True)
class Comparison:
    """The rounds of both commits at one workload, and what went wrong with others."""

    work: Workload
    pairs: list[tuple[dict[str, Any], dict[str, Any]]]
    """The figures of the base and of the working tree, a pair a round."""
    reasons: list[str]


def check(workloads: Sequence[Workload]) -> None:
    """Raise UsageError for a workload that two commits can't be compared at."""
    for work in workloads:
        if work.database:
            raise UsageError(f"--workloads {work.name}: compare starts no PostgreSQL; choose another")
        if not work.has_rate:
            raise UsageError(f"--workloads {work.name}: it has no rate to compare; choose another")


def carry_out(
    environment: Environment,
    base: str,
    workloads: Sequence[Workload],
    seconds: float,
    rounds: int,
    warmup_s: float,
) -> list[Comparison]:
    """Build `base` and the working tree and let them take turns, the first one alternating.

    Raises BenchError.
    """
    builds = {"base": environment.build_revision(base), "now": environment.build_working_tree()}
    groups = machine.sibling_groups(os.sched_getaffinity(0))
    server = SERVERS["fastasgi"]
    found = []
    with tempfile.TemporaryDirectory() as logs:
        setup = Setup(environment, groups, seconds, warmup_s, Path(logs))
        for work in workloads:
            cores = machine.share_cores(groups, work.workers, work.database)
            comparison = Comparison(work, [], [])
            for number in range(rounds):
                order = ("base", "now") if number % 2 == 0 else ("now", "base")
                turns = {
                    name: take_turn(replace(setup, fastasgi=builds[name]), server, work, cores)
                    for name in order
                }
                bad = [f"{name}: {turn['reason']}" for name, turn in turns.items() if turn["status"] != "ok"]
                comparison.reasons.extend(bad)
                if not bad:
                    comparison.pairs.append((turns["base"], turns["now"]))
            found.append(comparison)
            print(describe(comparison), flush=True)
    return found


def describe(comparison: Comparison) -> str:
    """Lines for the terminal: how much greater rate and CPU time are now than at the base."""
    name = f"{comparison.work.name:19}"
    lines = [f"{name} {reason}" for reason in dict.fromkeys(comparison.reasons)]
    if comparison.pairs:
        rate = ratio_of_pairs([(now["rate"], base["rate"]) for base, now in comparison.pairs])
        costs = [(cpu_us(now), cpu_us(base)) for base, now in comparison.pairs]
        # A short turn may take less CPU time than the kernel's clock shows.
        costs = [pair for pair in costs if min(pair) > 0]
        cost = _show(ratio_of_pairs(costs)) if costs else "too little to measure: choose more --seconds"
        limits = {now["limit"] for _, now in comparison.pairs} | {
            base["limit"] for base, _ in comparison.pairs
        }
        shown = "fixed by the load" if limits == {"rate"} else _show(rate)
        lines.append(f"{name} rate {shown}   CPU time a request {cost}   limit: {', '.join(sorted(limits))}")
    return "\n".join(lines)


def _show(ratio: Ratio) -> str:
    if ratio.low is None:
        return f"x {ratio.value:.3f} (one round: no interval)"
    verdict = "" if ratio.certain else ", no difference shown"
    return f"x {ratio.value:.3f} [{ratio.low:.3f} to {ratio.high:.3f}{verdict}]"
