"""Where settings come from: the command line, before the environment, before a TOML file, before the default.

Knows how each place is written and says where a value was given. What a value may be is checked by the
dataclass that declares the settings, of which it is told: ``owner``, which is Config. Parameters of
``fastasgi.run`` and ``Config`` do not come by here.
"""

import itertools
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastasgi.errors import ConfigError
from fastasgi.settings.declaration import (
    Setting,
    as_line,
    default_of,
    descriptions_of,
    from_text,
    nearest,
    off_option_of,
    option_of,
    settings_of,
    shown,
)

T = TypeVar("T")

Descriptions = Mapping[str, Setting]  # of the settings of owner, by name

PROJECT_FILE = "pyproject.toml"
TABLE = "tool.fastasgi"

VARIABLE_PREFIX = "FASTASGI_"
UVICORN_PREFIX = "UVICORN_"
FILE_VARIABLE = "FASTASGI_CONFIG"
# These are no settings: setup.py reads the first ones, a supervisor sets the last one for its successor
OTHER_VARIABLES = {
    *("FASTASGI_ANNOTATE", "FASTASGI_DEBUG", "FASTASGI_POISON", "FASTASGI_SANITIZE", "FASTASGI_WERROR"),
    "FASTASGI_INHERIT",
}
# Variables of other programs too; ours win over them
SHARED_VARIABLES = {"workers": "WEB_CONCURRENCY", "forwarded_allow_ips": "FORWARDED_ALLOW_IPS"}
# Lists that a variable may also hold on one line
COMMA_SEPARATED = ("bind", "forwarded_allow_ips", "forwarded_headers", "proxy_protocol")

# The ways to say where to listen. The first that has a value is taken.
ADDRESSES = (("bind",), ("fd",), ("uds",), ("host", "port"))


@dataclass(frozen=True, slots=True)
class Given:
    """The value of a setting, and where it was given: ``environment FASTASGI_PORT``."""

    value: Any
    origin: str
    on_command_line: bool = False  # an error need not say where: the user sees it


def collect(
    owner: type,
    command_line: Mapping[str, Any],
    environ: Mapping[str, str],
    config_file: str | None = None,
) -> dict[str, Given]:
    """All that is given of ``app`` and the settings, by name, each from the first place that gives it.

    command_line has what its options gave: a text, True or False for a switch, a tuple where an option may be
    repeated, None or an empty tuple for what is not given. Without config_file, the file is the one that
    FASTASGI_CONFIG names, or pyproject.toml. Reads that file. Raises ConfigError.
    """
    descriptions = descriptions_of(owner)
    given: dict[str, Given] = {}
    for source in (
        _of_file(descriptions, config_file, environ),
        _of_environment(descriptions, environ),
        _of_command_line(descriptions, command_line),
    ):
        _clear_way(given, source)
        given.update(source)
    return given


def _clear_way(given: dict[str, Given], source: Mapping[str, Given]) -> None:
    """Remove the addresses that would be preferred to the one that source gives."""
    for i, names in enumerate(ADDRESSES):
        if any(name in source for name in names):
            for preferred in itertools.chain(*ADDRESSES[:i]):
                given.pop(preferred, None)


def make_config(owner: Callable[..., T], given: Mapping[str, Given]) -> T:
    """An owner of what is given. Raises ConfigError, which says where the wrong value was given."""
    if "app" not in given:
        raise ConfigError("name the application, for example main:app")
    values = {name: each.value for name, each in given.items()}
    values.setdefault("app_dir", "")
    try:
        return owner(**values)
    except ConfigError as error:
        # The error begins with the name of the setting
        named = given.get(re.split("[ :]", str(error), maxsplit=1)[0])
        if named is None or named.on_command_line:
            raise
        raise ConfigError(f"{named.origin}: {error}") from error.__cause__


# --- Command line ---


def _of_command_line(descriptions: Descriptions, options: Mapping[str, Any]) -> dict[str, Given]:
    source = {}
    for name, value in options.items():
        if value is None or value == ():
            continue
        described = descriptions.get(name)
        option = "APP"
        if described is not None:
            if isinstance(value, str):
                value = from_text(described, value)
            is_off = described.kind == "switch" and value in (False, "off")
            option = off_option_of(name, described) if is_off else option_of(name, described)
        value = list(value) if isinstance(value, tuple) else value
        source[name] = Given(value, f"command line {option}", on_command_line=True)
    return source


# --- Environment ---


def _of_environment(descriptions: Descriptions, environ: Mapping[str, str]) -> dict[str, Given]:
    """What variables give. An empty one gives nothing."""
    source = {}
    for name in ("app", *descriptions):
        variable = next((each for each in _variables_of(name) if environ.get(each)), None)
        if variable is None:
            continue
        text, origin = environ[variable], f"environment {variable}"
        described = descriptions.get(name)
        _refuse_functions(name, described, origin)
        if name in COMMA_SEPARATED:
            text = text.replace(",", "\n")
        value = from_text(described, text) if described is not None else text
        source[name] = Given(value, origin)
    return source


def _variables_of(name: str) -> Iterator[str]:
    yield VARIABLE_PREFIX + name.upper()
    if name in SHARED_VARIABLES:
        yield SHARED_VARIABLES[name]


