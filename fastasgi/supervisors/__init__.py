"""Supervisors as programs for uvicorn make them by hand: for reload, and for many workers.

Knows the Supervisor of ``processes``, and what uvicorn calls it. Must not know: how worker processes are made
and watched.
"""

from fastasgi.supervisors.multiprocess import Multiprocess
from fastasgi.supervisors.watchfilesreload import WatchFilesReload as ChangeReload

__all__ = ["ChangeReload", "Multiprocess"]
