"""Whether what is printed has colours, and those of the help."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from fastasgi.settings.declaration import SWITCH_WORDS


def said_of_colors(args: Sequence[str], environ: Mapping[str, str]) -> bool | None:
    """What a command line, or else the environment, says of ``use_colors``; None if nothing.

    Asked before options are understood: the help is shown whatever else is wrong.
    """
    said = [arg for arg in args if arg in ("--use-colors", "--no-use-colors")]
    if said:
        return said[-1] == "--use-colors"
    return SWITCH_WORDS.get(environ.get("FASTASGI_USE_COLORS", "").lower())


def wants_colors(stream: Any, said: bool | None) -> bool:
    """Whether a stream gets colours: what the setting says, else NO_COLOR, else FORCE_COLOR, else a terminal.

    As https://no-color.org and https://force-color.org have it, an empty variable says nothing.
    """
    if said is not None:
        return said
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


# Of the help: headings; the first column of a row, in it the names, and what they take; defaults
_HEADING = re.compile(r"^(?:Usage:|\w.*:$)", re.MULTILINE)
_NAMES = re.compile(r"^  -\S*(?: \S+)*", re.MULTILINE)
_NAME = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
_TAKEN = re.compile(r"\[[^\]]*\]|[A-Z][A-Z:|a-z]*")
_DEFAULT = re.compile(r"\[default: [^\]]*\]")


def colored(text: str) -> str:
    """The help with colours. It is wrapped already, since click before 8.4 counts escapes as letters."""
    text = _DEFAULT.sub(lambda found: re.sub(r"\S.*", _styled(dim=True), found[0]), text)
    text = _NAMES.sub(_color_names, text)
    return _HEADING.sub(_styled(bold=True), text)


def _color_names(found: re.Match[str]) -> str:
    pieces = re.split(f"({_NAME.pattern})", found[0])
    return "".join(
        _NAME.sub(_styled(fg="cyan", bold=True), piece) if at % 2 else _TAKEN.sub(_styled(fg="green"), piece)
        for at, piece in enumerate(pieces)
    )


def _styled(**style: Any) -> Any:
    return lambda found: click.style(found[0], **style)
