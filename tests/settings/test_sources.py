import dataclasses
import functools
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Pair
from hypothesis import given as draw
from hypothesis import settings
from hypothesis import strategies as st
from serving import WAIT_S, ServerProcess

import fastasgi
from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.settings import sources
from fastasgi.settings.declaration import HIDDEN, Setting, check, setting, settings_of
from fastasgi.settings.sources import Given, listing

collect = functools.partial(sources.collect, Config)
make_config = functools.partial(sources.make_config, Config)
unknown_variables = functools.partial(sources.unknown_variables, Config)

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"!"})
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def from_file(text: str, name: str = "settings.toml") -> dict[str, Given]:
    return collect({}, {}, str(write(Path(name), text)))


def values(given: dict[str, Given]) -> dict[str, Any]:
    return {name: each.value for name, each in given.items()}


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """The line of the ConfigError that a call raises."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line


# Which place goes before which


@pytest.mark.parametrize("places", [p for n in range(4) for p in itertools.combinations("fec", n)])
def test_the_command_line_goes_before_the_environment_before_the_file(
    folder: Path, places: tuple[str, ...]
) -> None:
    file = write(folder / "x.toml", "backlog = 1" if "f" in places else "")
    environ = {"FASTASGI_BACKLOG": "2"} if "e" in places else {}
    options = {"backlog": "3" if "c" in places else None}
    given = collect(options, environ, str(file))
    expected = {
        "f": Given(1, f"file {file}"),
        "e": Given(2, "environment FASTASGI_BACKLOG"),
        "c": Given(3, "command line --backlog", on_command_line=True),
    }
    assert given == ({"backlog": expected[places[-1]]} if places else {})


def test_places_are_mixed_setting_by_setting(folder: Path) -> None:
    write(
        folder / "pyproject.toml",
        "[tool.fastasgi]\napp = 'shop:app'\nport = 1\nbacklog = 1\nroot_path = '/1'",
    )
    given = collect({"port": "3"}, {"FASTASGI_BACKLOG": "2", "FASTASGI_PORT": "2"})
    assert values(given) == {"app": "shop:app", "port": 3, "backlog": 2, "root_path": "/1"}
    assert given["app"].origin == f"file {folder / 'pyproject.toml'}"


def test_web_concurrency_is_between_our_own_variable_and_the_file(folder: Path) -> None:
    write(folder / "pyproject.toml", "[tool.fastasgi]\nworkers = 1")
    both = {"WEB_CONCURRENCY": "2", "FASTASGI_WORKERS": "3"}
    assert collect({}, {})["workers"].value == 1
    assert collect({}, {"WEB_CONCURRENCY": "2"})["workers"] == Given(2, "environment WEB_CONCURRENCY")
    assert collect({}, both)["workers"] == Given(3, "environment FASTASGI_WORKERS")
    assert collect({"workers": "auto"}, both)["workers"].value == "auto"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"bind": (":4",)}, {"bind", "fd", "uds", "port"}),
        ({"fd": "4"}, {"fd", "uds", "port"}),
        ({"uds": "x"}, {"uds", "port"}),
        ({"port": "4"}, {"port"}),
        ({"host": "::1"}, {"host", "port"}),
        ({"host": "::1", "fd": "4"}, {"host", "port", "fd"}),
        ({"backlog": "4"}, {"bind", "fd", "uds", "port", "backlog"}),
    ],
)
def test_an_address_goes_before_those_of_later_places(options: dict[str, Any], left: set[str]) -> None:
    file = write(Path("x.toml"), "bind = ':1'\nfd = 9\nuds = 'x.sock'\nport = 1")
    given = collect(options, {}, str(file))
    assert set(given) == left
    for name in options:
        assert given[name].on_command_line


def test_an_address_of_the_environment_goes_before_the_files() -> None:
    file = write(Path("x.toml"), "bind = ':1'")
    assert values(collect({}, {"FASTASGI_PORT": "2"}, str(file))) == {"port": 2}


def test_run_and_config_read_no_file_and_none_of_our_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "pyproject.toml", "[tool.fastasgi]\nport = 1")
    monkeypatch.setenv("FASTASGI_BACKLOG", "1")
    monkeypatch.setenv("FASTASGI_CONFIG", "none.toml")
    seen: list[Config] = []
    monkeypatch.setattr("fastasgi.launch.run_config", lambda make_config: seen.append(make_config()))
    fastasgi.run("shop:app")
    for config in (*seen, Config("shop:app")):
        assert (config.port, config.backlog) == (8000, 4096)
    assert len(seen) == 1


# The environment


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("FASTASGI_APP", "shop:app", "app", "shop:app"),
        ("FASTASGI_PORT", "0", "port", 0),
        ("FASTASGI_TIMEOUT_KEEP_ALIVE", "2.5", "timeout_keep_alive", 2.5),
        ("FASTASGI_TIMEOUT_NOTIFY", "2", "timeout_notify", 2.0),
        ("FASTASGI_WORKERS", "auto", "workers", "auto"),
        ("FASTASGI_LOOP", "ASYNCIO", "loop", "asyncio"),
        ("FASTASGI_LOG_LEVEL", "Debug", "log_level", "debug"),
        ("FASTASGI_LOG_CONFIG", "log.ini", "log_config", "log.ini"),
        ("FASTASGI_UDS_PERMISSIONS", "660", "uds_permissions", "660"),
        ("FASTASGI_HEADERS", "A: b, c\n\nD:e\n", "headers", ["A: b, c", "D:e"]),
        ("FASTASGI_RELOAD_DIRS", "a,b\nc", "reload_dirs", ["a,b", "c"]),
        ("FASTASGI_BIND", "[::1]:1, unix:x\nfd://3", "bind", ["[::1]:1", "unix:x", "fd://3"]),
        ("FASTASGI_HTTP2", "Only", "http2", "only"),
        *[("FASTASGI_ACCESS_LOG", x, "access_log", True) for x in ("1", "true", "Yes", "ON")],
        *[("FASTASGI_ACCESS_LOG", x, "access_log", False) for x in ("0", "False", "no", "off")],
    ],
)
def test_a_variable_becomes_a_setting(variable: str, text: str, name: str, value: Any) -> None:
    assert collect({}, {variable: text}) == {name: Given(value, f"environment {variable}")}


def test_an_empty_variable_is_not_set() -> None:
    assert collect({}, {"FASTASGI_PORT": "", "FASTASGI_CONFIG": "", "WEB_CONCURRENCY": ""}) == {}


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        (
            "FASTASGI_PORT",
            "tcp://10.0.0.1:80",
            "port 'tcp://10.0.0.1:80': give a whole number from 0 to 65535",
        ),
        ("FASTASGI_PORT", "65536", "port 65536: give a whole number from 0 to 65535"),
        ("FASTASGI_ACCESS_LOG", "maybe", "access_log 'maybe': give True or False"),
        ("FASTASGI_TIMEOUT_DRAIN", "nan", "timeout_drain nan: give a number of seconds, 0 or more"),
        ("FASTASGI_HEADERS", "A", "headers 'A': give name:value, or in Python a (name, value) pair"),
        ("FASTASGI_BIND", "x", "bind 'x': give HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER"),
        ("FASTASGI_LOG_LEVEL", "loud", "log_level 'loud': give critical, error, .*"),
        ("FASTASGI_LOG_CONFIG", "none.ini", "log_config 'none.ini' can't be used: No such file or directory"),
        ("WEB_CONCURRENCY", "many", "workers 'many': give auto, or a whole number, 0 or more"),
        ("FASTASGI_HTTP2", "h2", "http2 'h2': give on, off or only"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, line: str) -> None:
    given = collect({"app": "shop:app"}, {variable: text})
    assert re.fullmatch(
        rf"environment {variable}: {re.escape(line).replace(re.escape('.*'), '.*')}",
        refusal(make_config, given),
    )


def test_a_function_can_not_be_given_as_text() -> None:
    line = "callback_notify can be set in Python only: leave it out"
    variable = "FASTASGI_CALLBACK_NOTIFY"
    assert refusal(collect, {}, {variable: "shop:notify"}) == f"environment {variable}: {line}"
    path = Path("settings.toml").absolute()
    assert refusal(from_file, "callback_notify = 'shop:notify'") == f"file {path}: {line}"


def test_a_variable_that_gives_no_setting_is_told() -> None:
    environ = {
        "FASTASGI_PROT": "1",
        "FASTASGI_8000_TCP_ADDR_XYZZY": "1",
        "FASTASGI_APP": "1",
        "FASTASGI_CONFIG": "1",
        "HOME": "/",
    }
    assert unknown_variables(environ) == [
        "FASTASGI_8000_TCP_ADDR_XYZZY is not used",
        "FASTASGI_PROT is not used: did you mean FASTASGI_PORT?",
    ]


# The file


def test_pyproject_of_the_current_folder_is_read_where_it_has_our_table(folder: Path) -> None:
    assert collect({}, {}) == {}
    write(folder / "pyproject.toml", "port = 1\n[tool.other]\nport = 2")
    assert collect({}, {}) == {}
    write(folder / "pyproject.toml", "port = 1\n[tool.fastasgi]\nport = 3")
    assert values(collect({}, {})) == {"port": 3}


def test_the_file_that_is_named_is_read_instead_of_pyproject(folder: Path) -> None:
    write(folder / "pyproject.toml", "[tool.fastasgi]\nport = 1\nbacklog = 1")
    write(folder / "two.toml", "port = 2")
    write(folder / "three.toml", "port = 3")
    environ = {"FASTASGI_CONFIG": "two.toml"}
    assert collect({}, environ) == {"port": Given(2, f"file {folder / 'two.toml'}")}
    assert collect({}, environ, "three.toml") == {"port": Given(3, f"file {folder / 'three.toml'}")}


def test_a_file_named_pyproject_has_our_table_wherever_it_is(folder: Path) -> None:
    (folder / "shop").mkdir()
    path = write(folder / "shop" / "pyproject.toml", "[tool.fastasgi]\nport = 1")
    assert values(collect({}, {}, "shop/pyproject.toml")) == {"port": 1}
    write(path, "[project]\nname = 'shop'")
    assert refusal(collect, {}, {}, "shop/pyproject.toml") == (
        f"file {path}: there is no [tool.fastasgi] table: add it, or name another file"
    )


def test_any_other_file_has_our_table_or_the_settings_at_its_top_level() -> None:
    assert values(from_file("port = 1")) == {"port": 1}
    assert values(from_file("port = 1\n[tool.fastasgi]\nport = 2")) == {"port": 2}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("app = 'shop:app'", "app", "shop:app"),
        ("port = 0", "port", 0),
        ("timeout-keep-alive = 2", "timeout_keep_alive", 2),
        ("timeout_keep_alive = 2.5", "timeout_keep_alive", 2.5),
        ("timeout_notify = 2.5", "timeout_notify", 2.5),
        ("workers = 'auto'", "workers", "auto"),
        ("access-log = false", "access_log", False),
        ("http2 = false", "http2", "off"),
        ("http2 = 'only'", "http2", "only"),
        ("uds_permissions = '660'", "uds_permissions", 0o660),
        ("log_level = 'debug'", "log_level", "debug"),
        ("bind = [':0', 'unix:x']", "bind", [":0", "unix:x"]),
        ("bind = ':0'", "bind", [":0"]),
        ("headers = ['A: b', ['C', 'd']]", "headers", [("A", "b"), ("C", "d")]),
        ("log_config = {version = 1, incremental = true}", "log_config", {"version": 1, "incremental": True}),
        ("app_dir = '.'", "app_dir", "."),
        ("ws = 'none'", "ws", "none"),
    ],
)
def test_a_key_becomes_a_setting(text: str, name: str, value: Any) -> None:
    given = from_file(text)
    assert given.keys() == {name}
    given.setdefault("app", Given("shop:app", "default"))
    config = make_config(given)
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", "there is no setting 'prot': did you mean 'port'?"),
        (
            "'time-out-keep-alive' = 1",
            "there is no setting 'time-out-keep-alive': did you mean 'timeout_keep_alive'?",
        ),
        ("header = []", "there is no setting 'header': did you mean 'headers'?"),
        ("callback_notif = 1", "there is no setting 'callback_notif': leave it out; "),
        ("xyzzy = 1", "there is no setting 'xyzzy': leave it out; fastasgi --print-config lists all"),
        ('"a\\nb" = 1', r"there is no setting 'a\nb': leave it out; fastasgi --print-config lists all"),
        (
            "log-level = 'info'\nlog_level = 'info'",
            "'log_level' is given twice, with a dash and with an underscore: ",
        ),
        ("app = 1", "app 1: give a text such as 'main:app'"),
        ("umask = 22", "umask 22: give octal digits in quotes, such as '660'"),
        ("uds_permissions = 0o660", "uds_permissions 432: give octal digits in quotes, such as '660'"),
        ("[tool]\nfastasgi = 1", "tool.fastasgi 1: make it a table, [tool.fastasgi]"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(text: str, line: str) -> None:
    assert refusal(from_file, text).startswith(f"file {Path('settings.toml').absolute()}: {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 'x'", "port 'x': give a whole number from 0 to 65535"),
        ("port = '80'", "port '80': give the number without quotes"),
        ("workers = '2'", "workers '2': give the number without quotes"),
        ("port = true", "port True: give a whole number from 0 to 65535"),
        ("port = 1.0", "port 1.0: give a whole number from 0 to 65535"),
        ("host = 1", "host 1: give a text"),
        ("uds = []", "uds []: give a path"),
        ("access_log = 'no'", "access_log 'no': give true or false without quotes"),
        ("timeout_drain = '1'", "timeout_drain '1': give the number without quotes"),
        (f"timeout_drain = 1{'0' * 400}", "timeout_drain 1000"),
        (
            "timeout_drain = 2020-01-01",
            "timeout_drain datetime.date(2020, 1, 1): give a number of seconds, 0 or more",
        ),
        ("bind = [1]", "bind [1]: give texts"),
        ("headers = 1", "headers 1: give a list of name:value"),
        ("headers = {A = 'b'}", "headers {'A': 'b'}: give a list of name:value"),
        ("log_level = 1.5", "log_level 1.5: give critical, "),
        ("log_config = 1", "log_config int can't be used: "),
        ("app_dir = 'none'", "app_dir 'none' is not a folder: "),
        ("health_path = 'x'", "health_path 'x': give a path that begins with a slash"),
        ("http2 = 2", "http2 2: give on, off or only"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(text: str, line: str) -> None:
    def read() -> None:
        make_config({"app": Given("shop:app", "default"), **from_file(text)})

    assert refusal(read).startswith(f"file {Path('settings.toml').absolute()}: {line}")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"port = 1\n\nport : 2", ", line 3, column 6: Expected '=' after a key in a key/value pair"),
        (b"port = 1\nport = 2", ", line 2, column 9: Cannot overwrite a value"),
        (b"port = 1\r\nbind = [", ", line 2, column 9: Invalid value"),
        (b"port =", ", line 1, column 7: Invalid value"),
        (b"port = 1\n# caf\xe9", ", line 2, column 6: this is not UTF-8"),
        (b"a = " + b"[" * 20000, ": arrays or tables are nested too deeply"),
        ("# \u00f6\nport = '\u00e9".encode(), ', line 2, column 10: Expected "\'"'),
        (b"a = 1" + b"0" * 5000, ": Exceeds the limit"),
    ],
)
def test_broken_toml_is_told_with_file_line_and_column(folder: Path, data: bytes, place: str) -> None:
    (folder / "pyproject.toml").write_bytes(data)
    line = refusal(collect, {}, {})
    assert line.startswith(f"file {folder / 'pyproject.toml'}{place}")


def test_a_file_that_can_not_be_read_is_named(folder: Path) -> None:
    tail = "can't be read: No such file or directory; name a TOML file"
    assert refusal(collect, {}, {}, "none.toml") == f"config file 'none.toml' {tail}"
    assert refusal(collect, {}, {"FASTASGI_CONFIG": "no.toml"}) == f"config file 'no.toml' {tail}"
    assert refusal(collect, {}, {}, str(folder)).startswith(f"config file '{folder}' can't be read: Is a ")


def test_paths_in_a_file_are_relative_to_the_current_folder(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "src").mkdir()
    write(
        folder / "src" / "log.ini",
        "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=",
    )
    file = write(folder / "etc" / "x.toml", "app = 'shop:app'\napp_dir = 'src'\nlog_config = 'src/log.ini'")
    config = make_config(collect({}, {}, str(file)))
    assert (config.app_dir, config.log_config) == ("src", "src/log.ini")


# The command line


@pytest.mark.parametrize(
    ("name", "given", "value", "option"),
    [
        ("app", "shop:app", "shop:app", "APP"),
        ("host", "", "", "--host"),
        ("port", "9", 9, "--port"),
        ("access_log", False, False, "--no-access-log"),
        ("access_log", True, True, "--access-log"),
        ("headers", ("A: b", "C:d"), ["A: b", "C:d"], "--header"),
        ("bind", (":1", "unix:a,b"), [":1", "unix:a,b"], "--bind"),
        ("reload_dirs", ("src",), ["src"], "--reload-dir"),
    ],
)
def test_an_option_is_named_as_the_origin(name: str, given: Any, value: Any, option: str) -> None:
    assert collect({name: given, "fd": None, "reload_includes": ()}, {}) == {
        name: Given(value, f"command line {option}", on_command_line=True)
    }


def test_an_error_of_the_command_line_names_the_setting_alone() -> None:
    given = collect({"app": "shop:app", "port": "x"}, {})
    assert refusal(make_config, given) == "port 'x': give a whole number from 0 to 65535"


def test_an_error_of_no_single_setting_is_passed_on() -> None:
    def refuse(**settings: Any) -> None:
        raise ConfigError("the moon is wrong: wait")

    given = {"app": Given("shop:app", "environment FASTASGI_APP")}
    assert refusal(sources.make_config, refuse, given) == "the moon is wrong: wait"


def test_the_application_must_be_named() -> None:
    assert refusal(make_config, {}) == "name the application, for example main:app"


SETTINGS = [(field.name, described) for field, described in settings_of(Config)]


def refusal_of_value(name: str, described: Setting, value: Any) -> str | None:
    """The line of the ConfigError where there is one; no other exception may come."""
    try:
        check(name, described, value)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("name", "described"), SETTINGS, ids=[name for name, _ in SETTINGS])
@settings(deadline=None)  # a loaded machine is no bug
@draw(data=st.data())
def test_any_text_becomes_a_value_or_one_line(name: str, described: Setting, data: st.DataObject) -> None:
    words = st.sampled_from(["auto", "on", "-1", "1", "0o7", "1e400", "a:b", *described.choices])
    text = data.draw(words | st.text(st.characters(exclude_characters="\x00"), min_size=1))
    if described.is_in_python_only:
        refusal(collect, {}, {f"FASTASGI_{name.upper()}": text})
        return
    value = collect({}, {f"FASTASGI_{name.upper()}": text})[name].value
    if described.kind not in ("list", "headers"):
        assert repr(collect({name: text}, {})[name].value) == repr(value)
    line = refusal_of_value(name, described, value)
    assert line is None or (line.startswith(f"{name} ") and "\n" not in line)


TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**1100) | st.floats() | st.text() | st.dates() | st.times(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)  # a loaded machine is no bug
@draw(value=TOML_VALUES)
def test_any_toml_value_is_taken_or_refused_in_one_line(value: Any) -> None:
    for name, described in SETTINGS:
        line = refusal_of_value(name, described, value)
        assert line is None or (line.startswith(f"{name} ") and "\n" not in line)


# The report


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a listing: value and origin by name."""
    found = [re.split(" {2,}", line.strip()) for line in text.splitlines() if line.startswith("  ")]
    assert len({name for name, *_ in found}) == len(found)
    return {name: cells for name, *cells in found}


