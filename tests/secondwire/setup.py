"""Builds the second wire of the tests against the installed fastasgi, whose .pxd files it cimports."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastasgi

FOLDER = Path(fastasgi.__file__).parent

setup(
    name="fastasgi-secondwire",
    version="0",
    ext_modules=cythonize(
        [Extension("netstringwire", ["netstringwire.pyx"], include_dirs=[str(FOLDER)])],
        include_path=[str(FOLDER.parent)],
        build_dir="build",
        force=True,
    ),
    options={"build": {"build_base": os.environ.get("BUILD_BASE", "build")}},
)
