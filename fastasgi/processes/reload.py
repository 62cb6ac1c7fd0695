"""Watches source files for ``--reload``."""

import importlib
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from fastasgi.config import Config
from fastasgi.errors import ConfigError, FastasgiError

# uvicorn's defaults
DEFAULT_INCLUDES = ("*.py",)
DEFAULT_EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")

STEP_MS = 25  # how long a change waits for others, which an editor makes along with it


def watchfiles() -> Any:
    """The watchfiles package. Raises ConfigError if it is missing."""
    try:
        return importlib.import_module("watchfiles")
    except ImportError as error:
        raise ConfigError(
            f"reload needs the watchfiles package ({error}): pip install 'fastasgi[reload]'"
        ) from None


class ChangeFilter:
    """Tells which changed files count: those that match an include and no exclude, as with uvicorn.

    A pattern is a glob for the last parts of a path. An exclude may name a folder, for all that is in it.
    An include that names a folder only has that watched. An include without wildcards wins over the excludes.
    """

    def __init__(self, includes: Iterable[str], excludes: Iterable[str]) -> None:
        includes, excludes = list(includes), list(excludes)
        self._excluded_folders = [folder for text in excludes if (folder := _folder(text)) is not None]
        # A pattern that is given in one list is not in the defaults of the other
        self._includes = [text for text in (*DEFAULT_INCLUDES, *includes) if text not in excludes]
        self._includes = [text for text in self._includes if _folder(text) is None]
        self._excludes = [text for text in DEFAULT_EXCLUDES if text not in includes]
        self._excludes += [text for text in excludes if _folder(text) is None]

    def __call__(self, path: Path) -> bool:
        """Whether a change of this file counts. The path is absolute."""
        matching = [pattern for pattern in self._includes if path.match(pattern)]
        if not matching or any(str(path).endswith(pattern) for pattern in matching):
            return bool(matching)
        if any(folder in path.parents for folder in self._excluded_folders):
            return False
        return not any(path.match(pattern) for pattern in self._excludes)


class ChangeWatch:
    """Watches config's folders in a thread. Readable, for a selector, once ``names`` has something to give.

    Raises ConfigError if a folder or the watchfiles package is missing.
    """

    def __init__(self, config: Config) -> None:
        self._watch = watchfiles().watch
        self._filter = ChangeFilter(config.reload_includes or (), config.reload_excludes or ())
        self._folders = watched_folders(config)
        self._debounce_ms = max(STEP_MS, int(config.reload_delay * 1000))
        self._changed: set[Path] = set()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._here, self._there = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="fastasgi-reload", daemon=True)

    def __enter__(self) -> "ChangeWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._here.close()
        self._there.close()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._here.fileno()

    def names(self) -> list[str]:
        """The names of the files that have changed since the last call, as short as they go.

        Raises FastasgiError if the files can't be watched any more.
        """
        self._here.recv(4096)
        if self._failure is not None:
            reason = " ".join(str(self._failure).split())
            raise FastasgiError(
                f"reload can't watch {', '.join(repr(str(folder)) for folder in self._folders)} ({reason}): "
                "name fewer folders with --reload-dir, or set WATCHFILES_FORCE_POLLING=1"
            )
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(f"'{_relative(path)}'" for path in changed)

    def _run(self) -> None:
        try:
            watching = self._watch(
                *self._folders,
                watch_filter=lambda _, path: self._filter(Path(path)),
                stop_event=self._stop,
                debounce=self._debounce_ms,
                step=STEP_MS,
                ignore_permission_denied=True,
            )
            for changes in watching:
                self._note({Path(path) for _, path in changes})
        except BaseException as error:  # what fails inside watchfiles' own code is no Exception
            self._failure = error
            self._there.send(b"f")

    def _note(self, paths: set[Path]) -> None:
        with self._lock:
            is_first = not self._changed
            self._changed |= paths
        if is_first:
            self._there.send(b"c")


def watched_folders(config: Config) -> list[Path]:
    """The folders to watch: reload_dirs, by default the current one, and those that reload_includes names.

    Raises ConfigError for one that does not exist.
    """
    folders: list[Path] = []
    for text in config.reload_dirs or ["."]:
        folder = _folder(text)
        if folder is None:
            raise ConfigError(f"reload_dirs {text!r} is not a folder: name one that exists")
        folders.append(folder)
    folders += [folder for text in config.reload_includes or () if (folder := _folder(text)) is not None]
    folders = list(dict.fromkeys(folders))
    # A folder inside another is watched with it
    return [folder for folder in folders if not any(other in folder.parents for other in folders)]


def _folder(text: str) -> Path | None:
    """The folder that a text names, resolved, or None."""
    return Path(text).resolve() if Path(text).is_dir() else None


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):  # no current folder any more, or a path outside
        return str(path)
