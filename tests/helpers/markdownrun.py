"""Runs the blocks of a Markdown page in a folder of its own, as a reader would do, in order.

- ``python title="main.py"``, or another language with a title, is written into that file.
- ``python`` is run as a script, ``bash`` too; ``console`` has commands after ``$ ``, and what they write.
- A server is started in the background, waited for until it listens, and ended when the next one is started.
- Ports as 8000 are replaced by free ones, in all of these.
- ``<!-- not run: needs a cluster -->`` before a block says why that one is only read.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from markdownblocks import PROSE, SHELL, Block, Command, blocks_of, check_form
from serving import listening_ports

ROOT = Path(__file__).parents[2]
COMMAND_S = 30.0
STARTING_S = 20.0
ENDING_S = 5.0

SERVERS = {"daphne", "fastapi", "fastasgi", "granian", "gunicorn", "hypercorn", "uvicorn"}
NO_SERVING = ("-h", "--help", "--version", "--check", "--check-config", "--print-config", "--completion")
RUNS_SERVER = re.compile(r"\b(?:fastasgi|granian|hypercorn|uvicorn)\.run\(")
# Programs of the system without which a page is skipped
PROGRAMS = {"curl", "dig", "jq", "openssl", "caddy", "haproxy", "nginx", "wrk"}

# The ports that pages use, and no sizes: each is another one in a run
PORT = re.compile(r"(?<![\w.$-])(?!819[02])(?:50|80|81|84|90|91|94)\d\d(?![\w%]|\.\d)")

# What sets up an environment, which the tests have already
SETTING_UP = re.compile(
    r"(?:(?P<pip>(?:python3? -m )?pip3? install|uv (?:pip install|add)) (?P<packages>.*)"
    r"|make (?P<targets>[\w -]+?)(?: [A-Z_]+=.*)?"
    r"|python3? -m venv [\w./-]+|uv venv.*|(?:\.|source) [\w./-]+/bin/activate|git clone .*)"
)


class Background:
    """A command that goes on while others run: its output is in a file."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes], output: Path) -> None:
        self.command = command
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        """What it has written up to now."""
        return self._output.read_text(errors="replace")


