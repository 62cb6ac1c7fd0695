"""The applications in a folder, as a shell completes them: read from sources, of which none is imported."""

import ast
import os
import re
from collections.abc import Iterator

MOST_MODULES = 200  # looked at; a shell waits meanwhile
MOST_BYTES = 256 * 1024  # of one
DEEPEST = 3  # folders within folders

_LIKELY = re.compile(
    "(?!create|make|build|get)(.*_)?(app|application)|api|asgi|wsgi"
)  # factories need --factory


def applications(folder: str, begun: str) -> list[str]:
    """What a ``module:attribute`` that has begun may become.

    These are all names of a module that is given already, and of other modules those of likely applications.
    """
    module, is_named, _ = begun.partition(":")
    if is_named:
        path = os.path.join(folder, *module.split("."))
        names = _names(f"{path}.py") or _names(os.path.join(path, "__init__.py"))
        found = [f"{module}:{name}" for name in names]
    else:
        found = []
        for count, (each, path) in enumerate(_modules(folder, "", DEEPEST)):
            if count == MOST_MODULES:
                break
            if each.startswith(begun):
                found += [f"{each}:{name}" for name in _names(path) if _LIKELY.fullmatch(name)]
    return [each for each in found if each.startswith(begun)]


def _modules(folder: str, within: str, depth: int) -> Iterator[tuple[str, str]]:
    """The names and paths of modules below a folder, those of the folder itself first."""
    folders = []
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = entry.name.removesuffix(".py")
        if not name.isidentifier():
            continue
        if entry.name.endswith(".py"):
            yield (f"{within}{name}" if name != "__init__" else within.rstrip(".") or name), entry.path
        elif (
            depth > 1
            and entry.is_dir(follow_symlinks=False)
            and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
        ):
            folders.append(entry)
    for entry in folders:
        yield from _modules(entry.path, f"{within}{entry.name}.", depth - 1)


def _names(path: str) -> list[str]:
    """What a module defines at its top level; empty if it can't be read or is no Python."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(MOST_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names: dict[str, None] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names[node.name] = None
            case ast.Assign():
                names |= {target.id: None for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = None
    return [name for name in names if not name.startswith("_")]
