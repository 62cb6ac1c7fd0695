"""The results of a run: a folder with every figure as JSON, written after each turn."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.errors import UsageError

FORMAT = 1


def new_folder(parent: Path) -> Path:
    """A folder for a run that begins now, named by date and time. Raises UsageError."""
    folder = parent / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"--results {parent}: {error.strerror}; choose another folder") from None
    return folder


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, whenever, finds a whole one."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)


def save(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json."""
    write_whole(folder / "results.json", json.dumps(results, indent=None, separators=(",", ":")) + "\n")


def load(folder: Path) -> dict[str, Any]:
    """Read results.json. Raises OSError, or ValueError if it is of another format."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    if results.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'results.json'} has format {results.get('format')}, this bench reads {FORMAT}"
        )
    return results


def turns_of(results: dict[str, Any], workload: str, server: str) -> list[dict[str, Any]]:
    """The turns of one server at one workload, in the order of their rounds."""
    return [turn for turn in results["turns"] if turn["workload"] == workload and turn["server"] == server]


def good_turns(results: dict[str, Any], workload: str, server: str) -> list[dict[str, Any]]:
    """Of these, the ones that brought figures."""
    return [turn for turn in turns_of(results, workload, server) if turn["status"] == "ok"]
