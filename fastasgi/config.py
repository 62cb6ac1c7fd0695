"""All settings, each written once, and what they make: loaded application, loggers, sockets, event loop.

The command line, the parameters of ``fastasgi.run`` and ``Config``, the environment variables and
``docs/settings.md`` come from the fields of Config. ``python -m fastasgi.config`` prints the latter.
"""

# ruff: noqa: RUF009  setting() and not_offered() make dataclass fields, as dataclasses.field() does

import asyncio
import importlib
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastasgi.errors import AppImportError, ConfigError
from fastasgi.importer import import_from_string
from fastasgi.interfaces import (
    ASGIApp,
    detect_interface,
    from_asgi2,
    is_coroutine_callable,
    takes_no_arguments,
)
from fastasgi.logging import LOG_LEVELS, LOGGING_CONFIG, LogConfig, check_access_log_format, configure_logging
from fastasgi.setting import check_settings, markdown_table, not_offered, setting
from fastasgi.sockets import SocketFile, adopt_descriptor, bind_tcp, bind_unix, describe
from fastasgi.wsgi import from_wsgi

if TYPE_CHECKING:
    from fastasgi.lifespan import Lifespan

logger = logging.getLogger("fastasgi.error")

GRACE_TIMEOUT_S = 30.0

_APP, _LISTEN, _HTTP = "Application", "Listening", "HTTP"
_LOG, _LIMIT, _TIMEOUT, _PROCESS = "Logging", "Limits", "Timeouts", "Process"


