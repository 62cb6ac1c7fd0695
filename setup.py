"""Builds the compiled modules; everything else about the package stands in pyproject.toml.

Environment variables:
  FASTASGI_WERROR=1    Cython's warnings and the C compiler's are errors.
  FASTASGI_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer; see `make asan`. With FASTASGI_POISON.
  FASTASGI_POISON=1    Memory that events share can't be used outside of one; see fastasgi/core/poison.h.
  FASTASGI_DEBUG=1     Debug information, for perf, gdb and callgrind; it makes the build three times as long.
  FASTASGI_ANNOTATE=1  `cython -a`: build/cython/fastasgi/*.html show where C calls into Python.
"""

import itertools
import os
import re
import sys
import tomllib
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform == "win32":
    sys.exit("fastasgi does not run on Windows, which has no epoll or kqueue: use WSL 2 or a container")

SOURCES = sorted(Path("fastasgi").rglob("*.pyx"))
HEADERS = sorted(str(path) for path in Path("fastasgi").rglob("*.h"))

DIRECTIVES = {
    "language_level": 3,
    # Nothing here is pickled or copied, and the code for it is a fifth of what the C compiler has to do
    "auto_pickle": False,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "warn.multiple_declarators": True,
    "warn.unreachable": True,
    "warn.unused": True,
}

WERROR = os.environ.get("FASTASGI_WERROR") == "1"
SANITIZE = os.environ.get("FASTASGI_SANITIZE") == "1"
POISON = SANITIZE or os.environ.get("FASTASGI_POISON") == "1"
DEBUG = os.environ.get("FASTASGI_DEBUG") == "1"
ANNOTATE = os.environ.get("FASTASGI_ANNOTATE") == "1"

COMPILE_ARGS = ["-fvisibility=hidden"]
LINK_ARGS = []
if SANITIZE:
    COMPILE_ARGS += ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]
    COMPILE_ARGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    LINK_ARGS += ["-fsanitize=address,undefined"]
else:
    # -g0 comes after the -g that most Pythons were built with, and pass on
    COMPILE_ARGS += ["-O3", "-g" if DEBUG else "-g0"]
if POISON:
    COMPILE_ARGS += ["-DFASTASGI_POISON"]
if WERROR:
    COMPILE_ARGS += ["-Wall", "-Wextra", "-Werror"]
    if sys.version_info >= (3, 14):  # of what Cython itself writes
        COMPILE_ARGS += ["-Wno-missing-field-initializers", "-Wno-maybe-uninitialized"]


class CythonBuildExt(build_ext):
    """Translates the .pyx files into build/cython when, and only when, something is to be compiled.

    Cython tells on stdout of each module that it translates, this on stderr of each that is compiled.
    """

    def run(self) -> None:
        self._built = itertools.count(1)
        Options.warning_errors = WERROR
        translated = cythonize(
            self.extensions,
            compiler_directives=DIRECTIVES,
            build_dir="build/cython",
            annotate=ANNOTATE,
            nthreads=os.cpu_count(),
            force=self.force or WERROR or ANNOTATE or _settings_are_newer(),
        )
        for extension, c_extension in zip(self.extensions, translated, strict=True):
            extension.sources = c_extension.sources
            extension.depends += c_extension.depends
        super().run()

    def build_extension(self, ext: Extension) -> None:
        path = Path(self.get_ext_fullpath(ext.name))
        before = path.stat().st_mtime_ns if path.exists() else None
        super().build_extension(ext)
        number = next(self._built)
        if path.stat().st_mtime_ns != before:
            print(f"[{number:2}/{len(self.extensions)}] Compiled {ext.name}", file=sys.stderr, flush=True)


def pypi_readme() -> str:
    """README.md as PyPI shows it, which has no other file: its links lead to this version's files on GitHub.

    A picture's link leads to its file itself, and to the PNG beside an SVG, which PyPI shows nothing of.
    """
    settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    home = settings["project"]["urls"]["Homepage"]
    version = re.search(r'^__version__ = "(.+)"$', Path("fastasgi/__init__.py").read_text(), re.MULTILINE)[1]

    def absolute(link: re.Match) -> str:
        target = "README.md" + link[1] if link[1].startswith("#") else link[1]
        if target.endswith((".png", ".svg")):
            return f"]({home}/raw/v{version}/{target.removesuffix('.svg').removesuffix('.png')}.png"
        return f"]({home}/blob/v{version}/{target}"

    text = Path("README.md").read_text(encoding="utf-8")
    parts = re.split(r"^(```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # code is left alone
    parts[::2] = (re.sub(r"\]\((?![a-z]+:)([^)\s]+)", absolute, part) for part in parts[::2])
    return "".join(parts)


def _settings_are_newer() -> bool:
    """Whether this file changed after a C file was made; Cython compares only .pyx and .pxd files."""
    changed = Path(__file__).stat().st_mtime
    return any(path.stat().st_mtime < changed for path in Path("build/cython").rglob("*.c"))


if __name__ == "__main__":  # and not in the processes that translate, where they don't fork
    setup(
        long_description=pypi_readme(),
        long_description_content_type="text/markdown",
        ext_modules=[
            Extension(
                ".".join(source.with_suffix("").parts),
                [str(source)],
                include_dirs=["fastasgi"],
                depends=["setup.py", *HEADERS],
                extra_compile_args=COMPILE_ARGS,
                extra_link_args=LINK_ARGS,
            )
            for source in SOURCES
        ],
        cmdclass={"build_ext": CythonBuildExt},
        options={
            "build": {"build_base": "build/sanitize" if SANITIZE else "build"},
            "build_ext": {"parallel": os.cpu_count()},
        },
    )
