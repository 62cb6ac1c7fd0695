"""Odd values of uvicorn's parameters: what they come to here, beside what they mean there.

``python tests/settings/test_odd_values.py`` prints the table.
"""

import asyncio
import importlib
import inspect
import logging
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from certificates import Authority
from serving import fetch, port_of, serving
from wire import hello, in_loop

from fastasgi import Config, Server
from fastasgi.cli import main
from fastasgi.errors import ConfigError
from fastasgi.settings.sources import unknown_variables


class Refused(str):
    """How the line begins that refuses a value."""


class Odd(NamedTuple):
    name: str
    value: Any
    here: Any  # what the setting comes to, or Refused
    in_uvicorn: str


class Protocol(asyncio.Protocol):
    pass


def make_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def notify() -> None:
    pass


NO_CLASS = ": protocol classes are not taken, since connections are compiled: leave it out"
FAILS = "fails when it is used"
TABLE = [
    Odd("app", "app:app", "app:app", "the same"),
    Odd("host", None, "", "all addresses"),
    Odd("host", "", "", "all addresses"),
    Odd("port", None, 8000, "a free port, and a failing log line"),
    Odd("port", "", 8000, "a free port, and a failing log line"),
    Odd("port", "8001", 8001, "8001, and a failing log line"),
    Odd("port", True, Refused("port True: give a whole number from 0 to 65535"), "port 1"),
    Odd("uds", "", None, FAILS),
    Odd("fd", "", None, FAILS),
    Odd("fd", 0, 0, "standard input"),
    Odd("loop", None, "none", "none"),
    Odd("loop", "", "auto", FAILS),
    Odd("loop", "zuvloop", "zuvloop", "zuvloop"),
    Odd("loop", make_loop, make_loop, "makes the loop"),
    Odd("loop", 5, Refused("loop 5: give auto, uvloop, asyncio, none, zuvloop or "), FAILS),
    Odd("http", None, "auto", FAILS),
    Odd("http", "", "auto", FAILS),
    Odd("http", "zttp", "zttp", "zttp"),
    Odd("http", Protocol, Refused(f"http {Protocol!r}{NO_CLASS}"), "connections are of this class"),
    Odd("http", "shop:Protocol", Refused(f"http 'shop:Protocol'{NO_CLASS}"), "connections are of this class"),
    Odd("http2", None, "off", "off"),
    Odd("http2", False, "off", "off"),
    Odd("http2", 0, "off", "off"),
    Odd("http2", "", "on", "off"),
    Odd("http2", True, "on", "on, with zttp"),
    Odd("http2", 1, "on", "on, with zttp"),
    Odd("http2", "false", "off", "on, with zttp"),
    Odd("http2", 2, Refused("http2 2: give on, off or only"), "on, with zttp"),
    Odd("ws", None, "none", "none"),
    Odd("ws", "", "auto", FAILS),
    Odd("ws", Protocol, Refused(f"ws {Protocol!r}{NO_CLASS}"), "WebSockets are of this class"),
    Odd("ws_max_size", 0, 0, "no message fits"),
    Odd("ws_max_size", None, 0, "no limit"),
    Odd("ws_max_queue", 0, 0, "by the protocol"),
    Odd("ws_max_queue", None, 0, "by the protocol"),
    Odd("ws_ping_interval", None, None, "no pings"),
    Odd("ws_ping_interval", 0, None, "by the protocol"),
    Odd("ws_ping_timeout", None, None, "no limit"),
    Odd("ws_ping_timeout", 0, None, "by the protocol"),
    Odd("ws_per_message_deflate", None, False, "off"),
    Odd("ws_per_message_deflate", 0, False, "off"),
    Odd("ws_per_message_deflate", 1, True, "on"),
    Odd("lifespan", None, "auto", FAILS),
    Odd("lifespan", "", "auto", FAILS),
    Odd("env_file", "", None, "a file .env that it looks for"),
    Odd("log_config", None, None, "logging is left alone"),
    Odd("log_level", "", None, FAILS),
    Odd("log_level", "INFO", "info", "info"),
    Odd("log_level", 0, 0, "all of it"),
    Odd("access_log", None, False, "on"),
    Odd("access_log", 0, False, "on"),
    Odd("access_log", 1, True, "on"),
    Odd("access_log", "off", False, "on"),
    Odd("access_log", 2, Refused("access_log 2: give True or False"), "on"),
    Odd("use_colors", None, None, "on a terminal"),
    Odd("use_colors", "", None, "on a terminal"),
    Odd("use_colors", 0, False, "off"),
    Odd("use_colors", 1, True, "on"),
    Odd("interface", None, "auto", FAILS),
    Odd("interface", "", "auto", FAILS),
    Odd("reload", None, False, "off"),
    Odd("reload", 0, False, "off"),
    Odd("reload", 1, True, "on"),
    Odd("reload", "true", True, "on"),
    Odd("reload", "", False, "off"),
    Odd("reload_dirs", "", [], "the current folder"),
    Odd("reload_dirs", "tests", ["tests"], "this folder"),
    Odd("reload_dirs", {"tests"}, ["tests"], "this folder"),
    Odd("reload_dirs", [Path("tests")], ["tests"], "this folder"),
    Odd("reload_dirs", Path("tests"), ["tests"], FAILS),
    Odd("reload_delay", None, 0.25, FAILS),
    Odd("reload_delay", 0, 0, "no delay"),
    Odd("reload_includes", ("*.txt",), ["*.txt"], "these files"),
    Odd("reload_excludes", {"*.txt"}, ["*.txt"], "not these files"),
    Odd("workers", 0, 1, "one"),
    Odd("workers", None, 1, "one, or WEB_CONCURRENCY"),
    Odd("workers", "", 1, "one"),
    Odd("workers", -1, Refused("workers -1: give auto, or a whole number, 0 or more"), "one"),
    Odd("proxy_headers", None, False, "off"),
    Odd("proxy_headers", 1, True, "on"),
    Odd("server_header", None, False, "off"),
    Odd("server_header", 1, True, "on"),
    Odd("date_header", None, False, "off"),
    Odd("date_header", 0, False, "off"),
    Odd("forwarded_allow_ips", None, ["127.0.0.1", "::1"], "127.0.0.1, ::1"),
    Odd("forwarded_allow_ips", "", [], "nobody"),
    Odd("forwarded_allow_ips", [], [], "nobody"),
    Odd("root_path", None, "", FAILS),
    Odd("limit_concurrency", 0, None, "every request is answered with 503"),
    Odd("limit_concurrency", None, None, "no limit"),
    Odd("limit_concurrency", "0", None, "fails when it is used"),
    Odd("ws_max_size", "0", 0, "fails when it is used"),
    Odd("limit_max_requests", 0, None, "ends at once"),
    Odd("limit_max_requests", None, None, "no limit"),
    Odd("limit_max_requests_jitter", None, 0, FAILS),
    Odd("backlog", 0, 0, "what the system takes it for"),
    Odd("backlog", None, 4096, FAILS),
    Odd("timeout_keep_alive", None, 5, FAILS),
    Odd("timeout_keep_alive", 0, 0, "connections close"),
    Odd("timeout_keep_alive", "7.5", 7.5, FAILS),
    Odd("timeout_notify", None, 30, FAILS),
    Odd("timeout_notify", 0, 0, "once a second"),
    Odd("timeout_graceful_shutdown", None, None, "no limit"),
    Odd("timeout_graceful_shutdown", 0, 0, "no time"),
    Odd("timeout_worker_healthcheck", "", None, FAILS),
    Odd("callback_notify", None, None, "nothing is called"),
    Odd("callback_notify", "x", Refused("callback_notify 'x': give a function"), FAILS),
    Odd("ssl_keyfile", "", None, "none"),
    Odd("ssl_certfile", "", None, "none"),
    Odd("ssl_certfile", [""], None, FAILS),
    Odd("ssl_keyfile_password", "", None, "none"),
    Odd("ssl_version", None, 17, FAILS),
    Odd("ssl_cert_reqs", None, 0, FAILS),
    Odd("ssl_cert_reqs", ssl.CERT_NONE, 0, "none"),
    Odd("ssl_ca_certs", "", None, "none"),
    Odd("ssl_ciphers", "", None, "OpenSSL's default"),
    Odd("ssl_context_factory", "x", Refused("ssl_context_factory 'x': give a function"), FAILS),
    Odd("headers", None, [], "none"),
    Odd("headers", [], [], "none"),
    Odd("headers", {"X-A": "b"}, Refused("headers {'X-A': 'b'}: give a list of name:value"), FAILS),
    Odd("factory", None, False, "off"),
    Odd("factory", 1, True, "on"),
    Odd("h11_max_incomplete_event_size", None, None, "64 KiB"),
    Odd("h11_max_incomplete_event_size", 0, None, "no request fits"),
    Odd("reset_contextvars", None, False, "off"),
    Odd("reset_contextvars", 1, True, "on"),
]


