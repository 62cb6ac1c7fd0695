"""The worker classes: gunicorn's side of one worker process, from its start to the end of its server."""

import contextlib
import dataclasses
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore
from gunicorn.workers.base import Worker  # type: ignore

from fastasgi.config import Config
from fastasgi.errors import AppImportError, ConfigError, FastasgiError
from fastasgi.logs.namesakes import pair_loggers
from fastasgi.system.handlers import SignalHandlers
from fastasgi.tls.contexts import TLSFiles
from fastasgi.workers.gunicornlogs import route_access_log, route_log
from fastasgi.workers.gunicornserver import GunicornServer
from fastasgi.workers.gunicornsettings import (
    GUNICORNS_OWN,
    gunicorn_names,
    is_set,
    not_supported,
    settings_of,
    tls_of,
    uses_tls,
)
from fastasgi.workers.refusals import answer_broken, with_field_limit
from fastasgi.workers.watched import watched


class FastASGIWorker(Worker):  # type: ignore
    """One worker process of gunicorn, which serves an ASGI or WSGI application.

    A subclass may give parameters of Config in ``CONFIG_KWARGS``, which count before gunicorn's settings.
    ``config`` is made when it is first used, and ``server`` once the application is loaded.
    """

    __module__ = "fastasgi.workers"  # its public path, which pickles of it name

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {}

    _tls_files: ClassVar[TLSFiles | None] = None  # those that the arbiter last found good

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_tls_files()
        self.server: GunicornServer | None = None
        self._is_quitting = False
        self._signal_handlers = SignalHandlers()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of each setting that is not supported. The arbiter calls it once, before it starts workers.

        Raises RuntimeError, which gunicorn shows as one line, if TLS can't be served as is asked for.
        """
        try:
            tls = tls_of(cfg, cls.CONFIG_KWARGS)
        except ConfigError as error:
            raise RuntimeError(str(error)) from None
        cls._tls_files = None if tls is None else tls.files
        for name, value, instead in not_supported(cfg):
            log.warning("%s %r is not supported by fastasgi: %s", name, value, instead)

    # --- The start ---

    def _read_tls_files(self) -> None:
        """In the arbiter, which is about to fork: read the files of TLS that this worker begins with.

        A worker that fails to boot would end all of gunicorn. So the last good files stand in for those that
        can't be used any more. If that does not help, the worker raises the error and logs it.
        """
        try:
            tls = tls_of(self.cfg, self.CONFIG_KWARGS, type(self)._tls_files)
        except Exception:  # of any class, if the user's ssl_context raises it; it will in the worker, too
            return
        if tls is None:
            return
        try:
            tls.renew()
        except Exception as error:
            self.log.error("Certificates not renewed, the old ones stay: %s", gunicorn_names(error))
        type(self)._tls_files = tls.files

    def init_process(self) -> None:
        """Serve in this process, just forked, until told to stop."""
        pair_loggers()  # first: logconfig may name handlers for uvicorn's loggers
        route_log(self.log)
        with self._errors_told():
            tls_of(self.cfg, self.CONFIG_KWARGS, self._tls_files)  # a reload may have changed it
            if uses_tls(self.cfg, self.CONFIG_KWARGS):
                self.config  # noqa: B018  made while the keys, which are often root's alone, can be read
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application and all that it is served with."""
        try:
            self.wsgi = self.app.wsgi()
        except SyntaxError as error:
            # The reloader is to see the file once its author has corrected it
            if not self.cfg.reload:
                raise
            self.log.exception("The application can't be loaded")
            if self.reloader is not None and error.filename is not None:
                self.reloader.add_extra_file(error.filename)
            self.wsgi = answer_broken
        with self._errors_told("; what is no option of gunicorn's goes into CONFIG_KWARGS of a subclass"):
            self.config.app = self.wsgi
            self.config.load()
        if self.config.access_log:
            route_access_log(self.log)
        app = self.config.loaded_app
        if is_set(self.cfg, "limit_request_field_size") and self.cfg.limit_request_field_size:
            app = with_field_limit(app, self.cfg.limit_request_field_size)
        self.config.loaded_app = watched(app, self)

    @functools.cached_property
    def config(self) -> Config:
        """The settings of the server. Raises ConfigError."""
        settings = settings_of(self.cfg, self.CONFIG_KWARGS)
        if self.cfg.max_requests:
            settings["limit_max_requests"] = self.max_requests  # includes max_requests_jitter
        known = {field.name for field in dataclasses.fields(Config) if field.init}
        for name in self.CONFIG_KWARGS:
            if name.startswith("admin"):
                raise ConfigError(
                    f"{name} in CONFIG_KWARGS: there is no admin listener under gunicorn, which alone knows "
                    "all workers: leave it out"
                )
            if name in GUNICORNS_OWN:
                raise ConfigError(f"{name} in CONFIG_KWARGS has no effect: set what gunicorn has for it")
            if name not in known:
                raise ConfigError(f"{name} in CONFIG_KWARGS is not a setting of fastasgi: leave it out")
        return Config.with_tls_files(self._tls_files, **{**settings, **self.CONFIG_KWARGS})

    @contextlib.contextmanager
    def _errors_told(self, hint: str = "") -> Iterator[None]:
        """Log an error of the user's as one line, and exit with a code that ends the arbiter, too."""
        try:
            yield
        except AppImportError as error:
            self.log.error("%s", error)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        except FastasgiError as error:
            self.log.error("%s%s", error, hint)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    # --- Serving ---

    def run(self) -> None:
        """Serve until told to stop. The event loop is made here: it would not survive a fork."""
        self.server = GunicornServer(self)
        if not self.alive:
            return
        try:
            with self._errors_told():
                self.server.run([sock.sock for sock in self.sockets])
        except SystemExit:
            if self.alive:
                raise  # the application's start-up has failed
        if self.aborted:
            sys.exit(1)

    async def callback_notify(self) -> None:
        """Send one heartbeat. Subclasses override it if they have more to do as often."""
        self.notify()

    # --- Signals ---

    def init_signals(self) -> None:
        """Handle signals here. In processes that the application forks they have their default effect."""
        super().init_signals()
        for number in self.SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                self._signal_handlers.adopt(number, handler, default)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: stop gracefully. The arbiter sends it again and again to a worker that takes its time."""
        self.stop()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT and SIGINT: stop at once. Both come where a terminal has sent SIGINT to all processes."""
        if self._is_quitting:
            return
        self._is_quitting = True
        self.stop(at_once=True)
        self._call_hook(self.cfg.worker_int)
        if self.server is None:
            sys.exit(0)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: the heartbeats have stopped. Breaks off what keeps the event loop from turning."""
        self.aborted = True
        self.stop(at_once=True)
        self._call_hook(self.cfg.worker_abort)
        sys.exit(1)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: reopen log files in the event loop, so that no line is being written meanwhile."""
        if self.server is None or not self.server.call_soon(self.log.reopen_files):
            self.log.reopen_files()

    def stop(self, at_once: bool = False) -> None:
        """Make the server stop, from a signal handler or the event loop."""
        self.alive = False
        if self.server is not None:
            self.server.stop(at_once)

    def _call_hook(self, hook: Callable[[Any], object]) -> None:
        try:
            hook(self)
        except Exception:
            self.log.exception("Exception in a server hook")


class UvicornWorker(FastASGIWorker):
    """FastASGIWorker with the settings of uvicorn's class of this name, for subclasses of that one."""

    __module__ = "fastasgi.workers"

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "auto", "http": "auto"}


class UvicornH11Worker(UvicornWorker):
    """UvicornWorker with asyncio's event loop. ``h11`` means this server's own parser."""

    __module__ = "fastasgi.workers"

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "asyncio", "http": "h11"}
