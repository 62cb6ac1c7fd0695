"""Finds the object that a ``module:attribute`` text names."""

import importlib
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
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
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
