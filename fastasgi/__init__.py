"""fastasgi: an ASGI server with a compiled core.

``run``, ``Config`` and ``Server`` take the place of uvicorn's by the same names. ``ClientDisconnected`` is
what ``send`` raises once the client has gone.
"""

TYPE_CHECKING = False  # True for type checkers, without importing typing

if TYPE_CHECKING:
    from fastasgi._exchange import ClientDisconnected
    from fastasgi.config import Config
    from fastasgi.server import Server, run

__version__ = "0.1.0"
__all__ = ["ClientDisconnected", "Config", "Server", "__version__", "run"]

_MODULES = {
    "ClientDisconnected": "fastasgi._exchange",
    "Config": "fastasgi.config",
    "Server": "fastasgi.server",
    "run": "fastasgi.server",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import what is asked for, so that importing the package alone is cheap."""
        if name not in _MODULES:
            raise AttributeError(f"module 'fastasgi' has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_MODULES[name]), name)
