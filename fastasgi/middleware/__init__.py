"""Applications around applications, under the names that uvicorn gives them.

Knows ASGI, and what a middleware is told when it is made. Must not know: the server, connections.
"""

import importlib
from typing import Any

_MODULES = ("asgi2", "message_logger", "proxy_headers", "wsgi")


def __getattr__(name: str) -> Any:
    """Import the module that is asked for: uvicorn's are there without an import of their own."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
