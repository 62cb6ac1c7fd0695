"""The command ``fastasgi [OPTIONS] APP``: an option for each setting of Config."""

import dataclasses
import platform
from typing import Any, ClassVar

import click

from fastasgi import __version__
from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.server import exit_with, run
from fastasgi.setting import Setting, default_of, option_of, settings_of


class LinesType(click.types.StringParamType):
    """A text; an environment variable holds one a line."""

    envvar_list_splitter: ClassVar[str] = "\n"


def _option(field: dataclasses.Field[Any], described: Setting) -> click.Option:
    """The option of one setting. Its value is None where it isn't given: the default stays Config's."""
    name = option_of(field.name, described)
    details: dict[str, Any] = {
        "default": None,
        "help": f"{described.help} [default: {default_of(field, described)}]",
    }
    if described.kind == "switch":
        # What is off unless asked for needs no way to say so.
        names = name if field.default is False else f"{name}/--no-{name.removeprefix('--')}"
        return click.Option([names, field.name], is_flag=True, **details)
    if described.choices:
        details["type"] = click.Choice(described.choices, case_sensitive=False)
    elif described.kind == "headers":
        details |= {"type": LinesType(), "multiple": True, "metavar": "NAME:VALUE"}
    else:
        details["type"] = {"whole": click.INT, "number": click.FLOAT}.get(described.kind, click.STRING)
        details["metavar"] = described.unit.upper() or _METAVARS.get(described.kind)
    return click.Option([name, field.name], **details)


_METAVARS = {"octal": "OCTAL", "path": "PATH"}


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"Running fastasgi {__version__} with {python} on {platform.system()}")
        ctx.exit()


def _serve(app: str, **options: Any) -> None:
    settings = {name: value for name, value in options.items() if value not in (None, ())}
    settings.setdefault("app_dir", "")
    try:
        run(app, **settings)
    except ConfigError as error:
        exit_with(error)


main = click.Command(
    "fastasgi",
    callback=_serve,
    help="Serve the ASGI or WSGI application APP, written module:attribute.",
    context_settings={"auto_envvar_prefix": "FASTASGI"},
    params=[
        click.Argument(["app"], envvar="FASTASGI_APP"),
        *(_option(field, described) for field, described in settings_of(Config) if described.on_command_line),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        ),
    ],
)
