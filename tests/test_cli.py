import inspect
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from serving import ServerProcess

import fastasgi
from fastasgi import cli
from fastasgi.config import Config
from fastasgi.settings.declaration import init_values, settings_of

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"

def create_app():
    return app
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    """The current folder, with an app.py in it."""
    (folder / "app.py").write_text(APP)
    return folder


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """The Config that a command line makes."""

    def config_of(*arguments: str, **environment: str) -> Config:
        made: list[Config] = []
        monkeypatch.setattr(cli, "run_config", lambda make_config, _: made.append(make_config()))
        result = CliRunner().invoke(cli.main, list(arguments), env=environment)
        assert result.exit_code == 0, result.output
        return made[0]

    return config_of


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, list(arguments))


# Options


def test_every_setting_has_an_option() -> None:
    on_command_line = {field.name for field, described in settings_of(Config) if described.on_command_line}
    others = {"app", "config", "check_config", "print_config", "completion", "version"}
    assert {param.name for param in cli.main.params} == on_command_line | others


def test_every_setting_is_a_parameter_of_config() -> None:
    assert {field.name for field, _ in settings_of(Config)} <= set(inspect.signature(Config).parameters)


def test_what_is_not_given_is_left_to_config(config_of: Any) -> None:
    assert init_values(config_of("app:app")) == init_values(Config("app:app", app_dir=""))


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--port", "0"], "port", 0),
        (["--port=0"], "port", 0),
        (["--fd", "3"], "fd", 3),
        (["--timeout-keep-alive", "2.5"], "timeout_keep_alive", 2.5),
        (["--no-access-log"], "access_log", False),
        (["--access-log"], "access_log", True),
        (["--no-use-colors"], "use_colors", False),
        (["--factory"], "factory", True),
        (["--no-factory"], "factory", False),
        (["--loop", "ASYNCIO"], "loop", "asyncio"),
        (["--log-level", "trace"], "log_level", "trace"),
        (["--uds-permissions", "660"], "uds_permissions", 0o660),
        (["--header", "A:b", "--header", "C: d:e"], "headers", [("A", "b"), ("C", "d:e")]),
        (["--bind", ":0", "--bind", "unix:x"], "bind", [":0", "unix:x"]),
        (["--reload-dir", "a", "--reload-dir", "b"], "reload_dirs", ["a", "b"]),
        (["--reload-include", "*.html"], "reload_includes", ["*.html"]),
        (["--reload-exclude", "*_test.py"], "reload_excludes", ["*_test.py"]),
        (["--workers", "4"], "workers", 4),
        (["--workers", "auto"], "workers", "auto"),
        (["--limit-max-requests", "9"], "limit_max_requests", 9),
        (["--app-dir", "."], "app_dir", "."),
    ],
)
def test_an_option_becomes_a_setting(config_of: Any, arguments: list[str], name: str, value: Any) -> None:
    for line in ([*arguments, "app:app"], ["app:app", *arguments]):
        assert getattr(config_of(*line), name) == value


def test_the_application_may_come_from_the_environment_or_the_file(folder: Path, config_of: Any) -> None:
    (folder / "pyproject.toml").write_text("[tool.fastasgi]\napp = 'three:app'")
    assert config_of().app == "three:app"
    assert config_of(FASTASGI_APP="two:app").app == "two:app"
    assert config_of("one:app", FASTASGI_APP="two:app").app == "one:app"


def test_the_option_config_names_a_file(folder: Path, config_of: Any) -> None:
    (folder / "one.toml").write_text("port = 1")
    (folder / "two.toml").write_text("port = 2")
    assert config_of("--config", "one.toml", "app:app", FASTASGI_CONFIG="two.toml").port == 1
    assert config_of("app:app", FASTASGI_CONFIG="two.toml").port == 2


def test_an_option_goes_before_its_environment_variable(config_of: Any) -> None:
    assert config_of("--port", "1", "app:app", FASTASGI_PORT="2").port == 1
    assert config_of("--no-factory", "app:app", FASTASGI_FACTORY="1").factory is False


@pytest.mark.parametrize(
    "option",
    [
        *("--host", "--port", "--uds", "--fd", "--loop", "--http", "--interface", "--lifespan", "--workers"),
        *("--reload", "--reload-dir", "--reload-include", "--reload-exclude", "--reload-delay", "--env-file"),
        *(
            "--log-config",
            "--log-level",
            "--access-log",
            "--no-access-log",
            "--use-colors",
            "--no-use-colors",
        ),
        *("--root-path", "--header", "--server-header", "--no-server-header", "--date-header"),
        *("--no-date-header", "--backlog", "--limit-concurrency", "--limit-max-requests"),
        *("--limit-max-requests-jitter", "--timeout-keep-alive", "--timeout-graceful-shutdown"),
        *("--timeout-worker-healthcheck", "--app-dir", "--factory", "--version"),
    ],
)
def test_uvicorns_options_have_their_names(option: str) -> None:
    assert any(option in (*param.opts, *param.secondary_opts) for param in cli.main.params)


