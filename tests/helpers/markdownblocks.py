"""The fenced blocks of a Markdown page, and what can be said of each without running it."""

import ast
import configparser
import json
import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
TITLE = re.compile(r'\btitle="(?P<title>[^"]*)"')
COMMENT = re.compile(r" *<!-- *not run(?P<reason>.*?) *-->$")
PROMPT = "$ "

# A reason is more than a word
REASON = re.compile(r": \w+ \S.*")

# What is only read
PROSE = {
    "text",
    "caddy",
    "css",
    "diff",
    "dockerfile",
    "haproxy",
    "html",
    "http",
    "javascript",
    "nginx",
    "protobuf",
}
SHELL = {"bash", "sh"}
CHECKED = {"python", "console", "json", "toml", "yaml", "ini", *SHELL}


class PageError(AssertionError):
    """Something in a page is not so; the text tells where."""


class Command(NamedTuple):
    """A command of a console block, and the lines that it shows."""

    line: int
    text: str
    expected: list[str]


@dataclass
class Block:
    """A fenced block of a page."""

    page: str
    line: int  # of its fence
    language: str
    title: str | None
    text: str
    reason: str | None  # why it is not run
    commands: list[Command] = field(default_factory=list)

    def fail(self, what: str, line: int | None = None) -> PageError:
        """The error that tells where in the page this is."""
        return PageError(f"{self.page}:{self.line if line is None else line}: {what}")


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page; fails where their form is wrong."""
    blocks: list[Block] = []
    reason: tuple[int, str] | None = None
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if comment := COMMENT.match(line):
            reason = number, comment["reason"]
            if not REASON.fullmatch(comment["reason"]):
                raise PageError(f"{page}:{number}: give the reason, as in <!-- not run: needs a cluster -->")
        elif opening := FENCE.match(line):
            body = []
            for _, inside in lines:
                if inside.strip() == opening["fence"]:
                    break
                body.append(inside.removeprefix(opening["indent"]))
            else:
                raise PageError(f"{page}:{number}: the block has no end")
            blocks.append(block_of(page, number, opening["info"].strip(), body, reason))
            reason = None
        elif line.strip() and reason:
            break
    if reason:
        raise PageError(f"{page}:{reason[0]}: no block follows the comment that it is not run")
    return blocks


def block_of(page: str, line: int, info: str, body: list[str], reason: tuple[int, str] | None) -> Block:
    """One block, of the line that opens it and those inside."""
    language = info.split(" ", 1)[0]
    title = TITLE.search(info)
    text = "".join(f"{each}\n" for each in body)
    block = Block(
        page, line, language, title["title"] if title else None, text, reason[1][2:] if reason else None
    )
    if language not in CHECKED | PROSE:
        raise block.fail(f"the language {language!r} is none of {', '.join(sorted(CHECKED | PROSE))}")
    if language == "console":
        block.commands = commands_of(block, body)
    return block


def commands_of(block: Block, body: list[str]) -> list[Command]:
    """The commands of a console block; a backslash or a here-document continues one."""
    commands: list[Command] = []
    rest = iter(enumerate(body, block.line + 1))
    for number, line in rest:
        if not line.startswith(PROMPT):
            if not commands:
                raise block.fail(f"a console block begins with {PROMPT!r}", number)
            commands[-1].expected.append(line.rstrip())
            continue
        text = line.removeprefix(PROMPT)
        while text.endswith("\\"):
            text += "\n" + next(rest, (0, ""))[1]
        if here := re.search(r"<<-?\s*(['\"]?)(\w+)\1", text):
            for _, inside in rest:
                text += "\n" + inside
                if inside.strip() == here[2]:
                    break
        commands.append(Command(number, text, []))
    return commands


def check_form(block: Block) -> None:
    """Fail if the text of a block is not what its language says."""
    try:
        if block.language == "python":
            compile(block.text, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if block.reason else 0)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif block.language == "ini":
            configparser.ConfigParser(interpolation=None, strict=False).read_string(block.text)
    except (ValueError, SyntaxError, yaml.YAMLError, configparser.Error) as error:
        raise block.fail(f"this is no {block.language}: {error}") from None
    for text in [command.text for command in block.commands] or [block.text] * (block.language in SHELL):
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        if checked.returncode or checked.stderr:
            raise block.fail(f"bash can't read this: {text}\n{checked.stderr}")


def pages(root: Path) -> list[Path]:
    """All pages whose blocks are run."""
    top = [root / "README.md", root / "CONTRIBUTING.md", root / "SECURITY.md", root / "bench/README.md"]
    return [*(path for path in top if path.exists()), *sorted((root / "docs").rglob("*.md"))]
