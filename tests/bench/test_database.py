"""PostgreSQL as the bench runs it, and what the applications ask of it."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchparts import CORE, ROOT, WAIT_S, WITH_BENCH, linux
from serving import wait_until

from bench import accounting, database, processes
from bench.errors import BenchError, MissingError
from bench.probe import free_port


@linux
def test_a_silent_initdb_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_program", lambda name: shutil.which("false"))
    with pytest.raises(BenchError, match=r"^initdb failed: exit code 1$"), database.running((CORE,)):
        pass


@linux
@pytest.mark.skipif(not shutil.which("psql"), reason="no PostgreSQL")
def test_interrupts_without_end_leave_nothing_of_the_database() -> None:
    source = f"""
        import signal
        from bench import database, processes
        processes.take_interrupts()
        try:
            with database.running(({CORE},)) as running:
                print(running.sockets, running._process.pid, flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("ended", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, env=WITH_BENCH, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder, pid = process.stdout.readline().split()
        assert accounting.tree_pids(int(pid))
        ends = time.monotonic() + WAIT_S
        while process.poll() is None:
            assert time.monotonic() < ends
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert process.stdout.read() == "ended\n"
    assert not Path(folder).exists()
    assert accounting.tree_pids(int(pid)) == []


@pytest.fixture
def statements() -> Iterator[tuple[Path, Callable[[], list[tuple[str, str]]]]]:
    """The folder of a PostgreSQL's socket, and a function that says what clients have asked of it since the
    last call.
    """
    try:
        with database.running((CORE,)) as running:
            settings = "ALTER DATABASE bench SET log_min_duration_statement = 0"
            psql = [database.find_program("psql"), "-h", str(running.sockets), "-U", "bench", "bench"]
            subprocess.run([*psql, "-q", "-c", settings], check=True)
            log, read = running.sockets / "log", 0

            def asked() -> list[tuple[str, str]]:
                nonlocal read
                text = log.read_text()[read:]
                read += len(text)
                return re.findall(r"duration: \S+ ms  (parse|bind|execute|statement)[^:]*: (.*)", text)

            yield running.sockets, asked
    except MissingError as error:
        pytest.skip(str(error))


@linux
@pytest.mark.parametrize("name", ["starlette", "node"])
def test_the_database_is_asked_the_same_by_each_application(
    name: str, statements: tuple[Path, Callable[[], list[tuple[str, str]]]], tmp_path: Path
) -> None:
    folder, asked = statements
    port, apps = free_port(), ROOT / "bench" / "apps"
    node_modules = ROOT / ".venv-bench" / "node" / "node_modules"
    if name == "node":
        if not shutil.which("node") or not (node_modules / "pg").is_dir():
            pytest.skip("the bench's environment has no Node with pg")
        command = ["node", str(apps / "server.js"), "1.1", str(port), "1"]
    else:
        for module in ("asyncpg", "jinja2", "starlette"):
            pytest.importorskip(module)
        command = [sys.executable, "-m", "fastasgi", "techempower:app", "--app-dir", str(apps)]
        command += ["--port", str(port)]
    variables = {
        **os.environ,
        "NODE_PATH": str(node_modules),
        "BENCH_DATABASE": str(folder),
        "BENCH_POOL": "1",
    }
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log", env=variables)
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        found = []
        for path in ("/db", "/db", "/fortunes", "/fortunes"):
            client.request("GET", path)
            response = client.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            found.append(asked())
        client.close()
    row = [
        (step, "SELECT id, randomnumber FROM world WHERE id = $1") for step in ("parse", "bind", "execute")
    ]
    fortunes = [(step, "SELECT id, message FROM fortune") for step in ("parse", "bind", "execute")]
    # Each statement is prepared once on a connection, and nothing but the statements is asked.
    assert found == [row, row[1:], fortunes, fortunes[1:]]
