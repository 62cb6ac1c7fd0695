"""The options of other servers, as their installed packages have them, and how a command line names some.

``python tests/helpers/peeroptions.py granian`` prints granian's. Each option is all of its names: those of
the command line, and the one in a configuration file or of a parameter where nobody could guess it.
"""

import functools
import importlib.metadata
import importlib.util
import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

Names = frozenset[str]

LISTED_BY_ALL = {"--help", "--version"}  # which are the same everywhere


def options_of(peer: str) -> set[Names]:
    """The options of an installed server. Skips the test where it isn't installed."""
    package = peer.partition(" ")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return _options_of(peer)


@functools.cache
def _options_of(peer: str) -> set[Names]:
    # In a process of its own: daphne installs Twisted's reactor, hypercorn's parser is made by its command
    done = subprocess.run([sys.executable, __file__, peer], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {frozenset(names) for names in json.loads(done.stdout)}


def series_of(package: str) -> str:
    """The first two numbers of an installed package's version."""
    return ".".join(importlib.metadata.version(package).split(".")[:2])


def command_of(code: str) -> list[str]:
    """The words of a command as a shell, a Dockerfile, a Procfile or a systemd unit has it."""
    if code.startswith("CMD ["):
        return list(json.loads(code.removeprefix("CMD ")))
    words = shlex.split(code.removeprefix("web: ").removeprefix("CMD exec ").removeprefix("ExecStart="))
    words[0] = words[0].rpartition("/")[2]
    return words


def options_in(words: Iterable[str]) -> set[str]:
    """The options among the words of a command, without values that are joined to them."""
    return {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}


# --- What runs in the other process ---


def with_file_name(options: Iterable[str], name: str) -> list[str]:
    """The names of an option. That in a file counts only where nobody could guess it."""
    options = list(options)
    usual = [option.lstrip("-").replace("-", "_") for option in options]
    return options if name in usual else [*options, name]


def of_click(command: Any) -> list[list[str]]:
    params = [param for param in command.params if param.param_type_name == "option"]
    return [[*param.opts, *param.secondary_opts] for param in params]


def of_parser(parser: Any) -> list[list[str]]:
    """Those of an argparse parser, but for what stands on the command line without an option."""
    return [list(action.option_strings) for action in parser._actions if action.option_strings]


def of_uvicorn() -> list[list[str]]:
    from uvicorn import Config
    from uvicorn.main import main

    options = {param.name: [*param.opts, *param.secondary_opts] for param in main.params}
    options = {name: names for name, names in options.items() if names != [name]}
    parameters = [name for name in inspect.signature(Config).parameters if name not in (*options, "app")]
    return [
        *(with_file_name(names, name) if name != "version" else names for name, names in options.items()),
        *([name] for name in parameters),
    ]


def of_gunicorn() -> list[list[str]]:
    from gunicorn.config import KNOWN_SETTINGS

    return [with_file_name(setting.cli or (), setting.name) for setting in KNOWN_SETTINGS]


def of_hypercorn() -> list[list[str]]:
    """Options, and attributes of Config that none of them sets."""
    import argparse

    from hypercorn.__main__ import main
    from hypercorn.config import Config

    class Parsing(Exception):
        pass

    def give(parser: argparse.ArgumentParser, *args: Any) -> None:
        raise Parsing(parser)

    argparse.ArgumentParser.parse_args = give
    try:
        main(["x"])
    except Parsing as parsing:
        parser = parsing.args[0]
    members = {**vars(Config), **Config.__annotations__}
    attributes = {
        name
        for name, value in members.items()
        if not (name.startswith("_") or inspect.isroutine(value) or name in HYPERCORN_METHODS)
    }
    options = []
    for names in of_parser(parser):
        usual = {option.lstrip("-").replace("-", "_") for option in names}
        name = next((HYPERCORN_NAMES[each] for each in usual if each in HYPERCORN_NAMES), None)
        name = name or next((each for each in usual if each in attributes), "")
        attributes.discard(name)
        options.append(with_file_name(names, name) if name else names)
    return [*options, *([name] for name in sorted(attributes))]


# What hypercorn's command assigns an option to, where it is not the option's name
HYPERCORN_NAMES = {
    "access_logfile": "accesslog",
    "access_logformat": "access_log_format",
    "error_logfile": "errorlog",
    "keep_alive": "keep_alive_timeout",
    "log_config": "logconfig",
    "log_level": "loglevel",
    "pid": "pid_path",
    "reload": "use_reloader",
    "server_name": "server_names",
}
HYPERCORN_METHODS = {"log", "ssl_enabled"}  # properties that nobody sets


def of_daphne() -> list[list[str]]:
    from daphne.cli import CommandLineInterface

    return of_parser(CommandLineInterface().parser)


def of_daphne_runserver() -> list[list[str]]:
    """What runserver has beyond every command of Django's."""
    import django
    from django.conf import settings
    from django.core.management.base import BaseCommand

    settings.configure(INSTALLED_APPS=["daphne", "django.contrib.staticfiles"], STATIC_URL="/static/")
    django.setup()
    from daphne.management.commands.runserver import Command

    common = of_parser(BaseCommand().create_parser("manage.py", "x"))
    own = of_parser(Command().create_parser("manage.py", "runserver"))
    return [names for names in own if names not in common]


def of_granian() -> list[list[str]]:
    from granian.cli import cli

    return of_click(cli)


LISTS = {
    "uvicorn": of_uvicorn,
    "gunicorn": of_gunicorn,
    "hypercorn": of_hypercorn,
    "daphne": of_daphne,
    "daphne runserver": of_daphne_runserver,
    "granian": of_granian,
}

if __name__ == "__main__":
    print(json.dumps([names for names in LISTS[sys.argv[1]]() if not LISTED_BY_ALL.intersection(names)]))
