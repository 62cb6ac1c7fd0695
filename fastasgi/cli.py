"""The command ``fastasgi [OPTIONS] APP``: an option for each setting of Config."""

import dataclasses
import functools
import os
import platform
from collections.abc import Mapping
from typing import Any

import click

from fastasgi import __version__
from fastasgi.config import Config
from fastasgi.errors import USAGE
from fastasgi.launch import run_config
from fastasgi.processes.failures import exit_with
from fastasgi.processes.reload import watched_folders, watchfiles
from fastasgi.settings.declaration import (
    SWITCH_WORDS,
    Setting,
    choices_of,
    default_of,
    nearest,
    off_option_of,
    option_of,
    settings_of,
)
from fastasgi.settings.sources import Given, collect, listing, make_config, pop_secrets, unknown_variables


class WrongUsage(click.ClickException):
    """A command line that can't be understood: shown as one line."""

    exit_code = USAGE


WORDED_SWITCH = "ws_per_message_deflate"  # a switch whose option needs a word such as true in uvicorn


class SettingOption(click.Option):
    """The option of one setting. It takes any text, for Config to check, and is None if it isn't given.

    ``words`` may follow the option of some switches: ``--http2``, ``--http2=only`` or ``--http2 only``.
    """

    def __init__(self, field: dataclasses.Field[Any], described: Setting) -> None:
        self.group = described.group
        self.choices = described.choices
        name = option_of(field.name, described)
        details: dict[str, Any] = {
            "default": None,
            "help": f"{described.help} [default: {default_of(field, described)}]",
        }
        takes_word = described.choices or field.name == WORDED_SWITCH
        self.words = (*described.choices, *SWITCH_WORDS) if described.kind == "switch" and takes_word else ()
        if described.kind == "switch" and not self.words:
            names = f"{name}/{off_option_of(field.name, described)}"
            super().__init__([names, field.name], is_flag=True, **details)
            return
        if self.words:
            metavar = f"[={'|'.join(described.choices or ('on', 'off'))}]"
        elif described.choices:
            metavar = f"[{'|'.join(choices_of(described))}]"
        else:
            metavar = described.unit.upper() or _METAVARS[described.kind]
        is_repeated = described.kind in ("headers", "list", "paths")
        super().__init__([name, field.name], multiple=is_repeated, metavar=metavar, **details)
        if self.words:
            self.secondary_opts = [off_option_of(field.name, described)]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Have the parser know the option's names."""
        super().add_to_parser(parser, ctx)
        if self.words:
            parser.add_option(
                obj=self, opts=self.secondary_opts, dest=self.name, action="store_const", const="off"
            )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The names and the help text."""
        if not self.words:
            return super().get_help_record(ctx)
        return f"{self.opts[0]}{self.metavar} / {self.secondary_opts[0]}", self.help or ""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """What a shell may complete a value to."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete.lower())]


_METAVARS = {
    "text": "TEXT",
    "path": "PATH",
    "whole": "INTEGER",
    "count": "INTEGER|auto",
    "number": "NUMBER",
    "octal": "OCTAL",
    "headers": "NAME:VALUE",
    "list": "TEXT",
    "paths": "PATH",
    "object": "PATH",
}


def _with_words(args: list[str], words_of: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The arguments, with each option that a word may follow joined to it; without a word it is on.

    So such an option never takes what follows it, the application perhaps, for its word.
    """
    joined: list[str] = []
    for argument in args:
        if joined and argument.lower() in words_of.get(joined[-1], ()):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return [f"{argument}=on" if argument in words_of else argument for argument in joined]


class SettingsCommand(click.Command):
    """A command that shows its options under their groups and each mistake as one line."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section a group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", "Configuration and help"), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments into the context. Raises WrongUsage."""
        try:
            return super().parse_args(ctx, _with_words(args, self._words_of_options()))
        except click.NoSuchOption as error:
            raise WrongUsage(self._mend_of_option(ctx, error.option_name)) from None
        except click.BadOptionUsage as error:
            raise WrongUsage(self._mend_of_value(ctx, error.option_name)) from None
        except click.UsageError as error:
            message = " ".join(error.format_message().split())
            raise WrongUsage(f"{message.rstrip('.')}; see fastasgi --help") from None

    def _words_of_options(self) -> dict[str, tuple[str, ...]]:
        options = (param for param in self.params if isinstance(param, SettingOption) and param.words)
        return {option.opts[0]: option.words for option in options}

    def _mend_of_option(self, ctx: click.Context, option: str) -> str:
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        options = [each for param in params for each in (*param.opts, *param.secondary_opts)]
        # A letter is not enough to tell what was meant
        meant = nearest(option, options) if option.startswith("--") else None
        mend = f"did you mean {meant}?" if meant else "fastasgi --help lists them"
        return f"no option {option!r}: {mend}"

    def _mend_of_value(self, ctx: click.Context, option: str) -> str:
        param = next(each for each in self.get_params(ctx) if option in (*each.opts, *each.secondary_opts))
        if isinstance(param, click.Option) and (param.is_flag or option in param.secondary_opts):
            return f"{option} takes no value: write {' or '.join((*param.opts, *param.secondary_opts))}"
        return f"{option} needs a value: write {option} {param.metavar}"


def print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """The callback of ``--version``: print the version and exit."""
    if value and not ctx.resilient_parsing:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"Running fastasgi {__version__} with {python} on {platform.system()}")
        ctx.exit()


def _run(config: str | None, print_config: bool, check_config: bool, **command_line: Any) -> None:
    # Nothing outside changes a process's environment, but env_file does, and it sets no settings
    environ = dict(os.environ)
    secrets = pop_secrets(Config, os.environ)
    collect_settings = functools.partial(collect, Config, command_line, environ, config)
    try:
        if print_config or check_config:
            _print_config(collect_settings(), environ, check_config)
        else:
            for line in unknown_variables(Config, environ):
                if "did you mean" in line:
                    click.echo(f"Warning: {line}", err=True)
            run_config(lambda: make_config(Config, collect_settings()), secrets)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        exit_with(error)


def _print_config(given: dict[str, Given], environ: dict[str, str], is_check: bool) -> None:
    """Print all settings; a check then goes on to all that needs no socket. Raises as ``fastasgi.run``."""
    config = make_config(Config, given)
    click.echo(listing(config, given), nl=False)
    for line in unknown_variables(Config, environ):
        click.echo(line, err=True)
    if is_check:
        if config.reload:
            watchfiles()
            watched_folders(config)
        config.get_loop_factory()
        config.load()
        click.echo("The configuration is valid.")


main = SettingsCommand(
    "fastasgi",
    callback=_run,
    help="Serve the ASGI or WSGI application APP, written module:attribute.",
    epilog=(
        "Each setting can also be given in the environment, as FASTASGI_TIMEOUT_KEEP_ALIVE=10, and in a TOML "
        "file, as timeout_keep_alive=10 in the table [tool.fastasgi] of pyproject.toml. The command line "
        "wins over the environment, and the environment over the file."
    ),
    params=[
        click.Argument(["app"], required=False, metavar="APP"),
        *(
            SettingOption(field, described)
            for field, described in settings_of(Config)
            if described.on_command_line
        ),
        click.Option(
            ["--config"],
            metavar="FILE",
            help="TOML file of settings. [default: FASTASGI_CONFIG, or pyproject.toml in the current folder]",
        ),
        click.Option(
            ["--check-config"],
            is_flag=True,
            help="Check all settings, import the application, print as --print-config does, and exit.",
        ),
        click.Option(
            ["--print-config"],
            is_flag=True,
            help="Print each setting, its value and where that was given, and exit.",
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