def test_each_setting_is_listed_with_its_value_and_origin(folder: Path) -> None:
    write(
        folder / "pyproject.toml",
        "[tool.fastasgi]\napp = 'shop:app'\nheaders = ['A: b', ['C', 'd']]\numask = '027'",
    )
    environ = {"WEB_CONCURRENCY": "2", "FASTASGI_TIMEOUT_DRAIN": "3", "FASTASGI_BIND": ":1,unix:x"}
    given = collect({"access_log": False, "log_level": "error", "root_path": "a\nb"}, environ)
    listed = rows(listing(make_config(given), given))
    file = f"file {folder / 'pyproject.toml'}"
    assert listed.keys() == {"app"} | {field.name for field, _ in settings_of(Config)}
    expected = {
        "app": ["shop:app", file],
        "headers": ["A: b, C: d", file],
        "umask": ["27", file],
        "workers": ["2", "environment WEB_CONCURRENCY"],
        "timeout_drain": ["3", "environment FASTASGI_TIMEOUT_DRAIN"],
        "bind": [":1, unix:x", "environment FASTASGI_BIND"],
        "access_log": ["off", "command line --no-access-log"],
        "log_level": ["error", "command line --log-level"],
        "root_path": [r"'a\nb'", "command line --root-path"],
        "port": ["8000", "default"],
        "app_dir": ["current folder", "default"],
        "log_config": ["built in", "default"],
        "limit_concurrency": ["not set", "default"],
    }
    assert {name: listed[name] for name in expected} == expected
    assert sum(origin == "default" for _, origin in listed.values()) == len(listed) - 9


