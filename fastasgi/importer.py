"""Finds the object that a ``module:attribute`` text names, and tells whose an error of loading it is."""

import importlib
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from fastasgi.errors import AppImportError


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
