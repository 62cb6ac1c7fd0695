"""The regression guard: instructions that fastasgi's codecs take, counted by callgrind, against recorded
figures.

Instructions don't depend on what else the machine does, so a small growth shows. They do depend on processor
architecture and interpreter: figures are recorded for each.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import micro
from bench.environment import HERE, ROOT
from bench.errors import BenchError, MissingError
from bench.results import write_whole

RECORD = HERE / "micro_counts.json"
MAX_GROWTH = 0.03


@dataclass(frozen=True)
class Change:
    """A codec's instructions, as recorded and as counted now; either may be lacking."""

    name: str
    recorded: float | None
    counted: float | None

    @property
    def growth(self) -> float:
        """The growth over the record, 0.01 for one per cent; 0 if there is none to tell."""
        return self.counted / self.recorded - 1 if self.recorded and self.counted else 0.0

    @property
    def fails(self) -> bool:
        """Whether it grew by more than is allowed, or isn't counted any more."""
        return self.growth > MAX_GROWTH or (self.recorded is not None and self.counted is None)


def run_micro(python: Path, fastasgi: Path, what: str, prefix: tuple[str, ...] = ()) -> str:
    """Run bench.micro with this interpreter and this folder's fastasgi; its output. Raises BenchError."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # The checkout has a fastasgi too, without compiled modules: it comes second.
    variables |= {"PYTHONPATH": f"{fastasgi}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}
    # callgrind counts each byte of a `rep movsb`: large copies would hide everything else.
    variables |= {
        "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1000000000",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [*prefix, str(python), "-m", "bench.micro", what]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BenchError(f"bench.micro {what}: {lines[-1]}")
    return done.stdout


def count_instructions(python: Path, fastasgi: Path) -> dict[str, float]:
    """Instructions that each guarded codec takes, those of the loop taken off.

    Raises BenchError, MissingError.
    """
    if not shutil.which("valgrind"):
        raise MissingError("valgrind is not installed (Debian: apt install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        callgrind = ("valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}")
        run_micro(python, fastasgi, "count", callgrind)
        codecs = micro.guarded()
        # A dump holds what ran since the one before; those with even numbers end a codec's loops.
        empty, *totals = [read_total(Path(f"{out}.{number}")) for number in range(2, 2 * len(codecs) + 3, 2)]
    loop = empty / micro.COUNTED_LOOPS
    steps = [total / micro.counted_loops(codec) - loop for codec, total in zip(codecs, totals, strict=True)]
    return {codec.name: round(step / codec.batch, 1) for codec, step in zip(codecs, steps, strict=True)}


def read_total(dump: Path) -> int:
    """The instructions of one of callgrind's files. Raises BenchError."""
    try:
        found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)
    except OSError as error:
        raise BenchError(f"callgrind wrote no {dump.name}: {error.strerror}") from None
    if not found:
        raise BenchError(f"{dump.name} of callgrind has no total")
    return int(found[1])


def installed_fastasgi() -> Path:
    """The folder from which this interpreter imports fastasgi when the checkout isn't on its path.

    Raises MissingError.
    """
    code = "import fastasgi; print(fastasgi.__path__[0])"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=variables, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"fastasgi is not installed for {sys.executable}: leave --installed out")
    return Path(done.stdout.strip()).parent


def platform_key(python: Path) -> str:
    """Under which figures are recorded: "x86_64 CPython 3.11"."""
    code = "import platform as p; print(p.python_implementation(), *p.python_version_tuple()[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    implementation, major, minor = done.stdout.split()
    return f"{platform.machine()} {implementation} {major}.{minor}"


def read_record() -> dict[str, dict[str, float]]:
    """All recorded figures, by platform."""
    record: dict[str, dict[str, float]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return record


def write_record(key: str, counted: dict[str, float]) -> None:
    """Record the figures of a platform; the others' stay."""
    record = read_record() | {key: counted}
    write_whole(RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def compare(recorded: dict[str, float], counted: dict[str, float]) -> list[Change]:
    """All codecs of both."""
    names = [*recorded, *(name for name in counted if name not in recorded)]
    return [Change(name, recorded.get(name), counted.get(name)) for name in names]


def describe(change: Change) -> str:
    """A line for the terminal."""
    if change.counted is None:
        return f"{change.name:26} FAILED: it is recorded, but not counted any more: record anew"
    if change.recorded is None:
        return f"{change.name:26} {change.counted:10.1f} instructions, not recorded yet"
    line = f"{change.name:26} {change.counted:10.1f} instructions, recorded {change.recorded:.1f}: "
    line += f"{change.growth:+.1%}"
    if change.fails:
        line += f"  FAILED: more than {MAX_GROWTH:.0%}"
    elif change.growth < -MAX_GROWTH:
        line += "  better: record anew"
    return line