def test_the_listing_is_aligned() -> None:
    given = collect({"app": "shop:app"}, {})
    lines = listing(make_config(given), given).splitlines()
    assert {line.rindex("  ") for line in lines if line.endswith("  default")} == {
        next(line for line in lines if line.endswith("APP")).index("  command line APP")
    }
    assert [line for line in lines if not line.startswith("  ")][:3] == ["Listening:", "Processes:", "HTTP:"]


def test_a_secret_is_not_shown() -> None:
    @dataclasses.dataclass
    class Vault:
        app: str
        app_dir: str | None = None
        word: str | None = setting("text", None, "Application", "A password.", is_secret=True)

    given = sources.collect(Vault, {"app": "shop:app"}, {"FASTASGI_WORD": "swordfish"})
    assert given["word"].value == "swordfish"
    assert rows(listing(sources.make_config(Vault, given), given))["word"] == [
        HIDDEN,
        "environment FASTASGI_WORD",
    ]
    described = next(described for _, described in settings_of(Vault))
    assert refusal(check, "word", described, ["swordfish"]) == f"word {HIDDEN}: give a text"


def test_the_variables_of_the_build_are_no_mistakes() -> None:
    setup = (Path(__file__).parent.parent.parent / "setup.py").read_text()
    names = set(re.findall(r"FASTASGI_[A-Z]+", setup))
    assert "FASTASGI_WERROR" in names
    assert unknown_variables(dict.fromkeys(names, "1")) == []


