"""What pages say beside their blocks: lines of the log, defaults, options, signals, rotation."""

import dataclasses
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdownblocks import blocks_of
from markdownrun import ROOT
from serving import ServerProcess, signal_set, wait_until

from fastasgi import Config

DOCS = ROOT / "docs"
PAGES = (
    "gunicorn", "http2", "logging", "observability", "performance", "proxies", "security", "server",
    "signals", "tls", "websockets",
)  # fmt: skip

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Hello"})
"""


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row in the tables of a section."""
    section = re.split(rf"(?m)^#+ {heading}$", text_of(page))[1]
    for line in re.split(r"(?m)^## ", section)[0].splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


# --- Lines of the log ---


# What stands in a line for something else
PLACES = re.compile(
    r"\.\.\.| \(|PID|GET /\w+|http:|ENHANCE_YOUR_CALM|(?:Started|Finished) (?:server|supervisor)|[\d.]*\d|:"
)


@pytest.fixture(scope="module")
def sources() -> str:
    """The text of the package, with strings in one piece that stand in several."""
    paths = [*(ROOT / "fastasgi").rglob("*.py"), *(ROOT / "fastasgi").rglob("*.pyx")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in paths))


LINES = [
    line for cells in rows("logging", "What each line means") for line in re.findall("`(.*?)`", cells[0])
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_log_is_one_of_the_servers(line: str, sources: str) -> None:
    for part in PLACES.split(line):
        assert part.lstrip() in sources


def test_reasons_of_refusals_are_the_servers(sources: str) -> None:
    reasons = [
        reason
        for heading in ("Requests that are refused", "Too many at once", "Timeouts")
        for cells in rows("server", heading)
        for cell in cells[:-1]
        for reason in re.findall(r"`([a-zA-Z]\w* (?:\w+ )*\w+)`", cell)
    ]
    assert len(reasons) >= 7
    for reason in reasons:
        assert f'"{reason}"' in sources, reason


# --- Defaults ---


UNITS = {"": 1, "s": 1, "KiB": 2**10, "MiB": 2**20, "messages": 1}
VALUE = re.compile(r"(?P<number>\d+)(?: (?P<unit>s|KiB|MiB|messages))?\b")
NAMES = {field.name for field in dataclasses.fields(Config)}


def told_defaults() -> dict[str, tuple[str, str]]:
    """By page and setting: the setting, and its default as the page's tables have it."""
    found = {}
    for page, heading, setting_at, value_at in (
        ("server", "Requests that are refused", -1, 1),
        ("server", "Too many at once", -1, 1),
        ("server", "Timeouts", -1, 1),
        ("websockets", "Limits", 0, 1),
        ("http2", "Limits", 0, 1),
        ("http2", "Timeouts", 1, 1),
    ):
        for cells in rows(page, heading):
            for name in sorted(NAMES.intersection(re.findall(r"`(\w+)`", cells[setting_at]))):
                if value := re.sub(r"`.*?`,?|,.*", "", cells[value_at]).strip():
                    found[f"{page}-{heading}-{name}"] = name, value
    return found


DEFAULTS = told_defaults()


@pytest.mark.parametrize("place", DEFAULTS)
def test_a_default_is_what_a_page_says(place: str) -> None:
    name, told = DEFAULTS[place]
    default = getattr(Config("main:app"), name)
    if told in ("no limit", "off"):
        assert not default
    elif told != "allowed; for WSGI left out":
        value = VALUE.match(told)
        assert value, told
        assert default == int(value["number"]) * UNITS[value["unit"] or ""]


def test_there_are_defaults_to_compare() -> None:
    assert len(DEFAULTS) > 25


# --- Options ---


# Those of other programs, which pages name
FOREIGN = {"--kill-whom", "--use-http2", "--http2-prior-knowledge", "--dry-run", "--http1.1"}


@pytest.fixture(scope="module")
def options() -> set[str]:
    command = [sys.executable, "-m", "fastasgi", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][\w-]*", shown))


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_are_options(page: str, options: set[str]) -> None:
    prose = re.sub(r"(?ms)^( *)```.*?^\1```$", "", text_of(page))
    spans = re.findall(r"`(--[^`]*)`", prose)
    named = {option for span in spans for option in re.findall(r"(?<!\S)--[a-z][\w.-]*", span)}
    assert named - FOREIGN <= options


# --- Signals ---


def test_a_server_without_workers_tells_where_it_stands_at_usr2_and_ignores_winch(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        APP
        + """
import asyncio

async def waiting(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.Event().wait()
"""
    )
    server = ServerProcess(tmp_path, "--port", "0", "--timeout-graceful-shutdown", "1", "main:waiting")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /asked HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: "/asked" in stacks(server), lambda: server.log)
        server.process.send_signal(signal.SIGWINCH)
        assert "main.py" in server.log
        assert server.process.poll() is None
    assert server.end() == -signal.SIGTERM


def stacks(server: ServerProcess) -> str:
    """What the log says once a signal more has asked where the server stands."""
    told = server.log.count("Process [")
    server.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: server.log.count("Process [") > told, lambda: server.log)
    return server.log


@pytest.mark.parametrize(
    ("options", "told"), [(["--workers", "1"], "Reloaded"), ([], "Finished server")], ids=["workers", "alone"]
)
def test_a_closed_terminal_reloads_workers_and_ends_other_servers(
    options: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(APP)
    config = next(block for block in blocks_of("logging", text_of("logging")) if block.title == "files.json")
    (tmp_path / "files.json").write_text(config.text)
    log = tmp_path / "error.log"
    with signal_set(signal.SIGHUP, signal.SIG_DFL):
        command = ["fastasgi", "--port", "0", "--log-config", "files.json", *options, "main:app"]
        pid, terminal = start_in_terminal(command, tmp_path)
    try:
        wait_until(lambda: log.exists() and "startup complete" in log.read_text(), "a start")
        os.close(terminal)
        wait_until(lambda: told in log.read_text(), log.read_text)
    finally:
        if options:
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def start_in_terminal(command: list[str], folder: Path) -> tuple[int, int]:
    """A command whose controlling terminal is a new one: its process, and the other end of the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            os.execv(sys.executable, [sys.executable, "-m", *command])
        finally:
            os._exit(127)
    return pid, terminal


# --- Rotation ---


@pytest.mark.skipif(not shutil.which("logrotate"), reason="logrotate is not here")
def test_logrotate_moves_files_and_has_them_opened_again(tmp_path: Path) -> None:
    for block in blocks_of("logging", text_of("logging")):
        if block.title in ("files.json", "logrotate.conf"):
            text = re.sub(r"/(?:var/log|run)/fastasgi/", f"{tmp_path}/", block.text)
            (tmp_path / block.title).write_text(text)
            (tmp_path / block.title).chmod(0o644)
    (tmp_path / "main.py").write_text(APP)
    arguments = ("--port", "0", "--pid-file", "fastasgi.pid", "--log-config", "files.json", "main:app")
    server = ServerProcess(tmp_path, *arguments)
    try:
        log = tmp_path / "error.log"
        wait_until(lambda: log.exists() and "running on" in log.read_text(), "a start")
        (tmp_path / "access.log").write_text("a line\n")
        state = ["--state", str(tmp_path / "state")]
        subprocess.run(["logrotate", "--force", *state, str(tmp_path / "logrotate.conf")], check=True)
        assert (tmp_path / "access.log.1").read_text() == "a line\n"
        wait_until(lambda: (tmp_path / "access.log").exists(), "a new file")
    finally:
        server.end()
    assert "Finished server process" in log.read_text()
    assert "running on" in (tmp_path / "error.log.1").read_text()
