"""Systems and interpreters that are not, or not wholly, supported: a line in place of a surprise."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serving import HI_APP, ServerProcess, Start

WINDOWS = "import sys; sys.platform = 'win32'; "
LINE = "fastasgi doesn't run on Windows: use WSL 2, or a container of Linux"

# What differs in a free-threaded build, as far as we look at it
FREE_THREADED = """
import sys
sys.abiflags += "" if "t" in sys.abiflags else "t"
sys._is_gil_enabled = lambda: {is_on}
from fastasgi.__main__ import command
if __name__ == "__main__":
    command()
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "code",
    [
        "from fastasgi.__main__ import command; command()",
        "import runpy; sys.argv[1:] = ['--version']; runpy.run_module('fastasgi', run_name='__main__')",
    ],
)
def test_the_command_refuses_windows_in_one_line(code: str) -> None:
    done = python(WINDOWS + code)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {LINE}\n")


@pytest.mark.parametrize(
    "code",
    [
        *("from fastasgi import run", "import fastasgi; fastasgi.Config", "import fastasgi.config"),
        *("from fastasgi.middleware.proxy_headers import ProxyHeadersMiddleware", "import fastasgi._parser"),
    ],
)
def test_windows_is_told_whoever_imports_a_part(code: str) -> None:
    done = python(WINDOWS + code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: {LINE}"


def test_the_package_alone_can_be_imported_on_windows() -> None:
    """So that a tool that asks for its version, or for whether it is there, is answered."""
    done = python(f"{WINDOWS}import fastasgi; print(fastasgi.__version__)")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize(("is_on", "told"), [(True, "has its GIL on"), (False, "keeps its GIL off")])
def test_a_free_threaded_build_is_told_of_once(
    tmp_path: Path, arguments: list[str], is_on: bool, told: str
) -> None:
    (tmp_path / "app.py").write_text(HI_APP)
    (tmp_path / "start.py").write_text(FREE_THREADED.format(is_on=is_on))
    process = ServerProcess(
        tmp_path, *arguments, "--port", "0", "app:app", command=(sys.executable, "start.py")
    )
    try:
        process.wait_for("Application startup complete")
        assert process.end(signal.SIGINT) == 0
    finally:
        process.close()
    assert len(re.findall(f"^WARNING:  This CPython is free-threaded, .*{told}", process.log, re.M)) == 1
    assert process.log.count("GIL") == process.log.count(told) + (0 if is_on else 1)


@pytest.mark.skipif("t" in sys.abiflags, reason="this CPython is free-threaded")
def test_the_usual_build_is_not_told_of(start: Start) -> None:
    process = start(HI_APP, "--port", "0", "app:app")
    assert process.port
    assert process.end(signal.SIGINT) == 0
    assert "GIL" not in process.log
