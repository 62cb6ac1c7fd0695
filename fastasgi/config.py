"""All settings, each written once: Config declares and checks them, and answers what they mean together.

The command line, the parameters of ``fastasgi.run`` and ``Config``, the environment variables and
``docs/settings.md`` come from the fields of Config.
"""

# ruff: noqa: RUF009  setting() makes dataclass fields, as dataclasses.field() does

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ssl import CERT_NONE, PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, Literal, get_args

from fastasgi.application.eventloop import LoopFactory, loop_factory
from fastasgi.application.importer import ImportFromStringError as ImportFromStringError
from fastasgi.application.importer import import_from_string as import_from_string
from fastasgi.application.importer import main_source
from fastasgi.application.interfaces import ASGIApp
from fastasgi.application.lifespan import Lifespan
from fastasgi.application.loading import as_asgi3, find_app, look_in
from fastasgi.application.wsgi import DEFAULT_THREADS
from fastasgi.errors import STARTUP_FAILURE as STARTUP_FAILURE
from fastasgi.errors import AppImportError, ConfigError
from fastasgi.logging import LOG_LEVELS as LOG_LEVELS
from fastasgi.logging import LOGGING_CONFIG as LOGGING_CONFIG
from fastasgi.logging import TRACE_LOG_LEVEL as TRACE_LOG_LEVEL
from fastasgi.logging import LogConfig, check_access_log_format, checked_log_level, configure_logging
from fastasgi.middleware.message_logger import MessageLoggerMiddleware as MessageLoggerMiddleware
from fastasgi.middleware.message_logger import traced
from fastasgi.settings.declaration import check_settings, setting
from fastasgi.sinks.socketsink import SocketSink
from fastasgi.sinks.tlssink import TLSSink
from fastasgi.system.adminsettings import admin_token, is_local, parse_admin
from fastasgi.system.environment import load_environment
from fastasgi.system.identity import available_processors, check_process_settings
from fastasgi.system.sockets import Bind, SocketFile, bind_all, describe, parse_bind, systemd_sockets
from fastasgi.tls.contexts import CIPHERS, TLS, TLSFiles, check_tls_settings
from fastasgi.trust.forwarded import FIELDS, Forwarding
from fastasgi.trust.peers import TrustedPeers, split_peers

logger = logging.getLogger("fastasgi.error")

# uvicorn's types of settings, with its values in its order
HTTPProtocolType = Literal["auto", "fastasgi", "httptools", "h11", "zttp"]
WSProtocolType = Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"]
LifespanType = Literal["auto", "on", "off"]
LoopFactoryType = Literal["auto", "uvloop", "asyncio", "none", "zuvloop"]
InterfaceType = Literal["auto", "asgi3", "asgi2", "wsgi"]
INTERFACES: list[InterfaceType] = list(get_args(InterfaceType))
# uvicorn's mappings from these values to classes. Programs use their keys.
_PROTOCOL = "fastasgi.sinks.socketsink:SocketSink"
HTTP_PROTOCOLS: dict[str, str] = dict.fromkeys(get_args(HTTPProtocolType), _PROTOCOL)
WS_PROTOCOLS: dict[str, str | None] = {**dict.fromkeys(get_args(WSProtocolType), _PROTOCOL), "none": None}
LIFESPAN: dict[str, str] = dict.fromkeys(get_args(LifespanType), "fastasgi.application.lifespan:Lifespan")

SSL_PROTOCOL_VERSION = int(PROTOCOL_TLS_SERVER)

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
DEFAULT_TRUSTED = "127.0.0.1, ::1"
DEFAULT_FORWARDED = "x-forwarded-for, x-forwarded-proto"
HEAD_BYTES = 65536
GRACE_TIMEOUT_S = 20.0
HTTP2_DEFAULT_WINDOW, HTTP2_MOST_WINDOW = 65535, 2**31 - 1  # bytes: RFC 9113 sections 6.9.1 and 6.9.2
STALL_S, RELOAD_STALL_S = 1.0, 0.1
RELOAD_GRACE_S = 1.0  # of timeout_graceful_shutdown with reload: a developer waits for the restart

_APP, _LISTEN, _HTTP, _HTTP2 = "Application", "Listening", "HTTP", "HTTP/2"
_LOG, _LIMIT, _TIMEOUT = "Logging", "Limits", "Timeouts"
_TLS, _PROCESS, _RELOAD = "TLS", "Processes", "Reload"
_PROXY, _WEBSOCKET, _OBSERVE = "Proxies", "WebSockets", "Observability"

_NO_CLASS = "protocol classes are not taken, since connections are compiled: leave it out"


