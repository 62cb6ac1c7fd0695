"""What docs/deploy/sizing.md and fleet.md say is what bench.sizing prints, but for the figures themselves."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "docs" / "deploy"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="there is no bench beside the tests"),
]


def printed(*arguments: str) -> list[list[str]]:
    """The cells of each line of the table."""
    # The bench is found in the folder, and the fastasgi that is installed in its place
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-m", "bench.sizing", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line[2:-2].split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]


def documented(page: str, first: str) -> list[list[str]]:
    """The table of a page whose head begins with this cell."""
    match = re.search(
        rf"(?m)^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", (DEPLOY / page).read_text()
    )
    assert match, f"{page} has no table {first!r}"
    lines = [line for line in match[0].splitlines() if not line.startswith("|--")]
    return [line[2:-2].split(" | ") for line in lines]


def without_figures(table: list[list[str]]) -> list[str]:
    """The head of a table, and what its lines are about."""
    return [*table[0], *(re.sub(r"\d+ WebSockets", "WebSockets", line[0]) for line in table[1:])]


@pytest.mark.parametrize(
    ("page", "first", "arguments"),
    [
        ("sizing.md", "application", ("memory", "--workers", "1", "--requests", "1")),
        ("sizing.md", "requests a second", ("concurrency", "--seconds", "0.2")),
        ("fleet.md", "what", ("node", "--websockets", "5")),
        ("sizing.md", "idle connection", ("connections", "--count", "20")),
    ],
)
def test_the_tables(page: str, first: str, arguments: tuple[str, ...]) -> None:
    if arguments[0] == "connections" and shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    found, told = printed(*arguments), documented(page, first)
    found[0] = [cell.replace("of 1 workers", "of 4 workers") for cell in found[0]]
    assert without_figures(found) == without_figures(told)
    assert all(len(line) == len(found[0]) for line in [*found, *told])