def test_help_shows_each_option_with_its_default() -> None:
    text = " ".join(invoke("--help").output.split())
    for field, described in settings_of(Config):
        if described.on_command_line:
            assert described.help in text, field.name
    assert "[default: 127.0.0.1]" in text
    assert "--timeout-keep-alive SECONDS" in text
    assert "--access-log / --no-access-log" in text
    assert "--http2[=on|off|only] / --no-http2" in text


def test_help_has_a_section_for_each_group() -> None:
    text = invoke("--help").stdout
    assert text.startswith("Usage: fastasgi [OPTIONS] APP\n")
    groups = {described.group for _, described in settings_of(Config)} | {"Configuration and help"}
    assert set(re.findall(r"^(\w.*):$", text, re.M)) == groups
    timeouts = text.split("Timeouts:\n")[1].split("\n\n")[0]
    assert set(re.findall(r"^  --([a-z]+)", timeouts, re.M)) == {"timeout"}


def test_a_shell_may_complete_choices() -> None:
    loop = next(param for param in cli.main.params if param.name == "loop")
    items = loop.shell_complete(click.Context(cli.main), "a")
    assert [item.value for item in items] == ["auto", "asyncio"]


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith(f"Running fastasgi {fastasgi.__version__} with CPython 3.")


@pytest.mark.parametrize(
    ("arguments", "http2"),
    [
        (["app:app"], "on"),
        (["--http2", "app:app"], "on"),
        (["app:app", "--http2"], "on"),
        (["--http2", "--no-access-log", "app:app"], "on"),
        (["--http2=only", "app:app"], "only"),
        (["--http2", "only", "app:app"], "only"),
        (["--http2", "Off", "app:app"], "off"),
        (["--http2=true", "app:app"], "on"),
        (["--no-http2", "app:app"], "off"),
        (["--http2", "app:app", "--no-http2"], "off"),
        (["--no-http2", "app:app", "--http2=only"], "only"),
    ],
)
def test_http2_takes_a_word_and_never_the_application(folder: Path, arguments: list[str], http2: str) -> None:
    lines = invoke("--print-config", *arguments).stdout.split("\n")
    [app] = [line.split() for line in lines if line.startswith("  app ")]
    [given] = [line.split(maxsplit=2) for line in lines if line.startswith("  http2 ")]
    assert app[1] == "app:app"
    option = "--no-http2" if http2 == "off" else "--http2"
    assert given[1:] == [http2, f"command line {option}" if len(arguments) > 1 else "default"]


def test_the_command_is_a_click_command() -> None:
    assert isinstance(cli.main, click.Command)


PROGRAM = """
import atexit, contextlib
from concurrent.futures import ThreadPoolExecutor
from fastasgi.main import main

atexit.register(print, "ends")
with contextlib.suppress(SystemExit):
    main(["--check-config", "app:app"])
with ThreadPoolExecutor() as pool:
    pool.submit(print, "goes on").result()
"""


