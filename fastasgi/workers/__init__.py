"""gunicorn's worker classes: ``gunicorn -k fastasgi.workers.FastASGIWorker app:app``.

Knows gunicorn's settings, signals, hooks and loggers, and what they mean for a Server. The arbiter, which is
gunicorn's parent process, owns the listening sockets, starts workers, and kills one whose heartbeats stop.
Must not know: our own supervisor, connections.
"""

from fastasgi.workers.classes import FastASGIWorker, UvicornH11Worker, UvicornWorker

__all__ = ["FastASGIWorker", "UvicornH11Worker", "UvicornWorker"]
