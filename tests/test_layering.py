"""Which layer may use which: a table, which ARCHITECTURE.md shows too, and the imports held against it."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastasgi"

# Each layer, the lowest first, and what its modules may use besides each other. A layer is a folder, or a
# module at the top: fastasgi is the package's own file, and _parser, whose path is fixed, belongs to codecs.
TABLE = """\
errors, demo
codecs
trust, logs  codecs
core        codecs trust logs
asgi        codecs trust logs core
wires       codecs trust core asgi
sinks       codecs core
application  errors
system      errors
settings    errors
tls         errors settings
endpoints   application
importer, lifespan  application
protocols   asgi application
logging     errors logs
middleware  trust application logging
config      errors trust sinks application system settings tls logging middleware
serverstate  core
shutdown    core sinks application
admin       errors core application system settings tls config
server      errors logs core asgi wires sinks application system endpoints logging config serverstate shutdown admin
processes   errors core application system settings tls logging config shutdown admin server
launch      errors system logging config server processes
cli         errors settings config processes launch
supervisors  errors config server processes
workers     errors codecs logs asgi application system tls logging config server
main, __main__  config serverstate server processes launch cli supervisors
fastasgi    errors asgi importer lifespan logging middleware config server launch cli supervisors
"""  # noqa: E501

IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import\b[ \t]*\(?([\w, \t]*)|c?import[ \t]+([\w., \t]+))",
    re.MULTILINE,
)


def parsed(table: str) -> dict[str, set[str]]:
    """Each layer and what it may use. Raises ValueError for a line that uses what does not stand above it."""
    uses: dict[str, set[str]] = {}
    for line in table.splitlines():
        names, _, used = line.partition("  ")
        if unknown := [name for name in used.split() if name not in uses]:
            raise ValueError(f"{names}: {unknown} must stand on a line above")
        uses |= {name: set(used.split()) for name in names.split(", ")}
    return uses


def layer_of(module: str) -> str:
    """The layer of a module: ``fastasgi.codecs.heads`` belongs to ``codecs``."""
    top = module.split(".")[1:2] or ["fastasgi"]
    return "codecs" if top == ["_parser"] else top[0]


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a source imports, wherever in it: also for type checkers alone."""
    text = path.read_text()
    names = python_imports(text) if path.suffix in (".py", ".pyi") else cython_imports(text)
    for module, name in names:
        assert not module.startswith("."), f"{path}: write a module's name in full"
        if module == "fastasgi" and name == "__version__":
            continue  # whoever imports a module has loaded the package's own file
        if module == "fastasgi" and name and list(PACKAGE.glob(f"{name}*")):
            module = f"fastasgi.{name}"
        if module.partition(".")[0] == "fastasgi":
            yield module


def python_imports(text: str) -> Iterator[tuple[str, str]]:
    """Each imported module, and the name that is taken from it, if any."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                yield from ((module, alias.name) for alias in node.names)
            case ast.Import():
                yield from ((alias.name, "") for alias in node.names)
            case ast.Call(args=[ast.Constant(value=str(module)), *_]) if "import" in ast.unparse(node.func):
                yield module, ""


def cython_imports(text: str) -> Iterator[tuple[str, str]]:
    """As python_imports, of Cython, by the lines: a name that stands on a later line is not seen."""
    for module, names, modules in IMPORT.findall(text):
        if module:
            yield from ((module, name.partition(" as ")[0].strip()) for name in names.split(","))
        else:
            yield from ((name.partition(" as ")[0].strip(), "") for name in modules.split(","))


def sources(package: Path) -> Iterator[tuple[Path, str]]:
    """The sources below a package, each with its layer."""
    for path in package.rglob("*"):
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
            parts = path.relative_to(package).with_suffix("").parts
            yield path, layer_of(".".join(("fastasgi", *parts)).removesuffix(".__init__"))


def violations(package: Path, uses: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Each source below a package that uses a layer which its own may not use, and that layer."""
    return {
        (str(path.relative_to(package)), used)
        for path, own in sources(package)
        for used in map(layer_of, imported(path))
        if used != own and used not in uses[own]
    }


def test_layers_use_what_stands_below_them() -> None:
    assert violations(PACKAGE, parsed(TABLE)) == set()


def test_the_table_has_all_layers_and_no_others() -> None:
    assert parsed(TABLE).keys() == {layer for _, layer in sources(PACKAGE)}


def test_architecture_shows_the_table() -> None:
    assert textwrap.indent(TABLE, "    ") in (ROOT / "ARCHITECTURE.md").read_text()


def test_a_table_in_which_a_layer_uses_one_above_it_is_refused() -> None:
    with pytest.raises(ValueError, match="'config'"):
        parsed("errors\nsystem    config\nconfig    errors system\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("codecs/heads.py", "from fastasgi.core.contracts import WorkerContext"),
        ("codecs/heads.py", "def f():\n    import fastasgi.core.contracts"),
        ("codecs/heads.py", "if TYPE_CHECKING:\n    from fastasgi import core"),
        ("codecs/heads.py", "core = importlib.import_module('fastasgi.core.contracts')"),
        ("codecs/heads.pyx", "from fastasgi.core.contracts cimport WorkerContext"),
        (
            "codecs/heads.pyx",
            "cdef f():\n    from fastasgi.core.contracts cimport (\n        WorkerContext,\n    )",
        ),
        ("codecs/heads.pxd", "cimport fastasgi.core.contracts as contracts"),
        ("codecs/heads.pyi", "from fastasgi.core.contracts import WorkerContext"),
        ("_parser.pyx", "import time, fastasgi.core"),
    ],
)
def test_a_use_of_what_stands_above_is_found(tmp_path: Path, name: str, text: str) -> None:
    source = tmp_path / name
    source.parent.mkdir(exist_ok=True)
    source.write_text(text)
    assert violations(tmp_path, parsed(TABLE)) == {(name, "core")}
    source.write_text(text.replace("core", "codecs"))
    assert violations(tmp_path, parsed(TABLE)) == set()


FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_says_what_it_must_not_know(folder: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))
    assert docstring is not None
    assert "Must not know: " in docstring
