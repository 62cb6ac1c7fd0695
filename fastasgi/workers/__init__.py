"""gunicorn's worker classes: ``gunicorn -k fastasgi.workers.FastASGIWorker app:app``.

Knows gunicorn's settings, signals, hooks and loggers, and what they mean for a Server. The arbiter, which is
gunicorn's parent process, owns the listening sockets, starts workers, and kills one whose heartbeats stop.
Must not know: our own supervisor, connections.
"""

from fastasgi.config import Config as Config  # this name and the next are in uvicorn.workers, too
from fastasgi.server import Server as Server
from fastasgi.workers.classes import FastASGIWorker, UvicornH11Worker, UvicornWorker

__all__ = ["FastASGIWorker", "UvicornH11Worker", "UvicornWorker"]
