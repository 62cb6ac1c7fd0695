# ruff: noqa: RUF009  setting() makes dataclass fields, as dataclasses.field() does

import dataclasses
from typing import Any

import pytest

from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.settings.declaration import (
    Setting,
    check,
    default_of,
    from_text,
    nearest,
    setting,
    settings_of,
    shown,
)
from fastasgi.settings.document import markdown_table


@dataclasses.dataclass
class Shop:
    loop: str = setting("text", "auto", "A", "A loop.", choices=("auto", "none"), takes_import_string=True)
    colour: str = setting("text", "red", "A", "A colour.", choices=("red", "blue"))
    lamp: bool | str = setting("switch", "on", "A", "A lamp.", choices=("on", "off", "dim"))
    mask: int | str = setting("octal", 0o27, "B", "A mask.", least=0, most=0o777)
    names: list[str] | None = setting("list", None, "B", "Names.", default_text="all")
    rest_s: float = setting("number", 2.0, "B", "A rest.", unit="seconds", least=0)
    notify: Any = setting("object", None, "B", "A function.", on_command_line=False)


DESCRIBED = {field.name: described for field, described in settings_of(Shop)}


@pytest.mark.parametrize("value", ["auto", "none", "uvloop:new_event_loop", "a.b:c.d"])
def test_an_import_string_is_taken_where_the_setting_says_so(value: str) -> None:
    assert check("loop", DESCRIBED["loop"], value) == value
    assert from_text(DESCRIBED["loop"], value) == value


@pytest.mark.parametrize("value", ["nothing", ":x", "x:", "a b:c", "a:b:c", "a:b\n", ""])
def test_what_is_neither_a_choice_nor_an_import_string_is_refused(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("loop", DESCRIBED["loop"], value)
    assert str(caught.value) == f"loop {value!r}: give auto, none or module:attribute"


@pytest.mark.parametrize(
    ("value", "position"),
    [(True, "on"), (0, "off"), ("yes", "on"), ("OFF", "off"), ("dim", "dim")],
)
def test_a_switch_with_choices_is_one_of_them(value: Any, position: str) -> None:
    assert check("lamp", DESCRIBED["lamp"], value) == position


@pytest.mark.parametrize("value", [2, "bright", ["on"], b"on"])
def test_a_switch_with_choices_is_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check("lamp", DESCRIBED["lamp"], value)
    assert str(caught.value) == f"lamp {value!r}: give on, off or dim"


def test_an_import_string_is_no_choice_elsewhere() -> None:
    with pytest.raises(ConfigError, match="give red or blue"):
        check("colour", DESCRIBED["colour"], "a:b")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("colour", None, "not set"),
        ("colour", "", "empty"),
        ("colour", "a\nb", r"'a\nb'"),
        ("colour", True, "on"),
        ("colour", False, "off"),
        ("mask", 0o640, "640"),
        ("names", ["a", "b"], "a, b"),
        ("names", [("A", "b"), ("C", "d")], "A: b, C: d"),
        ("names", [], "empty"),
        ("rest_s", 2.0, "2"),
        ("rest_s", 2.5, "2.5"),
        ("notify", {"a": [1, "\n"]}, r'{"a": [1, "\n"]}'),
    ],
)
def test_a_value_is_shown_on_one_line(name: str, value: Any, text: str) -> None:
    assert shown(DESCRIBED[name], value) == text


def test_a_default_is_shown_as_any_value() -> None:
    assert [default_of(field, described) for field, described in settings_of(Shop)] == [
        *("auto", "red", "on", "27", "all", "2", "not set")
    ]


@pytest.mark.parametrize("described", [described for _, described in settings_of(Config)])
def test_a_settings_of_config_is_described(described: Setting) -> None:
    assert described.help.endswith(".")
    assert described.choices or not described.takes_import_string


def test_the_table_has_a_part_for_each_group() -> None:
    table = markdown_table(Shop)
    assert [line for line in table.splitlines() if line.startswith("## ")] == ["## A", "## B"]
    assert "| `--loop` | `loop` | auto | A loop. Takes auto\\|none\\|module:attribute. |" in table
    assert "| `--lamp` | `lamp` | on | A lamp. Takes on\\|off\\|dim. |" in table
    assert "| `--rest-s` | `rest_s` | 2 | A rest. Takes a number of seconds, 0 or more. |" in table
    assert "|  | `notify` | not set | A function. |" in table


def test_the_nearest_name_is_near() -> None:
    assert nearest("prot", ["host", "port"]) == "port"
    assert nearest("xyzzy", ["host", "port"]) is None
    assert nearest("x", []) is None
