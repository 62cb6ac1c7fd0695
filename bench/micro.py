"""Runs micro-benchmarks in this process: ``python -m bench.micro time`` or ``python -m bench.micro count``.

``time`` prints a JSON object: for each codec its least nanoseconds, or why there are none. ``count``
runs the guarded codecs for callgrind, each between two calls of getppid, on which callgrind writes what it
has counted.
"""

import gc
import json
import os
import sys
import time

from bench import micro_frames, micro_hpack, micro_http1, micro_http2
from bench.codec import Codec, Step

# A server leaves a heap behind that changes the counts of what follows by up to 3 %: HTTP/2 comes last.
CODECS = [*micro_http1.CODECS, *micro_hpack.CODECS, *micro_frames.CODECS, *micro_http2.CODECS]
REPEATS = 7
REPEAT_S = 0.05
WARM_LOOPS = 200
COUNTED_LOOPS = 1000


def run_loops(step: Step, loops: int) -> None:
    """Do it so many times."""
    for _ in range(loops):
        step()


def nothing() -> None:
    """The step whose cost is that of the loop itself."""


def time_step(step: Step) -> float:
    """Nanoseconds a step takes, the least of several repeats, which other processes disturbed the least."""
    loops = 1
    while True:
        started = time.perf_counter()
        run_loops(step, loops)
        taken_s = time.perf_counter() - started
        if taken_s >= REPEAT_S / 2:
            break
        loops *= 2
    least_s = taken_s
    for _ in range(REPEATS):
        started = time.perf_counter()
        run_loops(step, loops)
        least_s = min(least_s, time.perf_counter() - started)
    return least_s / loops * 1e9


def time_all() -> dict[str, float | str]:
    """By codec's name: nanoseconds, or why it could not be run."""
    figures: dict[str, float | str] = {}
    for codec in CODECS:
        try:
            figures[codec.name] = time_step(codec.make()) / codec.batch
        except (ImportError, ValueError) as error:
            figures[codec.name] = str(error)
    return figures


def guarded() -> list[Codec]:
    """The codecs whose instructions are counted, in order."""
    return [codec for codec in CODECS if codec.guarded]


def counted_loops(codec: Codec) -> int:
    """How many steps of a codec are counted."""
    return COUNTED_LOOPS // codec.batch


def count(step: Step, loops: int) -> None:
    """Run a step so many times between two calls of getppid, once it is warm, without garbage collections."""
    run_loops(step, WARM_LOOPS)
    gc.collect()
    gc.disable()
    os.getppid()
    run_loops(step, loops)
    os.getppid()
    gc.enable()


def count_all() -> None:
    """Count the empty step and each guarded codec before the next is made. Raises what a codec raises."""
    count(nothing, COUNTED_LOOPS)
    for codec in guarded():
        count(codec.make(), counted_loops(codec))


if __name__ == "__main__":
    if sys.argv[1] == "count":
        count_all()
    else:
        print(json.dumps(time_all()))
