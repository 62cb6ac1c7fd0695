"""fastasgi: an ASGI server with a compiled core.

``run``, ``Config``, ``Server``, ``main`` and the modules below take the place of uvicorn's by the same names.
``ClientDisconnected`` is what ``send`` raises once the client has gone.
A ``FastasgiError`` says why a server can't start.
"""

import sys

TYPE_CHECKING = False  # True for type checkers, without importing typing

if TYPE_CHECKING:
    from fastasgi import config as config
    from fastasgi import importer as importer
    from fastasgi import lifespan as lifespan
    from fastasgi import logging as logging
    from fastasgi import middleware as middleware
    from fastasgi import server as server
    from fastasgi import supervisors as supervisors
    from fastasgi.asgi.exchange import ClientDisconnected
    from fastasgi.cli import main
    from fastasgi.config import Config
    from fastasgi.errors import AppImportError, BindError, ConfigError, FastasgiError
    from fastasgi.launch import run
    from fastasgi.server import Server

__version__ = "0.1.0"
__all__ = [
    "AppImportError",
    "BindError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "FastasgiError",
    "Server",
    "__version__",
    "main",
    "run",
]

_OBJECTS = {
    "AppImportError": "fastasgi.errors",
    "BindError": "fastasgi.errors",
    "ConfigError": "fastasgi.errors",
    "FastasgiError": "fastasgi.errors",
    "ClientDisconnected": "fastasgi.asgi.exchange",
    "Config": "fastasgi.config",
    "Server": "fastasgi.server",
    "main": "fastasgi.cli",
    "run": "fastasgi.launch",
}
_MODULES = ("config", "importer", "lifespan", "logging", "middleware", "server", "supervisors")

if sys.platform == "win32":

    class _Refusal:
        """Refuses to import what needs the compiled modules, which can't be built here."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.startswith("fastasgi.") and name != "fastasgi.__main__":
                raise ImportError("fastasgi doesn't run on Windows: use WSL 2, or a container of Linux")

    sys.meta_path.insert(0, _Refusal)

if not TYPE_CHECKING and not getattr(sys, "_is_gil_enabled", lambda: True)():
    import warnings

    # That importing the compiled modules turns the GIL on: servers say so in their log (system/interpreter)
    warnings.filterwarnings(
        "ignore", r"The global interpreter lock \(GIL\) has been enabled to load module 'fastasgi\."
    )

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import what is asked for, so that importing the package alone is cheap."""
        if name not in _OBJECTS and name not in _MODULES:
            raise AttributeError(f"module 'fastasgi' has no attribute {name!r}")
        import importlib

        if name in _MODULES:
            return importlib.import_module(f"fastasgi.{name}")
        return getattr(importlib.import_module(_OBJECTS[name]), name)

    class _Package(type(sys)):
        """This package's class: one name is a module's and an object's, and the object has it."""

        def __setattr__(self, name, value):
            # Whoever imports the module has the import system put it in the command's place
            if name != "main" or not isinstance(value, type(sys)):
                super().__setattr__(name, value)

    sys.modules[__name__].__class__ = _Package
