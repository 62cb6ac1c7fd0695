"""Runs a fuzz target case by case. Each case is made from one number, its seed, which repeats it.

The environment variable FUZZ_SECONDS is the time to spend, 60 unless set.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random, SystemRandom
from typing import Protocol

CASE_TIMEOUT_S = 60


class Target(Protocol):
    """What is fuzzed."""

    def run_case(self, seed: int) -> None:
        """Raise where the case of this seed breaks an invariant."""

    def run_input(self, data: bytes) -> None:
        """Run one input as a case, in as many ways as make sense."""

    def close(self) -> None:
        """Release what the cases shared; raise where they have left something behind."""


def run_cases(target: Target, seeds: Iterable[int]) -> int:
    """Run these cases; returns how many. An error that comes out has a note that says how to repeat it."""
    count = 0
    for seed in seeds:
        try:
            target.run_case(seed)
        except BaseException as error:
            error.add_note(f"This case again: --seed {seed}")
            raise
        count += 1
    target.close()
    return count


def _noted_seeds(run: int, seconds: float, notes: int) -> Iterator[int]:
    """Seeds for so long, each written to the file `notes` before its case, which a signal ends in time."""
    rng = Random(run)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seed = rng.getrandbits(48)
        os.pwrite(notes, b"%-15d\n" % seed, 0)
        signal.alarm(CASE_TIMEOUT_S)
        yield seed
    signal.alarm(0)


def main(make_target: Callable[[], Target]) -> None:
    """The command line of a target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, help="repeat the case of this seed, as a failure names it")
    parser.add_argument("--input", type=Path, help="run the bytes of this file")
    parser.add_argument("--run", type=int, help="number that the seeds are made from; default: a new one")
    options = parser.parse_args()
    target = make_target()
    if options.seed is not None or options.input is not None:
        if options.input is not None:
            target.run_input(options.input.read_bytes())
        if options.seed is not None:
            target.run_case(options.seed)
        target.close()
        return
    run = SystemRandom().getrandbits(32) if options.run is None else options.run
    seconds = float(os.environ.get("FUZZ_SECONDS") or 60)
    notes, path = tempfile.mkstemp(prefix="fuzz-seed-")
    print(f"{sys.argv[0]} --run {run}; after a crash: --seed $(cat {path})", flush=True)
    count = run_cases(target, _noted_seeds(run, seconds, notes))
    os.close(notes)
    os.unlink(path)
    print(f"{count} cases, all well")
