"""uvicorn's public names, each offered here or left out for a reason.

``python tests/uvicorn/test_uvicorn_names.py`` prints them.
"""

import ast
import functools
import importlib
import importlib.metadata
import inspect
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

import fastasgi

UVICORN = pathlib.Path(importlib.util.find_spec("uvicorn").origin).parent

# What is left out, with its reason. A name stands for all that is in it.
LEFT_OUT = {
    "config.ASGI2Middleware": "imported there by chance: middleware.asgi2 has it",
    "config.ProxyHeadersMiddleware": "imported there by chance: middleware.proxy_headers has it",
    "config.WSGIMiddleware": "imported there by chance: middleware.wsgi has it",
    "config.LOOP_FACTORIES": "names functions of uvicorn's: Config.get_loop_factory gives what makes a loop",
    "config.UvicornDeprecationWarning": "nothing is deprecated",
    "config.create_ssl_context": "ssl_context_factory is handed a function that makes the usual context",
    "config.is_dir": "a helper of uvicorn's own",
    "config.resolve_reload_patterns": "a helper of uvicorn's own",
    "config.Config.reload_dirs_excludes": "in reload_excludes",
    "config.Config.setup_event_loop": "raises in uvicorn: get_loop_factory",
    "lifespan.off": "Config.lifespan_class is one class, whatever lifespan says",
    "lifespan.on": "Config.lifespan_class is one class, whatever lifespan says",
    "logging.AccessFormatter.status_code_colours": "get_status_code is for subclasses",
    "logging.ColourizedFormatter.level_name_colors": "color_level_name is for subclasses",
    "logging.ColourizedFormatter.should_use_colors": "uvicorn does not call it: use_colors",
    "logging.DefaultFormatter.should_use_colors": "uvicorn does not call it: use_colors",
    "loops": "Config.get_loop_factory gives what makes the loop",
    "middleware.message_logger.PLACEHOLDER_FORMAT": "a helper of uvicorn's own",
    "middleware.message_logger.message_with_placeholders": "a helper of uvicorn's own",
    "middleware.message_logger.MessageLoggerMiddleware.logger": "a helper of uvicorn's own",
    "middleware.message_logger.MessageLoggerMiddleware.task_counter": "a helper of uvicorn's own",
    "middleware.proxy_headers.ProxyHeadersMiddleware.trusted_hosts": "of a private class there",
    "middleware.wsgi.WSGIResponder": "deprecated in uvicorn, for a2wsgi, which is used here",
    "middleware.wsgi.build_environ": "deprecated in uvicorn, for a2wsgi, which is used here",
    "protocols.http": "connections are compiled: no class of theirs can be derived from or exchanged",
    "protocols.websockets": "connections are compiled: no class of theirs can be derived from or exchanged",
    "protocols.utils.get_local_addr": "takes a transport, which applications never see: scope['server']",
    "protocols.utils.get_remote_addr": "takes a transport, which applications never see: scope['client']",
    "protocols.utils.is_ssl": "takes a transport, which applications never see: scope['scheme']",
    "server.Server.last_notified": "callback_notify has a task of its own",
    "server.Server.limit_max_requests": "drawn at the start, and counted in the compiled core",
    "server.Server.on_tick": "nothing is polled: should_exit wakes the server",
    "server.ServerState.default_headers": "made in the compiled core: headers, server_header, date_header",
    "supervisors.BaseReload": "inside of another design: see fastasgi.processes.supervisor",
    "supervisors.basereload": "inside of another design: see fastasgi.processes.supervisor",
    "supervisors.multiprocess.Process": "inside of another design: see fastasgi.processes.workerprocess",
    "supervisors.multiprocess.SIGNALS": "inside of another design: see fastasgi.processes.supervisor",
    "supervisors.multiprocess.STARTUP_FAILURE": "imported there by chance: config has it",
    "supervisors.multiprocess.Server": "imported there by chance: server has it",
    "supervisors.multiprocess.logger": "inside of another design: see fastasgi.processes.supervisor",
    **{
        f"supervisors.multiprocess.Multiprocess.{name}": "inside of another design: signals do what it did"
        for name in (
            *("handle_break", "handle_hup", "handle_int", "handle_signals", "handle_term", "handle_ttin"),
            *("handle_ttou", "init_processes", "join_all", "keep_subprocess_alive", "processes"),
            *("processes_num", "restart_all", "should_exit", "signal_queue", "terminate_all"),
        )
    },
    "supervisors.statreload": "--reload needs watchfiles",
    "supervisors.watchfilesreload.BaseReload": "inside of another design: see fastasgi.processes.supervisor",
    "supervisors.watchfilesreload.FileFilter": "inside of another design: see processes.reload.ChangeFilter",
    **{
        f"supervisors.watchfilesreload.WatchFilesReload.{name}": "another design: see processes.reload"
        for name in ("reload_dirs", "reloader_name", "should_restart", "watch_filter", "watcher")
    },
}


