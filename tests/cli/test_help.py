"""The help and the verdict of --check-config: how wide, and when in colours."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from terminal import Terminal

from fastasgi.cli import main
from fastasgi.cli.colors import colored, said_of_colors, wants_colors

FASTASGI = [sys.executable, "-m", "fastasgi"]
ESCAPE = "\x1b["


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "FASTASGI_USE_COLORS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def shown(folder: Path) -> Callable[..., str]:
    """What the command prints on a terminal."""

    def shown(*arguments: str, columns: int = 100) -> str:
        with contextlib.closing(
            Terminal([*FASTASGI, *arguments], folder, dict(os.environ), columns)
        ) as terminal:
            return terminal.rest().replace("\r\n", "\n")

    return shown


def piped(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), prog_name="fastasgi")
    assert result.exit_code == 0
    return result.output


def test_the_short_option_shows_the_help() -> None:
    assert piped("-h") == piped("--help")
    assert "  -h, --help " in piped("-h")


def test_names_in_the_help_stay_whole() -> None:
    text = CliRunner().invoke(main, ["-h"], env={"COLUMNS": "60"}).output
    assert re.search(r"[ (]x-forwarded-port", text)
    assert re.search(r"\w-$", text, re.MULTILINE) is None
    assert text.isascii()


def test_help_has_colors_on_a_terminal(shown: Callable[..., str]) -> None:
    text = shown("--help", columns=80)
    assert text.startswith("\x1b[1mUsage:\x1b[0m python -m fastasgi [OPTIONS] APP\n")
    assert "\n\x1b[1mTimeouts:\x1b[0m\n" in text
    assert "\n  \x1b[36m\x1b[1m--port\x1b[0m \x1b[32mINTEGER\x1b[0m  " in text
    assert "\x1b[2m[default: 8000]\x1b[0m\n" in text
    assert click.unstyle(text).replace("python -m fastasgi", "fastasgi") == piped("--help")


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 300])
def test_help_is_as_wide_as_the_terminal(shown: Callable[..., str], columns: int) -> None:
    lines = click.unstyle(shown("-h", columns=columns)).splitlines()
    prose = [line for line in lines if not re.match(r"^  -|^Usage", line)]
    longest = max(len(line) for line in prose)
    assert min(columns, 110) - 12 < longest <= min(columns, 110) - 2


@pytest.mark.parametrize("columns", [0, 1, 10])
def test_a_terminal_too_narrow_for_anything_still_shows_help(shown: Callable[..., str], columns: int) -> None:
    text = click.unstyle(shown("-h", columns=columns))
    assert "--timeout-keep-alive" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("   ")) <= 80


def test_no_color_is_heeded_on_a_terminal(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE not in shown("--help", "--no-use-colors")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE not in shown("--help")
    assert ESCAPE in shown("--use-colors", "-h")


def test_a_pipe_gets_colors_if_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE not in piped("--help")
    assert ESCAPE in piped("--use-colors", "--help")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert ESCAPE in piped("--help")
    assert ESCAPE not in piped("--help", "--no-use-colors")
    assert ESCAPE not in piped("--version")


class ATerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "0"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": ""}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_who_decides_on_colors(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on_terminal: bool, elsewhere: bool
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert wants_colors(ATerminal(), None) is on_terminal
    assert wants_colors(io.StringIO(), None) is elsewhere
    assert wants_colors(None, None) is elsewhere
    for said in (True, False):
        assert wants_colors(ATerminal(), said) is wants_colors(io.StringIO(), said) is said


@pytest.mark.parametrize(
    ("arguments", "variable", "said"),
    [
        ([], None, None),
        ([], "", None),
        ([], "perhaps", None),
        ([], "Off", False),
        ([], "1", True),
        (["--no-use-colors"], "1", False),
        (["--no-use-colors", "--use-colors"], None, True),
    ],
)
def test_the_setting_decides_before_all_else(
    arguments: list[str], variable: str | None, said: bool | None
) -> None:
    environ = {} if variable is None else {"FASTASGI_USE_COLORS": variable}
    assert said_of_colors(arguments, environ) is said


def test_colors_change_no_letter() -> None:
    text = "Usage: x\n\nA b:\n  -a, --be [x|Y] / --no-be  Text: [x] --c AB [default:\n      a b\n      c]\n"
    styled = colored(text)
    assert click.unstyle(styled) == text
    # Each line ends what it begins: a pager forgets a colour at its end
    assert [line.count("\x1b[0m") > 0 for line in styled.splitlines()] == [
        ESCAPE in line for line in styled.splitlines()
    ]
    assert "  Text: [x] --c AB " in styled


APP = "async def app(scope, receive, send): ..."


@pytest.mark.parametrize("arguments", [[], ["--no-use-colors"]], ids=["colors", "no colors"])
def test_the_verdict_has_colors_on_a_terminal(
    shown: Callable[..., str], folder: Path, arguments: list[str]
) -> None:
    (folder / "app.py").write_text(APP)
    text = shown("--check-config", *arguments, "app:app", columns=200)
    assert (ESCAPE in text) is (arguments == [])
    assert click.unstyle(text).startswith("OK: app:app can be served on ")
    text = shown("--check-config", *arguments, "app:none", columns=200)
    assert (ESCAPE in text) is (arguments == [])
    assert click.unstyle(text).startswith("Error: app 'app:none': 'app' has no attribute 'none'; ")


def test_what_is_given_stands_out(shown: Callable[..., str], folder: Path) -> None:
    lines = shown("--print-config", "--port", "1", "app:app", columns=300).splitlines()
    assert "\x1b[1mListening:\x1b[0m" in lines
    assert [line.split()[1] for line in lines if "\x1b[36m" in line] == ["port", "app"]
