"""What is told of a response when it is over, and of one that takes long."""

from typing import Any

from fastasgi.core.registry import Registry

def slow_requests(registry: Registry, limit_s: float) -> list[Any]:
    """The requests that have run for longer than this, without those that this has returned before."""

def slow_ended(registry: Registry) -> tuple[list[tuple[str, str, float, bool]], int]:
    """The requests that are over and took longer than log_slow, each once; and how many more there are.

    Of each the method, the path, seconds, and whether it has had a line while it ran. Those without one kept
    the event loop to themselves, so that `slow_requests` has not seen them.
    """
