"""gunicorn's worker class: ``gunicorn -k fastasgi.workers.FastASGIWorker app:app``.

Knows gunicorn's settings, signals, hooks and loggers, and what they mean for a Server. The arbiter, which is
gunicorn's parent process, owns the listening sockets, starts workers, and kills one whose heartbeats stop.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore
from gunicorn.glogging import Logger  # type: ignore
from gunicorn.workers.base import Worker  # type: ignore

from fastasgi.application.interfaces import ASGIApp, Message, Receive, Scope, Send
from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.codecs.heads import reason_phrase
from fastasgi.config import Config
from fastasgi.errors import AppImportError, ConfigError, FastasgiError
from fastasgi.logging import LOG_LEVELS
from fastasgi.logs.namesakes import pair_loggers
from fastasgi.server import Server
from fastasgi.system.handlers import SignalHandlers
from fastasgi.tls.contexts import TLS, TLSFiles
from fastasgi.wires.http1 import MOST_FIELDS, MOST_LINE_BYTES

HEARTBEAT_INTERVAL_S = 1.0  # at the most

# The arbiter kills what is left of a worker when graceful_timeout is over. Its last part is for requests that
# need longer to be disconnected and cancelled, and for the application's own shutdown.
CLIENT_CLOSED_REQUEST = 499  # in access logs, as nginx has it: nobody took the response
LAST_PART_S = 5.0  # or half of graceful_timeout
FORCED_PART_S = 2.5  # of the last part: from here on nothing is waited for long; or half of graceful_timeout

LINGER_S = 1.0  # or keepalive: for one more request on a connection that is idle when the worker is to stop

OTHER_FIELDS_BYTES = 65536  # room in a head beside its first line and one field of the largest size

# Settings of gunicorn's that mean nothing here, and what to do instead
NOT_SUPPORTED = {
    "secure_scheme_headers": "X-Forwarded-Proto tells the scheme; see forwarded_headers for CONFIG_KWARGS",
    "forwarder_headers": "all headers are the application's business",
    "protocol": "every connection is read as HTTP; let the proxy speak HTTP",
    "http_protocols": "every connection is served by HTTP/1.1",
    "http2_cleartext": "every connection is served by HTTP/1.1",
    "ssl_version": "TLS 1.2 and later are served, unless ssl_version in CONFIG_KWARGS says 5",
    "do_handshake_on_connect": "handshakes are always done as soon as a client begins them",
    "suppress_ragged_eofs": "a client that leaves without a word has left",
    "http_parser": "the parser is chosen by http in CONFIG_KWARGS",
    "permit_obsolete_folding": "folded headers are refused",
    "strip_header_spaces": "headers with a space before the colon are refused",
    "permit_unconventional_http_version": "versions other than HTTP/1.0 and HTTP/1.1 are refused",
    "casefold_http_method": "methods are passed on as they are",
    "asgi_disconnect_grace_period": "an application whose client has gone is told so, and not cancelled",
    "sendfile": "the application decides by the messages it sends",
}

# Parameters of Config for what gunicorn does: listening, and the care of processes
GUNICORNS_OWN = (
    *("bind", "host", "port", "uds", "uds_permissions", "fd"),
    *("workers", "preload", "pid_file", "process_name", "cpu_affinity", "user", "group", "umask"),
    *("reload", "reload_dirs", "reload_delay", "reload_includes", "reload_excludes"),
    *("limit_worker_rss", "limit_worker_lifetime", "timeout_worker_healthcheck", "timeout_worker_startup"),
)


class FastASGIWorker(Worker):  # type: ignore
    """One worker process of gunicorn, which serves an ASGI or WSGI application.

    A subclass may give parameters of Config in ``CONFIG_KWARGS``; they go before gunicorn's settings.
    ``config`` is made at its first use, ``server`` once the application is loaded.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {}

    _tls_files: ClassVar[TLSFiles | None] = None  # the last good ones that the arbiter has seen

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_tls_files()
        self.server: WorkerServer | None = None
        self._is_quitting = False
        self._signal_handlers = SignalHandlers()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of each setting that is not supported. The arbiter calls it once, before it starts workers.

        Raises RuntimeError, which gunicorn shows as one line, where serving would be unsafe.
        """
        try:
            tls = _check_tls(cfg, cls.CONFIG_KWARGS)
        except ConfigError as error:
            raise RuntimeError(str(error)) from None
        cls._tls_files = None if tls is None else tls.files
        for name, instead in NOT_SUPPORTED.items():
            if _is_set(cfg, name):
                log.warning("%s %r is not supported by fastasgi: %s", name, getattr(cfg, name), instead)

    # The start

    def _read_tls_files(self) -> None:
        """In the arbiter, which is about to fork: what this worker begins with.

        A worker that fails to boot would end all of gunicorn, so in place of files that can't be used any
        more there are the last good ones. What they don't mend is left for the worker to tell.
        """
        try:
            tls = _check_tls(self.cfg, self.CONFIG_KWARGS, type(self)._tls_files)
        except Exception:  # also whatever the user's ssl_context raises; it will in the worker, too
            return
        if tls is None:
            return
        try:
            tls.renew()
        except Exception as error:
            self.log.error("Certificates not renewed, the old ones stay: %s", _gunicorn_names(error))
        type(self)._tls_files = tls.files

    def init_process(self) -> None:
        """Serve in this process, just forked, until told to stop."""
        pair_loggers()  # first: logconfig may name handlers for uvicorn's
        _route_log(self.log)
        with self._errors_told():
            _check_tls(self.cfg, self.CONFIG_KWARGS, self._tls_files)  # a reload may have changed it
            if _uses_tls(self.cfg, self.CONFIG_KWARGS):
                self.config  # noqa: B018  made while the keys, which are often root's alone, can be read
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application and all that it is served with."""
        try:
            self.wsgi = self.app.wsgi()
        except SyntaxError as error:
            # Whoever writes the application corrects it, and the reloader is to see that
            if not self.cfg.reload:
                raise
            self.log.exception("The application can't be loaded")
            if self.reloader is not None and error.filename is not None:
                self.reloader.add_extra_file(error.filename)
            self.wsgi = _answer_broken
        with self._errors_told("; what is no option of gunicorn's goes into CONFIG_KWARGS of a subclass"):
            self.config.app = self.wsgi
            self.config.load()
        if self.config.access_log:
            _route_access_log(self.log)
        app = self.config.loaded_app
        if _is_set(self.cfg, "limit_request_field_size") and self.cfg.limit_request_field_size:
            app = _with_field_limit(app, self.cfg.limit_request_field_size)
        self.config.loaded_app = _watched(app, self)

    @functools.cached_property
    def config(self) -> Config:
        """The settings of the server. Raises ConfigError."""
        settings = _settings_of(self.cfg)
        if self.cfg.max_requests:
            settings["limit_max_requests"] = self.max_requests  # the jitter is in it
        known = {field.name for field in dataclasses.fields(Config) if field.init}
        for name in self.CONFIG_KWARGS:
            if name in GUNICORNS_OWN:
                raise ConfigError(f"{name} in CONFIG_KWARGS has no effect: set what gunicorn has for it")
            if name not in known:
                raise ConfigError(f"{name} in CONFIG_KWARGS is not a setting of fastasgi: leave it out")
        return Config.with_tls_files(self._tls_files, **{**settings, **self.CONFIG_KWARGS})

    @contextlib.contextmanager
    def _errors_told(self, hint: str = "") -> Iterator[None]:
        """Log an error of the user's as one line, and end so that the arbiter does not try again."""
        try:
            yield
        except AppImportError as error:
            self.log.error("%s", error)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        except FastasgiError as error:
            self.log.error("%s%s", error, hint)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    # Serving

    def run(self) -> None:
        """Serve until told to stop. The event loop is made here: it would not survive a fork."""
        self.server = WorkerServer(self)
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
        """Send one heartbeat. For subclasses that have more to do as often."""
        self.notify()

    # Signals

    def init_signals(self) -> None:
        """Handle signals. In processes that the application forks they do what they do in any other."""
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
        """SIGUSR1: reopen log files, but not while a line is being written."""
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
    """The same, for subclasses that were written for uvicorn's class of this name."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "auto", "http": "auto"}


class UvicornH11Worker(UvicornWorker):
    """The same with asyncio's event loop; ``h11`` means this server's own parser."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "asyncio", "http": "h11"}