# The process


def environ_with(**variables: str) -> dict[str, str]:
    """This process's environment with these settings alone."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FASTASGI_")}
    inherited.pop("WEB_CONCURRENCY", None)
    return inherited | variables


def ended(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``python -m fastasgi`` in the current folder."""
    done = subprocess.run(
        [sys.executable, "-m", "fastasgi", *arguments],
        env=environ_with(**environment),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_process_prints_its_settings(folder: Path) -> None:
    write(folder / "x.toml", "app = 'nothing:app'\nport = 70")
    code, out, err = ended("--config", "x.toml", "--print-config", "--no-reload", FASTASGI_BACKLOG="7")
    assert (code, err) == (0, "")
    listed = rows(out)
    assert listed["app"] == ["nothing:app", f"file {folder / 'x.toml'}"]
    assert listed["port"] == ["70", f"file {folder / 'x.toml'}"]
    assert listed["backlog"] == ["7", "environment FASTASGI_BACKLOG"]
    assert listed["reload"] == ["off", "command line --no-reload"]


def test_a_valid_configuration_is_called_so_without_binding(folder: Path) -> None:
    write(folder / "shop.py", APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        code, out, err = ended("--check-config", "--port", port, FASTASGI_APP="shop:app", FASTASGI_PROT="1")
    assert (code, err) == (0, "FASTASGI_PROT is not used: did you mean FASTASGI_PORT?\n")
    assert rows(out)["port"] == [port, "command line --port"]
    assert out.startswith(f"OK: shop:app can be served on http://127.0.0.1:{port}; no address was bound.\n\n")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nothing:app"], 3, "app 'nothing:app': no module named 'nothing'; "),
        (["shop:nothing"], 3, "app 'shop:nothing': 'shop' has no attribute 'nothing'; "),
        (["shop:unclear"], 2, "the application takes two arguments, as WSGI does: "),
        (["--reload", "--reload-dir", "none", "shop:app"], 2, "reload_dirs 'none' is not a folder: "),
    ],
)
def test_an_application_that_can_not_be_served_is_told(
    folder: Path, arguments: list[str], code: int, line: str
) -> None:
    write(folder / "shop.py", APP + "def unclear(environ, respond): ...")
    found, out, err = ended("--check-config", *arguments)
    assert found == code
    assert err.startswith(f"Error: {line}")
    assert err.count("\n") == 1
    assert rows(out)["app"] == [arguments[-1], "command line APP"]
    assert "OK" not in out


