"""The gunicorn worker class, in gunicorn processes: settings of gunicorn's and our own, and TLS."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from gunicorn.config import Config as GunicornConfig
from gunicornprocess import Start, custom, exchange, told
from serving import WAIT_S

from fastasgi import Config, workers
from fastasgi.errors import ConfigError
from fastasgi.settings.declaration import settings_of
from fastasgi.workers import FastASGIWorker, gunicornsettings

# Settings of gunicorn's


SCOPE_APP = """
    import asyncio
    import json
    import os

    async def app(scope, receive, send):
        told = {
            "root_path": scope["root_path"],
            "headers": [name.decode() for name, _ in scope["headers"]],
            "loop": type(asyncio.get_running_loop()).__module__,
            "variable": os.environ.get("VARIABLE"),
        }
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""


def test_settings_for_asgi(start: Start) -> None:
    arguments = (
        "--root-path",
        "/api",
        "--asgi-loop",
        "asyncio",
        "--asgi-lifespan",
        "off",
        "-e",
        "VARIABLE=a=b",
    )
    gunicorn = start(*arguments, app=SCOPE_APP)
    scope = told(gunicorn, x_under="a")
    assert (scope["root_path"], scope["variable"]) == ("/api", "a=b")
    assert scope["loop"].startswith("asyncio.")
    assert "x_under" not in scope["headers"]  # header_map is drop
    assert not gunicorn.matches("Waiting for application")


@pytest.mark.parametrize(
    ("arguments", "environment", "is_trusted"),
    [
        ((), {}, True),
        (("--forwarded-allow-ips", "10.0.0.1"), {}, False),
        ((), {"FORWARDED_ALLOW_IPS": "10.0.0.0/8"}, False),
        ((), {"FORWARDED_ALLOW_IPS": "127.0.0.0/8"}, True),
    ],
)
def test_gunicorn_says_which_proxies_are_trusted(
    start: Start, arguments: tuple[str, ...], environment: dict[str, str], is_trusted: bool
) -> None:
    gunicorn = start(*arguments, app=CLIENT_APP, **environment)
    status, body = exchange(
        gunicorn.port, headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    )
    assert (status, body == "1.2.3.4 https") == (200, is_trusted)
    assert not gunicorn.matches("forwarded_allow_ips")


