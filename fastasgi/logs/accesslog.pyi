"""The access log: one line a response, written in batches."""

import logging
from collections.abc import Callable
from typing import Protocol

def parse_format(format: str) -> list[str]:
    """What an access log format consists of. Raises ValueError that names the atom which doesn't exist."""

def describe_status(status: int, use_colors: bool) -> str:
    """A status and its name, ``404 Not Found``, perhaps in the colour of its class."""

class Route(Protocol):
    """Where lines go, see AccessRoute."""

    logger: logging.Logger | None
    prefix: str
    use_colors: bool
    at_once: bool
    descriptor: int
    flush: Callable[[], None]

    def look(self) -> bool: ...
    def write(self, lines: str) -> None: ...
    def close(self) -> None: ...

class AccessLog:
    """One line a response."""

    def __init__(self, *, format: str | None, route: Route) -> None:
        """`format` is None for uvicorn's line, "json", or a text with atoms, {client} among them.

        `route` is looked at before each batch. Raises ValueError that names the atom which doesn't exist.
        """

    def flush(self) -> None:
        """Write what is batched. From any thread."""

    def close(self) -> None:
        """Write what is batched; nothing comes any more."""
