"""The command ``fastasgi [OPTIONS] APP``: an option for each setting of Config.

Knows click, and where settings come from. Must not know: how an application is served.
"""

import functools
import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import click

from fastasgi import __version__
from fastasgi.cli.colors import wants_colors
from fastasgi.cli.options import SettingOption, SettingsCommand, WrongUsage
from fastasgi.config import Config
from fastasgi.errors import FAILURE, FastasgiError
from fastasgi.processes.failures import ended_by_exit, exit_code_of, exit_with
from fastasgi.settings.declaration import settings_of
from fastasgi.settings.sources import Given, collect, listing, make_config, pop_secrets, unknown_variables

SHELLS = ("bash", "zsh", "fish")


def print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """The callback of ``--version``: print the version and exit."""
    if value and not ctx.resilient_parsing:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"Running fastasgi {__version__} with {python} on {platform.system()}")
        ctx.exit()


def print_completion(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """The callback of ``--completion``: print the script for a shell and exit."""
    if value is None or ctx.resilient_parsing:
        return
    if value not in SHELLS:
        raise WrongUsage(f"completion {value!r}: give bash, zsh or fish")
    from fastasgi.cli.completion import script  # here, as all that few starts need

    click.echo(script(value), nl=False)
    ctx.exit()


def _complete_shell(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


def _complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _complete_app(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fastasgi.cli.applications import applications

    return applications(ctx.params.get("app_dir") or ".", incomplete)


def run_config(make_config: Callable[[], Config], secrets: Mapping[str, str]) -> None:
    """``launch.run_config``; imported here, since a shell that completes the command needs none of it."""
    from fastasgi.launch import run_config

    run_config(make_config, secrets)


def _run(config: str | None, print_config: bool, check_config: bool, **command_line: Any) -> None:
    # Nothing outside changes a process's environment, but env_file does, and it sets no settings
    environ = dict(os.environ)
    secrets = pop_secrets(Config, os.environ)
    collect_settings = functools.partial(collect, Config, command_line, environ, config)
    try:
        if check_config:
            _check_config(collect_settings(), environ)
        elif print_config:
            given = collect_settings()
            _print_listing(make_config(Config, given), given, environ)
        else:
            for line in unknown_variables(Config, environ):
                if "did you mean" in line:
                    click.echo(f"Warning: {line}", err=True)
            run_config(lambda: make_config(Config, collect_settings()), secrets)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        exit_with(error)


def _check_config(given: dict[str, Given], environ: dict[str, str]) -> None:
    """Tell whether the application can be served, as far as shows without a socket; print all settings.

    Raises as ``fastasgi.run``, what is wrong with a setting before anything is printed.
    """
    config = make_config(Config, given)
    try:
        _load(config)
        ok = click.style("OK", fg="green", bold=True)
        text = f"{ok}: {config.app} can be served on {_addresses(config)}; no address was bound."
        click.echo(f"{text}\n", color=wants_colors(sys.stdout, config.use_colors))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        try:
            _tell_failure(config, error)
        finally:
            _print_listing(config, given, environ)
    else:
        _print_listing(config, given, environ)


def _load(config: Config) -> None:
    """All that a start does before it binds an address."""
    if config.reload:
        from fastasgi.processes.reload import watched_folders, watchfiles

        watchfiles()
        watched_folders(config)
    config.get_loop_factory()
    config.load()


def _tell_failure(config: Config, error: BaseException) -> NoReturn:
    """End the process as ``exit_with``, after one line of what is wrong also where a traceback follows."""
    code: int | None = None
    if isinstance(error, FastasgiError):
        line, code = str(error), error.exit_code
    elif isinstance(error, SystemExit):
        line, code = ended_by_exit(error), exit_code_of(error) or FAILURE
    else:
        line = f"{config.app} can't be served: {type(error).__name__}: {error}".split("\n")[0]
    name = click.style("Error", fg="red", bold=True)
    click.echo(f"{name}: {line}", err=True, color=wants_colors(sys.stderr, config.use_colors))
    if code is not None:
        sys.exit(code)
    exit_with(error)


def _addresses(config: Config) -> str:
    """Where a server of this configuration listens, in words."""
    if config.bind:
        return ", ".join(config.bind)
    if config.fd is not None:
        return f"fd {config.fd}"
    if config.uds is not None:
        return f"unix:{config.uds}"
    scheme = "https" if config.is_ssl else "http"
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{scheme}://{host}:{config.port}" if host else f"port {config.port} of all addresses, by {scheme}"


def _print_listing(config: Config, given: dict[str, Given], environ: dict[str, str]) -> None:
    """Print all settings, and on stderr the variables that set none."""
    bold, cyan = (functools.partial(click.style, **style) for style in ({"bold": True}, {"fg": "cyan"}))
    colors = wants_colors(sys.stdout, config.use_colors)
    click.echo(listing(config, given, heading=bold, emphasis=cyan), nl=False, color=colors)
    for line in unknown_variables(Config, environ):
        click.echo(line, err=True)


main = SettingsCommand(
    "fastasgi",
    callback=_run,
    help="Serve the ASGI or WSGI application APP, written module:attribute.",
    epilog=(
        "Each setting can also be given in the environment, as FASTASGI_TIMEOUT_KEEP_ALIVE=10, and in a TOML "
        "file, as timeout_keep_alive=10 in the table [tool.fastasgi] of pyproject.toml. The command line "
        "wins over the environment, and the environment over the file."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Argument(["app"], required=False, metavar="APP", shell_complete=_complete_app),
        *(
            SettingOption(field, described)
            for field, described in settings_of(Config)
            if described.on_command_line
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            shell_complete=_complete_file,
            help="TOML file of settings. [default: FASTASGI_CONFIG, or pyproject.toml in the current folder]",
        ),
        click.Option(
            ["--check-config"],
            is_flag=True,
            help="Check all settings, import the application, say whether it can be served, print as "
            "--print-config does, and exit.",
        ),
        click.Option(
            ["--print-config"],
            is_flag=True,
            help="Print each setting, its value and where that was given, and exit.",
        ),
        click.Option(
            ["--completion"],
            metavar=f"[{'|'.join(SHELLS)}]",
            is_eager=True,
            expose_value=False,
            callback=print_completion,
            shell_complete=_complete_shell,
            help="Print the script by which a shell completes this command, and exit: for bash, "
            'eval "$(fastasgi --completion bash)" in ~/.bashrc.',
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=print_version,
            help="Show the version and exit.",
        ),
    ],
)