class WorkerServer(Server):
    """The server inside a worker: it sends heartbeats, and leaves signals to the worker."""

    def __init__(self, worker: FastASGIWorker) -> None:
        super().__init__(worker.config)
        self._worker = worker
        self._running_loop: asyncio.AbstractEventLoop | None = None
        self._timers: list[asyncio.TimerHandle] = []
        # Other workers serve on while gunicorn runs, and clients need not notice that this one ends. With
        # timeout_drain they are to notice.
        self.is_succeeded = not worker.config.timeout_drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the worker handles signals."""
        yield

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call back in the event loop, from a signal handler. Returns whether there is one that runs."""
        if self._running_loop is None:
            return False
        self._running_loop.call_soon_threadsafe(callback)
        return True

    def stop(self, at_once: bool) -> None:
        """Stop within graceful_timeout, or at once. From a signal handler or the event loop."""
        self.force_exit = self.force_exit or at_once
        self.should_exit = True
        self.call_soon(self._limit_stop)

    def _limit_stop(self) -> None:
        if not self._timers:
            grace_s = self._worker.cfg.graceful_timeout
            until_forced_s = grace_s - min(FORCED_PART_S, grace_s / 2)
            loop = asyncio.get_running_loop()
            self._timers = [
                loop.call_later(LINGER_S, self._close_idle),
                loop.call_later(until_forced_s, self.stop, True),
            ]

    def _close_idle(self) -> None:
        if self.context is not None:
            self.context.drain()

    def on_max_requests(self) -> None:
        """Stop, and tell gunicorn's side of the worker."""
        super().on_max_requests()
        self._worker.stop()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As Server.serve, with heartbeats from before the application's start-up to after its shutdown."""
        loop = self._running_loop = asyncio.get_running_loop()
        loop.add_reader(self._worker.PIPE[0], self._on_wakeup)
        beating = asyncio.create_task(self._beat())
        try:
            await super().serve(sockets)
        finally:
            self._running_loop = None
            loop.remove_reader(self._worker.PIPE[0])
            beating.cancel()
            for timer in self._timers:
                timer.cancel()

    def _on_wakeup(self) -> None:
        """Signals write to the pipe, and so does gunicorn's reloader: its thread can stop nothing itself."""
        os.read(self._worker.PIPE[0], 4096)
        if not self._worker.alive:
            self.stop(at_once=False)

    async def _beat(self) -> None:
        worker = self._worker
        # worker.timeout is half of the time after which the arbiter loses patience; 0 is no limit
        interval_s = min(HEARTBEAT_INTERVAL_S, worker.timeout / 2) or HEARTBEAT_INTERVAL_S
        while not worker.aborted:
            try:
                await worker.callback_notify()
            except Exception:
                worker.log.exception("Exception in callback_notify")
            if worker.ppid != os.getppid():
                worker.log.info("Parent changed, shutting down: %s", worker)
                worker.stop()
            await asyncio.sleep(interval_s)


