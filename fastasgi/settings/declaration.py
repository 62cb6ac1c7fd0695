"""What is known of one setting: meaning, unit and limits; how a value is read, checked, shown, documented.

Knows no particular setting and no command line library.
"""

import dataclasses
import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from fastasgi.errors import ConfigError

T = TypeVar("T")

Kind = Literal[
    "text", "path", "whole", "count", "number", "switch", "octal", "headers", "list", "paths", "object"
]

HIDDEN = "(hidden)"  # shown in place of a secret

FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1: token
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5
# What frames a message, or tells of this one (RFC 9110 sections 6.6.1, 7.6.1 and 8.6)
MESSAGE_FIELDS = frozenset(
    ("connection", "content-length", "date", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The description of one setting, written where the setting is."""

    kind: Kind
    group: str  # heading in the documentation
    help: str  # one or two sentences
    unit: str = ""
    choices: tuple[str, ...] = ()  # a switch that has some is one of these texts, and not True or False
    takes_import_string: bool = False  # it takes module:attribute besides its choices
    least: float | None = None
    most: float | None = None
    optional: bool = False  # None is a value, and does not mean the default
    is_limit: bool = False  # 0 is no limit, and None too unless it is the default
    empty_is_value: bool = False  # an empty text is a value, and does not mean the default
    takes: Callable[[Any], bool] | None = None  # it takes objects of which this is true, besides texts
    takes_no_class: str = ""  # the mend if a class is given, or the import string of one, as in uvicorn
    on_command_line: bool = True
    is_secret: bool = False  # its value is never shown
    option_name: str = ""  # if it isn't the setting's own name with dashes
    default_text: str = ""  # what documentation shows as the default, if None does not explain itself

    @property
    def is_in_python_only(self) -> bool:
        """Whether no text can stand for a value: a function, for example."""
        return self.kind == "object" and not self.on_command_line


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
    details.setdefault("optional", default is None)
    described = Setting(kind=kind, group=group, help=help, **details)
    default_of_field: dict[str, Any] = {"default": default}
    if default_factory is not None:
        default_of_field = {"default_factory": default_factory}
    return cast(
        T,
        dataclasses.field(repr=not described.is_secret, **default_of_field, metadata={"setting": described}),
    )


def settings_of(owner: Any) -> Iterator[tuple[dataclasses.Field[Any], Setting]]:
    """The fields of a dataclass that are settings, with their descriptions, in their order."""
    for field in dataclasses.fields(owner):
        described = field.metadata.get("setting")
        if isinstance(described, Setting):
            yield field, described


def descriptions_of(owner: Any) -> dict[str, Setting]:
    """What is known of each setting of a dataclass, by name."""
    return {field.name: described for field, described in settings_of(owner)}


def option_of(name: str, described: Setting) -> str:
    """The command line's name of a setting: ``--timeout-keep-alive``."""
    return f"--{described.option_name or name.replace('_', '-')}"


def off_option_of(name: str, described: Setting) -> str:
    """The command line's name of a switch to turn it off: ``--no-access-log``."""
    return f"--no-{option_of(name, described).removeprefix('--')}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of the names somebody who wrote `name` may have meant; None if none is like it."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return close[0] if close else None


def init_values(owner: Any) -> dict[str, Any]:
    """All parameters of a dataclass instance: another one made with them is equal."""
    return {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner) if field.init}


def settings_that_differ(one: Any, other: Any, names: tuple[str, ...]) -> list[str]:
    """Those of the names whose values differ between two instances."""
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def check_settings(owner: Any) -> None:
    """Check each setting of a dataclass instance and bring it to its own type. Raises ConfigError."""
    for field, described in settings_of(owner):
        value = meant(described, _default_value(field), getattr(owner, field.name))
        setattr(owner, field.name, check(field.name, described, value))


def _default_value(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def meant(described: Setting, default: Any, value: Any) -> Any:
    """What a value stands for, if it is an empty text, None or 0; any other value is returned as it is.

    An empty text means the default, or a list without items. None means the default too, with four
    exceptions: a switch is off, a limit is no limit, a setting that has a choice called none gets that, and
    one of which an empty text is a value gets that. A limit of 0 is no limit. uvicorn's users count on these.
    """
    if isinstance(value, str) and not value and not described.empty_is_value:
        return [] if described.kind in ("list", "headers") else default
    if described.kind == "switch" and value is None and not described.optional:
        return False
    if value is None and "none" in described.choices:
        return "none"
    if described.is_limit and value in (None, 0) and not isinstance(value, bool):
        return None if described.optional else 0
    if value is None and not described.optional:
        return "" if described.empty_is_value else default
    return value


def check(name: str, described: Setting, value: Any) -> Any:
    """The value in the setting's own type. Raises ConfigError: the setting, the value and the mend.

    The line begins with the setting's name.
    """
    if described.kind == "object" or (value is None and described.optional):
        return value
    if described.is_limit and value == 0 and not isinstance(value, bool):
        return value
    if described.takes is not None and described.takes(value):
        return value
    if described.takes_no_class and (not isinstance(value, str) or ":" in value):
        raise ConfigError(f"{name} {value!r}: {described.takes_no_class}")
    if described.kind == "headers":
        return _check_headers(name, value)
    converted = _CONVERT[described.kind](value)
    if described.kind == "switch" and described.choices:
        converted = value if converted is None else "on" if converted else "off"
    if described.is_limit and converted == 0:
        return None if described.optional else converted
    if converted is None or not _within(described, converted):
        given = HIDDEN if described.is_secret else repr(value)
        raise ConfigError(f"{name} {given}: give {expected(described)}")
    return converted


def from_text(described: Setting, text: str) -> Any:
    """What a text of the command line or the environment stands for; lists are one item a line.

    A text that stands for nothing is returned as it is, for ``check`` to refuse.
    """
    if described.kind in ("list", "paths", "headers"):
        return [line.strip() for line in text.split("\n") if line.strip()]
    if described.kind in ("text", "path", "object") and not described.choices:
        return text
    text = text.strip()
    if described.choices:
        return text.lower() if text.lower() in described.choices else text
    if described.kind == "switch":
        return SWITCH_WORDS.get(text.lower(), text)
    if described.kind in ("whole", "count") and re.fullmatch("[+-]?[0-9]{1,18}", text):
        return int(text)
    if described.kind == "number":
        return _float(text)
    return text


def _float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


SWITCH_WORDS = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


def choices_of(described: Setting) -> tuple[str, ...]:
    """The choices of a setting as they are shown."""
    return (*described.choices, "module:attribute") if described.takes_import_string else described.choices


def expected(described: Setting) -> str:
    """What a setting takes, in words: ``a whole number from 0 to 65535``."""
    if described.choices:
        *others, last = choices_of(described)
        return f"{', '.join(others)} or {last}"
    text = _WORDS[described.kind]
    if described.kind == "octal":
        return text
    if described.unit:
        text += f" of {described.unit}"
    if described.most is not None:
        return f"{text} from {described.least:.10g} to {described.most:.10g}"
    if described.least is None:
        return text
    or_none = ", or 0 for no limit" if described.is_limit and described.least > 0 else ""
    return f"{text}, {described.least:g} or more{or_none}"


_WORDS = {
    "text": "a text",
    "path": "a path",
    "whole": "a whole number",
    "count": "auto, or a whole number",
    "list": "texts",
    "paths": "paths",
    "number": "a number",
    "switch": "True or False",
    "octal": "octal permissions such as 660",
}


def _within(described: Setting, value: Any) -> bool:
    if described.choices:
        is_import_string = described.takes_import_string and re.fullmatch(r"[\w.]+:[\w.]+", value)
        return value in described.choices or bool(is_import_string)
    if not isinstance(value, int | float):
        return True
    return (described.least is None or value >= described.least) and (
        described.most is None or value <= described.most
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _path(value: Any) -> str | None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return path if isinstance(path, str) else None


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)  # what os.environ gives
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: Any) -> int | str | None:
    return "auto" if value == "auto" else _whole(value)


def _list(value: Any) -> list[str] | None:
    """One text or path, or several. A set is taken too, since uvicorn's users have some."""
    values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    paths = [_path(path) for path in values]
    return None if None in paths else cast(list[str], paths)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = _float(value)  # what os.environ gives
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def _switch(value: Any) -> bool | None:
    if isinstance(value, str):
        return SWITCH_WORDS.get(value.lower())  # what os.environ gives
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _octal(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value, 8) if re.fullmatch("(0o)?[0-7]{1,4}", value) else None
    return _whole(value)


_CONVERT: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "path": _path,
    "whole": _whole,
    "count": _count,
    "list": _list,
    "paths": _list,
    "number": _number,
    "switch": _switch,
    "octal": _octal,
}