def pop_secrets(owner: type, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove the variables that give secret settings, so that no program started from here gets them."""
    names = [VARIABLE_PREFIX + field.name.upper() for field, each in settings_of(owner) if each.is_secret]
    return {name: environ.pop(name) for name in names if name in environ}


def unknown_variables(owner: type, environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that is named as ours, or as uvicorn's, and gives no setting."""
    known = {VARIABLE_PREFIX + name.upper() for name in ("app", *descriptions_of(owner))} | {FILE_VARIABLE}
    lines = []
    for variable in sorted(environ):
        if variable.startswith(VARIABLE_PREFIX) and variable not in known | OTHER_VARIABLES:
            meant = nearest(variable, known)
            lines.append(f"{variable} is not used" + (f": did you mean {meant}?" if meant else ""))
        ours = VARIABLE_PREFIX + variable.removeprefix(UVICORN_PREFIX)
        if variable.startswith(UVICORN_PREFIX) and ours in known and ours not in environ:
            lines.append(f"{variable} is not used: did you mean {ours}?")
    return lines


# --- File ---


def _of_file(descriptions: Descriptions, named: str | None, environ: Mapping[str, str]) -> dict[str, Given]:
    if named is None:
        named = environ.get(FILE_VARIABLE) or None
    path = PROJECT_FILE if named is None else named
    if named is None and not os.path.isfile(path):
        return {}
    table = _settings_table(path)
    if table is None and named is not None:
        raise ConfigError(f"{_origin_of(path)}: there is no [{TABLE}] table: add it, or name another file")
    return _of_table(descriptions, table or {}, _origin_of(path))


def _origin_of(path: str) -> str:
    return f"file {os.path.abspath(path)}"


def _settings_table(path: str) -> dict[str, Any] | None:
    """A TOML file's table of our settings; None if it is a pyproject.toml without. Raises ConfigError."""
    document = _read(path)
    tool = document.get("tool", {})
    table = tool.get("fastasgi") if isinstance(tool, dict) else None
    if table is None:
        return None if os.path.basename(path) == PROJECT_FILE else document
    if not isinstance(table, dict):
        raise ConfigError(f"{_origin_of(path)}: {TABLE} {table!r}: make it a table, [{TABLE}]")
    return table


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"config file {path!r} can't be read: {error.strerror}; name a TOML file") from None
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        place = _end_of(data[: error.start].decode())
        raise ConfigError(f"{_origin_of(path)}, {place}: this is not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{_origin_of(path)}: arrays or tables are nested too deeply") from None
    except ValueError as error:
        place, reason = _parse_toml_error(str(error), data.decode())
        raise ConfigError(f"{_origin_of(path)}{place and ', '}{place}: {reason}") from None


def _parse_toml_error(message: str, text: str) -> tuple[str, str]:
    """Place (empty if there is none) and reason of what tomllib says about a text."""
    match = re.fullmatch(r"(.*) \(at (?:(line \d+, column \d+)|end of document)\)", message)
    return (match[2] or _end_of(text), match[1]) if match else ("", message)


def _end_of(text: str) -> str:
    """The place behind a text: ``line 3, column 7``."""
    lines = text.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _of_table(descriptions: Descriptions, table: Mapping[str, Any], origin: str) -> dict[str, Given]:
    source: dict[str, Given] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name != "app" and name not in descriptions:
            raise ConfigError(f"{origin}: there is no setting {key!r}: {_mend_of_key(descriptions, name)}")
        if name in source:
            raise ConfigError(
                f"{origin}: {key!r} is given twice, with a dash and with an underscore: leave one out"
            )
        described = descriptions.get(name)
        _refuse_functions(name, described, origin)
        if name == "app" and not isinstance(value, str):
            raise ConfigError(f"{origin}: app {value!r}: give a text such as 'main:app'")
        if described is not None and described.kind == "octal" and not isinstance(value, str):
            # 0o660 and 432 are one to a TOML reader: a forgotten 0o would set other permissions
            raise ConfigError(f"{origin}: {name} {value!r}: give octal digits in quotes, such as '660'")
        if described is not None and isinstance(value, str):
            _refuse_quotes(name, described, value, origin)
        source[name] = Given(value, origin)
    return source


def _refuse_quotes(name: str, described: Setting, text: str, origin: str) -> None:
    """Raise ConfigError for a number or switch that is a text, as in an environment; a file need not."""
    if described.kind in ("whole", "count", "number", "switch"):
        meant = from_text(described, text)
        if not isinstance(meant, str):
            what = "true or false" if described.kind == "switch" else "the number"
            raise ConfigError(f"{origin}: {name} {text!r}: give {what} without quotes")


def _refuse_functions(name: str, described: Setting | None, origin: str) -> None:
    if described is not None and described.is_in_python_only:
        raise ConfigError(f"{origin}: {name} can be set in Python only: leave it out")


def _mend_of_key(descriptions: Descriptions, wrong: str) -> str:
    names = [name for name, described in descriptions.items() if not described.is_in_python_only]
    meant = nearest(wrong, ["app", *names])
    return f"did you mean {meant!r}?" if meant else "leave it out; fastasgi --print-config lists all"


# --- Report ---


def listing(
    config: Any,
    given: Mapping[str, Given],
    heading: Callable[[str], str] = str,
    emphasis: Callable[[str], str] = str,
) -> str:
    """What make_config has made of given: under each group its settings, a line each: name, value, origin.

    heading and emphasis style the lines of groups, and of settings that are given.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for field, described in settings_of(type(config)):
        if field.name in given:
            row = (field.name, shown(described, getattr(config, field.name)), given[field.name].origin)
        else:
            row = (field.name, default_of(field, described), "default")
        groups.setdefault(described.group, []).append(row)
    groups["Application"].insert(0, ("app", as_line(str(config.app)), given["app"].origin))
    rows = list(itertools.chain(*groups.values()))
    name_width, value_width = (min(40, max(len(row[i]) for row in rows)) for i in (0, 1))
    lines = []
    for group, members in groups.items():
        lines.append(heading(f"{group}:"))
        for name, value, origin in members:
            line = f"  {name:{name_width}}  {value:{value_width}}  {origin}"
            lines.append(emphasis(line) if name in given else line)
    return "\n".join(lines) + "\n"