# Settings


def _is_set(cfg: Any, name: str) -> bool:
    """Whether a setting has another value than its default. False where this gunicorn has no such setting."""
    setting = cfg.settings.get(name)
    if setting is None:
        return False
    return bool(setting.get() != type(setting)().get())


def _uses_tls(cfg: Any, config_kwargs: dict[str, Any]) -> bool:
    return bool(cfg.certfile or cfg.keyfile or {"ssl_certfile", "ssl_context_factory"} & config_kwargs.keys())


def _check_tls(cfg: Any, config_kwargs: dict[str, Any], files: TLSFiles | None = None) -> TLS | None:
    """What TLS is served with, if at all: these files where they are the ones asked for, otherwise read anew.

    Raises ConfigError, with gunicorn's names for settings, where TLS can't be served as is asked for.
    """
    if not _uses_tls(cfg, config_kwargs):
        return None
    more = {name: value for name, value in config_kwargs.items() if name.startswith("ssl_")}
    try:
        config = Config.with_tls_files(files, **{**_settings_of(cfg), **more})
    except ConfigError as error:
        raise ConfigError(_gunicorn_names(error)) from None
    return config.tls


def _gunicorn_names(error: Exception) -> str:
    """The error with gunicorn's names for settings."""
    return _GUNICORN_TLS_NAMES.sub(r"\1", str(error))