def _check_headers(name: str, value: Any) -> list[tuple[str, str]]:
    pairs = []
    entries = [value] if isinstance(value, str) else value or ()
    if not isinstance(entries, list | tuple):
        raise ConfigError(f"{name} {value!r}: give a list of name:value")
    for pair in entries:
        parts = pair.split(":", 1) if isinstance(pair, str) else pair
        if not isinstance(parts, tuple | list) or [type(part) for part in parts] != [str, str]:
            raise ConfigError(f"{name} {pair!r}: give name:value, or in Python a (name, value) pair")
        field_name, field_value = parts[0], parts[1].strip(" \t")
        if not FIELD_NAME.fullmatch(field_name):
            raise ConfigError(f"{name} {field_name!r}: give a header name of letters, digits and dashes")
        if field_name.lower() in MESSAGE_FIELDS:
            raise ConfigError(f"{name} {field_name!r}: leave it out, it is another one for each response")
        if not FIELD_VALUE.fullmatch(field_value):
            raise ConfigError(f"{name} {field_name!r}: give a value without control characters, in Latin-1")
        pairs.append((field_name, field_value))
    return pairs


def default_of(field: dataclasses.Field[Any], described: Setting) -> str:
    """A setting's default as documentation shows it."""
    return described.default_text or shown(described, field.default)


def shown(described: Setting, value: Any) -> str:
    """A checked value as one line for people to read; a secret is not shown."""
    if value is None:
        return "not set"
    if described.is_secret:
        return HIDDEN
    if isinstance(value, bool):
        return "on" if value else "off"
    if described.kind == "octal":
        return f"{value:o}"
    if isinstance(value, float):
        return f"{int(value) if value.is_integer() else value}"
    if isinstance(value, list):
        text = ", ".join(item if isinstance(item, str) else ": ".join(item) for item in value)
    else:
        text = json.dumps(value, default=str) if isinstance(value, dict) else str(value)
    return as_line(text)


def as_line(text: str) -> str:
    """A text as one line for people to read."""
    if not text:
        return "empty"
    return text if text.isprintable() else repr(text)
