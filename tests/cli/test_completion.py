"""Shells complete the command: in bash, zsh and fish themselves, and what their scripts are told."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving import WAIT_S
from terminal import Terminal

from fastasgi.cli import main
from fastasgi.cli.applications import MOST_BYTES, MOST_MODULES, applications

COMMAND = Path(sys.executable).parent / "fastasgi"
SHELLS = ("bash", "zsh", "fish")

MAIN = """
import nothing_at_all
raise SystemExit("a completion has imported it")

logger = nothing_at_all.logger()
async def app(scope, receive, send): ...
def create_app(): ...
class Middleware: ...
_private = 1
"""

# What is typed, and what it becomes at the tab key
COMPLETED = [
    ("fastasgi --timeout-gr", "--timeout-graceful-shutdown"),
    ("fastasgi --no-acc", "--no-access-log"),
    ("fastasgi --loop asy", "--loop asyncio"),
    ("fastasgi --loop=asy", "--loop=asyncio"),
    ("fastasgi --http2=onl", "--http2=only"),
    ("fastasgi --workers 2 --log-level tr", "--log-level trace"),
    ("fastasgi --completion z", "--completion zsh"),
    ("fastasgi mai", "main:app"),
    ("fastasgi --reload main:cre", "main:create_app"),
    ("fastasgi --http2 main:Mid", "main:Middleware"),
    ("fastasgi --app-dir shop asg", "asgi:application"),
    ("fastasgi --config set", "--config settings.toml"),
    ("fastasgi --config=set", "--config=settings.toml"),
    ("fastasgi --app-dir sho", "--app-dir shop/"),
    ("fastasgi --app-dir=sho", "--app-dir=shop/"),
    ("A=1 fastasgi --interface ws", "--interface wsgi"),
    ("~/fastasgi --interface ws", "--interface wsgi"),
]


@pytest.fixture
def folder(folder: Path) -> Path:
    """The current folder, with applications in it, and the command."""
    (folder / "main.py").write_text(MAIN)
    (folder / "settings.toml").touch()
    (folder / "shop").mkdir()
    (folder / "shop" / "asgi.py").write_text("application: object = None")
    (folder / "fastasgi").symlink_to(COMMAND)
    return folder


def environ_of(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return os.environ | home | {"PATH": path, "TERM": "dumb", "PS1": "> ", "LC_ALL": "C.UTF-8"} | variables


def with_shell(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} on this machine")


@pytest.mark.parametrize(
    ("command", "setup"),
    [
        pytest.param(["bash", "--norc", "-i"], "", marks=with_shell("bash"), id="bash"),
        pytest.param(
            ["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; ", marks=with_shell("zsh"), id="zsh"
        ),
    ],
)
def test_it_completes_at_the_tab_key(folder: Path, command: list[str], setup: str) -> None:
    with contextlib.closing(Terminal(command, folder, environ_of(folder))) as terminal:
        terminal.wait_for("> ")
        terminal.type(f'{setup}eval "$(fastasgi --completion {command[0]})"; echo re""ady\n')
        terminal.wait_for("ready")
        for typed, completed in COMPLETED:
            terminal.type(f"{typed}\t")
            head = typed.rpartition(" ")[0].removesuffix(completed.partition(" ")[0]).strip()
            seen = re.sub(r"\s+", " ", terminal.wait_for(re.escape(completed.removesuffix("/"))))
            assert f"{head} {completed.removesuffix('/')}" in seen
            terminal.type("\x15")


@with_shell("fish")
def test_fish_completes(folder: Path) -> None:
    lines = "\n".join(f"echo '>{typed}'; complete -C '{typed}'" for typed, _ in COMPLETED)
    (folder / "complete.fish").write_text(f"fastasgi --completion fish | source\n{lines}\n")
    command = ["fish", "--no-config", "complete.fish"]
    done = subprocess.run(
        command, env=environ_of(folder), capture_output=True, text=True, check=True, timeout=3 * WAIT_S
    )
    assert done.stderr == ""
    answers = dict(part.split("\n", 1) for part in done.stdout.split(">")[1:])
    for typed, completed in COMPLETED:
        values = [line.partition("\t")[0] for line in answers[typed].splitlines()]
        assert values == [completed.rpartition(" ")[2]], typed
    assert "\tTime for the whole shutdown" not in answers["fastasgi --loop asy"]
    assert re.search(r"^--timeout-graceful-shutdown\t\w.{10,}$", answers["fastasgi --timeout-gr"], re.M)


@with_shell("zsh")
def test_zsh_loads_it_as_a_function_of_its_path(folder: Path) -> None:
    functions = folder / "functions"
    functions.mkdir()
    script = subprocess.run([COMMAND, "--completion", "zsh"], capture_output=True, text=True, check=True)
    (functions / "_fastasgi").write_text(script.stdout)
    with contextlib.closing(Terminal(["zsh", "-f", "-i"], folder, environ_of(folder))) as terminal:
        terminal.wait_for("> ")
        terminal.type("fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D; echo re''ady\n")
        terminal.wait_for("ready")
        terminal.type("fastasgi --loop=asy\t")
        terminal.wait_for("--loop=asyncio")


# What the scripts are told


@pytest.fixture
def told(folder: Path) -> Callable[..., list[str]]:
    """The lines with which the command answers a script."""

    def told(line: str, shell: str = "fish", **variables: str) -> list[str]:
        asked = {"_FASTASGI_COMPLETE": f"{shell}_complete", "_FASTASGI_LINE": line}
        result = CliRunner().invoke(main, [], env=asked | variables)
        assert (result.exit_code, result.stderr) == (0, "")
        return [answer for answer in result.stdout.split("\n") if answer]

    return told


@pytest.mark.parametrize(
    "line",
    [
        *("fastasgi main:app ", "fastasgi main:app mai", "fastasgi x"),
        *("fastasgi --port ", "fastasgi --port 8"),
        *("fastasgi --reload=", "fastasgi --no-http2=", "fastasgi --nothing=", "fastasgi --nothing"),
        *("fastasgi --loop x", "fastasgi none:", "fastasgi ..:", "fastasgi /:a"),
    ],
)  # fmt: skip
def test_what_can_not_be_completed_has_no_answer(told: Callable[..., list[str]], line: str) -> None:
    assert told(line) == []


@pytest.mark.parametrize(
    "line", ["", "fastasgi ", "fastasgi '", 'fastasgi "', "A=1 fastasgi ", "fastasgi --http2=on "]
)
def test_the_applications_are_offered_first(told: Callable[..., list[str]], line: str) -> None:
    assert told(line) == ["plain\tmain:app\t", "plain\tshop.asgi:application\t"]


def test_an_option_that_is_given_is_not_offered_again(told: Callable[..., list[str]]) -> None:
    once = [answer.split("\t")[1] for answer in told("fastasgi --port 1 --header a:b --no-reload --")]
    assert not {"--port", "--reload", "--no-reload"} & set(once)
    assert {"--header", "--host", "--config", "--help"} <= set(once)


def test_a_word_or_the_application_may_follow_a_switch(told: Callable[..., list[str]]) -> None:
    offered = ["on", "off", "only", "main:app", "shop.asgi:application"]
    assert [answer.split("\t")[1] for answer in told("fastasgi --http2 ")] == offered
    assert [answer.split("\t")[1] for answer in told("fastasgi main:app --http2 ")] == offered[:3]
    assert [answer.split("\t")[1] for answer in told("fastasgi --http2=o")] == [
        "--http2=on",
        "--http2=off",
        "--http2=only",
    ]


def test_bash_gets_the_last_part_of_the_word(told: Callable[..., list[str]]) -> None:
    assert told("fastasgi --loop=asy", "bash", _FASTASGI_WORD="asy") == ["plain\tasyncio"]
    assert told("fastasgi --loop=", "bash", _FASTASGI_WORD="")[:2] == ["plain\tauto", "plain\tuvloop"]
    assert told("fastasgi main:cre", "bash", _FASTASGI_WORD="cre") == ["plain\tcreate_app"]
    # As with COMP_WORDBREAKS that have no colon
    assert told("fastasgi main:cre", "bash", _FASTASGI_WORD="main:cre") == ["plain\tmain:create_app"]


def test_another_shell_is_not_answered(folder: Path) -> None:
    environ = environ_of(folder, _FASTASGI_COMPLETE="tcsh_complete")
    done = subprocess.run([COMMAND, "main:app"], env=environ, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")


def test_it_imports_nothing_that_serves(folder: Path) -> None:
    code = """