@dataclass(eq=False)
class Config:
    """The settings of one server. Names, order and defaults are uvicorn's for all settings that uvicorn has.

    Making one checks every setting, reads ``env_file`` and sets up logging. Raises ConfigError.
    """

    app: ASGIApp | Callable[..., Any] | str
    host: str = setting(
        "text",
        DEFAULT_HOST,
        _LISTEN,
        "Address or host name to listen on. An empty one, or in Python None, means all addresses.",
        empty_is_value=True,
    )
    port: int = setting(
        "whole",
        DEFAULT_PORT,
        _LISTEN,
        "Port to listen on. With 0 the system chooses a free one, which the log shows.",
        least=0,
        most=65535,
    )
    uds: str | os.PathLike[str] | None = setting(
        "path", None, _LISTEN, "Path of a Unix socket to listen on instead of host and port."
    )
    fd: int | None = setting(
        "whole",
        None,
        _LISTEN,
        "Number of an open socket, inherited from the parent process, to listen on instead of uds, host "
        "and port.",
        least=0,
    )
    loop: str | asyncio.AbstractEventLoop | LoopFactory = setting(
        "text",
        "auto",
        _PROCESS,
        "Event loop: auto is uvloop if it is installed, otherwise asyncio's; none is the one that asyncio"
        " makes by itself; uvicorn's zuvloop means auto. Or the import string of a function that makes an"
        " event loop. In Python also that function, or the loop in which you await serve().",
        choices=get_args(LoopFactoryType),
        takes_import_string=True,
        takes=lambda value: callable(value) or isinstance(value, asyncio.AbstractEventLoop),
    )
    http: str = setting(
        "text",
        "auto",
        _HTTP,
        "Parser of HTTP/1.x requests: fastasgi's own, or httptools. auto means fastasgi, and so do "
        "uvicorn's values h11 and zttp.",
        choices=get_args(HTTPProtocolType),
        takes_no_class=_NO_CLASS,
    )
    http2: bool | str = setting(
        "switch",
        "on",
        _HTTP2,
        "HTTP/2: on serves it beside HTTP/1.1, to clients that choose it by ALPN in TLS, or without TLS "
        "begin with its preface (prior knowledge); off serves HTTP/1.1 alone, only HTTP/2 alone. In Python "
        "also True and False.",
        choices=("on", "off", "only"),
    )
    ws: str = setting(
        "text",
        "auto",
        _WEBSOCKET,
        "Whether WebSockets are served: none turns them off. uvicorn's other values mean auto.",
        choices=get_args(WSProtocolType),
        takes_no_class=_NO_CLASS,
    )
    ws_max_size: int = setting(
        "whole",
        16 * 1024 * 1024,
        _WEBSOCKET,
        "Size of the largest WebSocket message that is accepted, after decompression. A larger one closes"
        " the WebSocket with code 1009.",
        unit="bytes",
        least=1,
        is_limit=True,
    )
    ws_max_queue: int = setting(
        "whole",
        32,
        _WEBSOCKET,
        "Number of received messages that may wait for the application, together at most 1 MiB. While "
        "they do, nothing more is read from the client.",
        least=1,
        is_limit=True,
    )
    ws_ping_interval: float | None = setting(
        "number",
        20.0,
        _WEBSOCKET,
        "Time between two pings to a WebSocket client; 0 disables pings.",
        unit="seconds",
        least=0,
        is_limit=True,
        optional=True,
    )
    ws_ping_timeout: float | None = setting(
        "number",
        20.0,
        _WEBSOCKET,
        "Time that a client has to answer a ping; then the WebSocket is closed with code 1011. 0 disables"
        " the limit.",
        unit="seconds",
        least=0,
        is_limit=True,
        optional=True,
    )
    ws_per_message_deflate: bool = setting(
        "switch",
        True,
        _WEBSOCKET,
        "Compress messages if the client offers it (permessage-deflate, RFC 7692).",
    )
    lifespan: str = setting(
        "text",
        "auto",
        _APP,
        "Whether the application is told when the server starts and stops (ASGI's lifespan). auto tries "
        "it, and serves without it if the application raises an exception; with on that exception ends "
        "the server.",
        choices=get_args(LifespanType),
    )
    env_file: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _PROCESS,
        "File of environment variables for the application; needs the python-dotenv package. Settings of "
        "fastasgi in it have no effect.",
    )
    log_config: LogConfig = setting(
        "object",
        None,
        _LOG,
        "Logging configuration: an .ini, .json or .yaml file. In Python also a dict, or None to leave the"
        " loggers' handlers as they are.",
        default_factory=lambda: LOGGING_CONFIG,
        default_text="built in",
    )
    log_level: str | int | None = setting(
        "object",
        None,
        _LOG,
        "Lowest level that is logged.",
        choices=tuple(LOG_LEVELS),
        default_text="info",
    )
    access_log: bool = setting("switch", True, _LOG, "Log a line for each request.")
    use_colors: bool | None = setting("switch", None, _LOG, "Colour the log.", default_text="on a terminal")
    interface: str = setting(
        "text",
        "auto",
        _APP,
        "Interface that the application is written for. auto recognizes it, and says so in the log if it "
        "is WSGI.",
        choices=get_args(InterfaceType),
    )
    reload: bool = setting(
        "switch",
        False,
        _RELOAD,
        "Restart the worker when source files change, for development. Needs pip install 'fastasgi[reload]'.",
    )
    reload_dirs: list[str] | str | None = setting(
        "list",
        None,
        _RELOAD,
        "Folder to watch, with all that is in it; may be repeated.",
        option_name="reload-dir",
        default_text="current folder",
    )
    reload_delay: float = setting(
        "number",
        0.25,
        _RELOAD,
        "Time within which several changes cause one restart.",
        unit="seconds",
        least=0,
    )
    reload_includes: list[str] | str | None = setting(
        "list",
        None,
        _RELOAD,
        "Further files to watch, as a glob pattern, or a folder; may be repeated.",
        option_name="reload-include",
        default_text="*.py",
    )
    reload_excludes: list[str] | str | None = setting(
        "list",
        None,
        _RELOAD,
        "Files not to watch, as a glob pattern, or a folder; may be repeated.",
        option_name="reload-exclude",
        default_text=".*, .py[cod], .sw.*, ~*",
    )
    workers: int | str | None = setting(
        "count",
        None,
        _PROCESS,
        "Number of worker processes, which a supervisor process starts and watches. auto is one for each "
        "processor that may be used; 0 is one process without a supervisor.",
        least=0,
        default_text="no supervisor, one process",
    )
    proxy_headers: bool = setting(
        "switch",
        True,
        _PROXY,
        "Take the client's address and the scheme from headers of trusted proxies: see "
        "forwarded_allow_ips and forwarded_headers.",
    )
    server_header: bool = setting("switch", True, _HTTP, "Send the server header.")
    date_header: bool = setting("switch", True, _HTTP, "Send the date header.")
    forwarded_allow_ips: list[str] | str | None = setting(
        "list",
        None,
        _PROXY,
        "Trusted proxy, whose forwarded_headers are believed: an address, a network such as 10.0.0.0/8, "
        "unix for all Unix sockets, unix:PATH for the one that is listened on at this path, or * for "
        "everybody; may be repeated.",
        default_text=DEFAULT_TRUSTED,
    )
    root_path: str = setting(
        "text", "", _APP, "URL path under which a proxy serves the application (ASGI's root_path)."
    )
    limit_concurrency: int | None = setting(
        "whole",
        None,
        _LIMIT,
        "Number of requests and open WebSockets that are served at the same time. Further ones are "
        "answered with 503, except health checks at health_path.",
        least=1,
        is_limit=True,
    )
    limit_max_requests: int | None = setting(
        "whole",
        None,
        _LIMIT,
        "Number of requests after which a process ends gracefully; a supervisor replaces it.",
        least=1,
        is_limit=True,
    )
    limit_max_requests_jitter: int = setting(
        "whole",
        0,
        _LIMIT,
        "A random number up to this one is added to limit_max_requests, so that workers do not end together.",
        least=0,
    )
    backlog: int = setting(
        "whole", 4096, _LISTEN, "Number of connections that may wait to be accepted.", least=0
    )
    timeout_keep_alive: float = setting(
        "number",
        5,
        _TIMEOUT,
        "Time for which an idle connection is kept open for another request; 0 closes it after each "
        "response.",
        unit="seconds",
        least=0,
    )
    timeout_notify: float = setting(
        "number",
        30,
        _TIMEOUT,
        "Time between two calls of callback_notify; 0 means 1 second.",
        unit="seconds",
        least=0,
        on_command_line=False,
    )
    timeout_graceful_shutdown: float | None = setting(
        "number",
        None,
        _TIMEOUT,
        "Time that running requests have to finish once the server is told to stop. Then they get "
        "http.disconnect, 2 seconds later they are cancelled, and at most 8 seconds after this time the "
        "process ends. WebSockets are closed at once.",
        unit="seconds",
        least=0,
        default_text=f"{GRACE_TIMEOUT_S:g}",
    )
    timeout_worker_healthcheck: float = setting(
        "number",
        60,
        _TIMEOUT,
        "Time for which a worker's event loop may be blocked; then its stacks are logged and it is "
        "replaced. 0 disables the check, and so does reload.",
        unit="seconds",
        least=0,
        is_limit=True,
    )
    callback_notify: Callable[[], Awaitable[None]] | None = setting(
        "object",
        None,
        _PROCESS,
        "Coroutine function that is called at the start, and then again after each timeout_notify.",
        on_command_line=False,
    )
    ssl_keyfile: list[str] | str | os.PathLike[str] | None = setting(
        "paths",
        None,
        _TLS,
        "File of the private key, in PEM format. With several certificates, repeat it in the order of "
        "ssl_certfile.",
        default_text="in the certificate's file",
    )
    ssl_certfile: list[str] | str | os.PathLike[str] | None = setting(
        "paths",
        None,
        _TLS,
        "File of a certificate and its chain, in PEM format; turns TLS on. May be repeated: a client gets"
        " the certificate for the host name that it asks for, otherwise the first one.",
    )
    ssl_keyfile_password: str | None = setting(
        "text",
        None,
        _TLS,
        "Password of every private key. Set it in the environment, since other users can see a command line.",
        is_secret=True,
    )
    ssl_version: int = setting(
        "whole",
        SSL_PROTOCOL_VERSION,
        _TLS,
        "Versions of TLS: 17 (or 2) is TLS 1.2 and later, 5 is TLS 1.2 alone. The numbers are those of "
        "the ssl module's constants.",
    )
    ssl_cert_reqs: int = setting(
        "whole",
        int(CERT_NONE),
        _TLS,
        "Certificates of clients: 0 asks for none, 1 accepts one, 2 requires one.",
        least=0,
        most=2,
    )
    ssl_ca_certs: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _TLS,
        "File of the certificates, in PEM format, that clients' certificates must be signed by.",
    )
    ssl_ciphers: str | None = setting(
        "text",
        None,
        _TLS,
        "Ciphers of TLS 1.2 as an OpenSSL cipher list; those of TLS 1.3 are always on. TLSv1, the default"
        " of older versions of uvicorn, means this default.",
        default_text=CIPHERS,
    )
    ssl_context_factory: Callable[..., SSLContext] | None = setting(
        "object",
        None,
        _TLS,
        "Function that returns the ssl.SSLContext to use; called for each certificate. Its arguments are "
        "this Config, and a function without parameters that makes the usual context.",
        on_command_line=False,
    )
    headers: list[tuple[str, str]] | None = setting(
        "headers",
        None,
        _HTTP,
        "Header to add to every response, as name:value; may be repeated. In Python a list of (name, value).",
        option_name="header",
        default_text="none",
    )
    factory: bool = setting(
        "switch", False, _APP, "APP is not the application but a function without parameters that returns it."
    )
    h11_max_incomplete_event_size: int | None = setting(
        "whole",
        None,
        _LIMIT,
        "uvicorn's name for limit_request_head, used if that is not set.",
        unit="bytes",
        least=16,
        is_limit=True,
    )
    reset_contextvars: bool = setting(
        "switch", False, _PROCESS, "Has no effect: no request ever sees another's context variables."
    )

    app_dir: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _APP,
        "Folder in which APP is looked for first: it is put at the front of sys.path. In Python not set "
        "by default.",
        empty_is_value=True,
        default_text="current folder",
    )
    uds_permissions: int | str = setting(
        "octal", 0o666, _LISTEN, "File permissions of the Unix socket.", least=0, most=0o777
    )
    access_log_format: str | None = setting(
        "text",
        None,
        _LOG,
        "Format of the access log: json, or a text with {client} {method} {path} {query} {http_version} "
        "{status} {bytes} {duration_us} {time} {user_agent} {referer} {header[name]}.",
        default_text="uvicorn's line",
    )
    header_underscores: str | None = setting(
        "text",
        None,
        _HTTP,
        "What to do with request headers that have an underscore in their name: allow passes them on, "
        "drop leaves them out, refuse answers the request with 400.",
        choices=("allow", "drop", "refuse"),
        default_text="allow; for WSGI drop",
    )
    limit_connections: int | None = setting(
        "whole",
        None,
        _LIMIT,
        "Number of connections that a worker has open at the same time, WebSockets and idle ones included. "
        "At the limit the one that has been idle for longest is closed to let another client in. If none is "
        "idle, further clients wait.",
        least=1,
        is_limit=True,
    )
    limit_request_line: int = setting(
        "whole",
        16384,
        _LIMIT,
        "Length of the longest request line that is accepted. A longer one is answered with 414. No "
        "limit means 1 MiB.",
        unit="bytes",
        least=16,
        is_limit=True,
    )
    limit_request_head: int = setting(
        "whole",
        HEAD_BYTES,
        _LIMIT,
        "Length of the longest request line and headers that are accepted. Longer ones are answered with "
        "431. No limit means 4 MiB.",
        unit="bytes",
        least=16,
        is_limit=True,
    )
    limit_request_fields: int = setting(
        "whole",
        100,
        _LIMIT,
        "Number of headers that a request may have. More are answered with 431. No limit means 32768.",
        least=1,
        is_limit=True,
    )
    limit_request_body: int = setting(
        "whole",
        0,
        _LIMIT,
        "Length of the longest request body that is accepted. A longer one is answered with 413. 0 "
        "disables the limit.",
        unit="bytes",
        least=0,
        is_limit=True,
    )
    timeout_request_head: float = setting(
        "number",
        30,
        _TIMEOUT,
        "Time that a client has to send the head of a request; then it is answered with 408. 0 disables "
        "the limit.",
        unit="seconds",
        least=0,
        is_limit=True,
    )
    timeout_request_body: float = setting(
        "number",
        60,
        _TIMEOUT,
        "Time that the application waits for more of a request's body; then the request is answered with "
        "408. 0 disables the limit.",
        unit="seconds",
        least=0,
        is_limit=True,
    )
    timeout_write: float = setting(
        "number",
        60,
        _TIMEOUT,
        "Time for which a client may take nothing of its response; then the connection is cut off. 0 "
        "disables the limit.",
        unit="seconds",
        least=0,
        is_limit=True,
    )

    bind: list[str] | str | None = setting(
        "list",
        None,
        _LISTEN,
        "Address to listen on instead of host and port: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER; "
        "may be repeated.",
        default_text="host and port, or systemd's sockets",
    )
    reuse_port: bool = setting(
        "switch",
        False,
        _LISTEN,
        "Let servers that are started separately, also in containers on the host's network, listen on the "
        "same TCP port (SO_REUSEPORT): all with this setting and by one user. The system, if it is Linux, "
        "spreads new connections over them. Those that wait at a server that is blocked or ends are not taken"
        " by the others. The workers of one server need it not: they share a socket.",
    )
    preload: bool = setting(
        "switch",
        False,
        _PROCESS,
        "Import the application once, in the supervisor, and fork the workers from it, so that they share"
        " memory.",
    )
    limit_worker_rss: int | None = setting(
        "whole",
        None,
        _LIMIT,
        "Resident memory above which a worker is replaced. Linux only.",
        unit="MiB",
        least=1,
        is_limit=True,
    )
    limit_worker_lifetime: float | None = setting(
        "number",
        None,
        _LIMIT,
        "Age at which a worker is replaced.",
        unit="seconds",
        least=1,
        is_limit=True,
    )
    timeout_worker_startup: float = setting(
        "number",
        0,
        _TIMEOUT,
        "Time that a worker has to become ready to serve; 0 disables the limit. Until it is ready, the "
        "log says every 30 seconds what it is doing.",
        unit="seconds",
        least=0,
        is_limit=True,
    )
    timeout_drain: float = setting(
        "number",
        0,
        _TIMEOUT,
        "Time for which a server that was told to stop serves on, while health_path answers 503.",
        unit="seconds",
        least=0,
    )
    health_path: str | None = setting(
        "text",
        None,
        _APP,
        "URL path at which the server itself answers health checks: with 200, and with 503 once it was "
        "told to stop.",
    )
    pid_file: str | os.PathLike[str] | None = setting(
        "path", None, _PROCESS, "File to write the process id to."
    )
    process_name: str | None = setting(
        "text", None, _PROCESS, "Name of the processes as ps shows it; needs the setproctitle package."
    )
    cpu_affinity: str | None = setting(
        "text",
        None,
        _PROCESS,
        "Bind each worker to one processor: auto, or numbers such as 0,2,4-7. Linux only.",
    )
    user: str | None = setting(
        "text",
        None,
        _PROCESS,
        "User to become once the sockets are bound. With preload the application is imported before that.",
    )
    group: str | None = setting(
        "text", None, _PROCESS, "Group to become once the sockets are bound.", default_text="the user's"
    )
    umask: int | str | None = setting(
        "octal",
        None,
        _PROCESS,
        "File mode creation mask (umask) of the processes that serve.",
        least=0,
        most=0o777,
        default_text="not changed",
    )

    http2_max_concurrent_streams: int = setting(
        "whole",
        100,
        _HTTP2,
        "Number of requests and WebSockets that one HTTP/2 connection may have open at the same time. "
        "Further ones are refused, and clients try them again.",
        least=1,
        most=2**31 - 1,
    )
    http2_initial_stream_window_size: int = setting(
        "whole",
        256 * 1024,
        _HTTP2,
        "How much of a request's body an HTTP/2 client may send before the application has received any of "
        "it.",
        unit="bytes",
        least=HTTP2_DEFAULT_WINDOW,  # a client may send so much before it has read the server's settings
        most=HTTP2_MOST_WINDOW,
    )
    http2_initial_connection_window_size: int = setting(
        "whole",
        1024 * 1024,
        _HTTP2,
        "How much of all requests' bodies together an HTTP/2 client may send on a connection before "
        "applications have received any of it.",
        unit="bytes",
        least=HTTP2_DEFAULT_WINDOW,
        most=HTTP2_MOST_WINDOW,
    )
    http2_keep_alive_interval: float | None = setting(
        "number",
        None,
        _HTTP2,
        "Time after which an HTTP/2 client that has requests open, and from which nothing has come, gets a "
        "ping; 0 disables pings.",
        unit="seconds",
        least=0,
        is_limit=True,
        default_text="no pings",
    )
    http2_keep_alive_timeout: float | None = setting(
        "number",
        20.0,
        _HTTP2,
        "Time that an HTTP/2 client has to answer a ping; then its connection is cut off. 0 disables the "
        "limit.",
        unit="seconds",
        least=0,
        is_limit=True,
        optional=True,
    )

    ssl_handshake_timeout: float = setting(
        "number",
        10,
        _TLS,
        "Time that a client has for the TLS handshake; 0 disables the limit.",
        unit="seconds",
        least=0,
        is_limit=True,
    )
    forwarded_headers: list[str] | str | None = setting(
        "list",
        None,
        _PROXY,
        f"Header that is believed of a trusted proxy: {', '.join(FIELDS)}. Name only those that the proxy "
        "sets itself, since it passes others on as the client sent them. May be repeated.",
        option_name="forwarded-header",
        default_text=DEFAULT_FORWARDED,
    )
    strip_forwarded_headers: bool = setting(
        "switch",
        False,
        _PROXY,
        "Remove Forwarded and all X-Forwarded headers from requests of peers that are not trusted. "
        "Without proxy_headers no peer is.",
    )
    proxy_protocol: list[str] | str | None = setting(
        "list",
        None,
        _PROXY,
        "Proxy whose connections begin with a header of the PROXY protocol, version 1 or 2; written as in"
        " forwarded_allow_ips. Other peers must not send one. May be repeated.",
        default_text="off",
    )
    threads: int | None = setting(
        "whole",
        None,
        _PROCESS,
        "Number of threads in each process that run a WSGI application.",
        least=1,
        default_text=f"{DEFAULT_THREADS}",
    )

    admin: str | None = setting(
        "text",
        None,
        _OBSERVE,
        "Address at which the server tells of itself: a dashboard, metrics for Prometheus, and whether it is "
        "live and ready. HOST:PORT, [IPV6]:PORT or unix:PATH. A process of its own answers there.",
    )
    admin_token_file: str | os.PathLike[str] | None = setting(
        "path",
        None,
        _OBSERVE,
        "File whose first line is the token that admin asks for, 16 characters or more. It may be left out "
        "on a loopback address or a Unix socket, where then everybody who reaches it is told all.",
    )
    admin_token: str | None = setting(
        "text",
        None,
        _OBSERVE,
        "The token itself, in place of admin_token_file.",
        on_command_line=False,
        is_secret=True,
    )
    log_stall: float | None = setting(
        "number",
        None,
        _OBSERVE,
        "Time for which the event loop may be blocked; then the log tells what blocks it. 0 disables this.",
        unit="seconds",
        least=0,
        default_text=f"{STALL_S:g}, with reload {RELOAD_STALL_S:g}",
    )
    log_slow: float | None = setting(
        "number",
        None,
        _OBSERVE,
        "Time that a request may take; then the log tells where it waits.",
        unit="seconds",
        least=0,
        is_limit=True,
        default_text="off",
    )
    overload_delay: float | None = setting(
        "number",
        None,
        _LIMIT,
        "Time that requests may wait for the event loop. Once all of them have waited longer, for 20 times "
        "this time, those that come while it is as late are answered with 503.",
        unit="seconds",
        least=0.005,
        is_limit=True,
        default_text="off",
    )

    asks_for_workers: bool = field(default=False, init=False)  # also for 1, which workers is by default too
    loaded: bool = field(default=False, init=False)
    loaded_app: Any = field(default=None, init=False, repr=False)
    asgi_version: str = field(default="3.0", init=False)
    encoded_headers: list[tuple[bytes, bytes]] = field(default_factory=list, init=False, repr=False)
    socket_files: list[SocketFile] = field(default_factory=list, init=False, repr=False)
    is_bound_to_host: bool = field(default=False, init=False, repr=False)
    uvicorn_names: list[str] = field(
        default_factory=list, init=False, repr=False
    )  # the names of uvicorn's that log_config has
    tls: TLS | None = field(default=None, init=False, repr=False)
    tls_files: TLSFiles | None = field(default=None, init=False, repr=False)

    @classmethod
    def with_tls_files(cls, files: TLSFiles | None, **settings: Any) -> "Config":
        """Make a Config, with files of TLS that another process has read; None has them read here."""
        config = cls.__new__(cls)
        config.tls_files = files
        cls.__init__(config, **settings)
        return config

    def __post_init__(self) -> None:
        self._check_for_half_a_certificate()
        self._read_web_concurrency()
        check_settings(self)
        self.log_level = checked_log_level(self.log_level)
        self.asks_for_workers = bool(self.workers)
        self.workers = self.workers or 1
        if self.h11_max_incomplete_event_size is not None and self.limit_request_head == HEAD_BYTES:
            self.limit_request_head = self.h11_max_incomplete_event_size
        if self.headers is None:
            self.headers = []
        self._check_proxies()
        self._check_together()
        if self.log_config is not LOGGING_CONFIG:  # it may name classes that stand beside the application
            look_in(self.app_dir)
        self.configure_logging()
        if self.access_log_format is not None:
            check_access_log_format(self.access_log_format)
        if self.env_file is not None:
            load_environment(self.env_file)
        # Here, before a process gives up its rights: keys are often root's alone
        if self.ssl_certfile or self.ssl_context_factory is not None:
            self.tls = TLS(self, self.tls_files)

    def _check_for_half_a_certificate(self) -> None:
        """Raise ConfigError for an empty certificate or key beside a set one: TLS would go off unseen."""
        for name, other in (("ssl_certfile", "ssl_keyfile"), ("ssl_keyfile", "ssl_certfile")):
            if _is_empty(getattr(self, name)):
                if getattr(self, other) is not None and not _is_empty(getattr(self, other)):
                    raise ConfigError(f"{name} is empty, and {other} is not: give both, or none of them")
                setattr(self, name, None)

    def _read_web_concurrency(self) -> None:
        """Take workers from WEB_CONCURRENCY if it is not given. Raises ConfigError."""
        text = os.environ.get("WEB_CONCURRENCY", "").strip()
        if self.workers in (None, ""):
            if text and text != "auto" and not text.isdecimal():
                raise ConfigError(f"WEB_CONCURRENCY {text!r}: give a whole number, 0 or more, or auto")
            self.workers = text or None

    def _check_together(self) -> None:
        """Check settings against each other, and against what this machine has. Raises ConfigError."""
        found = set()
        for text in self.bind or ():
            if (parsed := parse_bind(text)) in found and parsed.port != 0:
                raise ConfigError(f"bind {text!r} is given twice: leave one out")
            found.add(parsed)
        if self.health_path is not None and not self.health_path.startswith("/"):
            raise ConfigError(f"health_path {self.health_path!r}: give a path that begins with a slash")
        if self.app_dir is not None and not os.path.isdir(self.app_dir or "."):
            raise ConfigError(f"app_dir {os.fspath(self.app_dir)!r} is not a folder: name one that exists")
        if self.reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigError("reuse_port: this platform has no SO_REUSEPORT: leave it out")
        for name in ("callback_notify", "ssl_context_factory"):
            if (function := getattr(self, name)) is not None and not callable(function):
                raise ConfigError(f"{name} {function!r}: give a function")
        check_process_settings(self)
        check_tls_settings(self)
        if self.admin is not None:
            admin_token(self.admin, self.admin_token_file, self.admin_token)
            if (parsed := parse_admin(self.admin)) in found and parsed.port != 0:
                raise ConfigError(f"admin {self.admin!r} is an address of bind, too: give it another one")
            if self.ssl_context_factory is not None and not (self.ssl_certfile or is_local(parsed)):
                raise ConfigError(
                    f"admin {self.admin!r} would have no TLS, which it has by ssl_certfile alone: set that, "
                    "or give 127.0.0.1:PORT or unix:PATH"
                )
        if not self.is_supervised:
            return
        if os.name != "posix":
            raise ConfigError("workers and reload are not supported on Windows: leave them out")
        if self.reload and self.preload:
            raise ConfigError("preload can't be used with reload: leave one of them out")
        if not isinstance(self.app, str) and not self.preload and (self.reload or self.worker_count > 1):
            what = "reload" if self.reload else "workers"
            raise ConfigError(f"{what} needs app as an import string such as 'main:app', not the object")
        if str(self.app).startswith("__main__:") and not self.preload and main_source() is None:
            raise AppImportError(
                f"app {self.app!r} can't be imported by workers, since this program has no file: "
                "put it into a module, or leave workers and reload out"
            )

    def _check_proxies(self) -> None:
        """Check who is trusted and with what, and bring each to a list."""
        if self.forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", DEFAULT_TRUSTED)
        self.forwarded_allow_ips = split_peers(self.forwarded_allow_ips)
        _check_peers("forwarded_allow_ips", self.forwarded_allow_ips)
        self.proxy_protocol = split_peers(self.proxy_protocol or ())
        _check_peers("proxy_protocol", self.proxy_protocol)
        fields = split_peers(DEFAULT_FORWARDED if self.forwarded_headers is None else self.forwarded_headers)
        self.forwarded_headers = fields = [name.lower() for name in fields]
        for name in fields:
            if name not in FIELDS:
                raise ConfigError(f"forwarded_headers {name!r}: give some of {', '.join(FIELDS)}")
        others = sorted({*fields} - {"forwarded", "x-forwarded-prefix"})
        if "forwarded" in fields and others:
            raise ConfigError(
                f"forwarded_headers: forwarded and {others[0]} say the same, and a proxy that sets one "
                "passes the other on from the client: leave out the one that it does not set"
            )

    @property
    def proxy_peers(self) -> TrustedPeers | None:
        """The peers whose connections begin with a PROXY header; None if there are none."""
        return TrustedPeers(self.proxy_protocol) if self.proxy_protocol else None

    @property
    def forwarding(self) -> Forwarding | None:
        """Which proxies are trusted, and what of theirs is believed; None if no header is to be looked at."""
        if not (self.proxy_headers or self.strip_forwarded_headers):
            return None
        trusted = self.forwarded_allow_ips if self.proxy_headers else None
        return Forwarding(
            TrustedPeers(trusted or ()), self.forwarded_headers or (), strips=self.strip_forwarded_headers
        )

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor starts worker processes; otherwise the one process serves."""
        if self.reload or self.preload or self.limit_worker_rss or self.limit_worker_lifetime:
            return True
        if self.admin is not None and isinstance(self.app, str):
            return True
        # An application that is an object can't be handed to another process, and one worker needs no other
        return self.asks_for_workers and (isinstance(self.app, str) or self.workers != 1)

    @property
    def use_subprocess(self) -> bool:
        """uvicorn's name for ``is_supervised``."""
        return self.is_supervised

    @property
    def should_reload(self) -> bool:
        """Whether a worker is replaced when files change."""
        return self.reload and isinstance(self.app, str)

    @property
    def is_ssl(self) -> bool:
        """Whether connections are served over TLS."""
        return self.tls is not None

    @property
    def worker_count(self) -> int:
        """The number of worker processes."""
        if self.reload:
            return 1
        return available_processors() if self.workers == "auto" else int(self.workers or 1)

    @property
    def grace_timeout_s(self) -> float:
        """Time that running requests have to end once the server stops."""
        if self.timeout_graceful_shutdown is not None:
            return self.timeout_graceful_shutdown
        return RELOAD_GRACE_S if self.reload else GRACE_TIMEOUT_S

    @property
    def log_stall_s(self) -> float:
        """Time for which the event loop may be blocked before the log tells of it; 0 if it never does."""
        if self.log_stall is not None:
            return self.log_stall
        return RELOAD_STALL_S if self.reload else STALL_S

    @property
    def healthcheck_timeout_s(self) -> float:
        """Time for which a worker's event loop may be blocked; 0 disables the check.

        With reload it is disabled, since a developer may hold the worker in a debugger.
        """
        return 0 if self.reload else self.timeout_worker_healthcheck

    def configure_logging(self) -> None:
        """Set the loggers up as log_config, log_level, access_log and use_colors say."""
        self.uvicorn_names = configure_logging(
            self.log_config, self.log_level, self.access_log, self.use_colors
        )

    def load_app(self) -> Any:
        """Import what app names. Raises AppImportError, or what the user's module raises."""
        return find_app(self)

    def load(self) -> None:
        """Make ``loaded_app``, an ASGI 3 callable, and settle what depends on the application's interface.

        Raises AppImportError or ConfigError, or what the user's code raises.
        """
        app, self.interface = as_asgi3(self, self.load_app())
        self.asgi_version = "2.0" if self.interface == "asgi2" else "3.0"
        if self.header_underscores is None:
            self.header_underscores = "drop" if self.interface == "wsgi" else "allow"
        self.encoded_headers = self._encoded_headers()
        self.loaded_app = traced(app)
        self.loaded = True

    def _encoded_headers(self) -> list[tuple[bytes, bytes]]:
        encoded = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers or ()
        ]
        if self.server_header and all(name != b"server" for name, _ in encoded):
            encoded.insert(0, (b"server", b"fastasgi"))
        return encoded

    @property
    def http_protocol_class(self) -> type[SocketSink | TLSSink]:
        """The class of what reads and writes for each connection, for its name: only a Server can make one.

        All of HTTP and WebSockets begins there, whatever http and ws say; a class can't be set.
        """
        return SocketSink if self.tls is None else TLSSink

    @property
    def ws_protocol_class(self) -> type[SocketSink | TLSSink] | None:
        """The class of what reads and writes for each connection; None if WebSockets are not served."""
        return self.http_protocol_class if self.serves_websockets else None

    @property
    def serves_websockets(self) -> bool:
        """Whether WebSockets are served. Known once the application is loaded."""
        return self.ws != "none" and self.interface != "wsgi"

    @property
    def lifespan_class(self) -> type[Lifespan]:
        """The class of the lifespan protocol, made with this Config."""
        return Lifespan

    def get_loop_factory(self) -> LoopFactory:
        """The function that makes the event loop. Raises ConfigError if there is no such loop here."""
        return loop_factory(self.loop)

    def bind_sockets(self) -> list[socket.socket]:
        """Bind what bind, fd, uds, or host and port name, without listening. A host may have many addresses.

        With none of them given systemd's sockets are taken if there are some. The files of Unix sockets
        are ``socket_files``, for whoever closes the sockets to remove. Raises BindError.
        """
        binds = self._binds()
        if not binds:
            passed = systemd_sockets() if (self.host, self.port) == (DEFAULT_HOST, DEFAULT_PORT) else []
            self.is_bound_to_host = not passed
            if not self.host:
                logger.info("host is empty: listening on all addresses of this machine")
            if passed:
                return passed
            binds = [Bind(host=self.host, port=self.port)]
        sockets, files = bind_all(binds, int(self.uds_permissions), reuse_port=self.reuse_port)
        self.socket_files += files
        return sockets

    def _binds(self) -> list[Bind]:
        """The addresses that are given in place of host and port."""
        if self.bind:
            return [parse_bind(text) for text in self.bind]
        if self.fd is not None:
            return [Bind(fd=self.fd)]
        return [] if self.uds is None else [Bind(path=str(self.uds))]

    def bind_socket(self) -> socket.socket:
        """Bind an inheritable socket for ``Server.run(sockets=[...])``, log its address. Raises BindError."""
        sock, *others = self.bind_sockets()
        for other in others:
            other.close()
        sock.set_inheritable(True)
        self.log_listening([sock])
        return sock

    def log_listening(self, sockets: list[socket.socket]) -> None:
        """Log the addresses of bound sockets as users are to type them; of a host only the first."""
        host = self.host if self.is_bound_to_host else None
        for sock in sockets[:1] if self.is_bound_to_host else sockets:
            logger.info("fastasgi running on %s (Press CTRL+C to quit)", describe(sock, host, self.is_ssl))

    @property
    def ssl(self) -> SSLContext | None:
        """The context that connections are served with, of several certificates the first one's; or None.

        A context may be set in its place until the server starts; None serves without TLS. What is changed in
        the usual one is gone once files have been read again: see ssl_context_factory.
        """
        return None if self.tls is None else self.tls.context_for(None)

    @ssl.setter
    def ssl(self, context: SSLContext | None) -> None:
        self.ssl_context_factory = None if context is None else lambda config, default: context
        self.tls = None if context is None else TLS(self)


def _check_peers(name: str, peers: list[str]) -> None:
    for text in peers:
        try:
            TrustedPeers(text)
        except ValueError as error:
            raise ConfigError(f"{name} {error}") from None


def _is_empty(paths: Any) -> bool:
    return isinstance(paths, str | list | tuple) and not any(paths)
