"""The configurations that docs/deploy ships, and the programs that read them."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
FOLDERS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/bin"  # PATH may lack those of servers


def program(name: str) -> str:
    """The path of a program; without it the test is skipped."""
    path = shutil.which(name, path=FOLDERS)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def substituted(name: str, values: Mapping[str, str]) -> str:
    """A configuration with each of these texts, which it has once or more, replaced."""
    text = (DEPLOY / name).read_text()
    for old, new in values.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def command(name: str, values: Mapping[str, str], option: str = "") -> list[str]:
    """The arguments of fastasgi in a configuration's comment, with these words in place of others.

    ``option`` tells which command is meant if there are several.
    """
    text = (DEPLOY / name).read_text().replace("\\\n#", "")
    [line] = [line for line in re.findall(r"(?m)^# +fastasgi (.*)$", text) if option in line]
    return [values.get(word, word) for word in line.split()]