CLIENT_APP = """
    async def app(scope, receive, send):
        if scope["type"] == "http":
            body = f"{scope['client'][0]} {scope['scheme']}".encode()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize(
    ("name", "value", "ours", "expected"),
    [
        ("header_map", "refuse", "header_underscores", "refuse"),
        ("header_map", "dangerous", "header_underscores", "allow"),
        ("keepalive", 0, "timeout_keep_alive", 0),
        ("backlog", 7, "backlog", 7),
        ("graceful_timeout", 0, "timeout_graceful_shutdown", 0),
        ("graceful_timeout", 4, "timeout_graceful_shutdown", 2),
        ("graceful_timeout", 30, "timeout_graceful_shutdown", 25),
        ("worker_connections", 1000, "limit_concurrency", None),
        ("worker_connections", 0, "limit_concurrency", None),
        ("worker_connections", 10, "limit_concurrency", 10),
        ("threads", 1, "threads", None),
        ("threads", 4, "threads", 4),
        ("max_requests", 0, "limit_max_requests", None),
        ("limit_request_fields", 100_000, "limit_request_fields", 32768),
        ("limit_request_field_size", 8190, "limit_request_head", 4094 + 8190 + 65536),
        ("loglevel", "DEBUG", "log_level", "debug"),
        ("loglevel", "unknown", "log_level", "info"),
        ("websocket_max_message_size", 0, "ws_max_size", 0),
        ("asgi_loop", "asyncio", "loop", "asyncio"),
        ("forwarded_allow_ips", "127.0.0.1,::1", "forwarded_allow_ips", ["127.0.0.1", "::1", "unix"]),
        ("forwarded_allow_ips", "10.0.0.0/8", "forwarded_allow_ips", ["10.0.0.0/8", "unix"]),
        ("forwarded_allow_ips", "*", "forwarded_allow_ips", ["*", "unix"]),
        ("proxy_protocol", "off", "proxy_protocol", []),
        ("proxy_protocol", "v2", "proxy_protocol", ["127.0.0.1", "::1", "unix"]),
    ],
)
def test_what_a_setting_becomes(name: str, value: Any, ours: str, expected: Any) -> None:
    assert getattr(config_of(FastASGIWorker, **{name: value}), ours) == expected


CLEARTEXT = {"http_protocols": "h2,h1", "http2_cleartext": "prior-knowledge"}


@pytest.mark.parametrize(
    ("settings", "uses_tls", "http2"),
    [
        ({}, True, "off"),
        ({"http2_cleartext": "prior-knowledge"}, False, "off"),
        ({"http_protocols": "h2,h1"}, True, "on"),
        ({"http_protocols": "h1,h2"}, True, "on"),
        ({"http_protocols": "h2"}, True, "on"),
        ({"http_protocols": "h2,h1"}, False, "off"),
        ({"http_protocols": "h2", "http2_cleartext": "upgrade"}, False, "off"),
        ({"http_protocols": "h2", "http2_cleartext": "both"}, False, "on"),
        ({"http_protocols": "h2", "http2_cleartext": True}, False, "on"),
        (CLEARTEXT, False, "on"),
        (CLEARTEXT, True, "on"),
    ],
)
def test_http2_is_on_where_gunicorn_is_told_so(
    tmp_path: Path, settings: dict[str, Any], uses_tls: bool, http2: str
) -> None:
    if uses_tls:
        pair = Authority(tmp_path).issue()
        settings = {**settings, "certfile": str(pair.cert), "keyfile": str(pair.key)}
    assert config_of(FastASGIWorker, **settings).http2 == http2


@pytest.mark.parametrize(
    ("name", "value", "ours", "expected"),
    [
        ("http2_max_concurrent_streams", 7, "http2_max_concurrent_streams", 7),
        ("http2_initial_window_size", 65535, "http2_initial_stream_window_size", 262144),
        ("http2_initial_window_size", 16384, "http2_initial_stream_window_size", 65535),
        ("http2_initial_window_size", 100_000, "http2_initial_stream_window_size", 100_000),
        ("http2_initial_window_size", 100_000, "http2_initial_connection_window_size", 1048576),
        ("http2_initial_window_size", 2**22, "http2_initial_connection_window_size", 2**22),
        ("http2_max_header_list_size", 65536, "limit_request_head", 4094 + 8190 + 65536),
        ("http2_max_header_list_size", 10_000, "limit_request_head", 10_000),
        ("http2_max_header_list_size", 0, "limit_request_head", 0),
    ],
)
def test_what_a_setting_of_http2_becomes(name: str, value: int, ours: str, expected: int) -> None:
    assert getattr(config_of(FastASGIWorker, **CLEARTEXT, **{name: value}), ours) == expected


def test_settings_of_http2_change_nothing_where_it_is_off() -> None:
    config = config_of(FastASGIWorker, http2_max_header_list_size=100, http2_max_concurrent_streams=7)
    assert (config.limit_request_head, config.http2_max_concurrent_streams) == (4094 + 8190 + 65536, 100)


def config_of(worker_class: type[FastASGIWorker], **settings: Any) -> Config:
    """The settings of a worker with these settings of gunicorn's."""
    config = GunicornConfig()
    for name, value in settings.items():
        config.set(name, value)
    worker = worker_class(1, os.getpid(), [], None, 15, config, Warnings())
    worker.tmp.close()
    return worker.config


NOT_DEFAULT = {
    "secure_scheme_headers": {"X-HTTPS": "1"},
    "forwarder_headers": "REMOTE_USER",
    "protocol": "uwsgi",
    "http2_cleartext": "upgrade",
    "http2_max_frame_size": 32768,
    "ssl_version": "TLSv1",
    "do_handshake_on_connect": True,
    "suppress_ragged_eofs": False,
    "http_parser": "python",
    "permit_obsolete_folding": True,
    "strip_header_spaces": True,
    "permit_unconventional_http_version": True,
    "casefold_http_method": True,
    "asgi_disconnect_grace_period": 1,
    "sendfile": False,
}


