"""What is told of a response when it is over, and of one that takes long."""

from typing import Any

from fastasgi.core.registry import Registry

def slow_requests(registry: Registry, limit_s: float) -> list[Any]:
    """The requests that have run for longer than this, without those that this has returned before."""

def slow_ended(registry: Registry) -> list[tuple[str, str, float]]:
    """Method, path and seconds of the requests that are over and took longer than log_slow, each once.

    They are those that `slow_requests` has not seen, since they kept the event loop to themselves.
    """
