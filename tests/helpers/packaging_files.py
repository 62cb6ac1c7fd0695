"""The files that packages are made from, and the programs that check them."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
HOME: str = SETTINGS["project"]["urls"]["Homepage"]

# The minor versions of CPython that the classifiers name: 3.11, 3.12 ...
PYTHONS = [
    found[1]
    for each in SETTINGS["project"]["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
]


def program(name: str) -> str:
    """The path of a program of the extra `test`, beside this interpreter or on PATH; skips without it."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def output_of(*command: str, folder: Path = CHECKOUT) -> str:
    """What a command prints that has to end with 0."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
