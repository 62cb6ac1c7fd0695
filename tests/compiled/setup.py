"""Builds the compiled modules of the tests against the installed fastasgi, whose .pxd files they cimport.

With FASTASGI_SANITIZE=1 they have the sanitizers, as the package has. FASTASGI_POISON is always set, see
fastasgi/core/poison.h.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastasgi

FOLDER = Path(fastasgi.__file__).parent
NAMES = ("netstringwire", "watchedsinks")
SANITIZERS = ["-fsanitize=address,undefined"] if os.environ.get("FASTASGI_SANITIZE") == "1" else []
OPTIONS = {
    "include_dirs": [str(FOLDER)],
    "extra_compile_args": ["-DFASTASGI_POISON", *SANITIZERS],
    "extra_link_args": SANITIZERS,
}

setup(
    name="fastasgi-tests",
    version="0",
    ext_modules=cythonize(
        [Extension(name, [f"{name}.pyx"], **OPTIONS) for name in NAMES],
        include_path=[str(FOLDER.parent)],
        build_dir="build",
        force=True,
    ),
    options={"build": {"build_base": os.environ.get("BUILD_BASE", "build")}},
)
