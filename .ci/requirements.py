"""Print, for `pip -r`, what pyproject.toml requires to build and run fastasgi and for the extras named.

With these installed, the package itself is built without an isolated environment, so that a rebuild takes
seconds and compiles only what changed.
"""

import re
import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Print one requirement a line; an extra made of others, `fastasgi[wsgi]`, is written out."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    project = settings["project"]
    requirements = [*settings["build-system"]["requires"], *project["dependencies"]]
    pending = list(extras)
    while pending:
        for requirement in project["optional-dependencies"][pending.pop()]:
            if own := re.fullmatch(r"fastasgi\[(.+)\]", requirement):
                pending += own[1].split(",")
            else:
                requirements.append(requirement)
    print(*requirements, sep="\n")


main(sys.argv[1:])
