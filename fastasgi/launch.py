"""``run`` and what it decides: whether this process serves, or a supervisor starts processes that do."""

import contextlib
import functools
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, ParamSpec

from fastasgi.config import Config
from fastasgi.errors import STARTUP_FAILURE, ConfigError
from fastasgi.logging import reopen_log_files
from fastasgi.processes.failures import exit_with
from fastasgi.processes.supervisor import Supervisor
from fastasgi.server import HANDLED_SIGNALS, Server
from fastasgi.system.handlers import SignalHandlers
from fastasgi.system.identity import apply_process_settings, open_standard_streams
from fastasgi.system.interpreter import log_interpreter
from fastasgi.system.notify import Notifier
from fastasgi.system.pidfile import PidFile

Parameters = ParamSpec("Parameters")


def _with_parameters_of(
    config: Callable[Parameters, Config],
) -> Callable[[Callable[..., None]], Callable[Parameters, None]]:
    """A decorator: the function takes config's parameters, for type checkers and help()."""

    def decorate(function: Callable[..., None]) -> Callable[Parameters, None]:
        function.__signature__ = inspect.signature(config)  # type: ignore[attr-defined]
        return function

    return decorate


@_with_parameters_of(Config)
def run(*args: Any, **settings: Any) -> None:
    """Serve an application, ``module:attribute`` or the object itself, until a signal comes.

    Takes the parameters of Config and raises its ConfigError. Other failures to start end the process: with
    exit code 3 if there is no such application, the address can't be listened on, or the application's
    start-up fails; with 1 after the traceback of an error in the application's module. docs/signals.md lists
    all exit codes.
    """
    run_config(functools.partial(Config, *args, **settings))


def run_config(make_config: Callable[[], Config], secrets: Mapping[str, str] | None = None) -> None:
    """Serve with the Config that make_config returns, as ``run`` does. A reload calls make_config again.

    secrets are variables that have been removed from the environment, for a supervisor that has to start this
    program anew.
    """
    _refuse_inside_worker()
    open_standard_streams()
    environ = dict(os.environ)  # without what env_file adds: each worker reads that itself
    try:
        config = make_config()
        if config.is_supervised:
            _supervise(config, make_config, environ, secrets or {})
        else:
            _serve_alone(config)
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:
        exit_with(error)


def _refuse_inside_worker() -> None:
    """Raise ConfigError in a worker that imports the user's script: run() would start workers without end."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if getattr(specification, "name", None) == "fastasgi.processes.child":
        raise ConfigError(
            "run() was called while a worker imports the application: put the call under "
            "if __name__ == '__main__':"
        )


def _supervise(
    config: Config, make_config: Callable[[], Config], environ: dict[str, str], secrets: Mapping[str, str]
) -> None:
    log_interpreter()
    sys.exit(Supervisor(config, make_config, environ, secrets).run())


def _serve_alone(config: Config) -> None:
    server = StandaloneServer(config)
    sockets = None
    with server.at_exit:
        # Set before the pid file tells others whom to signal
        handlers = server.at_exit.enter_context(SignalHandlers())
        if hasattr(signal, "SIGUSR1"):
            handlers.set(signal.SIGUSR1, lambda *_: reopen_log_files())
        if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:  # which would end the process
            handlers.write_stacks(signal.SIGUSR2, server.write_requests)
        if config.tls is not None and hasattr(signal, "SIGHUP"):
            handlers.set(signal.SIGHUP, lambda *_: server.renew_certificates())
        if config.pid_file is not None:
            pid_file = PidFile(os.fspath(config.pid_file))
            pid_file.write()
            server.at_exit.callback(pid_file.remove)
        server.bind_admin()
        if config.user is not None or config.group is not None:
            # Sockets are bound before the process becomes that user, the application is imported after it
            sockets = config.bind_sockets()
            for sock in sockets:
                sock.listen(config.backlog)
            config.log_listening(sockets)
        apply_process_settings(config, 0)
        try:
            config.load_app()
            server.run(sockets)
        except KeyboardInterrupt:
            if not server.started:  # Ctrl-C came while the application was imported
                sys.exit(128 + signal.SIGINT)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class StandaloneServer(Server):
    """A server that is a process of its own, without a supervisor: it tells systemd how it fares."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._notifier = Notifier()
        self.at_exit = contextlib.ExitStack()  # removes the pid file and the handlers when the process ends

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._notifier.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the server stops, then stop."""
        self._notifier.stopping()
        await super().shutdown(sockets)

    def on_beat(self) -> None:
        """Tell systemd's watchdog that the event loop is not blocked."""
        self._notifier.watchdog()

    def stop_signals(self) -> list[int]:
        """The usual ones, and SIGHUP unless it renews certificates, is ignored or handled by the script."""
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is None or self.config.tls is not None:
            return HANDLED_SIGNALS  # with TLS it renews certificates
        # One that is ignored, as by nohup, or that the script handles stays as it is
        return [*HANDLED_SIGNALS, *([hangup] if signal.getsignal(hangup) is signal.SIG_DFL else [])]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once at a second signal, but not at SIGHUP: a terminal that closes may send it twice."""
        if not (self.should_exit and sig == getattr(signal, "SIGHUP", None)):
            super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, and close ``at_exit`` before the one is raised again that may end the process."""
        with super().capture_signals(), self.at_exit:
            yield
