"""What is known of one setting: its meaning, unit and limits; how a value is checked and documented.

Knows no particular setting and no command line library.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from fastasgi.errors import ConfigError

T = TypeVar("T")

Kind = Literal["text", "path", "whole", "number", "switch", "octal", "headers", "object"]

FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1: token
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The description of one setting, written where the setting is."""

    kind: Kind
    group: str  # heading in the documentation
    help: str  # one or two sentences
    unit: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    optional: bool = False  # None is a value too
    on_command_line: bool = True
    option_name: str = ""  # where it isn't the setting's own name with dashes
    default_text: str = ""  # what stands for the default where None does not explain itself


@dataclass(frozen=True, slots=True)
class NotOffered:
    """A setting of uvicorn's that is accepted only where it asks for nothing: with one of these values."""

    harmless: tuple[object, ...]
    instead: str  # what to do rather


def setting(
    kind: Kind,
    default: T,
    group: str,
    help: str,
    *,
    default_factory: Callable[[], T] | None = None,
    **details: Any,
) -> T:
    """A dataclass field with its Setting, typed as its default; details are Setting's other fields."""
    described = Setting(kind=kind, group=group, help=help, optional=default is None, **details)
    default_of_field: dict[str, Any] = {"default": default}
    if default_factory is not None:
        default_of_field = {"default_factory": default_factory}
    return cast(T, dataclasses.field(**default_of_field, metadata={"setting": described}))


def not_offered(default: T, *others: object, instead: str = "leave it out") -> T:
    """A dataclass field for a setting of uvicorn's that must keep its default, or one of the others."""
    described = NotOffered((default, *others), instead)
    return dataclasses.field(default=default, metadata={"setting": described})


def settings_of(owner: Any) -> Iterator[tuple[dataclasses.Field[Any], Setting]]:
    """The fields of a dataclass that are settings, with their descriptions, in their order."""
    for field in dataclasses.fields(owner):
        described = field.metadata.get("setting")
        if isinstance(described, Setting):
            yield field, described


def option_of(name: str, described: Setting) -> str:
    """The command line's name of a setting: ``--timeout-keep-alive``."""
    return f"--{described.option_name or name.replace('_', '-')}"


def check_settings(owner: Any) -> None:
    """Check each setting of a dataclass instance and bring it to its own type. Raises ConfigError."""
    for field in dataclasses.fields(owner):
        described = field.metadata.get("setting")
        value = getattr(owner, field.name)
        if isinstance(described, Setting):
            setattr(owner, field.name, check(field.name, described, value))
        elif isinstance(described, NotOffered) and value not in described.harmless:
            raise ConfigError(f"{field.name} {value!r} is not supported by fastasgi: {described.instead}")


def check(name: str, described: Setting, value: Any) -> Any:
    """The value in the setting's own type. Raises ConfigError: the setting, the value and the mend."""
    if described.kind == "object" or (value is None and described.optional):
        return value
    if described.kind == "headers":
        return _check_headers(name, value)
    converted = _CONVERT[described.kind](value)
    if converted is None or not _within(described, converted):
        raise ConfigError(f"{name} {value!r}: give {expected(described)}")
    return converted


def expected(described: Setting) -> str:
    """What a setting takes, in words: ``a whole number from 0 to 65535``."""
    if described.choices:
        return f"{', '.join(described.choices[:-1])} or {described.choices[-1]}"
    text = _WORDS[described.kind]
    if described.kind == "octal":
        return text
    if described.unit:
        text += f" of {described.unit}"
    if described.most is not None:
        return f"{text} from {described.least:g} to {described.most:g}"
    return text if described.least is None else f"{text}, {described.least:g} or more"


_WORDS = {
    "text": "a text",
    "path": "a path",
    "whole": "a whole number",
    "number": "a number",
    "switch": "True or False",
    "octal": "octal permissions such as 660",
}


def _within(described: Setting, value: Any) -> bool:
    if described.choices:
        return value in described.choices
    return (described.least is None or value >= described.least) and (
        described.most is None or value <= described.most
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _path(value: Any) -> str | None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return path if isinstance(path, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _switch(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _octal(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value, 8) if re.fullmatch("(0o)?[0-7]{1,4}", value) else None
    return _whole(value)


_CONVERT: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "path": _path,
    "whole": _whole,
    "number": _number,
    "switch": _switch,
    "octal": _octal,
}


def _check_headers(name: str, value: Any) -> list[tuple[str, str]]:
    pairs = []
    for pair in value or ():
        parts = pair.split(":", 1) if isinstance(pair, str) else pair
        if not isinstance(parts, tuple | list) or [type(part) for part in parts] != [str, str]:
            raise ConfigError(f"{name} {pair!r}: give name:value, or in Python a (name, value) pair")
        field_name, field_value = parts[0], parts[1].strip(" \t")
        if not FIELD_NAME.fullmatch(field_name):
            raise ConfigError(f"{name} {field_name!r}: give a header name of letters, digits and dashes")
        if not FIELD_VALUE.fullmatch(field_value):
            raise ConfigError(f"{name} {field_name!r}: give a value without control characters, in Latin-1")
        pairs.append((field_name, field_value))
    return pairs


def default_of(field: dataclasses.Field[Any], described: Setting) -> str:
    """A setting's default as documentation shows it."""
    if described.default_text:
        return described.default_text
    if field.default is None:
        return "not set"
    if described.kind == "switch":
        return "on" if field.default else "off"
    if described.kind == "octal":
        return f"{field.default:o}"
    return str(field.default) or "empty"


def markdown_table(owner: type) -> str:
    """Every setting of a dataclass as Markdown: a table a group."""
    groups: dict[str, list[str]] = {}
    for field, described in settings_of(owner):
        limits = (
            "" if described.kind in ("text", "path", "switch", "object", "headers") else expected(described)
        )
        if described.choices:
            limits = "\\|".join(described.choices)
        cells = [
            f"`{option_of(field.name, described)}`" if described.on_command_line else "",
            f"`{field.name}`",
            default_of(field, described),
            f"{described.help} Takes {limits}." if limits else described.help,
        ]
        groups.setdefault(described.group, []).append(f"| {' | '.join(cells)} |")
    head = "| option | in Python | default | meaning |\n|---|---|---|---|\n"
    return "\n\n".join(f"## {group}\n\n{head}" + "\n".join(rows) for group, rows in groups.items()) + "\n"
