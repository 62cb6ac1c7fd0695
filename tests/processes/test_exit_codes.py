"""A start that fails: its exit code and what stderr says, the same with workers, --preload and --reload."""

import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import ServerProcess

from fastasgi import Config, Server, cli, run

LIFESPAN = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
NESTED = "import broken\n"
FACTORY = "def app():\n    return make()\n\ndef make():\n    return {}['database']\n"

# What fails: its name here, arguments, the source of app.py, our exit code, and what stderr says.
# uvicorn 0.54 has the same codes without workers, but 0 for `exit`. With --workers 2 it ends with 0 for
# `module`, `attribute` and `lifespan`, and starts workers without end for `nested`, `exit` and `tls`.
BEFORE_WORKERS = [
    ("option", ["--prot", "1", "app:app"], "", 2, r"Error: no option '--prot': .*\n"),
    ("value", ["--port", "x", "app:app"], "", 2, r"Error: port 'x': .*\n"),
    ("address", ["--fd", "987", "app:app"], "app = print", 3, r"Error: fd 987 is no socket.*\n"),
    ("port", ["--port", "{used}", "app:app"], "app = print", 3, r"Error: can't listen on .* in use.*\n"),
    ("pid", ["--pid-file", "none/pid", "app:app"], "app = print", 3, r"Error: pid_file .*\n"),
    (
        "tls",
        ["--ssl-certfile", "none.pem", "app:app"],
        "app = print",
        1,
        r"Error: ssl_certfile 'none.pem' .*\n",
    ),
]
IN_WORKERS = [
    ("module", ["shop:app"], "", 3, r"app 'shop:app': no module named 'shop'; .*\n"),
    ("attribute", ["app:shop"], "", 3, r"app 'app:shop': 'app' has no attribute 'shop'; .*\n"),
    ("nested", ["app:app"], NESTED, 1, r"ZeroDivisionError: division by zero\n"),
    ("base", ["app:app"], "raise BaseException('base')\n", 1, r"BaseException: base\n"),
    ("factory", ["--factory", "app:app"], FACTORY, 1, r"KeyError: 'database'\n"),
    (
        "exit",
        ["app:app"],
        "import sys\nsys.exit(0)\n",
        1,
        r"he application has ended its import by sys.exit\(0\)\n",
    ),
    ("exit 9", ["app:app"], "import sys\nsys.exit(9)\n", 9, r""),
    (
        "interface",
        ["app:app"],
        "def app(environ, respond): ...\n",
        2,
        r"the application takes two arguments, .*\n",
    ),
]

Failure = tuple[str, list[str], str, int, str]