@dataclass(eq=False)
class Config:
    """The settings of one server. Names, order and defaults are uvicorn's wherever uvicorn has the setting.

    Making one checks every setting, reads ``env_file`` and sets up logging. Raises ConfigError.
    """

    app: ASGIApp | Callable[..., Any] | str
    host: str = setting("text", "127.0.0.1", _LISTEN, "Address or host name to listen on.")
    port: int = setting(
        "whole", 8000, _LISTEN, "Port to listen on; 0 takes a free one and prints it.", least=0, most=65535
    )
    uds: str | os.PathLike[str] | None = setting(
        "path", None, _LISTEN, "Listen on a Unix socket at this path instead of host and port."
    )
    fd: int | None = setting(
        "whole",
        None,
        _LISTEN,
        "Listen on this inherited socket descriptor, before uds, host and port.",
        least=0,
    )
    loop: str = setting(
        "text",
        "auto",
        _PROCESS,
        "Event loop; auto is uvloop where it is installed.",
        choices=("auto", "uvloop", "asyncio"),
    )
    http: str = setting(
        "text",
        "auto",
        _HTTP,
        "Parser of HTTP/1.x requests; auto is fastasgi's own.",
        choices=("auto", "fastasgi", "httptools"),
    )
    http2: bool = not_offered(False)
    ws: str = not_offered("auto", "none")
    ws_max_size: int = not_offered(16 * 1024 * 1024)
    ws_max_queue: int = not_offered(32)
    ws_ping_interval: float | None = not_offered(20.0)
    ws_ping_timeout: float | None = not_offered(20.0)
    ws_per_message_deflate: bool = not_offered(True)
    lifespan: str = setting(
        "text",
        "auto",
        _APP,
        "Whether the application is told of start and end; auto goes on without where it raises.",
        choices=("auto", "on", "off"),
    )
    env_file: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _PROCESS,
        "File of environment variables for the application; needs python-dotenv. It sets no settings.",
    )
    log_config: LogConfig = setting(
        "object",
        None,
        _LOG,
        "Logging configuration: an .ini, .json or .yaml file; in Python also a dict, or None for none.",
        default_factory=lambda: LOGGING_CONFIG,
        default_text="built in",
    )
    log_level: str | int | None = setting(
        "object",
        None,
        _LOG,
        "Least level that is logged.",
        choices=tuple(LOG_LEVELS),
        default_text="info",
    )
    access_log: bool = setting("switch", True, _LOG, "Log a line for each request.")
    use_colors: bool | None = setting("switch", None, _LOG, "Colour the log.", default_text="on a terminal")
    interface: str = setting(
        "text",
        "auto",
        _APP,
        "Interface of the application; auto tells ASGI 2 from 3.",
        choices=("auto", "asgi3", "asgi2", "wsgi"),
    )
    reload: bool = not_offered(False)
    reload_dirs: list[str] | str | None = not_offered(None, [], ())
    reload_delay: float = not_offered(0.25)
    reload_includes: list[str] | str | None = not_offered(None, [], ())
    reload_excludes: list[str] | str | None = not_offered(None, [], ())
    workers: int | None = not_offered(None, 1, instead="start one process, or several behind one --fd")
    proxy_headers: bool = not_offered(True, False)
    server_header: bool = setting("switch", True, _HTTP, "Send the server header.")
    date_header: bool = setting("switch", True, _HTTP, "Send the date header.")
    forwarded_allow_ips: list[str] | str | None = not_offered(None, [], "")
    root_path: str = setting("text", "", _APP, "Path under which a proxy serves the application.")
    limit_concurrency: int | None = setting(
        "whole", None, _LIMIT, "Requests served at once; further ones are answered with 503.", least=1
    )
    limit_max_requests: int | None = setting(
        "whole", None, _LIMIT, "Requests to serve before the process ends gracefully.", least=1
    )
    limit_max_requests_jitter: int = setting(
        "whole",
        0,
        _LIMIT,
        "At most so many requests, drawn at random, are added to limit_max_requests.",
        least=0,
    )
    backlog: int = setting("whole", 2048, _LISTEN, "Connections that may wait to be accepted.", least=1)
    timeout_keep_alive: float = setting(
        "number",
        5,
        _TIMEOUT,
        "Idle time before a connection is closed; 0 keeps none.",
        unit="seconds",
        least=0,
    )
    timeout_notify: float = setting(
        "number",
        30,
        _TIMEOUT,
        "Time between two calls of callback_notify.",
        unit="seconds",
        least=0.01,
        on_command_line=False,
    )
    timeout_graceful_shutdown: float | None = setting(
        "number",
        None,
        _TIMEOUT,
        "Time that running requests have to end once the server stops; then they are disconnected and, "
        "2 seconds later, cancelled.",
        unit="seconds",
        least=0,
        default_text=f"{GRACE_TIMEOUT_S:g}",
    )
    timeout_worker_healthcheck: int = not_offered(5)
    callback_notify: Callable[[], Awaitable[None]] | None = setting(
        "object",
        None,
        _PROCESS,
        "Coroutine function to call at the start and then each timeout_notify.",
        on_command_line=False,
    )
    ssl_keyfile: str | os.PathLike[str] | None = not_offered(None)
    ssl_certfile: str | os.PathLike[str] | None = not_offered(None, instead="let a proxy terminate TLS")
    ssl_keyfile_password: str | None = not_offered(None)
    ssl_version: int = not_offered(17)  # ssl.PROTOCOL_TLS_SERVER
    ssl_cert_reqs: int = not_offered(0)  # ssl.CERT_NONE
    ssl_ca_certs: str | os.PathLike[str] | None = not_offered(None)
    ssl_ciphers: str | None = not_offered(None, "TLSv1")
    ssl_context_factory: Callable[..., Any] | None = not_offered(None, instead="let a proxy terminate TLS")
    headers: list[tuple[str, str]] | None = setting(
        "headers",
        None,
        _HTTP,
        "Header for every response, as name:value; may be repeated. In Python a list of (name, value).",
        option_name="header",
        default_text="none",
    )
    factory: bool = setting(
        "switch", False, _APP, "APP is called without arguments and returns the application."
    )
    h11_max_incomplete_event_size: int | None = not_offered(None, instead="set limit_request_head")
    reset_contextvars: bool = not_offered(
        False, instead="leave it out: no request sees another's context variables"
    )

    app_dir: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _APP,
        "Folder to look for APP in, put first on sys.path; in Python not set.",
        default_text="current folder",
    )
    uds_permissions: int | str = setting(
        "octal", 0o666, _LISTEN, "File permissions of the Unix socket.", least=0, most=0o777
    )
    access_log_format: str | None = setting(
        "text",
        None,
        _LOG,
        "Access log line: json, or a text with {client} {method} {path} {query} {http_version} {status} "
        "{bytes} {duration_us} {time} {user_agent} {referer} {header[name]}.",
        default_text="uvicorn's line",
    )
    header_underscores: str | None = setting(
        "text",
        None,
        _HTTP,
        "Request headers with an underscore in their name: pass on, leave out, or answer with 400.",
        choices=("allow", "drop", "refuse"),
        default_text="allow; for WSGI drop",
    )
    limit_request_line: int = setting(
        "whole", 16384, _LIMIT, "Length of the request line; beyond it 414.", unit="bytes", least=16
    )
    limit_request_head: int = setting(
        "whole", 65536, _LIMIT, "Length of request line and headers; beyond it 431.", unit="bytes", least=16
    )
    limit_request_fields: int = setting("whole", 100, _LIMIT, "Headers of a request; beyond it 431.", least=1)
    limit_request_body: int = setting(
        "whole", 0, _LIMIT, "Length of a request body, 0 for any; beyond it 413.", unit="bytes", least=0
    )
    timeout_request_head: float = setting(
        "number",
        30,
        _TIMEOUT,
        "Time to receive a request's head, 0 for any; then 408.",
        unit="seconds",
        least=0,
    )

    loaded: bool = field(default=False, init=False)
    loaded_app: Any = field(default=None, init=False, repr=False)
    asgi_version: str = field(default="3.0", init=False)
    encoded_headers: list[tuple[bytes, bytes]] = field(default_factory=list, init=False, repr=False)
    socket_file: SocketFile | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.log_level = _checked_log_level(self.log_level)
        check_settings(self)
        if self.headers is None:
            self.headers = []
        self.configure_logging()
        if self.access_log_format is not None:
            check_access_log_format(self.access_log_format)
        if self.env_file is not None:
            _load_environment(self.env_file)

    def configure_logging(self) -> None:
        """Set the loggers up as log_config, log_level, access_log and use_colors say."""
        configure_logging(self.log_config, self.log_level, self.access_log, self.use_colors)

    def load_app(self) -> Any:
        """Import what app names. Raises AppImportError, or what the user's module raises."""
        if self.app_dir is not None:
            folder = os.path.abspath(self.app_dir)
            if sys.path[:1] != [folder]:
                sys.path.insert(0, folder)
        return import_from_string(self.app)

    def load(self) -> None:
        """Make ``loaded_app``, an ASGI 3 callable, and settle what depends on the application's interface.

        Raises AppImportError or ConfigError, or what the user's code raises.
        """
        app = self._called_factory(self.load_app())
        if not callable(app):
            raise AppImportError(f"app {self.app!r} is {app!r}, which can't be called: name an application")
        if self.interface == "auto":
            self.interface = detect_interface(app)
        adapters = {"asgi2": from_asgi2, "wsgi": from_wsgi}
        self.asgi_version = "2.0" if self.interface == "asgi2" else "3.0"
        if self.header_underscores is None:
            self.header_underscores = "drop" if self.interface == "wsgi" else "allow"
        self.encoded_headers = self._encoded_headers()
        self.loaded_app = adapters[self.interface](app) if self.interface in adapters else app
        self.loaded = True

    def _called_factory(self, app: Any) -> Any:
        if self.factory:
            if not callable(app) or not takes_no_arguments(app):
                raise AppImportError(
                    f"app {self.app!r} can't be called without arguments, as --factory asks for"
                )
            if is_coroutine_callable(app):
                raise AppImportError(
                    f"app {self.app!r} is a coroutine function: make the factory a plain function"
                )
            return app()
        if callable(app) and takes_no_arguments(app) and not is_coroutine_callable(app):
            logger.warning(
                "APP looks like an application factory and is called as one; say so with --factory."
            )
            return app()
        return app

    def _encoded_headers(self) -> list[tuple[bytes, bytes]]:
        encoded = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers or ()
        ]
        if self.server_header and all(name != b"server" for name, _ in encoded):
            encoded.insert(0, (b"server", b"fastasgi"))
        return encoded

    @property
    def lifespan_class(self) -> type["Lifespan"]:
        """The class of the lifespan protocol, made with this Config."""
        from fastasgi.lifespan import Lifespan

        return Lifespan

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """What makes the event loop. Raises ConfigError where the loop asked for is not installed."""
        if self.loop == "asyncio" or (self.loop == "auto" and importlib.util.find_spec("uvloop") is None):
            return asyncio.SelectorEventLoop if sys.platform != "win32" else asyncio.new_event_loop
        try:
            new_event_loop: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
                "uvloop"
            ).new_event_loop
        except ModuleNotFoundError:
            raise ConfigError("loop 'uvloop' is not installed: pip install uvloop, or use asyncio") from None
        return new_event_loop

    def bind_sockets(self) -> list[socket.socket]:
        """Bind what fd, uds, or host and port name, without listening; a host may have several addresses.

        A Unix socket's file is ``socket_file``, for whoever closes the socket to remove. Raises BindError.
        """
        if self.fd is not None:
            return [adopt_descriptor(self.fd)]
        if self.uds is not None:
            sock, self.socket_file = bind_unix(str(self.uds), int(self.uds_permissions))
            return [sock]
        return bind_tcp(self.host, self.port)

    def bind_socket(self) -> socket.socket:
        """Bind an inheritable socket for ``Server.run(sockets=[...])``, log its address. Raises BindError."""
        sock, *others = self.bind_sockets()
        for other in others:
            other.close()
        sock.set_inheritable(True)
        self.log_listening(sock)
        return sock

    def log_listening(self, sock: socket.socket) -> None:
        """Log the address of a bound socket as users are to type it."""
        host = self.host if self.fd is None else None
        logger.info("fastasgi running on %s (Press CTRL+C to quit)", describe(sock, host))


