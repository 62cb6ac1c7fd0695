"""What a worker sets on itself: umask, processor, user and group, name."""

import contextlib
import grp
import http.client
import json
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import WAIT_S, ServerProcess, Start

from fastasgi import Config
from fastasgi.errors import ConfigError
from fastasgi.system.identity import find_group, find_user, parse_processors

# Answers with what the process is. The import says so too: but for preload, settings are to hold by then.
APP = """
import json, os, sys

def facts():
    umask = os.umask(0)
    os.umask(umask)
    return {"pid": os.getpid(), "uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(),
            "groups": sorted(os.getgroups()), "umask": umask,
            "processors": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []}

print("imported with", json.dumps(facts()), file=sys.stderr)

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(facts()).encode()})
"""


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
each_kind = pytest.mark.parametrize(
    "kind", [(), ("--workers", "1"), ("--preload",)], ids=["alone", "worker", "fork"]
)


def facts_of(process: ServerProcess, host: str = "127.0.0.1") -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, process.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        facts: dict[str, Any] = json.loads(connection.getresponse().read())
    return facts


def refused(start: Start, *arguments: str) -> str:
    """The one line, with exit code 2, of a server that does not begin with these arguments."""
    process = start(APP, "app:app", "--port", "0", *arguments)
    assert process.wait() == 2
    assert len(process.errors) == 1, process.log
    return process.errors[0]


# umask


@pytest.mark.parametrize("kind", [(), ("--workers", "1")], ids=["alone", "worker"])
def test_umask(start: Start, kind: tuple[str, ...]) -> None:
    process = start(APP, "app:app", "--port", "0", "--umask", "027", *kind)
    assert facts_of(process)["umask"] == 0o027


def test_a_umask_that_is_none(start: Start) -> None:
    assert refused(start, "--umask", "999").startswith("Error: umask '999'")


# cpu_affinity


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0,2", [0, 2]),
        ("4-7", [4, 5, 6, 7]),
        (" 0 , 2-3 ", [0, 2, 3]),
        ("3,1", [3, 1]),
        ("5-5", [5]),
    ],
)
def test_processor_numbers(text: str, numbers: list[int]) -> None:
    assert parse_processors(text) == numbers


@pytest.mark.parametrize(
    "text",
    ["", ",", "0,", "-1", "1-", "2-1", "a", "0x1", "1.5", "0-99999999999", "Auto", "1 2", "\u0661", "--"],
)
def test_texts_that_are_no_processor_numbers(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_processors(text)
    assert str(caught.value) == f"cpu_affinity {text!r}: give auto, or processor numbers such as 0,2,4-7"


@given(st.text(alphabet="0123456789,- a\u0661", max_size=12))
def test_no_text_does_anything_else(text: str) -> None:
    try:
        numbers = parse_processors(text)
    except ConfigError:
        return
    assert numbers
    assert all(0 <= number <= 9999 for number in numbers)


@on_linux
def test_checking_leaves_the_processors_as_they_are() -> None:
    before = os.sched_getaffinity(0)
    Config("app:app", cpu_affinity=str(min(before)))
    with pytest.raises(ConfigError, match="no processor 9999 here"):
        Config("app:app", cpu_affinity=f"{min(before)},9999")
    assert os.sched_getaffinity(0) == before


@on_linux
@each_kind
def test_a_worker_has_one_processor(start: Start, kind: tuple[str, ...]) -> None:
    last = max(os.sched_getaffinity(0))
    process = start(APP, "app:app", "--port", "0", "--cpu-affinity", str(last), *kind)
    assert facts_of(process)["processors"] == [last]


@on_linux
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one processor"
)
def test_workers_have_different_processors(start: Start) -> None:
    process = start(APP, "app:app", "--port", "0", "--cpu-affinity", "auto", "--workers", "2")
    process.wait_for(r"(?s)(imported with.*){2}")
    found = [line for line in process.errors if "imported with" in line]
    first, second = sorted(os.sched_getaffinity(0))[:2]
    assert sorted(line.split('"processors": ')[1] for line in found) == [f"[{first}]}}\n", f"[{second}]}}\n"]


@on_linux
@pytest.mark.parametrize("kind", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_processor_that_is_not_there(start: Start, kind: tuple[str, ...]) -> None:
    said = refused(start, "--cpu-affinity", "0,8000", *kind)
    assert said.startswith("Error: cpu_affinity '0,8000': no processor 8000 here (Invalid argument); choose")


def test_a_wrong_processor_text(start: Start) -> None:
    assert refused(start, "--cpu-affinity", "two").startswith("Error: cpu_affinity 'two': give auto, or")


# user and group


def own_host() -> str:
    """A loopback address that no other test uses at this time, so that a fixed port is free there."""
    pid = os.getpid()
    return f"127.{pid >> 16 & 255}.{pid >> 8 & 255}.{(pid & 255) or 1}"


@pytest.fixture
def open_folder(tmp_path: Path) -> None:
    """Lets every user import app.py, where this interpreter can be used by every user."""
    ended = None
    command = [sys.executable, "-c", "import fastasgi.server, fastasgi.application.wsgi"]
    with contextlib.suppress(PermissionError):
        ended = subprocess.run(command, user="nobody", capture_output=True, cwd="/", timeout=WAIT_S)
    if ended is None or ended.returncode:
        pytest.skip("this interpreter is not for every user")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)


def identity(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ("uid", "euid", "gid", "groups")}