_GUNICORN_TLS_NAMES = re.compile(r"\bssl_(certfile|keyfile|ca_certs|cert_reqs|ciphers)\b")


def _tls_settings_of(cfg: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "ssl_certfile": cfg.certfile,
        "ssl_keyfile": cfg.keyfile,
        "ssl_ca_certs": cfg.ca_certs,
        "ssl_cert_reqs": int(cfg.cert_reqs),
        "ssl_ciphers": cfg.ciphers,
    }
    if _is_set(cfg, "ssl_context"):
        settings["ssl_context_factory"] = lambda config, default: cfg.ssl_context(cfg, default)
    return settings


def _settings_of(cfg: Any) -> dict[str, Any]:
    """Parameters of Config that say what gunicorn's settings say."""
    line_bytes = cfg.limit_request_line or MOST_LINE_BYTES
    field_bytes = cfg.limit_request_field_size or MOST_LINE_BYTES
    level = cfg.loglevel.lower()
    settings: dict[str, Any] = {
        "app": None,
        "workers": 1,  # as gunicorn, Config would take this from WEB_CONCURRENCY
        "log_config": None,
        "log_level": level if level in LOG_LEVELS else "info",
        "access_log": False,
        "backlog": max(1, cfg.backlog),
        "timeout_keep_alive": cfg.keepalive,
        # gunicorn trusts whoever reaches a Unix socket
        "forwarded_allow_ips": [*cfg.forwarded_allow_ips, "unix"],
        "timeout_graceful_shutdown": cfg.graceful_timeout - min(LAST_PART_S, cfg.graceful_timeout / 2),
        "limit_request_line": line_bytes,
        "limit_request_fields": min(cfg.limit_request_fields or MOST_FIELDS, MOST_FIELDS),
        "limit_request_head": line_bytes + field_bytes + OTHER_FIELDS_BYTES,
    }
    if cfg.certfile or cfg.keyfile:
        settings.update(_tls_settings_of(cfg))
    # A switch before gunicorn 25, a version since then; here either version is understood
    if cfg.proxy_protocol and cfg.proxy_protocol != "off":
        settings["proxy_protocol"] = [*cfg.proxy_allow_ips, "unix"]
    if _is_set(cfg, "worker_connections") and cfg.worker_connections:
        settings["limit_concurrency"] = cfg.worker_connections
    if _is_set(cfg, "threads"):
        settings["threads"] = cfg.threads
    for name, ours in (("asgi_loop", "loop"), ("asgi_lifespan", "lifespan"), ("root_path", "root_path")):
        if name in cfg.settings:
            settings[ours] = getattr(cfg, name)
    if "header_map" in cfg.settings:
        settings["header_underscores"] = {"dangerous": "allow"}.get(cfg.header_map, cfg.header_map)
    if "websocket_max_message_size" in cfg.settings:
        settings["ws_max_size"] = cfg.websocket_max_message_size
    return settings


# Logs