def test_a_program_that_calls_the_command_goes_on(folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OK: app:app can be served on http://127.0.0.1:8000; ")
    assert done.stdout.splitlines()[-2:] == ["goes on", "ends"]


# Mistakes: one line


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nothing:app"], 3, r"app 'nothing:app': no module named 'nothing'; start in the folder .*"),
        (["app:nothing"], 3, r"app 'app:nothing': 'app' has no attribute 'nothing'; .*"),
        (["app"], 3, r"app 'app' must be written module:attribute, for example 'app:app'"),
        (["--factory", "app:app"], 3, r"app 'app:app' can't be called without arguments, .*"),
        (["--uds", "none/x.sock", "app:app"], 3, r"can't listen on unix socket 'none/x\.sock': no folder .*"),
        (["--fd", "987", "app:app"], 3, r"fd 987 is no socket .*"),
        (["--host", "a.invalid", "app:app"], 3, r"host 'a\.invalid' can't be resolved .*"),
        (["--port", "65536", "app:app"], 2, r"port 65536: give a whole number from 0 to 65535"),
        (["--header", "A", "app:app"], 2, r"headers 'A': give name:value, .*"),
        (
            ["--log-config", "none.ini", "app:app"],
            2,
            r"log_config 'none\.ini' can't be used: No such file .*",
        ),
        (["--access-log-format", "{x}", "app:app"], 2, r"access_log_format '{x}': .*"),
        (
            ["--timeout-keep-alive", "-1", "app:app"],
            2,
            r"timeout_keep_alive -1.0: give a number of seconds.*",
        ),
    ],
)
def test_a_mistake_is_one_line(folder: Path, arguments: list[str], code: int, line: str) -> None:
    result = invoke("--log-level", "error", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert re.fullmatch(rf"Error: {line}\n", result.stderr), result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "name the application, for example main:app"),
        (["--prot", "1", "app:app"], "no option '--prot': did you mean --port?"),
        (["--prot=1", "app:app"], "no option '--prot': did you mean --port?"),
        (["--no-acces-log", "app:app"], "no option '--no-acces-log': did you mean --no-access-log?"),
        (["--completion", "tcsh"], "completion 'tcsh': give bash, zsh or fish"),
        (["--completion=", "app:app"], "completion '': give bash, zsh or fish"),
        (["--completion"], "--completion needs a value: write --completion [bash|zsh|fish]"),
        (["-w", "4", "app:app"], "no option '-w': fastasgi --help lists them"),
        (["--a\nb", "app:app"], r"no option '--a\nb': fastasgi --help lists them"),
        (["--http2=h2", "app:app"], "http2 'h2': give on, off or only"),
        (["--no-http2=on", "app:app"], "--no-http2 takes no value: write --http2 or --no-http2"),
        (["--http2", "h2", "app:app"], "Got unexpected extra argument (app:app); see fastasgi --help"),
        (["app:app", "--port"], "--port needs a value: write --port INTEGER"),
        (["app:app", "--loop"], "--loop needs a value: write --loop [auto|uvloop|asyncio"),
        (["--reload=1", "app:app"], "--reload takes no value: write --reload or --no-reload"),
        (["--check-config=1", "app:app"], "--check-config takes no value: write --check-config"),
        (["app:app", "a\nb"], "Got unexpected extra argument (a b); see fastasgi --help"),
        (["--port", "x", "app:app"], "port 'x': give a whole number from 0 to 65535"),
        (["--http", "x", "app:app"], "http 'x': give auto, fastasgi, httptools, h11 or zttp"),
        (["--log-level", "x", "app:app"], "log_level 'x': give critical, error, warning, "),
        (["--workers", "few", "app:app"], "workers 'few': give auto, or a whole number, 0 or more"),
        (["--workers", "-1", "app:app"], "workers -1: give auto, or a whole number, 0 or more"),
        (
            ["--config", "none.toml", "app:app"],
            "config file 'none.toml' can't be read: No such file or directory",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(folder: Path, arguments: list[str], line: str) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--prot", "1", "app:app"], ["--port", "x", "app:app"], []])
def test_a_wrong_command_line_ends_the_process_with_one_line(
    start: Callable[..., ServerProcess], arguments: list[str]
) -> None:
    process = start(APP, *arguments)
    assert process.wait() == 2
    assert process.output == ""
    assert len(process.errors) == 1
    assert process.log.startswith("Error: ")


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = invoke("--log-level", "error", "--port", str(port), "app:app")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"Error: can't listen on 127.0.0.1:{port}: the port is in use; ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["import nothing_at_all", "def ("])
def test_an_error_inside_the_users_module_keeps_its_traceback(
    start: Callable[..., ServerProcess], source: str
) -> None:
    process = start(source, "app:app")
    assert process.wait() == 1
    assert "app.py" in process.log
    assert re.search(
        r"^(ModuleNotFoundError: No module named 'nothing_at_all'|SyntaxError: )", process.log, re.M
    )


# The process


def test_a_failed_startup_ends_with_code_3(start: Callable[..., ServerProcess]) -> None:
    source = """
        async def app(scope, receive, send):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    process = start(source, "app:app", "--port", "0")
    assert process.wait() == 3
    assert [line.split(":", 1)[1].strip() for line in process.errors[1:]] == [
        "Waiting for application startup.",
        "no database",
        "Application startup failed. Exiting.",
    ]


def test_the_application_is_found_in_app_dir(start: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "shop.py").write_text(APP)
    process = start("", "--app-dir", "src", "--factory", "shop:create_app", "--port", "0")
    assert process.port
    assert process.end(signal.SIGINT) == 0
    assert "ASGI 'lifespan' protocol appears unsupported." in process.log


def test_a_wsgi_application_is_served(start: Callable[..., ServerProcess]) -> None:
    source = """
        def app(environ, start_response):
            names = sorted(key for key in environ if key.startswith("HTTP_X"))
            print(f"in wsgi.errors: {names}", file=environ["wsgi.errors"])
            start_response("200 OK", [("content-length", "1")])
            return [b"!"]
    """
    process = start(source, "--threads", "3", "--port", "0", "app:app")
    line = "APP looks like a WSGI application and is served as one; say so with --interface wsgi."
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        client.sendall(b"GET / HTTP/1.0\r\nx-a: 1\r\nx_b: 1\r\n\r\n")
        answer = b""
        while received := client.recv(65536):
            answer += received
    assert answer.endswith(b"\r\n\r\n!")
    assert process.end(signal.SIGINT) == 0
    assert process.log.count(line) == process.log.count("WSGI") == 1
    assert "\nin wsgi.errors: ['HTTP_X_A']\n" in process.log


def test_importing_the_package_alone_is_cheap() -> None:
    code = (
        "import sys; before = set(sys.modules); import fastasgi; new = set(sys.modules) - before; "
        "assert not {'asyncio', 'logging', 'click', 'typing'} & new, new; fastasgi.run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_no_other_names() -> None:
    assert not hasattr(fastasgi, "nothing")
    assert {name for name in fastasgi.__all__ if hasattr(fastasgi, name)} == set(fastasgi.__all__)