def config_with(odd: Odd) -> Config:
    return Config(**{"app": "app:app", odd.name: odd.value})


@pytest.mark.parametrize("odd", TABLE, ids=[f"{odd.name}-{number}" for number, odd in enumerate(TABLE)])
def test_an_odd_value(odd: Odd) -> None:
    if isinstance(odd.here, Refused):
        with pytest.raises(ConfigError) as caught:
            config_with(odd)
        assert str(caught.value).startswith(odd.here)
        assert "\n" not in str(caught.value)
        return
    found = getattr(config_with(odd), odd.name)
    default = inspect.signature(Config).parameters[odd.name].default
    expected = default if odd.name == "timeout_worker_healthcheck" else odd.here
    assert found == expected
    assert isinstance(found, type(expected))


def test_each_parameter_of_uvicorns_is_in_the_table() -> None:
    theirs = inspect.signature(importlib.import_module("uvicorn").Config).parameters
    assert {odd.name for odd in TABLE} == set(theirs)


def test_defaults_are_uvicorns_but_for_those_told() -> None:
    theirs = inspect.signature(importlib.import_module("uvicorn").Config).parameters
    ours = inspect.signature(Config).parameters
    differing = {name for name in theirs if theirs[name].default != ours[name].default}
    # Read beside the README; timeout_worker_healthcheck has its reasons there
    assert differing - {"timeout_worker_healthcheck"} == {"backlog", "http2", "log_config"}