def _checked_log_level(level: Any) -> str | int | None:
    if isinstance(level, str) and level.lower() in LOG_LEVELS:
        return level.lower()
    if level is None or (isinstance(level, int) and not isinstance(level, bool)):
        return level
    raise ConfigError(f"log_level {level!r}: give {', '.join(LOG_LEVELS)}, or a number")


def _load_environment(path: str | os.PathLike[str]) -> None:
    try:
        dotenv = importlib.import_module("dotenv")
    except ModuleNotFoundError:
        raise ConfigError("env_file needs the python-dotenv package: pip install python-dotenv") from None
    logger.info("Loading environment from '%s'", path)
    try:
        with open(path, encoding="utf-8") as file:
            dotenv.load_dotenv(stream=file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"env_file {os.fspath(path)!r} can't be read: {reason}") from None


def settings_document() -> str:
    """The text of docs/settings.md."""
    return (
        "# Settings\n\n"
        "Each setting is a command line option, an environment variable and a parameter of `fastasgi.run`\n"
        "and `fastasgi.Config`. The variable is `FASTASGI_` and the name in Python, in capitals, such as\n"
        "`FASTASGI_TIMEOUT_KEEP_ALIVE=10`; several headers are separated by newlines. An option goes before\n"
        "its environment variable. An option that is on has an opposite, as in `--no-access-log`.\n\n"
        + markdown_table(Config)
    )


if __name__ == "__main__":
    print(settings_document(), end="")
