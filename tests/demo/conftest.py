"""The demo in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from serving import WAIT_S


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server process that serves the demo."""
    command = [sys.executable, "-m", "fastasgi", "fastasgi.demo:app", "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        output = ""
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", output)) is None:
            line = server.stdout.readline()
            assert line, f"the server ended before it listened:\n{output}"
            output += line
        yield int(found[1])
        server.terminate()
        output += server.communicate(timeout=WAIT_S)[0]
    assert "Traceback" not in output, output
