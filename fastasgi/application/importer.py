"""Finds the object that a ``module:attribute`` text names, and tells whose code has failed meanwhile."""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType, TracebackType
from typing import Any, NamedTuple

from fastasgi.errors import AppImportError

ImportFromStringError = AppImportError  # uvicorn's name


def import_from_string(target: Any) -> Any:
    """The object that ``package.module:attribute.path`` names; anything but a text is returned as it is.

    Raises AppImportError when the text, the module or the attribute is wrong. An error inside the module's
    own code, a failing import of something else included, passes through as it is.
    """
    if not isinstance(target, str):
        return target
    module_name, _, path = target.partition(":")
    if not module_name or not path or "/" in module_name or module_name.endswith(".py"):
        example = f"{module_name.removesuffix('.py').strip('./').replace('/', '.') or 'main'}:{path or 'app'}"
        raise AppImportError(f"app {target!r} must be written module:attribute, for example {example!r}")
    instance = _import_module(module_name, target)
    reached = module_name
    for name in path.split("."):
        try:
            instance = getattr(instance, name)
        except AttributeError:
            raise AppImportError(
                f"app {target!r}: {reached!r} has no attribute {name!r}; name the application's variable"
            ) from None
        reached = f"{reached}.{name}"
    return instance


def _import_module(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        is_named = error.name is not None and f"{name}.".startswith(f"{error.name}.")
        if not is_named or any(_entries_of_application(error.__traceback__)):
            raise
        raise AppImportError(
            f"app {target!r}: no module named {error.name!r}; "
            "start in the folder that holds it or name that folder with --app-dir"
        ) from None
    except TypeError:
        if not name.startswith("."):
            raise
        raise AppImportError(
            f"app {target!r}: the module's name can't be relative; write it in full"
        ) from None


def call_factory(factory: Callable[[], Any]) -> Any:
    """What an application factory returns; what it raises passes through."""
    return factory()


def keep_application_frames(error: BaseException) -> bool:
    """Whether the application's own code raised an error when it was loaded; only its frames are left then.

    Those of the server, of the command line and of importlib say nothing to whoever wrote that code.
    """
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code not in _LOADERS:
        entry = entry.tb_next
    if entry is None:
        return False
    kept: TracebackType | None = None
    for own in reversed(list(_entries_of_application(entry))):
        kept = TracebackType(kept, own.tb_frame, own.tb_lasti, own.tb_lineno)
    error.__traceback__ = kept
    return True


_LOADERS = (import_from_string.__code__, call_factory.__code__)  # below them the application's code runs


def _entries_of_application(entry: TracebackType | None) -> Iterator[TracebackType]:
    while entry is not None:
        if not _is_import(entry.tb_frame):
            yield entry
        entry = entry.tb_next


def _is_import(frame: FrameType) -> bool:
    name, ours = frame.f_code.co_filename, _is_import.__code__.co_filename
    return name.startswith("<frozen importlib") or name in (importlib.__file__, ours)


class MainSource(NamedTuple):
    """What a process's main module was read from: a module's name, or a file's path."""

    name: str | None
    path: str | None


def main_source() -> MainSource | None:
    """This process's main module; None if no other process can read it, as with ``-c``, a REPL or stdin."""
    main = sys.modules["__main__"]
    specification = getattr(main, "__spec__", None)
    if specification is not None:
        return MainSource(specification.name, None)
    path = getattr(main, "__file__", None)
    return MainSource(None, os.path.abspath(path)) if path is not None and os.path.isfile(path) else None


def import_main(source: MainSource) -> None:
    """Make what another process has as its main module ours, under the name ``__mp_main__``.

    multiprocessing does the same when it spawns, and scripts count on it: what stands under
    ``if __name__ == "__main__":`` is not run. Raises what the module's code raises.
    """
    module = ModuleType("__mp_main__")
    if source.name is not None:
        module.__spec__ = specification = importlib.util.find_spec(source.name)
        assert specification is not None
        module.__package__ = specification.parent
        loader: Any = specification.loader
        code = loader.get_code(source.name)
    else:
        loader = importlib.machinery.SourceFileLoader(module.__name__, str(source.path))
        code = loader.get_code(module.__name__)
    module.__file__ = code.co_filename
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    _former_main.append(sys.modules["__main__"])
    sys.modules["__main__"] = module


_former_main: list[ModuleType] = []  # its functions still run, and need what is in it
