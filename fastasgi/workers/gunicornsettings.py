"""What gunicorn's settings mean for ours.

Knows gunicorn's configuration, whose objects are called cfg. Must not know: workers, logs, requests.
"""

import re
from collections.abc import Iterator
from typing import Any

from fastasgi.asgi.httpconnection import MOST_FIELDS, MOST_LINE_BYTES
from fastasgi.config import HTTP2_DEFAULT_WINDOW, Config
from fastasgi.errors import ConfigError
from fastasgi.logging import LOG_LEVELS
from fastasgi.tls.contexts import TLS, TLSFiles

# The arbiter kills what is left of a worker when graceful_timeout is over. The end of that time is for
# requests that take longer, to be disconnected and cancelled, and for the application's own shutdown.
LAST_PART_S = 5.0  # the length of that end, or half of graceful_timeout if that is shorter
FORCED_PART_S = 2.5  # the part of it in which nothing is waited for long, or half of graceful_timeout too

OTHER_FIELDS_BYTES = 65536  # room in a head beside its first line and one field of the largest size

# Settings of gunicorn's that mean nothing here, and what to do or to know instead
NOT_SUPPORTED = {
    "secure_scheme_headers": "X-Forwarded-Proto tells the scheme; see forwarded_headers for CONFIG_KWARGS",
    "forwarder_headers": "all headers are the application's business",
    "protocol": "every connection is read as HTTP; let the proxy speak HTTP",
    "http2_cleartext": "HTTP/2 without TLS begins with its preface (prior knowledge), not with Upgrade: h2c",
    "http2_max_frame_size": "frames of up to 16384 bytes are taken, as every client knows to send them",
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

# Values of those settings that mean nothing, where others do
NOT_SUPPORTED_VALUES = {"http2_cleartext": ("upgrade", "both")}

# Parameters of Config for what gunicorn does here: it listens, and looks after processes
GUNICORNS_OWN = (
    *("bind", "host", "port", "uds", "uds_permissions", "fd", "reuse_port"),
    *("workers", "preload", "pid_file", "process_name", "cpu_affinity", "user", "group", "umask"),
    *("reload", "reload_dirs", "reload_delay", "reload_includes", "reload_excludes"),
    *("limit_worker_rss", "limit_worker_lifetime", "timeout_worker_healthcheck", "timeout_worker_startup"),
)


def is_set(cfg: Any, name: str) -> bool:
    """Whether a setting has another value than its default. False if this gunicorn has no such setting."""
    setting = cfg.settings.get(name)
    if setting is None:
        return False
    return bool(setting.get() != type(setting)().get())


def not_supported(cfg: Any) -> Iterator[tuple[str, Any, str]]:
    """The settings that are set and mean nothing: name, value, and what to do or to know instead."""
    for name, instead in NOT_SUPPORTED.items():
        if is_set(cfg, name):
            value = getattr(cfg, name)
            if value in NOT_SUPPORTED_VALUES.get(name, (value,)):
                yield name, value, instead


def uses_tls(cfg: Any, config_kwargs: dict[str, Any]) -> bool:
    """Whether TLS is asked for, by gunicorn's settings or by CONFIG_KWARGS."""
    return bool(cfg.certfile or cfg.keyfile or {"ssl_certfile", "ssl_context_factory"} & config_kwargs.keys())


def tls_of(cfg: Any, config_kwargs: dict[str, Any], files: TLSFiles | None = None) -> TLS | None:
    """What TLS is served with; None without TLS.

    files, which have been read, are used if they are the ones asked for; otherwise the files are read.
    Raises ConfigError, with gunicorn's names for settings, if TLS can't be served as is asked for.
    """
    if not uses_tls(cfg, config_kwargs):
        return None
    more = {name: value for name, value in config_kwargs.items() if re.match("ssl_|http2$", name)}
    try:
        config = Config.with_tls_files(files, **{**settings_of(cfg, config_kwargs), **more})
    except ConfigError as error:
        raise ConfigError(gunicorn_names(error)) from None
    return config.tls


def gunicorn_names(error: Exception) -> str:
    """The text of an error, with gunicorn's names for the settings of TLS."""
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
    if is_set(cfg, "ssl_context"):
        settings["ssl_context_factory"] = lambda config, default: cfg.ssl_context(cfg, default)
    return settings


def _http2_settings_of(cfg: Any, config_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What gunicorn 25 and later say of HTTP/2, which is off unless they turn it on."""
    begins_with_preface = is_set(cfg, "http2_cleartext") and cfg.http2_cleartext != "upgrade"
    is_asked_for = is_set(cfg, "http_protocols") and "h2" in cfg.http_protocols
    if not (is_asked_for and (begins_with_preface or uses_tls(cfg, config_kwargs))):
        return {"http2": "off"}
    settings: dict[str, Any] = {
        "http2": "on",
        "http2_max_concurrent_streams": cfg.http2_max_concurrent_streams,
    }
    if is_set(cfg, "http2_initial_window_size"):
        window = max(cfg.http2_initial_window_size, HTTP2_DEFAULT_WINDOW)
        settings["http2_initial_stream_window_size"] = window
        settings["http2_initial_connection_window_size"] = max(
            window, Config.http2_initial_connection_window_size
        )
    if is_set(cfg, "http2_max_header_list_size"):
        settings["limit_request_head"] = cfg.http2_max_header_list_size
    return settings


def settings_of(cfg: Any, config_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Parameters of Config that say what gunicorn's settings say, beside those in CONFIG_KWARGS."""
    line_bytes = cfg.limit_request_line or MOST_LINE_BYTES
    field_bytes = cfg.limit_request_field_size or MOST_LINE_BYTES
    level = cfg.loglevel.lower()
    settings: dict[str, Any] = {
        "app": None,
        "workers": 1,  # or Config would read it from WEB_CONCURRENCY, as gunicorn does
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
    # Before gunicorn 25 a truth value, since then the name of a version; here either version is understood
    if cfg.proxy_protocol and cfg.proxy_protocol != "off":
        settings["proxy_protocol"] = [*cfg.proxy_allow_ips, "unix"]
    if is_set(cfg, "worker_connections") and cfg.worker_connections:
        settings["limit_concurrency"] = cfg.worker_connections
    if is_set(cfg, "threads"):
        settings["threads"] = cfg.threads
    for name, ours in (("asgi_loop", "loop"), ("asgi_lifespan", "lifespan"), ("root_path", "root_path")):
        if name in cfg.settings:
            settings[ours] = getattr(cfg, name)
    if "header_map" in cfg.settings:
        settings["header_underscores"] = {"dangerous": "allow"}.get(cfg.header_map, cfg.header_map)
    if "websocket_max_message_size" in cfg.settings:
        settings["ws_max_size"] = cfg.websocket_max_message_size
    return {**settings, **_http2_settings_of(cfg, config_kwargs)}