class PageRun:
    """Runs the blocks of one page; `skip` is called with a reason if a program is missing."""

    def __init__(self, page: str, text: str, folder: Path, skip: Callable[[str], Any] = print) -> None:
        self.page = page
        self.folder = folder.resolve() / "page"
        self.folder.mkdir()
        self.blocks = blocks_of(page, text)
        self.ports: dict[str, str] = {}
        self.server: Background | None = None
        self._skip = skip
        self._outputs = folder
        self._state = folder / "state"  # of the shell: its folder, and the variables that it exports
        self._environment = environment(folder)

    def run(self) -> None:
        """Run all blocks; fails with the first that is not as the page says."""
        for block in self.blocks:
            check_form(block)
        for program in sorted(self._programs()):
            if not shutil.which(program):
                self._skip(f"{program} is not here")
        try:
            for block in self.blocks:
                self._run(block)
        finally:
            self._stop_server()
            end_all_in(self.folder, signal.SIGKILL)

    def _programs(self) -> set[str]:
        """The system's programs that the page's commands need."""
        words: set[str] = set()
        for block in self.blocks:
            if not block.reason:
                texts = [command.text for command in block.commands] or [block.text] * (
                    block.language in SHELL
                )
                words.update(*(re.split(r"[\s|;&()]+", text) for text in texts))
        return words & PROGRAMS

    def _run(self, block: Block) -> None:
        if block.title is not None:
            path = (self.folder / block.title).resolve()
            if not path.is_relative_to(self.folder.resolve()):
                raise block.fail(f"{block.title} is outside of the page's folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._placed(block.text))
        elif block.reason or block.language in PROSE:
            pass
        elif block.language == "python":
            self._run_script(block)
        elif block.language == "console":
            for command in block.commands:
                self._run_command(block, command)
        elif block.language in SHELL:
            self._run_command(block, Command(block.line, f"set -e\n{block.text.strip()}", ["..."]))

    def _placed(self, text: str) -> str:
        """A text with this run's ports."""
        return PORT.sub(lambda found: self._port(found[0]), text)

    def _port(self, number: str) -> str:
        if number not in self.ports:
            self.ports[number] = free_port()
        return self.ports[number]

    def _run_script(self, block: Block) -> None:
        name = f"block_{block.line}.py"
        (self.folder / name).write_text(self._placed(block.text))
        code, output = self._output_of(
            f"(cd {shlex.quote(str(self.folder))}; exec {shlex.quote(sys.executable)} {name})"
        )
        if code != 0:
            raise block.fail(f"the script ends with {code}:\n{output}")

    def _run_command(self, block: Block, command: Command) -> None:
        if found := SETTING_UP.fullmatch(command.text):
            check_setting_up(block, command, found)
            return
        text = self._placed(command.text)
        expected = self._placed("\n".join(command.expected)).strip("\n").splitlines()
        if self._is_server(command.text):
            self._stop_server()
            self._start_server(block, command, text, expected)
            return
        code, output = self._output_of(text)
        if code != 0:
            raise block.fail(
                f"{command.text}\nends with {code}:\n{output}{self._server_output()}", command.line
            )
        if not matches(expected, output, whole=True):
            raise block.fail(self._told(command, expected, output), command.line)

    def _told(self, command: Command, expected: list[str], output: str) -> str:
        shown = "\n".join(expected) or "nothing"
        return f"{command.text}\nexpected:\n{shown}\ngot:\n{output or 'nothing'}{self._server_output()}"

    def _server_output(self) -> str:
        if self.server is None:
            return ""
        return f"\nthe server of line {self.server.command.line} has written:\n{self.server.output}"

    def _is_server(self, text: str) -> bool:
        words = program_of(text)
        if not words or any(word in NO_SERVING for word in words):
            return False
        if words[0] in ("python", "python3"):
            if words[1:2] == ["-m"]:
                return words[2:3] != [] and words[2] in SERVERS
            path = self.folder / (words[1] if len(words) > 1 else "")
            return path.is_file() and bool(RUNS_SERVER.search(path.read_text()))
        return words[0] in SERVERS

    def _popen(self, text: str, file: IO[bytes], added: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
        """Start a command in bash, with the folder and the variables that the commands before have left."""
        return subprocess.Popen(
            ["bash", "-c", f"[ ! -e {self._state} ] || . {self._state}\n{text}"],
            cwd=self.folder,
            env={**self._environment, **added},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def _output_of(self, text: str) -> tuple[int, str]:
        """The exit code of a command, and what it writes."""
        path = self._outputs / "output"
        with path.open("wb") as file:
            left = f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {self._state}"
            process = self._popen(f"{text}\ncode=$?; {left}; exit $code", file)
            try:
                code = process.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = -signal.SIGKILL
                file.write(f"\nkilled after {COMMAND_S:g} s\n".encode())
        return code, path.read_text(errors="replace")

    def _start_server(self, block: Block, command: Command, text: str, expected: list[str]) -> None:
        """Start a server, wait until it listens, and until it has written what is expected."""
        ports = set(self.ports.values()) & set(re.findall(r"\d+", text))
        added = {}
        if not self._names_port(command.text):
            ports.add(port := self._port("8000"))
            added = dict.fromkeys(("FASTASGI_PORT", "PORT", "UVICORN_PORT", "GRANIAN_PORT"), port)
        output = self._outputs / "server_output"
        with output.open("wb") as file:
            process = self._popen(text.removesuffix("&"), file, added)
        self.server = server = Background(command, process, output)
        pid_file = re.search(r"--pid-file[ =](\S+)", text)
        deadline = time.monotonic() + STARTING_S
        while True:
            is_there = listens(process.pid, ports) and (not pid_file or (self.folder / pid_file[1]).exists())
            if is_there and matches(expected, server.output, whole=False):
                return
            if (code := process.poll()) is not None:
                if code == 0 and matches(expected, server.output, whole=True):
                    return  # the page shows what it says when it can't start
                raise block.fail(f"{command.text}\nends with {code}:\n{server.output}", command.line)
            if time.monotonic() > deadline:
                state = "does not write it" if is_there else f"does not listen on {ports or 'anything'}"
                told = self._told(command, expected, server.output)
                raise block.fail(f"the server {state}:\n{told}", command.line)
            time.sleep(0.01)

    def _names_port(self, text: str) -> bool:
        """Whether a command, or the file that configures it, says where to listen."""
        if re.search(r"--(?:port|bind|uds|fd)\b|(?:^|\s)-[pb] |_(?:PORT|BIND|UDS)=", text):
            return True
        if program_of(text)[0] in ("python", "python3") and "-m" not in program_of(text):
            return True
        for path in [*re.findall(r"(?:--config|FASTASGI_CONFIG)[ =](\S+)", text), "pyproject.toml"]:
            with contextlib.suppress(OSError, ValueError, KeyError):
                settings = tomllib.loads((self.folder / path).read_text())["tool"]["fastasgi"]
                if settings.keys() & {"port", "bind", "uds", "fd"}:
                    return True
        if program_of(text)[0] == "gunicorn" and (self.folder / "gunicorn.conf.py").exists():
            return bool(re.search(r"^bind\b", (self.folder / "gunicorn.conf.py").read_text(), re.MULTILINE))
        return False

    def _stop_server(self) -> None:
        if self.server is not None:
            end_all_in(self.folder, signal.SIGTERM, signal.SIGKILL)
            self.server.process.wait()
            self.server = None


def environment(folder: Path) -> dict[str, str]:
    """The environment of a reader, who has the interpreter's folder first in PATH, and no network."""
    kept = ("LANG", "LC_ALL", "PATH", "TMPDIR", "USER")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    (folder / "home").mkdir()
    found["HOME"] = str(folder / "home")
    found["PATH"] = f"{Path(sys.executable).parent}:{found['PATH']}:/usr/sbin:/sbin"
    found["PYTHONDONTWRITEBYTECODE"] = "1"  # two versions of a file may be of one second
    for scheme in ("http_proxy", "https_proxy", "all_proxy"):
        found[scheme] = "http://127.0.0.1:9"
    found["PYTEST_ADDOPTS"] = "-p no:locust -p no:cacheprovider"  # locust's plugin patches sockets
    found["no_proxy"] = "localhost,127.0.0.1,::1"
    return found


def program_of(text: str) -> list[str]:
    """The words of a command without the variables before it; none if it is no single command."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return []
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)
    return words


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def matches(expected: list[str], output: str, *, whole: bool) -> bool:
    """Whether an output is the expected lines; ``...`` stands for any lines, in a line for any text."""
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ \t\r]*\n"
    output = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r\n", "\n")
    output = output if output.endswith("\n") or not output else output + "\n"
    end = r"\s*\Z" if whole else ""
    return re.match(rf"\n*{pattern}{end}", output) is not None


def check_setting_up(block: Block, command: Command, found: re.Match[str]) -> None:
    """Fail if a command that sets up an environment names what there is not."""
    if found["pip"]:
        words = [word for word in shlex.split(found["packages"]) if not word.startswith("-")]
        if "-r" in shlex.split(found["packages"]):
            words = []
        for word in words:
            if not is_package(word):
                raise block.fail(f"{word!r} is not in pyproject.toml: {command.text}", command.line)
    for target in (found["targets"] or "").split():
        if not re.search(rf"^{target}:", makefiles(), re.MULTILINE):
            raise block.fail(f"there is no make target {target!r}: {command.text}", command.line)


def makefiles() -> str:
    """The text of the Makefile and what it includes."""
    return (ROOT / "Makefile").read_text() + (ROOT / "bench/bench.mk").read_text()


def is_package(word: str) -> bool:
    """Whether a requirement is this package with extras that it has, or is one of its requirements."""
    parts = re.fullmatch(r"(?P<name>[\w./-]+)(?:\[(?P<extras>[\w, -]+)\])?(?:[=<>~!].*)?", word)
    if parts is None:
        return False
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    if parts["name"] in (".", "./fastasgi", "fastasgi"):
        return all(each.strip() in extras for each in (parts["extras"] or "").split(",") if each)
    required = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = [re.split(r"[\[<>=~!; ]", each)[0] for each in required]
    return normal(parts["name"]) in map(normal, names)


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def processes(folder: Path) -> Iterator[int]:
    """The processes whose current folder is this one or in it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(folder):
                    yield int(entry.name)


def end_all_in(folder: Path, *numbers: int) -> None:
    """End the processes in this folder by these signals, each of which has some time."""
    for number in numbers:
        deadline = time.monotonic() + ENDING_S
        for pid in processes(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while any(processes(folder)) and time.monotonic() < deadline:
            time.sleep(0.01)


def listens(group: int, ports: set[str]) -> bool:
    """Whether processes of a group listen on these ports; if none are named, on anything."""
    found: set[str] = set()
    unix = {
        fields[6]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "00010000"
    }
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry.name.isdecimal() and os.getpgid(int(entry.name)) == group:
                for each in listening_ports(int(entry.name)).values():
                    found.update(map(str, each))
                for link in (entry / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(link.readlink())[8:-1] in unix:
                            found.add("unix")
    return ports <= found if ports else bool(found)
