"""The options of the command, one for each setting, and what is told of a command line that is wrong."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import click

from fastasgi.cli.colors import colored, said_of_colors, wants_colors
from fastasgi.errors import USAGE
from fastasgi.settings.declaration import (
    SWITCH_WORDS,
    Setting,
    choices_of,
    default_of,
    nearest,
    off_option_of,
    option_of,
)


class WrongUsage(click.ClickException):
    """A command line that can't be understood: shown as one line."""

    exit_code = USAGE


COMPLETION_VARIABLE = "_FASTASGI_COMPLETE"  # says which shell asks what may follow; click looks at it
MOST_COLUMNS = 110  # of the help: longer lines are hard to read
LEAST_COLUMNS = 30
UNBROKEN = "\u2011"  # a hyphen after which click ends no line: names of options and headers stay whole
WORDED_SWITCH = "ws_per_message_deflate"  # a switch whose option needs a word such as true in uvicorn


class SettingOption(click.Option):
    """The option of one setting. It takes any text, for Config to check, and is None if it isn't given.

    ``words`` may follow the option of some switches: ``--http2``, ``--http2=only`` or ``--http2 only``.
    """

    def __init__(self, field: dataclasses.Field[Any], described: Setting) -> None:
        self.group = described.group
        self.choices = described.choices or (("on", "off") if field.name == WORDED_SWITCH else ())
        self.holds = _holds(field.name, described)
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

        if self.holds:
            return [CompletionItem(incomplete, type=self.holds)]
        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete.lower())]


def _holds(name: str, described: Setting) -> str:
    """What a path leads to, as click's completion says it: a file or dir; empty for what is no path."""
    if name in ("reload_dirs", "app_dir"):
        return "dir"
    return "file" if described.kind in ("path", "paths") or name == "log_config" else ""


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

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command, or answer the script of a shell that completes it."""
        if COMPLETION_VARIABLE in os.environ:
            from fastasgi.cli.completion import register  # here, as all that few starts need

            register()
            extra["complete_var"] = COMPLETION_VARIABLE
        return super().main(*args, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section a group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                names, text = record
                row = (names, text.replace("-", UNBROKEN))
                groups.setdefault(getattr(param, "group", "Configuration and help"), []).append(row)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=min(30, formatter.width // 3))

    def get_help(self, ctx: click.Context) -> str:
        """The help, as wide as the terminal, in colours if the context has some."""
        columns = shutil.get_terminal_size().columns
        ctx.terminal_width = max(min(columns, MOST_COLUMNS) - 2, LEAST_COLUMNS)
        text = super().get_help(ctx).replace(UNBROKEN, "-")
        return colored(text) if ctx.color else text

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments into the context. Raises WrongUsage."""
        ctx.color = wants_colors(sys.stdout, said_of_colors(args, os.environ))
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
