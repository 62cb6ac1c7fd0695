"""Fixtures of the bench's tests, and the path on which they find it."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Last on the path: the checkout's fastasgi has no compiled modules, and must not hide the installed one.
sys.path.append(str(ROOT))
collect_ignore_glob = [] if (ROOT / "bench").is_dir() else ["test_*.py"]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the bench's process, for the length of a test."""
    from bench import processes

    # The suite itself may run under nohup, or in the background, where they are ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in processes.INTERRUPTS}
    processes.take_interrupts()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