import sys
from fastasgi.cli import main
try:
    main(prog_name="fastasgi")
except SystemExit:
    print({"fastasgi.launch", "fastasgi.server", "fastasgi.processes.supervisor", "main"} & set(sys.modules))
"""
    environ = environ_of(folder, _FASTASGI_COMPLETE="fish_complete", _FASTASGI_LINE="fastasgi mai")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["plain\tmain:app\t", "set()"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell: str) -> None:
    done = subprocess.run([COMMAND, "--completion", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_FASTASGI_LINE=" in done.stdout
    assert "%(" not in done.stdout


# Applications


def test_modules_that_can_not_be_read_are_left_out(folder: Path) -> None:
    for name, source in {"broken": b"app = (", "nul": b"app = 0\0", "latin": b"app = '\xff'"}.items():
        (folder / f"{name}.py").write_bytes(source)
    (folder / "deep.py").write_text("app = " + "(" * 5000 + ")" * 5000)
    (folder / "large.py").write_text("app = 1\n" + "#\n" * MOST_BYTES + "late_app = 1\n")
    (folder / "with-dash.py").write_text("app = 1")
    (folder / "folder.py").mkdir()
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "again").symlink_to(".")
    (folder / "venv").mkdir()
    (folder / "venv" / "pyvenv.cfg").touch()
    (folder / "venv" / "inside.py").write_text("app = 1")
    found = applications(str(folder), "")
    assert found == ["large:app", "main:app", "shop.asgi:application"]
    assert applications(str(folder / "none"), "") == []


def test_a_package_may_hold_the_application(folder: Path) -> None:
    (folder / "shop" / "__init__.py").write_text("shop_app, (a, b) = x = object()\n")
    (folder / "shop" / "v1").mkdir()
    (folder / "shop" / "v1" / "main.py").write_text("api = 1")
    assert applications(str(folder), "shop") == ["shop.asgi:application", "shop.v1.main:api"]
    assert applications(str(folder), "shop:") == ["shop:x"]


def test_a_large_folder_is_not_read_to_its_end(folder: Path) -> None:
    for number in range(MOST_MODULES + 50):
        (folder / f"a{number:04}.py").touch()
    (folder / "z.py").write_text("app = 1")
    assert applications(str(folder), "z") == []
    assert applications(str(folder), "z:") == ["z:app"]