@as_root
@on_linux
@each_kind
@pytest.mark.usefixtures("open_folder")
def test_a_worker_becomes_the_user_and_the_port_is_bound_before(start: Start, kind: tuple[str, ...]) -> None:
    nobody = pwd.getpwnam("nobody")
    process = start(APP, "app:app", "--host", own_host(), "--port", "1023", "--user", "nobody", *kind)
    assert identity(facts_of(process, own_host())) == {
        "uid": nobody.pw_uid,
        "euid": nobody.pw_uid,
        "gid": nobody.pw_gid,
        "groups": sorted({nobody.pw_gid, *(g.gr_gid for g in grp.getgrall() if "nobody" in g.gr_mem)}),
    }
    assert process.end() in (0, -signal.SIGTERM)


@as_root
@pytest.mark.parametrize("arguments", [["--user", "65534", "--group", "12345"], ["--group", "12345"]])
def test_numbers_name_users_and_groups(
    start: Start, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    if "--user" in arguments:
        request.getfixturevalue("open_folder")
    process = start(APP, "app:app", "--port", "0", *arguments)
    found = identity(facts_of(process))
    uid = 65534 if "--user" in arguments else 0
    assert (found["uid"], found["euid"], found["gid"]) == (uid, uid, 12345)
    assert 12345 in found["groups"]
    assert 0 not in found["groups"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--user", "no-such-user"], "user 'no-such-user' is not known here: give a user's name or number"),
        (["--user", "3999999999"], "user '3999999999' is not known here: give a user's name or number"),
        (
            ["--group", "no-such-group"],
            "group 'no-such-group' is not known here: give a group's name or number",
        ),
        (["--group", "4294967295"], "group '4294967295' is not known here: give a group's name or number"),
    ],
)
def test_unknown_users_and_groups(start: Start, arguments: list[str], said: str) -> None:
    assert refused(start, *arguments, "--workers", "2") == f"Error: {said}\n"


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "9" * 30, "-1", "\u0661" * 12])
def test_names_that_can_not_be(name: str) -> None:
    with pytest.raises(ConfigError, match="is not known here"):
        find_user(name)
    with pytest.raises(ConfigError, match="is not known here"):
        find_group(name)


@as_root
@pytest.mark.parametrize("settings", ["user='root'", "group='root'", "user='nobody', group='root'"])
def test_only_root_may_change_them(tmp_path: Path, settings: str) -> None:
    source = (
        "import grp, os, pwd; from fastasgi import Config\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"Config('app:app', user='nobody', group='65534')\nConfig('app:app', {settings})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, cwd="/", timeout=WAIT_S
    )
    assert ended.stderr.splitlines()[-1].endswith(
        ": only root may change them; start as root, or leave them out"
    )
    assert "ConfigError" in ended.stderr.splitlines()[-1]


# Becomes `nobody` as a worker does, and says what it could do then; `before` runs first.
DROP = """
import ctypes, os, sys, types
from fastasgi.system.identity import apply_process_settings
config = types.SimpleNamespace(
    user="nobody", group=None, umask=None, cpu_affinity=None, process_name=None)
{before}
apply_process_settings(config, 0)
print(len(set(os.getresuid())), len(set(os.getresgid())), os.getuid() != 0, os.getgid() != 0)
os.seteuid(0)
"""


def dropped(before: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DROP.format(before=before)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=WAIT_S)


@as_root
@on_linux
@pytest.mark.parametrize(
    "before",
    ["", "os.setresgid(0, 65534, 0); os.setresuid(0, 65534, 0)", "os.setresuid(65534, 0, 0)"],
    ids=["root", "root in reserve", "root in effect"],
)
def test_rights_that_are_dropped_can_not_be_had_back(before: str) -> None:
    """Real, effective and saved ids are all the user's."""
    ended = dropped(before)
    assert ended.stdout == "1 1 True True\n", ended.stderr
    assert ended.stderr.splitlines()[-1] == "PermissionError: [Errno 1] Operation not permitted"


@as_root
@on_linux
def test_rights_that_could_be_had_back_end_the_process() -> None:
    no_setuid_fixup = "assert ctypes.CDLL(None).prctl(28, 1 << 2, 0, 0, 0) == 0"  # PR_SET_SECUREBITS
    ended = dropped(no_setuid_fixup)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1] == (
        "fastasgi.errors.ConfigError: user 'nobody': this process could become root again; start it without "
        "capabilities that outlast a change of user (CAP_SETUID, securebits)"
    )


# Standard streams


@each_kind
def test_a_process_without_standard_streams(tmp_path: Path, kind: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = (
        f"{shlex.join([sys.executable, '-m', 'fastasgi', '--uds', 'x.sock', *kind, 'app:app'])} <&- >&- 2>&-"
    )
    with subprocess.Popen(["/bin/sh", "-c", f"exec {command}"], cwd=tmp_path) as process:
        sock = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + WAIT_S
        while sock.connect_ex(str(tmp_path / "x.sock")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        with sock, sock.makefile("rb") as stream:
            assert stream.read().startswith(b"HTTP/1.1 200 OK\r\n")
        process.terminate()
        assert process.wait(WAIT_S) == (0 if kind else -signal.SIGTERM)


# process_name


def title_of(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().rstrip("\0 ")


@on_linux
@each_kind
def test_workers_have_their_name(start: Start, kind: tuple[str, ...]) -> None:
    process = start(APP, "app:app", "--port", "0", "--process-name", "shop", *kind)
    assert title_of(facts_of(process)["pid"]) == "shop: worker 0"
    if kind:
        assert title_of(process.process.pid) == "shop: supervisor"


def test_a_name_needs_the_package(start: Start, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/setproctitle.py").write_text("raise ModuleNotFoundError(name='setproctitle')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/path:{os.environ.get('PYTHONPATH', '')}"}
    process = start(APP, "app:app", "--port", "0", "--process-name", "shop", environment=environment)
    assert process.wait() == 2
    assert process.errors == [
        "Error: process_name needs the setproctitle package: pip install setproctitle\n"
    ]