class _GunicornHandler(logging.Handler):
    """Passes the server's records on to gunicorn's logger, of whatever class that is."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._write = {
            logging.CRITICAL: log.critical,
            logging.ERROR: log.error,
            logging.WARNING: log.warning,
            logging.INFO: log.info,
        }
        self._debug = log.debug

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self._write.get(record.levelno, self._debug)("%s", record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


def _route_log(log: Any) -> None:
    """Send what the server logs to gunicorn's error log, unless logconfig names handlers for it."""
    logger = logging.getLogger("fastasgi.error")
    if not logger.handlers:
        logger.addHandler(_GunicornHandler(log))
        logger.propagate = False


def _route_access_log(log: Any) -> None:
    """Send the lines of the server's own access log, if CONFIG_KWARGS turn it on, to gunicorn's handlers."""
    logger = logging.getLogger("fastasgi.access")
    if not logger.handlers:
        logger.handlers = list(log.access_log.handlers)
        logger.propagate = False


# Applications around the user's


async def _answer_broken(scope: Scope, receive: Receive, send: Send) -> None:
    """In place of an application with a syntax error, while its author mends it."""
    if scope["type"] == "lifespan":
        raise RuntimeError("the application can't be loaded")
    text = b"The application has a syntax error, see the log."
    await _answer(scope, send, HTTPStatus.INTERNAL_SERVER_ERROR, text)


async def _answer(scope: Scope, send: Send, status: HTTPStatus, body: bytes) -> None:
    """Answer a request, also one for a WebSocket (ASGI extension "Websocket Denial Response")."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def _with_field_limit(app: ASGIApp, limit_bytes: int) -> ASGIApp:
    """The application, with 431 for requests that have a longer header line, counted with its end."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if any(len(name) + len(value) + 4 > limit_bytes for name, value in scope.get("headers", ())):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            await _answer(scope, send, status, reason_phrase(status).encode())
        else:
            await app(scope, receive, send)

    return limited


def _watched(app: ASGIApp, worker: FastASGIWorker) -> ASGIApp:
    """The application, with its requests told to gunicorn's access log and hooks where these listen."""
    cfg, log = worker.cfg, worker.log
    # A class of the user's, or statsd, may do more with a request than write a line
    is_wanted = type(log).access is not Logger.access or getattr(log, "access_log_enabled", True)
    is_logged = is_wanted and not worker.config.access_log
    pre_request = cfg.pre_request if _is_set(cfg, "pre_request") else None
    post_request = cfg.post_request if _is_set(cfg, "post_request") else None
    if not is_logged and pre_request is None and post_request is None:
        return app

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = WatchedRequest(scope)
        call = _WatchedCall(request, receive, send, log if is_logged else None)
        try:
            if pre_request is not None:
                pre_request(worker, request)
            await app(scope, call.receive, call.send)
        except BaseException as error:
            call.end(error)
            raise
        else:
            call.end(None)
        finally:
            if post_request is not None:
                try:
                    post_request(worker, request, request.environ, call.response)
                except Exception:
                    log.exception("Exception in post_request hook")

    return watched


class WatchedRequest:
    """A request as gunicorn's loggers and hooks know it. Texts hold no control characters."""

    def __init__(self, scope: Scope) -> None:
        client = scope["client"] or ("-", "")
        server = scope["server"] or ("", "")
        self.method: str = scope["method"]
        self.scheme: str = scope["scheme"]
        self.path = _printable(scope["path"])
        self.query = _printable(scope["query_string"].decode("latin-1"))
        raw_path = _printable(scope["raw_path"].decode("latin-1"))
        self.uri = f"{raw_path}?{self.query}" if self.query else raw_path
        major, _, minor = scope["http_version"].partition(".")
        self.version = (int(major), int(minor or 0))
        self.remote_addr: tuple[str, Any] = (client[0], client[1])
        self.headers = [
            (name.decode("latin-1").upper(), _printable(value.decode("latin-1")))
            for name, value in scope["headers"]
        ]
        self.environ = {
            "REQUEST_METHOD": self.method,
            "RAW_URI": self.uri,
            "SCRIPT_NAME": scope["root_path"],
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_PROTOCOL": f"HTTP/{self.version[0]}.{self.version[1]}",
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1] or ""),
            "REMOTE_ADDR": client[0],
            "REMOTE_PORT": str(client[1]),
            "wsgi.url_scheme": self.scheme,
        }
        for name, value in self.headers:
            # PEP 3333: these two without HTTP_
            key = name.replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            self.environ[key] = f"{self.environ[key]},{value}" if key in self.environ else value


