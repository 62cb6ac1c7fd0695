"""The machines of test_rolling leave nothing behind, whatever becomes of the test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from netns import FOLDER, network, sweep, why_not
from serving import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")

LEAVES = """
import subprocess, sys, time
from netns import network

with network({"host": "10.0.0.1"}) as made:
    sleeping = subprocess.Popen(made.command("host", "sleep", "1000"))
    while made.processes_on("host") != [sleeping.pid]:
        time.sleep(0.01)
    print(made.name_of("host"), sleeping.pid, flush=True)
    time.sleep(1000)
"""


def test_what_a_killed_test_has_left_is_removed() -> None:
    if reason := why_not():
        pytest.skip(reason)
    helpers = str(Path(__file__).parent.parent / "helpers")
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": helpers},
    ) as process:
        assert process.stdout is not None
        name, pid = process.stdout.readline().split()
        with network({"host": "10.0.0.1"}) as other:
            assert (FOLDER / name).exists(), "a test that runs keeps its machines"
            assert other.name_of("host") != name
        process.kill()
    sweep()
    assert not (FOLDER / name).exists()
    wait_until(lambda: not is_alive(int(pid)), "the end of the process there")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