def test_what_the_users_module_raises_keeps_its_traceback(folder: Path) -> None:
    write(folder / "shop.py", "1 / 0")
    code, out, err = ended("--check-config", "shop:app")
    assert code == 1
    assert "shop.py" in err
    assert err.startswith("Error: shop:app can't be served: ZeroDivisionError: division by zero\nTraceback ")
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert rows(out)["app"] == ["shop:app", "command line APP"]
    assert "OK" not in out


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("import sys; sys.exit(9)", 9, "The application has ended its import by sys.exit(9)"),
        ("raise SystemExit", 1, "The application has ended its import by sys.exit(None)"),
        ("raise SystemExit('no')", 1, "The application has ended its import by sys.exit('no')"),
        ("raise ValueError('a\\nb')", 1, "shop:app can't be served: ValueError: a"),
        ("app = (", 1, "shop:app can't be served: SyntaxError: '(' was never closed (shop.py, line 1)"),
    ],
)
def test_the_verdict_is_the_first_line(folder: Path, source: str, code: int, line: str) -> None:
    write(folder / "shop.py", source)
    found, out, err = ended("--check-config", "shop:app")
    assert (found, err.split("\n")[0]) == (code, f"Error: {line}")
    assert rows(out)["port"] == ["8000", "default"]


