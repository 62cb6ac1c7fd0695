"""What pyproject.toml requires to build and run fastasgi, and for its extras.

    python .ci/requirements.py test      print that for `pip -r`, with the extra `test`
    python .ci/requirements.py --lock    write requirements/*.txt with versions and hashes; needs uv

With these installed, the package itself is built without an isolated environment, so that a rebuild takes
seconds and compiles only what changed.

A file of requirements/ holds for every CPython and platform that fastasgi supports, by markers, and a
distribution has the same version in all files. `make requirements` writes them; `make test LOCKED=1` and the
workflows install from them with --require-hashes.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("dev", "docs", "packages", "test")
OLDEST_PYTHON = "3.11"

HEADER = """\
# What {what}.
# Made by `make requirements` from pyproject.toml; not to be edited.
"""


def read_settings() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(settings: dict[str, Any], extras: Sequence[str]) -> list[str]:
    """What is required with these extras; an extra made of others, `fastasgi[wsgi]`, is written out."""
    project = settings["project"]
    found = [*settings["build-system"]["requires"], *project["dependencies"]]
    pending = list(extras)
    while pending:
        for requirement in project["optional-dependencies"][pending.pop()]:
            if own := re.fullmatch(r"fastasgi\[(.+)\]", requirement):
                pending += own[1].split(",")
            else:
                found.append(requirement)
    return found


def locked_files(settings: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """For each file in requirements/ what it is for, and what is required for that."""
    return {
        "build": ("builds fastasgi", settings["build-system"]["requires"]),
        "base": ("builds and runs fastasgi", requirements(settings, [])),
        **{
            extra: (f"builds and runs fastasgi with its extra `{extra}`", requirements(settings, [extra]))
            for extra in EXTRAS
        },
    }


def compile_pins(wanted: Sequence[str], constraints: Path | None = None) -> str:
    """What these requirements resolve to, one version of each distribution, with hashes."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed: pip install uv")
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-config"]
    # Two versions of one distribution would fail in two ways
    command += ["--fork-strategy", "fewest"]
    if constraints is not None:
        command += ["--constraints", str(constraints)]
    run = subprocess.run(
        [*command, "-"], input="\n".join(wanted), check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout


def lock() -> None:
    """Write all files of requirements/, from one common solution."""
    settings = read_settings()
    folder = ROOT / "requirements"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        common = Path(temporary, "common.txt")
        common.write_text(compile_pins(requirements(settings, EXTRAS)))
        for name, (what, wanted) in locked_files(settings).items():
            pins = compile_pins(wanted, common)
            (folder / f"{name}.txt").write_text(HEADER.format(what=what) + pins)
            distributions = re.findall(r"^\S+==", pins, re.MULTILINE)
            print(f"requirements/{name}.txt: {len(distributions)} distributions")


if __name__ == "__main__":
    if sys.argv[1:] == ["--lock"]:
        lock()
    else:
        print(*requirements(read_settings(), sys.argv[1:]), sep="\n")