class WatchedResponse:
    """A response as gunicorn's loggers and hooks know it; ``status`` is empty where nothing was sent.

    ``sent`` counts the bytes of the body; None where they can't be told.
    """

    def __init__(self) -> None:
        self.status = ""
        self.status_code = 0
        self.headers: list[tuple[str, str]] = []
        self.sent: int | None = 0

    def begin(self, status: int, headers: Any) -> None:
        """Take what starts the response."""
        self.status_code, self.status = status, f"{status} {reason_phrase(status)}".rstrip()
        self.headers = [
            (bytes(name).decode("latin-1"), _printable(bytes(value).decode("latin-1")))
            for name, value in headers
        ]


class _WatchedCall:
    """One call of the application. Follows its messages, and logs the response once, whole or broken off."""

    def __init__(self, request: WatchedRequest, receive: Receive, send: Send, log: Any) -> None:
        self.response = WatchedResponse()
        self._request, self._receive, self._send = request, receive, send
        self._exchange = send.__self__  # type: ignore[attr-defined]  # the compiled core's, whose method it is
        self._log = log  # None where nothing is to be logged
        self._start: Message | None = None  # the server holds it until the first piece of the body
        self._client_has_gone = False
        self._started_at = time.perf_counter()

    async def receive(self) -> Message:
        """The receive callable."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._client_has_gone = True
        return message

    async def send(self, message: Message) -> None:
        """The send callable. A message that is refused, or finds the client gone, does not count."""
        kind = message["type"]
        if kind == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
        try:
            await self._send(message)
        except ClientDisconnected:
            self._client_has_gone = True
            raise
        if self._exchange.client_left:
            return
        if kind == "http.response.start":
            self._start = message
        elif kind in _BODY_KINDS:
            self._count(message)
        elif kind == "http.response.trailers" and not message.get("more_trailers", False):
            self._finish()

    def _count(self, message: Message) -> None:
        """A piece of the body, given as bytes or as a file."""
        assert self._start is not None
        response = self.response
        if not response.status:
            response.begin(self._start["status"], self._start["headers"])
        if message["type"] != "http.response.body":
            response.sent = None
        elif response.sent is not None:
            response.sent += len(message.get("body", b""))
        if not message.get("more_body", False) and not self._start.get("trailers", False):
            self._finish()

    def _finish(self) -> None:
        """The response is complete. The server has held the application to the length that it declared."""
        response = self.response
        if self._request.method == "HEAD" or response.status_code in (204, 304):
            response.sent = 0
        elif response.sent is None:
            lengths = [value for name, value in response.headers if name.lower() == "content-length"]
            response.sent = int(lengths[0]) if lengths else None
        self._write()

    def end(self, error: BaseException | None) -> None:
        """The application has returned, or raised this error."""
        is_given_up = self._client_has_gone or isinstance(error, asyncio.CancelledError)
        if self._exchange.client_left:
            self.response.begin(CLIENT_CLOSED_REQUEST, ())
        elif not self.response.status and not is_given_up:
            # The server answers in the application's place
            self.response.begin(HTTPStatus.INTERNAL_SERVER_ERROR, ())
            self.response.sent = None
        self._write()

    def _write(self) -> None:
        log, self._log = self._log, None
        if log is None or not self.response.status:
            return
        duration = datetime.timedelta(seconds=time.perf_counter() - self._started_at)
        try:
            log.access(self.response, self._request, self._request.environ, duration)
        except Exception:
            log.exception("Exception in the access log")


_BODY_KINDS = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _printable(text: str) -> str:
    """The text, with control characters written as \\xNN: none may end a log line or reach a terminal."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
