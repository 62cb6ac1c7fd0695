"""h2load of nghttp2 as the load generator, in a process of its own: ``python -m bench.h2load``.

A second opinion on what bench.generator measures of HTTP/2, by a client that others wrote. It hears and says
what that does: a job, ``ready``, ``go``, ``stop`` and the figures. Those are of all the time that h2load
measures, longer than the window between ``go`` and ``stop``: the load is steady, so they hold for each part.
"""

import json
import re
import resource
import subprocess
import sys
import time
from typing import Any

from bench.errors import BenchError

# So much longer than the window h2load takes: it has to be at work until the window's end.
MARGIN_S = 0.2


def build_command(job: dict[str, Any]) -> list[str]:
    """h2load's command line for a job."""
    host, port = job["address"]
    warmup_ms, window_ms = round(1000 * job["warmup_s"]), round(1000 * (job["window_s"] + MARGIN_S))
    command = ["h2load", "-t1", f"-c{job['connections']}", f"-m{job['depth']}"]
    command += [f"--warm-up-time={warmup_ms}ms", f"--duration={window_ms}ms"]
    return [*command, f"{'https' if job['tls'] else 'http'}://{host}:{port}{job['path']}"]


def read_figures(text: str) -> dict[str, Any]:
    """What h2load has printed, in the words of Recorder.close. Raises BenchError."""
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", text)
    requests = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    received = re.search(r"traffic: \S+ \((\d+)\) total", text)
    if not rate or not requests or not received:
        raise BenchError(f"h2load: {(text.strip().splitlines() or ['no output'])[-1]}")
    succeeded, failed, errored = map(int, requests.groups())
    failures = {"not answered with 2xx": failed - errored, "connection lost": errored}
    return {
        # The time that h2load prints is with the warm-up, and the rate without.
        "elapsed_s": succeeded / (float(rate[1]) or 1.0) or 1.0,
        "count": succeeded,
        "received_bytes": int(received[1]),
        "failures": {reason: count for reason, count in failures.items() if count},
    }


def main() -> None:
    """Do the job of standard input."""
    job = json.loads(sys.stdin.readline())
    started = time.perf_counter()
    with subprocess.Popen(
        build_command(job), stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as process:
        time.sleep(job["warmup_s"])
        print("ready", flush=True)
        sys.stdin.readline()
        sys.stdin.readline()
        text, _ = process.communicate()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = (usage.ru_utime + usage.ru_stime) / (time.perf_counter() - started)
    unknown = {
        "latencies": [],
        "lateness": [],
        "failures_before": {},
        "joined": 0,
        "overdue": 0,
        "refusal": "",
    }
    try:
        print(json.dumps({**read_figures(text), "busy": busy, **unknown}), flush=True)
    except BenchError as error:
        sys.exit(str(error))
    # The server's memory is taken now.
    sys.stdin.readline()


if __name__ == "__main__":
    main()
