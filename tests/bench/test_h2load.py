"""h2load as the load generator: what it is told, what it prints, and the process around it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchparts import CORE, ROOT, WAIT_S, WITH_BENCH, FakeEnvironment, fake_server, linux, listening, turn
from http2answers import HTTP2Answers

from bench import h2load
from bench.errors import BenchError
from bench.turn import Setup

pytestmark = linux
JOB: dict[str, Any] = {
    "address": ["127.0.0.1", 8000],
    "connections": 16,
    "depth": 32,
    "tls": False,
    "path": "/",
}
JOB |= {"warmup_s": 0.1, "window_s": 0.3}
# Of version 1.52, with a warm-up of 0.2 s.
PRINTED = """
finished in 900.94ms, 48548.57 req/s, 2.21MB/s
requests: 33984 total, 33984 started, 33984 done, 33984 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 33664 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.54MB (1619120) total, 275.84KB (282464) headers (space savings 90.09%), 446.88KB (457600) data
"""


def test_h2load_is_told_the_load_and_more_time_than_the_window() -> None:
    command = h2load.build_command(JOB | {"tls": True, "path": "/x"})
    assert command == [
        *("h2load", "-t1", "-c16", "-m32", "--warm-up-time=100ms", "--duration=500ms"),
        "https://127.0.0.1:8000/x",
    ]


def test_the_time_is_that_of_the_rate_without_the_warm_up() -> None:
    figures = h2load.read_figures(PRINTED)
    assert figures["elapsed_s"] == pytest.approx(0.7, rel=1e-4)
    assert (figures["count"], figures["received_bytes"], figures["failures"]) == (33984, 1619120, {})


def test_what_failed_is_told() -> None:
    printed = PRINTED.replace("0 failed, 0 errored", "5 failed, 3 errored")
    assert h2load.read_figures(printed)["failures"] == {"not answered with 2xx": 2, "connection lost": 3}
    nothing = h2load.read_figures(PRINTED.replace("48548.57", "0.00").replace("33984 succ", "0 succ"))
    assert nothing["count"] == 0


def test_other_output_is_an_error_of_one_line() -> None:
    with pytest.raises(BenchError, match="h2load: connect failed"):
        h2load.read_figures("starting\nconnect failed\n")
    with pytest.raises(BenchError, match="h2load: no output"):
        h2load.read_figures("")


def figures_of_process(variables: dict[str, str], **job: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of the process, with a window that closes at once."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.h2load"],
        input=f"{json.dumps(JOB | job)}\ngo\nstop\n",
        env=variables,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """Variables with which h2load is a script that prints the file `printed` beside it."""
    program = tmp_path / "h2load"
    program.write_text('#!/bin/sh\ncat "${0%/*}/printed"\n')
    program.chmod(0o755)
    (tmp_path / "printed").write_text(PRINTED)
    return {**WITH_BENCH, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


def test_the_process_speaks_as_the_generator_does(stand_in: dict[str, str], tmp_path: Path) -> None:
    code, output, errors = figures_of_process(stand_in)
    ready, figures = output.splitlines()
    assert (code, ready, errors) == (0, "ready", "")
    assert json.loads(figures)["count"] == 33984
    (tmp_path / "printed").write_text("connect failed")
    code, output, errors = figures_of_process(stand_in)
    assert (code, output, errors) == (1, "ready\n", "h2load: connect failed\n")


@pytest.mark.skipif(not shutil.which("h2load"), reason="no h2load")
def test_the_real_h2load_loads_a_server() -> None:
    server = HTTP2Answers()
    with listening(server.serve) as address:
        code, output, errors = figures_of_process(WITH_BENCH, address=address, connections=2, depth=4)
    assert (code, errors) == (0, "")
    figures = json.loads(output.splitlines()[1])
    assert (figures["failures"], figures["latencies"]) == ({}, [])
    assert len(server.requests) > figures["count"] > 0
    assert figures["elapsed_s"] == pytest.approx(0.5, rel=0.01)


def test_a_turn_without_h2load_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = turn(Setup(FakeEnvironment(tmp_path), [(CORE,)], 0.05, 0, tmp_path), fake_server(), "h2c-h2load")
    assert result["status"] == "missing"
    assert "apt install nghttp2-client" in result["reason"]


HTTP2_SERVER = """
    import asyncio, sys
    sys.path.append(HELPERS)
    from http2answers import HTTP2Answers

    async def main():
        server = await asyncio.start_server(HTTP2Answers().serve, "127.0.0.1", int(sys.argv[1]))
        await server.serve_forever()

    asyncio.run(main())
""".replace("HELPERS", repr(str(ROOT / "tests" / "helpers")))


def test_a_turn_has_the_figures_of_h2load(
    tmp_path: Path, stand_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", stand_in["PATH"])
    environment = FakeEnvironment(tmp_path)
    environment.h2load = (sys.executable, "-m", "bench.h2load")
    result = turn(Setup(environment, [(CORE,)], 0.05, 0, tmp_path), fake_server(HTTP2_SERVER), "h2c-h2load")
    assert result["status"] == "ok", result
    assert result["rate"] == pytest.approx(48548.57, rel=1e-4)
    assert result["latencies"] == []