# What the values come to


@pytest.mark.parametrize(
    ("settings", "workers", "supervised"),
    [({}, 1, False), ({"workers": 0}, 1, False), ({"workers": 1}, 1, True), ({"workers": 2}, 2, True)],
)
def test_workers_can_be_compared(settings: Any, workers: int, supervised: bool) -> None:
    config = Config("app:app", **settings)
    assert (config.workers, config.worker_count, config.is_supervised) == (workers, workers, supervised)


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("", (1, False)),
        ("0", (1, False)),
        (" 2 ", (2, True)),
        ("1", (1, True)),
        ("-1", Refused("WEB_CONCURRENCY '-1': give a whole number, 0 or more, or auto")),
        ("x", Refused("WEB_CONCURRENCY 'x': give a whole number, 0 or more, or auto")),
    ],
)
def test_web_concurrency(monkeypatch: pytest.MonkeyPatch, text: str, here: Any) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", text)
    if isinstance(here, Refused):
        with pytest.raises(ConfigError, match=f"^{here}$"):
            Config("app:app")
    else:
        config = Config("app:app")
        assert (config.workers, config.is_supervised) == here
    assert not Config("app:app", workers=0).is_supervised


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"ssl_certfile": "", "ssl_keyfile": "k.pem"}, "ssl_certfile is empty, and ssl_keyfile is not"),
        ({"ssl_certfile": "c.pem", "ssl_keyfile": ""}, "ssl_keyfile is empty, and ssl_certfile is not"),
        (
            {"ssl_certfile": [""], "ssl_keyfile": Path("k.pem")},
            "ssl_certfile is empty, and ssl_keyfile is not",
        ),
        ({"ssl_keyfile": "k.pem"}, "ssl_keyfile is given once and ssl_certfile not at all"),
    ],
)
def test_tls_does_not_go_off_unseen(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Config("app:app", **settings)


def test_no_certificate_and_no_key_are_no_tls(tmp_path: Path) -> None:
    assert not Config("app:app", ssl_certfile="", ssl_keyfile="").is_ssl
    pair = Authority(tmp_path).issue()
    assert Config("app:app", ssl_certfile=str(pair.cert), ssl_keyfile=str(pair.key), ssl_ca_certs="").is_ssl


@pytest.mark.parametrize(
    ("settings", "bytes_"),
    [
        ({"h11_max_incomplete_event_size": 4096}, 4096),
        ({"h11_max_incomplete_event_size": 4096, "limit_request_head": 8192}, 8192),
        ({"h11_max_incomplete_event_size": 0}, 65536),
    ],
)
def test_h11_max_incomplete_event_size_is_limit_request_head(settings: dict[str, Any], bytes_: int) -> None:
    assert Config("app:app", **settings).limit_request_head == bytes_


@pytest.mark.parametrize("host", [None, ""])
def test_no_host_is_all_addresses_and_told(host: str | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    config = Config("app:app", host=host, port=0, log_config=None)
    sockets = config.bind_sockets()
    names = {sock.getsockname()[0] for sock in sockets}
    for sock in sockets:
        sock.close()
    assert "0.0.0.0" in names
    assert caplog.messages == ["host is empty: listening on all addresses of this machine"]


@pytest.mark.parametrize("loop", ["running", "function"])
def test_a_loop_or_what_makes_it_is_taken_where_serve_is_awaited(loop: str) -> None:
    async def serve() -> None:
        given = asyncio.get_running_loop() if loop == "running" else make_loop
        async with serving(hello, loop=given, lifespan="off") as server:
            assert (await fetch(port_of(server))).startswith(b"HTTP/1.1 200")

    asyncio.run(serve())


def test_run_makes_its_loop_itself() -> None:
    assert Config("app:app", loop=make_loop).get_loop_factory() is make_loop
    loop = make_loop()
    with pytest.raises(ConfigError, match=r"^loop <.*> is a loop, and run\(\) makes one: await "):
        Server(Config(hello, loop=loop)).run()
    loop.close()


def test_zuvloop_is_auto() -> None:
    factory = Config("app:app").get_loop_factory()
    assert Config("app:app", loop="zuvloop").get_loop_factory() is factory


LIMITS = (
    *("ws_max_size", "ws_max_queue", "ws_ping_interval", "ws_ping_timeout", "limit_concurrency"),
    *("limit_max_requests", "limit_request_line", "limit_request_head", "limit_request_fields"),
    *("limit_request_body", "timeout_request_head", "timeout_request_body", "timeout_write", "backlog"),
    *("timeout_notify", "ssl_handshake_timeout"),
)


@pytest.mark.parametrize("value", [0, None])
@in_loop
async def test_a_server_without_limits_serves(value: int | None) -> None:
    settings = {**dict.fromkeys(LIMITS, value), "http": "zttp", "reset_contextvars": True}
    head = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + f"a: {'b' * 100_000}\r\n" * 2 + "\r\n"
    async with serving(hello, lifespan="off", **settings) as server:
        assert (await fetch(port_of(server), head)).startswith(b"HTTP/1.1 200")
        # A queue of no length is one for a single connection
        with socket.create_connection(("127.0.0.1", port_of(server))):
            pass


# The command line and the environment


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--h11-max-incomplete-event-size", "4096"], "limit_request_head", 4096),
        (["--reset-contextvars"], "reset_contextvars", True),
        (["--ws-per-message-deflate", "False"], "ws_per_message_deflate", False),
        (["--ws-per-message-deflate=true"], "ws_per_message_deflate", True),
        (["--ws-per-message-deflate"], "ws_per_message_deflate", True),
        (["--ws-per-message-deflate", "--no-http2"], "ws_per_message_deflate", True),
        (["--no-ws-per-message-deflate"], "ws_per_message_deflate", False),
        (["--http2", "--http", "zttp"], "http2", "on"),
        (["--http", "zttp"], "http", "zttp"),
        (["--loop", "zuvloop"], "loop", "zuvloop"),
        (["--workers", "0"], "workers", 1),
        (["--host", ""], "host", ""),
        (["--uds", ""], "uds", None),
        (["--ssl-certfile", "", "--ssl-keyfile", ""], "ssl_certfile", None),
    ],
)
def test_options_of_uvicorns(
    arguments: list[str], name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[Config] = []
    monkeypatch.setattr("fastasgi.cli.run_config", lambda make_config, *_: configs.append(make_config()))
    main.main([*arguments, "app:app"], standalone_mode=False)
    assert getattr(configs[0], name) == value


def test_a_variable_of_uvicorns_is_told() -> None:
    environ = {"UVICORN_PORT": "5000", "UVICORN_HOST": "x", "FASTASGI_HOST": "x", "UVICORN_NOTHING": "x"}
    assert unknown_variables(Config, environ) == ["UVICORN_PORT is not used: did you mean FASTASGI_PORT?"]


def table() -> str:
    rows = [("parameter", "value", "here", "in uvicorn")]
    for odd in TABLE:
        here = str(odd.here) if isinstance(odd.here, Refused) else repr(odd.here)
        rows.append((odd.name, repr(odd.value), here, odd.in_uvicorn))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    widths = [min(width, limit) for width, limit in zip(widths, (32, 24, 40), strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row[:3], widths, strict=True)) + f"  {row[3]}"
        for row in rows
    )


if __name__ == "__main__":
    print(table())
