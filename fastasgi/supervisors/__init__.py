"""Supervisors as programs for uvicorn make them by hand: for reload, and for many workers."""

from fastasgi.supervisors.multiprocess import Multiprocess
from fastasgi.supervisors.watchfilesreload import WatchFilesReload as ChangeReload

__all__ = ["ChangeReload", "Multiprocess"]