def each(failures: list[Failure]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("failure", failures, ids=[failure[0] for failure in failures])


@pytest.fixture
def folder(folder: Path) -> Path:
    """The current folder, with a module in it whose import fails."""
    (folder / "broken.py").write_text("def divide():\n    1 / 0\n\ndivide()\n")
    return folder


@pytest.fixture
def used_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def failed(folder: Path, failure: Failure, *more: str, used_port: str = "") -> int:
    """The exit code of the command in this process."""
    _, arguments, source, _, _ = failure
    (folder / "app.py").write_text(source)
    command = ["--port", "0", *more, *(argument.format(used=used_port) for argument in arguments)]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    return ended.value.code


def frames(folder: Path, log: str) -> list[str]:
    """The files of the frames in a log; those of the folder by their names alone."""
    return [name.removeprefix(f"{folder}/") for name in re.findall(r'File "(.*?)", line', log)]


FRAMES = {"base": ["app.py"], "nested": ["app.py", "broken.py", "broken.py"], "factory": ["app.py", "app.py"]}


@pytest.mark.parametrize("mode", [[], ["--workers", "2"], ["--preload"], ["--reload"]], ids=" ".join)
@each(BEFORE_WORKERS)
def test_before_any_worker(
    folder: Path, used_port: str, failure: Failure, mode: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert failed(folder, failure, *mode, used_port=used_port) == failure[3]
    assert re.fullmatch(rf"(INFO: .*\n)*{failure[4]}", capfd.readouterr().err)


@pytest.mark.parametrize("mode", [[], ["--preload", "--workers", "2"], ["--check-config"]], ids=" ".join)
@each(IN_WORKERS)
def test_in_the_first_process(
    folder: Path, failure: Failure, mode: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert failed(folder, failure, *mode) == failure[3]
    log = capfd.readouterr().err
    assert re.search(failure[4], log)
    assert frames(folder, log) == FRAMES.get(failure[0], [])
    assert log.count("Traceback") == (failure[0] in FRAMES)


@each(IN_WORKERS)
def test_in_a_worker(folder: Path, failure: Failure, capfd: pytest.CaptureFixture[str]) -> None:
    assert failed(folder, failure, "--workers", "2") == failure[3]
    log = capfd.readouterr().err
    assert len(re.findall(failure[4] or r"did not start: exit code 9\n", log)) == 1
    assert frames(folder, log) == FRAMES.get(failure[0], [])
    assert log.count("did not start") == 1


@pytest.mark.parametrize("mode", [[], ["--workers", "2"]], ids=" ".join)
def test_a_module_of_an_event_loop_that_fails(
    folder: Path, mode: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    failure = ("loop", ["--loop", "broken:new_loop", "app:app"], "app = print", 1, "")
    assert failed(folder, failure, *mode) == 1
    log = capfd.readouterr().err
    assert frames(folder, log) == ["broken.py", "broken.py"]
    assert "\nZeroDivisionError: division by zero\n" in log


@pytest.mark.parametrize("mode", [[], ["--workers", "2"]], ids=" ".join)
def test_a_failed_lifespan(folder: Path, mode: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert failed(folder, ("lifespan", ["app:app"], LIFESPAN, 3, ""), *mode) == 3
    log = capfd.readouterr().err
    assert log.count("no database") == 1
    assert "Traceback" not in log


def test_a_failed_lifespan_of_a_preloaded_application(start: Callable[..., ServerProcess]) -> None:
    process = start(LIFESPAN, "--port", "0", "--preload", "app:app")
    assert process.wait() == 3
    assert process.log.count("no database") == 1
    assert "Traceback" not in process.log


@pytest.mark.parametrize(("source", "code"), [(NESTED, 1), (LIFESPAN, 3)], ids=["nested", "lifespan"])
def test_reload_waits_for_a_change_and_ends_with_the_code_of_the_failure(
    start: Callable[..., ServerProcess], source: str, code: int
) -> None:
    process = start(source, "--port", "0", "--reload", "app:app")
    process.wait_for("Waiting for a change")
    assert process.end(signal.SIGINT) == code
    assert process.log.count("did not start") == 1


def test_reload_without_watchfiles_never_says_that_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert failed(folder, ("", ["--reload", "app:app"], "app = print", 2, "")) == 2
    assert re.fullmatch(
        r"(INFO: .*\n)*Error: reload needs the watchfiles package .*\n", log := capfd.readouterr().err
    )
    assert "running on" not in log


THREADS = "import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n"


@pytest.mark.parametrize("mode", [[], ["--workers", "2"], ["--workers", "2", "--preload"]], ids=" ".join)
def test_a_start_that_fails_waits_for_no_thread(start: Callable[..., ServerProcess], mode: list[str]) -> None:
    server = start(f"{THREADS}1 / 0\n", "app:app", "--port", "0", *mode)
    assert server.wait() == 1
    assert "ZeroDivisionError" in server.log


def test_ctrl_c_while_the_application_is_imported(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start("import time\nopen('begun', 'w').close()\ntime.sleep(60)\n", "app:app", "--port", "0")
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    assert server.end(signal.SIGINT) == 128 + signal.SIGINT
    assert server.log == ""


def test_a_worker_that_a_signal_ends(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    assert failed(folder, ("", ["app:app"], source, 137, ""), "--workers", "1") == 128 + signal.SIGKILL


def test_run_shows_the_applications_frames_and_ends(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "app.py").write_text(NESTED)
    with pytest.raises(SystemExit) as ended:
        run("app:app", port=0, app_dir=".")
    assert ended.value.code == 1
    assert frames(folder, capfd.readouterr().err) == FRAMES["nested"]


def test_a_server_of_ones_own_raises_what_the_application_raises(folder: Path) -> None:
    (folder / "app.py").write_text(NESTED)
    with pytest.raises(ZeroDivisionError):
        Server(Config("app:app", port=0, app_dir=".", log_config=None)).run()
