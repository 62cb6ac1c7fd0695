"""--reload: what counts as a change, and what clients, the terminal and the process table see of it."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import WAIT_S, ServerProcess, Start, wait_until
from uvicorn import Config as UvicornConfig
from uvicorn.supervisors.watchfilesreload import FileFilter

from fastasgi import Config
from fastasgi.errors import ConfigError, FastasgiError
from fastasgi.processes.reload import ChangeFilter, ChangeWatch, watched_folders

RESTART_S = 0.3  # beyond the time that the application's import takes
TRIES = 12  # of which one must meet that, on a machine that does other things too
SLOWNESS = 2.5  # times that a worker's imports take, where that is more than RESTART_S: the machine is busy


def answering(text: str) -> str:
    return (
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        f"    await send({{'type': 'http.response.body', 'body': b{text!r}}})\n"
    )


def get(port: int) -> str:
    """The answer to a request on a connection of its own; whoever refuses that fails the test."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


class Asking:
    """A request under way, in a thread."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        self._connection.request("GET", "/")
        self.answer = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.closing(self._connection):
            self.answer = self._connection.getresponse().read().decode()

    def result(self) -> str:
        self._thread.join(WAIT_S)
        return self.answer


def begin(start: Start, source: str, *arguments: str) -> ServerProcess:
    process = start(source, "app:app", "--port", "0", "--no-access-log", "--reload", *arguments)
    process.wait_for("Started server process|Waiting for a change")  # by then, files are watched
    return process


def wait_for_finished(process: ServerProcess, count: int) -> None:
    process.wait_for("(?s)" + count * "Finished server process.*")


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions of app.py may be of one second and one size: bytecode tells them apart by nothing else."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def started_pids(process: ServerProcess) -> list[int]:
    return [int(line.split("[")[1].split("]")[0]) for line in process.errors if "Started server" in line]


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(text) for text in file.read().split()]


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def end_cleanly(process: ServerProcess, number: int = signal.SIGTERM) -> None:
    workers = children(process.process.pid)
    assert process.end(number) == 0
    assert not [pid for pid in {*workers, *started_pids(process)} if is_running(pid)]
    assert "Exception ignored" not in process.log


# What counts


EACH_CASE = [
    # includes, excludes, path, whether it counts
    ([], [], "main.py", True),
    ([], [], "lib/main.py", True),
    ([], [], "main.pyc", False),
    ([], [], "page.html", False),
    ([], [], ".hidden.py", False),
    ([], [], ".git/hooks/main.py", True),
    ([], [], "~main.py", False),
    ([], [], "main.py.swp", False),
    ([], [], "main.PY", False),
    (["*.html"], [], "page.html", True),
    (["*.html"], [], "main.py", True),
    (["*.html"], [], "a/b/page.html", True),
    (["templates/*.html"], [], "templates/page.html", True),
    (["templates/*.html"], [], "other/page.html", False),
    (["*"], [], "data.bin", True),
    (["*"], [], ".env", False),
    ([".env"], [], ".env", True),
    ([".env"], [], ".envrc", False),
    ([".*"], [], ".env", True),
    ([".*"], [], ".hidden.py", True),
    (["*.pyc"], [], "main.pyc", True),
    ([], ["*.py"], "main.py", False),
    ([], ["test_*"], "test_main.py", False),
    ([], ["test_*"], "main.py", True),
    (["*.html"], ["page.*"], "page.html", False),
    (["*.html"], ["*.html"], "page.html", False),
    (["page.html"], ["*.html"], "page.html", True),
    (["page.html"], ["*.html"], "other.html", False),
    ([], ["{root}/lib"], "lib/main.py", False),
    ([], ["{root}/lib"], "lib/deep/main.py", False),
    ([], ["{root}/lib"], "library/main.py", True),
    (["{root}/lib"], [], "lib/page.html", False),
    (["{root}/lib"], [], "lib/main.py", True),
]


@pytest.mark.parametrize(("includes", "excludes", "path", "counts"), EACH_CASE)
def test_what_counts_is_what_counts_with_uvicorn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    includes: list[str],
    excludes: list[str],
    path: str,
    counts: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib/deep").mkdir(parents=True)
    includes, excludes = ([text.format(root=tmp_path) for text in texts] for texts in (includes, excludes))
    theirs = FileFilter(
        UvicornConfig("app:app", reload=True, reload_includes=includes, reload_excludes=excludes)
    )
    assert theirs(tmp_path / path) is counts
    assert ChangeFilter(includes, excludes)(tmp_path / path) is counts


def test_an_include_without_wildcards_goes_before_all_excludes(tmp_path: Path) -> None:
    changes = ChangeFilter(
        ["main.py"], [str(tmp_path), "main.*"]
    )  # uvicorn: by chance, "*.py" may come first
    assert changes(tmp_path / "main.py")
    assert not changes(tmp_path / "other.py")


def test_an_excluded_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib").mkdir()
    changes = ChangeFilter([], ["lib"])
    assert not changes(tmp_path / "lib/main.py")
    assert changes(tmp_path / "main.py")


@pytest.mark.parametrize("text", ["", ".", "/"])
def test_the_folders_that_no_pattern_can_name_are_folders(text: str) -> None:
    assert ChangeFilter([text], [])(Path("/somewhere/main.py"))


def test_folders_inside_others_are_watched_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("src/lib", "conf"):
        (tmp_path / name).mkdir(parents=True)
    assert watched_folders(Config("app:app")) == [tmp_path]
    config = Config("app:app", reload_dirs=["src", "src/lib", "src"], reload_includes=["conf", "*.html"])
    assert watched_folders(config) == [tmp_path / "src", tmp_path / "conf"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^reload_dirs 'none' is not a folder: name one that exists$"):
        ChangeWatch(Config("app:app", reload_dirs=["none"]))


# The watching thread


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], ChangeWatch]:
    """Makes a ChangeWatch, not entered yet, whose changes come from the function given."""
    monkeypatch.chdir(tmp_path)

    def make(source: object) -> ChangeWatch:
        changes = ChangeWatch(Config("app:app"))
        monkeypatch.setattr(changes, "_watch", source)
        return changes

    return make


def test_changes_before_take_come_together(tmp_path: Path, watch: Callable[..., ChangeWatch]) -> None:
    taken = threading.Event()

    def source(*folders: object, watch_filter: Callable[..., bool], **settings: object) -> Iterator[object]:
        assert watch_filter(1, str(tmp_path / "a.py"))
        assert not watch_filter(1, str(tmp_path / "a.txt"))
        yield {(1, str(tmp_path / "b.py")), (1, "/elsewhere/c.py")}
        yield {(1, str(tmp_path / "a.py"))}
        taken.wait(WAIT_S)
        yield {(1, str(tmp_path / "d.py"))}

    changes = watch(source)
    with changes:
        wait_until(lambda: len(changes._changed) == 3)
        assert changes.names() == ["'/elsewhere/c.py'", "'a.py'", "'b.py'"]
        taken.set()
        assert changes.names() == ["'d.py'"]


@pytest.mark.parametrize("error", [RuntimeError("no\nwatches left"), SystemExit("no\nwatches left")])
def test_the_end_of_watching_is_told_in_one_line(
    tmp_path: Path, watch: Callable[..., ChangeWatch], error: BaseException
) -> None:
    def source(*folders: object, **settings: object) -> Iterator[object]:
        raise error
        yield

    with watch(source) as changes, pytest.raises(FastasgiError) as caught:
        changes.names()
    assert str(caught.value).startswith(f"reload can't watch {str(tmp_path)!r} (no watches left): name fewer")
    assert caught.value.exit_code == 1


# The process


def seconds_of(source: str, folder: Path) -> float:
    """How long an interpreter takes for this, its start and end included."""
    begun_at = time.monotonic()
    subprocess.run([sys.executable, "-c", source], cwd=folder, check=True, timeout=WAIT_S)
    return time.monotonic() - begun_at


def test_new_code_answers_soon(start: Start, tmp_path: Path) -> None:
    process = begin(start, answering("0"))
    assert get(process.port) == "0"
    took_s = []
    for i in range(1, TRIES + 1):
        limit_s = max(RESTART_S, SLOWNESS * seconds_of("import fastasgi.processes.child", tmp_path))
        (tmp_path / "app.py").write_text(answering(str(i)))
        written_at = time.monotonic()
        wait_for_finished(process, i)
        assert get(process.port) == str(i)
        took_s.append(time.monotonic() - written_at)
        if took_s[-1] < limit_s:
            break
    assert took_s[-1] < limit_s, took_s
    assert len(children(process.process.pid)) == 1
    assert "Detected changes in 'app.py'. Reloading..." in process.log
    end_cleanly(process)


@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        ("async def app(:\n", "SyntaxError: "),
        ("import does_not_exist\n", "ModuleNotFoundError: "),
        ("other = 1\n", "has no attribute 'app'"),
        (answering("old").replace("== 'http'", "== 'http', 1/0"), "Application startup failed"),
    ],
)
def test_broken_code_is_shown_and_waited_out(start: Start, tmp_path: Path, broken: str, shown: str) -> None:
    process = begin(start, answering("old"), "--lifespan", "on" if "1/0" in broken else "off")
    if "1/0" not in broken:
        assert get(process.port) == "old"
        (tmp_path / "app.py").write_text(broken)
    process.wait_for("Waiting for a change")
    assert shown in process.log
    asking = Asking(process.port)
    (tmp_path / "app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "        return await send({'type': 'lifespan.shutdown.complete'})\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': b'mended'})\n"
    )
    assert asking.result() == "mended"
    end_cleanly(process)


def test_an_application_that_is_not_there_yet_is_waited_for(start: Start, tmp_path: Path) -> None:
    process = start("", "later:app", "--port", "0", "--no-access-log", "--reload")
    process.wait_for("Waiting for a change")
    assert "no module named 'later'" in process.log
    assert "Traceback" not in process.log
    asking = Asking(process.port)
    (tmp_path / "later.py").write_text(answering("there"))
    assert asking.result() == "there"
    end_cleanly(process)


def test_no_connection_is_refused_while_code_changes(start: Start, tmp_path: Path) -> None:
    process = begin(start, answering("0"))
    answers: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            answers.append(get(process.port))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until(lambda: answers or not asking.is_alive())
        for i in range(1, 4):
            (tmp_path / "app.py").write_text(answering(str(i)))
            wait_until(lambda i=i: answers[-1:] == [str(i)] or not asking.is_alive())
    finally:
        is_over.set()
        asking.join(WAIT_S)
    assert answers == sorted(answers)
    assert set(answers) == {"0", "1", "2", "3"}
    end_cleanly(process)


def test_a_storm_of_changes_ends_with_the_last_code(start: Start, tmp_path: Path) -> None:
    process = begin(start, answering("first"), "--reload-delay", "0.1")
    for i in range(300):
        (tmp_path / f"module_{i % 40}.py").write_text(f"number = {i}\n")
        (tmp_path / "app.py").write_text(answering("storm") if i % 3 else "async def (")
    (tmp_path / "app.py").write_text(answering("last"))
    wait_until(lambda: get(process.port) == "last")
    wait_until(lambda: len(children(process.process.pid)) == 1)
    assert 1 <= process.log.count("Detected changes") <= 60
    end_cleanly(process)


def test_only_what_is_watched_restarts(start: Start, tmp_path: Path) -> None:
    for name in ("conf", "lib/skipped", "other"):
        (tmp_path / name).mkdir(parents=True)
    options = ["--reload-dir", "lib", "--reload-dir", "conf", "--reload-include", "*.toml"]
    options += ["--reload-exclude", "skip_*", "--reload-exclude", "lib/skipped"]
    process = begin(start, answering("0"), *options)
    (tmp_path / "app.py").write_text(answering("1"))
    for name in ("other/a.py", "lib/skip_it.py", "lib/notes.txt", "lib/skipped/a.py", "conf/a.toml"):
        (tmp_path / name).write_text("")
    process.wait_for(r"Detected changes in 'conf/a\.toml'\. Reloading")
    wait_until(lambda: get(process.port) == "1")
    (tmp_path / "lib/b.py").write_text("")
    process.wait_for(r"Detected changes in 'lib/b\.py'\. Reloading")
    assert process.log.count("Detected changes") == 2
    end_cleanly(process)


WAITING = """
import asyncio
async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/poll":
        await receive()
        await receive()
        return
    await send({"type": "http.response.start", "status": 200})
    if scope["path"] == "/hang":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()
    if scope["path"] == "/stream":
        while True:
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"old"})
"""


@pytest.mark.parametrize(("path", "limit_s"), [("/poll", 3), ("/stream", 3), ("/hang", 6), ("", 3), ("/", 2)])
def test_open_connections_do_not_hold_the_new_code_up(
    start: Start, tmp_path: Path, path: str, limit_s: float
) -> None:
    process = begin(start, WAITING)
    assert get(process.port) == "old"
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.connect()
        if path:
            connection.request("GET", path)
        if path not in ("", "/poll"):
            assert connection.getresponse().read(3) in (b"beg", b"old")
        (tmp_path / "app.py").write_text(answering("new"))
        written_at = time.monotonic()
        wait_until(lambda: get(process.port) == "new")
        took_s = time.monotonic() - written_at
        assert took_s < limit_s
    end_cleanly(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_while_the_code_is_broken(start: Start, tmp_path: Path, number: int) -> None:
    process = begin(start, answering("old"))
    (tmp_path / "app.py").write_text("async def (")
    process.wait_for("Waiting for a change")
    end_cleanly(process, number)


def test_an_end_while_new_code_is_imported(start: Start, tmp_path: Path) -> None:
    process = begin(start, answering("old"))
    assert get(process.port) == "old"
    slow = "import sys, threading\nprint('importing', file=sys.stderr)\nthreading.Event().wait()\n"
    (tmp_path / "app.py").write_text(slow)
    process.wait_for("importing")
    asked_at = time.monotonic()
    end_cleanly(process, signal.SIGINT)
    assert time.monotonic() - asked_at < 3
    assert "Traceback" not in process.log


def test_a_change_while_new_code_is_imported(start: Start, tmp_path: Path) -> None:
    process = begin(start, answering("old"))
    slow = "import sys, threading\nprint('importing', file=sys.stderr)\nthreading.Event().wait()\n"
    (tmp_path / "app.py").write_text(slow)
    process.wait_for("importing")
    (tmp_path / "app.py").write_text(answering("new"))
    assert get(process.port) == "new"
    assert len(children(process.process.pid)) == 1
    end_cleanly(process)


# What is missing


def with_module(folder: Path, name: str, source: str) -> dict[str, str]:
    """An environment in which a module is this text."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(source)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_watching_that_fails_ends_the_server_with_one_line(start: Start, tmp_path: Path) -> None:
    source = "def watch(*folders, **settings):\n    raise RuntimeError('OS file watch limit reached.')\n"
    environment = with_module(tmp_path / "path", "watchfiles", source)
    process = start(answering(""), "app:app", "--port", "0", "--reload", environment=environment)
    assert process.wait() == 1
    assert [line for line in process.errors if line.startswith("Error: ")] == [
        f"Error: reload can't watch {str(tmp_path)!r} (OS file watch limit reached.): "
        "name fewer folders with --reload-dir, or set WATCHFILES_FORCE_POLLING=1\n"
    ]
    assert "Traceback" not in process.log
    assert not [pid for pid in started_pids(process) if is_running(pid)]
