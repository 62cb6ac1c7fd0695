"""Who speaks on a new sink."""

from typing import Any

from fastasgi.core.contracts import Opener, Wire, WorkerContext

class Opening(Opener):
    """Opens HTTP/1.x, and what is registered beside it, on the connections of one worker."""

    def __init__(self, worker: WorkerContext, config: Any) -> None:
        """`config` is a Config. Raises ValueError if it has a limit that the parser of heads can't keep."""

    def register(self, wire: Wire) -> None:
        """Let connections speak this wire if they ask for it, from the next one on."""