def reason(name: str) -> str | None:
    """Why a name is left out, by itself or with what it is in; None where it isn't."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((LEFT_OUT[prefix] for prefix in prefixes if prefix in LEFT_OUT), None)


# uvicorn's names, from its source


def modules() -> list[str]:
    """Public modules of uvicorn below the package, but for empty packages and what runs as a program."""
    paths = (path.relative_to(UVICORN).with_suffix("").parts for path in UVICORN.rglob("*.py"))
    names = (".".join(parts).removesuffix(".__init__") for parts in paths)
    return sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))


def names_of(module: str) -> Iterator[str]:
    """A module's public names below ``uvicorn.``, and those of its classes."""
    path = UVICORN / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    # What is imported from a module of uvicorn's counts too, but not for annotations alone
    for node in flattened(ast.parse(path.read_text()).body):
        if isinstance(node, ast.ImportFrom) and re.match(r"uvicorn\.[^_]", node.module or ""):
            yield from (f"{module}.{alias.asname or alias.name}" for alias in node.names)
        for name in defined(node):
            yield f"{module}.{name}"
        if isinstance(node, ast.ClassDef):
            yield from (f"{module}.{node.name}.{name}" for name in members(node))


def flattened(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in nodes:
        if isinstance(node, ast.Try):
            yield from flattened(node.body)
        else:
            yield node


def defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def members(node: ast.ClassDef) -> set[str]:
    """What a class defines, and what its methods set on ``self``."""
    names = {name for each in node.body for name in defined(each)}
    for each in ast.walk(node):
        is_set = isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
        if is_set and isinstance(each.value, ast.Name) and each.value.id == "self":
            names.add(each.attr)
    return names


@functools.cache
def public_names() -> list[str]:
    names = dict.fromkeys(name for module in modules() for name in (module, *names_of(module)))
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


# Ours


async def app(scope: Any, receive: Any, send: Any) -> None:
    pass


def instance_of(owner: type) -> Any:
    """An object of one of our classes; the class itself where only others can make one."""
    config = fastasgi.Config(app, log_config=None)
    config.load()
    of = {
        "Config": lambda: config,
        "Server": lambda: server,
        "Multiprocess": lambda: owner(config, []),
        "WatchFilesReload": lambda: owner(config, server.run, []),
    }
    server = fastasgi.Server(config)
    server.lifespan = config.lifespan_class(config)
    if owner.__name__.endswith("Middleware"):
        return owner(app)
    if owner.__name__ in of:
        return of[owner.__name__]()
    return owner if "Worker" in owner.__name__ else owner()


def is_offered(name: str) -> bool:
    """Whether fastasgi has what is uvicorn's by this name."""
    parts = name.split(".")
    found: Any = fastasgi
    reached = "fastasgi"
    for part in parts:
        reached += f".{part}"
        if isinstance(found, types.ModuleType):
            try:
                found = importlib.import_module(reached)
                continue
            except ModuleNotFoundError:
                pass
        if isinstance(found, type):
            found = instance_of(found)
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def table() -> str:
    """What is offered and what is left out, a line a name."""
    names = [name for name in public_names() if reason(name) is None or name in LEFT_OUT]
    width = max(map(len, names))
    lines = [f"{name:{width}}  {LEFT_OUT.get(name, 'offered')}" for name in names]
    return "\n".join([f"uvicorn {importlib.metadata.version('uvicorn')}", *lines])


@pytest.mark.parametrize("module", modules())
def test_each_public_name_is_offered_or_left_out_for_a_reason(module: str) -> None:
    names = [name for name in public_names() if name == module or name.startswith(f"{module}.")]
    missing = [name for name in names if reason(name) is None and not is_offered(name)]
    assert not missing


def test_what_is_left_out_is_uvicorns_and_not_here() -> None:
    assert set(LEFT_OUT) <= set(public_names())
    assert [name for name in LEFT_OUT if is_offered(name)] == []


def test_the_parameters_begin_as_uvicorns() -> None:
    theirs = inspect.signature(importlib.import_module("uvicorn").Config).parameters
    ours = inspect.signature(fastasgi.Config).parameters
    assert list(ours)[: len(theirs)] == list(theirs)


def test_the_modules_are_attributes_of_the_package_and_main_is_the_command() -> None:
    code = """
import fastasgi as uvicorn

assert uvicorn.config.LOGGING_CONFIG["loggers"]
assert uvicorn.logging.TRACE_LOG_LEVEL == 5
assert uvicorn.importer.import_from_string and uvicorn.server.ServerState
assert uvicorn.supervisors.ChangeReload and uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware
command = uvicorn.main
from fastasgi.main import main, run
import fastasgi.main
assert uvicorn.main is main is command is fastasgi.main and uvicorn.run is run
assert main.name == "fastasgi" and [p.name for p in main.params][0] == "app"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    print(table())
