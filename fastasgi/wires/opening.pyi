"""Who speaks on a new connection."""

from typing import Any

from fastasgi.core.contracts import Opener, Wire, WorkerContext

class Opening(Opener):
    """Opens HTTP/1.x, and what is registered beside it, on the connections of one worker."""

    def __init__(self, worker: WorkerContext, config: Any) -> None:
        """`config` is a Config. Raises ValueError for a limit that the parser of requests can't keep."""

    def register(self, wire: Wire) -> None:
        """Have connections speak this wire that ask for it, from the next one on."""