class Warnings:
    """In place of gunicorn's logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


def warnings(**settings: Any) -> list[str]:
    config, log = GunicornConfig(), Warnings()
    for name, value in settings.items():
        config.set(name, value)
    FastASGIWorker.check_config(config, log)
    return log.lines


def test_what_is_not_supported_is_warned_of_by_name() -> None:
    assert NOT_DEFAULT.keys() == gunicornsettings.NOT_SUPPORTED.keys()
    assert warnings() == []
    for name, value in NOT_DEFAULT.items():
        [line] = warnings(**{name: value})
        assert re.match(rf"{name} .* is not supported by fastasgi: \w", line), line


def test_what_is_served_of_http2_is_not_warned_of() -> None:
    assert (
        warnings(
            http_protocols="h2,h1",
            http2_cleartext="prior-knowledge",
            http2_max_concurrent_streams=10,
            http2_initial_window_size=100_000,
            http2_max_header_list_size=10_000,
        )
        == []
    )
    [line] = warnings(http2_cleartext="both")
    assert line.startswith("http2_cleartext 'both' is not supported by fastasgi: HTTP/2 without TLS begins ")


def test_a_warning_is_given_once_and_web_concurrency_is_gunicorns(start: Start) -> None:
    gunicorn = start("--no-sendfile", WEB_CONCURRENCY="2")
    assert len(gunicorn.workers(2)) == 2
    assert gunicorn.matches(r"\[WARNING\] .*") == [
        "[WARNING] sendfile False is not supported by fastasgi: "
        "the application decides by the messages it sends"
    ]


# TLS

TLS_APP = """
    async def app(scope, receive, send):
        tls = scope["extensions"]["tls"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        text = f"{scope['scheme']} {tls['tls_version']:04x} {bool(tls['client_cert_name'])}"
        await send({"type": "http.response.body", "body": text.encode()})
"""


def tls_exchange(port: int, context: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


def test_tls_is_served_by_gunicorns_settings(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue(), authority.issue("me@x.example", file="client")
    gunicorn = start(
        *("--certfile", str(server.cert), "--keyfile", str(server.key), "--ciphers", "ECDHE+CHACHA20"),
        *("--ca-certs", str(authority.path), "--cert-reqs", "2", "--workers", "2"),
        app=TLS_APP,
    )
    gunicorn.workers(2)
    assert tls_exchange(gunicorn.port, authority.client(client)) == "https 0304 True"
    old = authority.client(client, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert tls_exchange(gunicorn.port, old) == "https 0303 True"
    old.set_ciphers("ECDHE+AESGCM")
    with pytest.raises(ssl.SSLError):
        tls_exchange(gunicorn.port, old)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_exchange(gunicorn.port, authority.client())
    authority.issue()
    gunicorn.wait_for("Certificates renewed", 2)
    assert tls_exchange(gunicorn.port, authority.client(client)) == "https 0304 True"
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback|WARNING")


@pytest.mark.parametrize(
    ("arguments", "more", "agreed"),
    [
        ((), {}, "http/1.1"),
        (("--http-protocols", "h2,h1"), {}, "h2"),
        ((), {"http2": "only"}, "h2"),
        (("--http-protocols", "h2"), {"http2": False}, "http/1.1"),
    ],
)
def test_what_is_agreed_on_by_alpn(
    start: Start, tmp_path: Path, arguments: tuple[str, ...], more: dict[str, Any], agreed: str
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    gunicorn = start(
        *("-k", "custom.Custom", "--certfile", str(pair.cert), "--keyfile", str(pair.key), *arguments),
        conf=custom(repr(more)),
    )
    gunicorn.workers()
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("localhost", gunicorn.port), timeout=WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == agreed
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback|WARNING")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http2_without_tls(start: Start) -> None:
    gunicorn = start("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
    gunicorn.workers()
    for option, version in (("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")):
        curl = ["curl", "-sS", option, "--noproxy", "*", "-o", os.devnull, "-w", "%{http_version}"]
        url = f"http://127.0.0.1:{gunicorn.port}/pid"
        answer = subprocess.run([*curl, url], capture_output=True, check=True, text=True)
        assert answer.stdout == version
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback|WARNING")


def test_a_file_that_can_not_be_used_any_more_stops_no_gunicorn(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue()
    gunicorn = start("--certfile", str(server.cert), "--keyfile", str(server.key), app=TLS_APP)
    [pid] = gunicorn.workers()
    good = server.pem
    server.cert.write_text("nothing")
    line = f"Certificates not renewed, the old ones stay: certfile '{server.cert}' holds no certificate"

    def served() -> str:
        assert tls_exchange(gunicorn.port, authority.client()) == "https 0304 False"
        return ssl.get_server_certificate(("127.0.0.1", gunicorn.port))

    os.kill(pid, signal.SIGKILL)
    assert len(gunicorn.workers(2)) == 2
    assert served() == good
    gunicorn.kill(signal.SIGHUP)
    pids = gunicorn.workers(3)
    assert len(pids) == 3
    gunicorn.wait_for(rf"Worker exiting \(pid: {pids[1]}\)")
    assert served() == good
    assert len(gunicorn.matches(re.escape(line))) == 2
    authority.issue()
    gunicorn.kill(signal.SIGHUP)
    assert gunicorn.workers(4)
    gunicorn.wait_for(rf"Worker exiting \(pid: {pids[2]}\)")
    assert served() == server.pem != good
    assert gunicorn.end() == 0
    assert not gunicorn.matches("Traceback")


def test_a_key_may_come_from_a_pipe(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(server.key.read_bytes(),))
    writing.start()
    gunicorn = start("--certfile", str(server.cert), "--keyfile", str(pipe), app=TLS_APP)
    [pid] = gunicorn.workers()
    writing.join()
    os.kill(pid, signal.SIGKILL)
    gunicorn.workers(2)
    assert tls_exchange(gunicorn.port, authority.client()) == "https 0304 False"
    assert gunicorn.end() == 0
    assert not gunicorn.matches("renewed")


def test_gunicorns_ssl_context_hook_makes_the_context(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    conf = f"""
        import ssl

        certfile, keyfile = {str(pair.cert)!r}, {str(pair.key)!r}

        def ssl_context(conf, default_ssl_context_factory):
            context = default_ssl_context_factory()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            return context
    """
    gunicorn = start(app=TLS_APP, conf=conf)
    gunicorn.workers()
    assert tls_exchange(gunicorn.port, authority.client()) == "https 0303 False"


def test_a_mistake_in_tls_is_one_line_with_gunicorns_names(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gunicorn = start("--certfile", "file")
    assert gunicorn.wait() == 1
    line = "certfile 'file' holds no certificate: name a file that has one, in PEM"
    assert gunicorn.matches("^Error: (.*)") == [line]
    assert not gunicorn.matches("Traceback|Booting worker")
    with pytest.raises(RuntimeError, match=r"^keyfile is given once and certfile not at all: "):
        warnings(keyfile="file")


def test_a_mistake_in_tls_after_a_reload_is_one_line_too(start: Start) -> None:
    gunicorn = start()
    gunicorn.workers()
    (gunicorn.folder / "file").touch()
    (gunicorn.folder / "gunicorn.conf.py").write_text("certfile = 'file'")
    gunicorn.kill(signal.SIGHUP)
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] certfile 'file' holds no certificate: name a file that has one, in PEM$")
    assert not gunicorn.matches("Traceback")


# CONFIG_KWARGS


def test_config_kwargs(start: Start) -> None:
    conf = custom(
        "{'loop': 'asyncio', 'http': 'httptools', 'timeout_keep_alive': 7, 'headers': [('x-a', 'b')]}"
    )
    gunicorn = start("-k", "custom.Custom", app=SCOPE_APP, conf=conf)
    assert told(gunicorn)["loop"].startswith("asyncio.")
    gunicorn.wait_for("^config httptools 7$")


def test_wrong_config_kwargs_are_one_line(start: Start) -> None:
    gunicorn = start("-k", "custom.Custom", conf=custom("{'lifespan': 'maybe'}"))
    assert gunicorn.wait() == 3
    gunicorn.wait_for(r"\[ERROR\] lifespan 'maybe': give auto, on or off")
    gunicorn.wait_for(r"Reason: Worker failed to boot\.")
    assert not gunicorn.matches("Traceback")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("htpt", "htpt in CONFIG_KWARGS is not a setting of fastasgi: leave it out"),
        ("user", "user in CONFIG_KWARGS has no effect: set what gunicorn has for it"),
    ],
)
def test_config_kwargs_that_mean_nothing(name: str, line: str) -> None:
    class Custom(FastASGIWorker):
        CONFIG_KWARGS = {name: "auto"}  # noqa: RUF012

    with pytest.raises(ConfigError, match=f"^{line}$"):
        config_of(Custom)


@pytest.mark.parametrize(
    ("base", "loop", "http"),
    [(workers.UvicornWorker, "auto", "auto"), (workers.UvicornH11Worker, "asyncio", "h11")],
)
def test_config_kwargs_of_uvicorns_classes(base: type[FastASGIWorker], loop: str, http: str) -> None:
    class Custom(base):  # type: ignore[misc, valid-type]
        CONFIG_KWARGS = {**base.CONFIG_KWARGS, "root_path": "/a"}  # noqa: RUF012

    class Other(base):  # type: ignore[misc, valid-type]
        CONFIG_KWARGS = {"http": "httptools", "lifespan": "off"}  # noqa: RUF012

    config = config_of(Custom, asgi_loop="uvloop")
    assert (config.loop, config.http, config.root_path) == (loop, http, "/a")
    config = config_of(Other, asgi_loop="uvloop")
    assert (config.loop, config.http, config.lifespan) == ("uvloop", "httptools", "off")


def test_what_gunicorn_does_is_named_right() -> None:
    assert set(gunicornsettings.GUNICORNS_OWN) <= {field.name for field, _ in settings_of(Config)}
