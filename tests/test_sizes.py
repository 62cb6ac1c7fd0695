"""No class, function or list of parameters is longer than a reader keeps in mind, unless it says why.

``python tests/test_sizes.py`` prints what is too long.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "fastasgi"

MOST_CLASS_LINES = 400
MOST_FUNCTION_LINES = 50  # with its head, without its docstring
MOST_PARAMETERS = 12  # of a constructor, without self

# A longer function says in its docstring why it is one: "Long, since ..."
REASON = "Long, since "

# Declarations, of which each line stands for itself
EXEMPT = {
    "admin/counts.py Counts",  # a field for each count
    "config.py Config",  # a field for each setting
    "settings/declaration.py Setting",  # the words in which those fields are described
}


class Part(NamedTuple):
    """A class or a function of a source."""

    name: str  # with the classes and functions that it is in
    is_class: bool
    lines: int  # of a function without its docstring
    parameters: int  # of a function without self; of a dataclass its fields
    docstring: str


def python_parts(nodes: list[ast.stmt], within: str = "") -> Iterator[Part]:
    """The classes and functions of a Python source."""
    for node in nodes:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        name = f"{within}{node.name}"
        docstring = ast.get_docstring(node, clean=False) or ""
        lines = (node.end_lineno or 0) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            is_dataclass = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and is_dataclass]
            yield Part(name, True, lines, len(fields), docstring)
        else:
            names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [each for each in names if each.arg not in ("self", "cls")]
            yield Part(name, False, lines - height(docstring), len(parameters), docstring)
        yield from python_parts(node.body, f"{name}.")


HEAD = re.compile(
    r"(?P<indent> *)(?:"
    r"(?:cdef )?class (?P<class>\w+)"
    r"|(?:async )?(?:cp?)?def [^=(\n]*?(?P<function>\w+)\((?P<parameters>[^()]*(?:\([^()]*\)[^()]*)*)\)"
    r")[^:\n]*:(?: *#.*)?$",
    re.MULTILINE,
)


def cython_parts(text: str) -> Iterator[Part]:
    """The classes and functions of a Cython source, by their heads and indentation."""
    within: list[tuple[int, str]] = []
    for head in HEAD.finditer(text):
        indent = len(head["indent"])
        while within and within[-1][0] >= indent:
            within.pop()
        within.append((indent, head["class"] or head["function"]))
        name = ".".join(name for _, name in within)
        body = re.match(rf"(?:\n(?: {{{indent + 1},}}.*| *(?=\n)))*", text[head.end() :])
        assert body is not None
        inside = body[0].rstrip()
        found = re.match(r'\s*"""(.*?)"""', inside, re.DOTALL)
        docstring = found[1] if found else ""
        lines = head[0].count("\n") + 1 + inside.count("\n")
        if head["class"]:
            yield Part(name, True, lines, 0, docstring)
        else:
            listed = without_brackets(re.sub("#.*", "", head["parameters"])).split(",")
            parameters = [
                each for each in listed if each.split() not in ([], ["self"], ["cls"], ["*"], ["/"])
            ]
            yield Part(name, False, lines - height(docstring), len(parameters), docstring)


def without_brackets(text: str) -> str:
    """A text without what stands in brackets, and without these."""
    while (less := re.sub(r"\([^()\[\]]*\)|\[[^()\[\]]*\]", "", text)) != text:
        text = less
    return text


def height(docstring: str) -> int:
    """The lines that a docstring takes; 0 for none."""
    return docstring.count("\n") + 1 if docstring else 0


def parts_of(path: Path) -> Iterator[Part]:
    """The classes and functions of a source."""
    text = path.read_text()
    return cython_parts(text) if path.suffix == ".pyx" else python_parts(ast.parse(text).body)


def too_long(path: str, part: Part) -> Iterator[tuple[str, int]]:
    """What of a class or function is too long, and how long it is."""
    if (name := f"{path} {part.name}") in EXEMPT:
        return
    if part.is_class and part.lines > MOST_CLASS_LINES:
        yield f"{name}: lines", part.lines
    if not part.is_class and part.lines > MOST_FUNCTION_LINES and REASON not in part.docstring:
        yield f"{name}: lines", part.lines
    is_constructor = part.is_class or part.name.endswith(("__init__", "__cinit__"))
    if is_constructor and part.parameters > MOST_PARAMETERS:
        yield f"{name}: parameters", part.parameters


def found() -> dict[str, int]:
    """What is too long in the package, and how long it is."""
    paths = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx"))
    return {
        name: length
        for path in paths
        for part in parts_of(path)
        for name, length in too_long(str(path.relative_to(PACKAGE)), part)
    }


def test_nothing_is_longer_than_a_reader_keeps_in_mind() -> None:
    assert found() == {}


CYTHON = '''\
cdef class Sink:
    cdef int fd

    def __init__(self, int fd, *, dict options=dict(a=1),  # owned, and
                 bint (*writes)(int, int)=NULL):
        """Owns
        its descriptor."""
        self.fd = fd

        if fd:
            pass

    cdef inline int put(self, const char* p, Py_ssize_t n) except -1:
        return 0


cdef int declared(int n) noexcept nogil

async def run():
    def inner(a):
        pass
    inner(1)
'''


def test_cython_is_measured_by_its_indentation() -> None:
    assert [part._replace(docstring="") for part in cython_parts(CYTHON)] == [
        Part("Sink", True, 14, 0, ""),
        Part("Sink.__init__", False, 6, 3, ""),
        Part("Sink.put", False, 2, 2, ""),
        Part("run", False, 4, 0, ""),
        Part("run.inner", False, 2, 1, ""),
    ]


def test_what_is_too_long_is_found() -> None:
    body = "\n".join(["    pass"] * 50)
    parameters = ", ".join(f"p{number}" for number in range(13))
    for text in (
        f"def long():\n{body}\n",
        f"class Long:\n    def __init__(self, {parameters}):\n        pass\n",
    ):
        for parts in (python_parts(ast.parse(text).body), cython_parts(text)):
            assert len([each for part in parts for each in too_long("x.py", part)]) == 1
    (reasoned,) = python_parts(ast.parse(f'def long():\n    """Long, since it is."""\n{body}').body)
    assert list(too_long("x.py", reasoned)) == []
    (large,) = python_parts(ast.parse("class Large:\n" + "\n".join(["    pass"] * 400)).body)
    assert list(too_long("x.py", large)) == [("x.py Large: lines", 401)]


if __name__ == "__main__":
    for name, length in found().items():
        print(f"{name}: {length}")
