"""The load generator of peaks, a process of its own: ``python -m bench.peaks``.

Its standard input is a line of JSON, the job; its answer is another, with the figures, or with the
`failure` for which there are none.
"""

import json
import sys
from typing import Any

from bench.burst import Burst
from bench.clients import Clients
from bench.errors import BenchError
from bench.overload import Overload

KINDS: dict[str, type[Burst] | type[Overload]] = {"burst": Burst, "overload": Overload}


def carry_out(job: dict[str, Any]) -> dict[str, Any]:
    """The figures of a job, or its failure."""
    address = job["address"] if isinstance(job["address"], str) else tuple(job["address"])
    request = job["request"].encode("latin-1")
    clients = Clients(address, request, tls=job["tls"], takes_refusals=job["kind"] == "overload")
    try:
        return KINDS[job["kind"]](clients, job).measure()
    except BenchError as error:
        return {"failure": str(error)}
    finally:
        clients.close()


def main() -> None:
    """Do the job of standard input."""
    print(json.dumps(carry_out(json.loads(sys.stdin.readline()))), flush=True)


if __name__ == "__main__":
    main()