@pytest.mark.parametrize(
    ("arguments", "addresses"),
    [
        (["--host", "::1", "--port", "1"], "http://[::1]:1"),
        (["--host", "", "--port", "1"], "port 1 of all addresses, by http"),
        (["--uds", "x.sock"], "unix:x.sock"),
        (["--fd", "987"], "fd 987"),
        (["--bind", ":1", "--bind", "unix:x"], ":1, unix:x"),
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"], "https://127.0.0.1:8000"),
    ],
)
def test_the_verdict_names_the_addresses(
    folder: Path, pair: Pair, arguments: list[str], addresses: str
) -> None:
    write(folder / "shop.py", APP)
    for name, path in (("cert.pem", pair.cert), ("key.pem", pair.key)):
        (folder / name).symlink_to(path)
    code, out, err = ended("--check-config", *arguments, "shop:app")
    assert (code, err) == (0, "")
    assert out.startswith(f"OK: shop:app can be served on {addresses}; no address was bound.\n")


@pytest.mark.parametrize("command", [[], ["--check-config"], ["--print-config"]])
@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--config", "none.toml", "shop:app"], {}, "config file 'none.toml' can't be read: No such file"),
        (["--config", "x.toml", "shop:app"], {}, "file {folder}/x.toml, line 1, column 6: Expected '='"),
        (["shop:app"], {"FASTASGI_PORT": "x"}, "environment FASTASGI_PORT: port 'x': give a whole number"),
        ([], {}, "name the application, for example main:app"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_one_line(
    folder: Path, command: list[str], arguments: list[str], environment: dict[str, str], line: str
) -> None:
    write(folder / "x.toml", "port 1")
    code, out, err = ended(*command, *arguments, **environment)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {line.format(folder=folder)}")
    assert err.count("\n") == 1


def headers_of(process: ServerProcess) -> bytes:
    """The head of a response on a new connection."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_reload_reads_the_file_again_and_keeps_command_line_and_environment(
    start: Callable[..., ServerProcess], folder: Path
) -> None:
    file = write(folder / "pyproject.toml", "[tool.fastasgi]\nheaders = ['X-A: one']\nserver_header = true")
    # It sets no settings, neither now nor at the reload
    write(folder / "shop.env", "FASTASGI_HEADERS=X-A: zero\nFASTASGI_ROOT_PATH=/zero\n")
    arguments = ["--no-server-header", "--env-file", "shop.env", "--workers", "1", "--port", "0", "app:app"]
    process = start(APP, *arguments, environment=environ_with(FASTASGI_DATE_HEADER="no"))
    first = headers_of(process).lower()
    assert b"x-a: one\r\n" in first
    assert not re.search(rb"^(server|date):", first, re.M)
    write(file, "[tool.fastasgi]\nheaders = ['X-A: two']\ndate_header = true")
    process.process.send_signal(signal.SIGHUP)
    process.wait_for(r"Reloaded\n")
    process.wait_for("Finished server process")
    second = headers_of(process).lower()
    assert b"x-a: two\r\n" in second
    assert not re.search(rb"^(server|date):", second, re.M)
    assert process.end() == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[tool.fastasgi", r", line 1, column 15: Expected ']' "),
        ("[tool.fastasgi]\nprot = 1", r": there is no setting 'prot': did you mean 'port'\?"),
        ("[tool.fastasgi]\nbacklog = -1", r": backlog -1: give a whole number, 0 or more"),
    ],
)
def test_a_file_that_is_wrong_at_a_reload_changes_nothing(
    start: Callable[..., ServerProcess], folder: Path, text: str, line: str
) -> None:
    file = write(folder / "pyproject.toml", "[tool.fastasgi]\nheaders = ['X-A: one']")
    process = start(APP, "--workers", "1", "--port", "0", "app:app")
    assert b"x-a: one\r\n" in headers_of(process).lower()
    write(file, text)
    process.process.send_signal(signal.SIGHUP)
    process.wait_for(rf"Not reloaded, .*: file {re.escape(str(file))}{line}")
    assert b"x-a: one\r\n" in headers_of(process).lower()
    assert process.end() == 0
    assert "Traceback" not in process.log
