"""The pid file: written in one step, never another running server's, and removed by its owner only."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import HI_APP, WAIT_S, ServerProcess, Start

from fastasgi.errors import BindError
from fastasgi.system.pidfile import PidFile


@pytest.fixture
def other() -> Iterator["subprocess.Popen[bytes]"]:
    """Another running process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait(WAIT_S)
    process.stdin.close()


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(WAIT_S)
    return process.pid


# The file


def test_written_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    file.write()
    assert os.listdir(tmp_path) == ["pid"]
    file.remove()
    file.remove()
    assert os.listdir(tmp_path) == []


def test_the_path_holds_when_the_current_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = PidFile("pid")
    monkeypatch.chdir("/")
    file.write()
    assert (tmp_path / "pid").exists()


@pytest.mark.parametrize(
    "text", ["", "\n", "text", "12 13", "-1\n", "0\n", "-0", "9" * 31, "1" * 50, "1e3", "\u0663"]
)
def test_garbage_is_taken_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


@given(st.binary(max_size=64))
def test_no_content_crashes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("pid") / "pid"
    path.write_bytes(data)
    said = ""
    try:
        PidFile(str(path)).write()
    except BindError as error:
        said = str(error)
    if said:
        os.kill(int(data), 0)
        assert f"names the running process {int(data)}: " in said
    else:
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_process_that_has_ended_is_no_owner(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{ended_pid()}\n")
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_running_process_keeps_its_file(tmp_path: Path, other: "subprocess.Popen[bytes]") -> None:
    path = tmp_path / "pid"
    path.write_text(f"{other.pid}\n")
    file = PidFile(str(path))
    with pytest.raises(BindError) as caught:
        file.write()
    assert str(caught.value) == (
        f"pid_file {str(path)!r} names the running process {other.pid}: "
        "stop that, or choose another --pid-file"
    )
    file.remove()
    assert path.read_text() == f"{other.pid}\n"
    file.write(instead_of=other.pid)
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "pid").symlink_to("precious")
    PidFile(str(tmp_path / "pid")).write()
    assert (tmp_path / "precious").read_text() == "text"


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", str(tmp_path), str(tmp_path / "fifo"), str(tmp_path / "link")):
        with pytest.raises(BindError, match="is not a regular file: choose another --pid-file"):
            PidFile(path).write()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("none", "No such file or directory"), ("file", "Not a directory"), ("/proc/self", "")],
)
def test_a_folder_that_takes_no_file_is_named(tmp_path: Path, folder: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / folder / "pid"
    with pytest.raises(BindError) as caught:
        PidFile(str(path)).write()
    assert str(caught.value).startswith(f"pid_file {str(path)!r} can't be written ({reason}")
    assert str(caught.value).endswith("): choose another --pid-file")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastasgi.system.pidfile.os.replace", fail)
    (tmp_path / "pid").write_text("")
    with pytest.raises(BindError, match="No space left on device"):
        PidFile(str(tmp_path / "pid")).write()
    assert os.listdir(tmp_path) == ["pid"]


# The process

each_kind = pytest.mark.parametrize("arguments", [(), ("--workers", "1")], ids=["alone", "supervisor"])


def begin(start: Start, *arguments: str) -> ServerProcess:
    return start(HI_APP, "app:app", "--port", "0", "--pid-file", "server.pid", *arguments)


@each_kind
def test_the_file_names_the_server_and_goes_with_it(
    start: Start, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    process = begin(start, *arguments)
    assert process.port
    process.wait_for("Started server process")
    assert (tmp_path / "server.pid").read_text() == f"{process.process.pid}\n"
    process.end()
    assert not (tmp_path / "server.pid").exists()


@each_kind
def test_a_running_servers_file_is_refused(
    start: Start, tmp_path: Path, other: "subprocess.Popen[bytes]", arguments: tuple[str, ...]
) -> None:
    (tmp_path / "server.pid").write_text(f"{other.pid}\n")
    process = begin(start, *arguments)
    assert process.wait() == 3
    assert process.errors == [
        f"Error: pid_file '{tmp_path}/server.pid' names the running process {other.pid}: "
        "stop that, or choose another --pid-file\n"
    ]
    assert (tmp_path / "server.pid").read_text() == f"{other.pid}\n"


@each_kind
def test_a_killed_servers_file_is_taken_over(
    start: Start, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    killed = begin(start, *arguments)
    assert killed.port
    killed.end(signal.SIGKILL)
    assert (tmp_path / "server.pid").read_text() == f"{killed.process.pid}\n"
    process = begin(start, *arguments)
    assert process.port
    assert (tmp_path / "server.pid").read_text() == f"{process.process.pid}\n"


@each_kind
def test_another_owners_file_is_not_removed(start: Start, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = begin(start, *arguments)
    assert process.port
    process.wait_for("Started server process")
    (tmp_path / "server.pid").write_text("1\n")
    process.end()
    assert (tmp_path / "server.pid").read_text() == "1\n"


@each_kind
def test_a_folder_that_is_not_there(start: Start, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = start(HI_APP, "app:app", "--port", "0", "--pid-file", "none/pid", *arguments)
    assert process.wait() == 3
    assert process.errors == [
        f"Error: pid_file '{tmp_path}/none/pid' can't be written (No such file or directory): "
        "choose another --pid-file\n"
    ]


@each_kind
def test_a_start_that_fails_leaves_no_file(start: Start, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = start("", "app:app", "--port", "0", "--pid-file", "server.pid", *arguments)
    assert process.wait() != 0
    assert not (tmp_path / "server.pid").exists()


def test_a_new_supervisor_takes_the_file_over(start: Start, tmp_path: Path) -> None:
    process = begin(start, "--workers", "1")
    process.wait_for("Started server process")
    process.process.send_signal(signal.SIGUSR2)
    pid = int(process.wait_for(r"Supervisor \[(\d+)\] takes over")[1])
    try:
        assert (tmp_path / "server.pid").read_text() == f"{pid}\n"
        process.wait_for(r"(?s)takes over.*Finished supervisor process")
        assert (tmp_path / "server.pid").read_text() == f"{pid}\n"
    finally:
        os.kill(pid, signal.SIGTERM)
    assert process.wait() == 0


def test_a_new_supervisor_that_fails_leaves_the_file_to_the_old_one(start: Start, tmp_path: Path) -> None:
    process = begin(start, "--workers", "1")
    process.wait_for("Started server process")
    (tmp_path / "app.py").write_text("async def (")
    process.process.send_signal(signal.SIGUSR2)
    process.wait_for("this one goes on")
    assert (tmp_path / "server.pid").read_text() == f"{process.process.pid}\n"
