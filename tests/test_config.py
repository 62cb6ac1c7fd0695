import asyncio
import dataclasses
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import fastasgi
from fastasgi.config import LOGGING_CONFIG, Config
from fastasgi.errors import AppImportError, ConfigError
from fastasgi.settings.declaration import Setting
from fastasgi.settings.document import settings_document


async def app(scope, receive, send):
    pass


def create_app():
    return app


# Settings


def test_each_parameter_is_described() -> None:
    for field in dataclasses.fields(Config):
        described = field.metadata.get("setting")
        assert (field.init and field.name != "app") == isinstance(described, Setting), field.name


def test_the_documentation_is_up_to_date() -> None:
    document = Path(__file__).parent.parent / "docs" / "settings.md"
    assert document.read_text() == settings_document(Config), "run `make docs`"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", 65535, 65535),
        ("port", "8001", 8001),
        ("workers", "auto", "auto"),
        ("workers", "2", 2),
        ("bind", ":0", [":0"]),
        ("bind", (":0", "unix:x"), [":0", "unix:x"]),
        ("reload_dirs", ["src"], ["src"]),
        ("http2", "only", "only"),
        ("http2", True, "on"),
        ("http2", False, "off"),
        ("http2_initial_stream_window_size", 65535, 65535),
        ("http2_initial_connection_window_size", 2**31 - 1, 2**31 - 1),
        ("http2_keep_alive_interval", 0, None),
        ("uds_permissions", "0o600", 0o600),
        ("uds_permissions", "660", 0o660),
        ("uds_permissions", 0o640, 0o640),
        ("uds", Path("/run/x.sock"), "/run/x.sock"),
        ("timeout_keep_alive", 0.5, 0.5),
        ("timeout_graceful_shutdown", None, None),
        ("log_level", "WARNING", "warning"),
        ("log_level", 25, 25),
        ("headers", None, []),
        ("headers", [["X-A", " b "], ("X-B", "")], [("X-A", "b"), ("X-B", "")]),
        ("headers", ["X-A: http://b"], [("X-A", "http://b")]),
        ("headers", "X-A: b", [("X-A", "b")]),
    ],
)
def test_a_value_is_brought_to_its_type(name: str, value: Any, expected: Any) -> None:
    assert getattr(Config("main:app", **{name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("port", 65536, "a whole number from 0 to 65535"),
        ("port", -1, "a whole number from 0 to 65535"),
        ("port", "80 ", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("workers", -1, "auto, or a whole number, 0 or more"),
        ("workers", "many", "auto, or a whole number, 0 or more"),
        ("reload_dirs", [1], "texts"),
        ("port", True, "a whole number from 0 to 65535"),
        ("host", 1, "a text"),
        ("uds", b"x", "a path"),
        ("fd", -1, "a whole number, 0 or more"),
        ("lifespan", "no", "auto, on or off"),
        ("interface", "rsgi", "auto, asgi3, asgi2 or wsgi"),
        ("header_underscores", "keep", "allow, drop or refuse"),
        ("log_level", "loud", "critical, error, warning, info, debug, trace, or a number"),
        ("access_log", "maybe", "True or False"),
        ("factory", 2, "True or False"),
        ("backlog", -1, "a whole number, 0 or more"),
        ("limit_concurrency", -1, "a whole number, 1 or more, or 0 for no limit"),
        ("limit_max_requests", True, "a whole number, 1 or more, or 0 for no limit"),
        ("limit_request_body", -1, "a whole number of bytes, 0 or more"),
        ("timeout_keep_alive", -0.5, "a number of seconds, 0 or more"),
        ("timeout_keep_alive", float("nan"), "a number of seconds, 0 or more"),
        ("timeout_request_head", float("inf"), "a number of seconds, 0 or more"),
        ("timeout_request_head", 10**400, "a number of seconds, 0 or more"),
        ("http2", "h2", "on, off or only"),
        ("http2_max_concurrent_streams", 0, "a whole number from 1 to 2147483647"),
        ("http2_initial_stream_window_size", 65534, "a whole number of bytes from 65535 to 2147483647"),
        ("http2_initial_stream_window_size", 2**31, "a whole number of bytes from 65535 to 2147483647"),
        ("http2_initial_connection_window_size", 65534, "a whole number of bytes from 65535 to 2147483647"),
        ("http2_keep_alive_interval", -1, "a number of seconds, 0 or more"),
        ("uds_permissions", "888", "octal permissions such as 660"),
        ("uds_permissions", 0o1777, "octal permissions such as 660"),
    ],
)
def test_a_wrong_value_is_named_with_its_mend(name: str, value: Any, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(app, **{name: value})
    assert str(caught.value) == f"{name} {value!r}: give {mend}"


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (1, "1: give a list of name:value"),
        ({"X-A": "b"}, "give a list of name:value"),
        ([1], "give name:value"),
        (["X-A"], "give name:value"),
        ([("X-A",)], "give name:value"),
        ([("X-A", b"b")], "give name:value"),
        ([("X A", "b")], "'X A': give a header name"),
        (["Content-Length:5"], "'Content-Length': leave it out"),
        (["date:today"], "'date': leave it out"),
        ([("", "b")], "'': give a header name"),
        ([("X-A", "b\r\nX-B: c")], "'X-A': give a value without control"),
        ([("X-A", "\u20ac")], "'X-A': give a value without control"),
    ],
)
def test_a_wrong_header_is_named(value: Any, mend: str) -> None:
    with pytest.raises(ConfigError, match=f"^headers .*{mend}"):
        Config(app, headers=value)


def test_one_worker_and_no_reload_ask_for_nothing() -> None:
    config = Config(app, workers=1, reload=False, reload_dirs=[])
    assert not config.is_supervised


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"bind": "x"}, "bind 'x': give HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER"),
        ({"health_path": "x"}, "health_path 'x': give a path that begins with a slash"),
        ({"app_dir": "none"}, "app_dir 'none' is not a folder: name one that exists"),
        ({"reload": True, "preload": True}, "preload can't be used with reload: "),
        ({"workers": 2}, "workers needs app as an import string such as 'main:app', "),
        ({"reload": True}, "reload needs app as an import string such as 'main:app', "),
    ],
)
def test_settings_that_can_not_be_used_begin_their_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(app, **settings)
    assert str(caught.value).startswith(line)


def test_web_concurrency_gives_workers_that_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert Config("main:app").workers == 3
    assert Config("main:app", workers=2).workers == 2
    monkeypatch.setenv("WEB_CONCURRENCY", "")
    assert not Config("main:app").is_supervised


# The application


def test_load_takes_the_object_itself() -> None:
    config = Config(app)
    assert not config.loaded
    config.load()
    assert config.loaded
    assert (config.loaded_app, config.interface, config.asgi_version) == (app, "asgi3", "3.0")


def test_load_adapts_a_double_callable() -> None:
    config = Config(lambda scope: None)
    config.load()
    assert (config.interface, config.asgi_version) == ("asgi2", "2.0")


@pytest.mark.parametrize(
    ("interface", "given", "expected"),
    [
        ("asgi3", None, "allow"),
        ("wsgi", None, "drop"),
        ("asgi3", "drop", "drop"),
        ("wsgi", "refuse", "refuse"),
    ],
)
def test_underscores_in_header_names_are_dropped_for_wsgi(
    interface: str, given: str | None, expected: str
) -> None:
    config = Config(lambda environ, start_response: [], interface=interface, header_underscores=given)
    config.load()
    assert config.header_underscores == expected


def test_wsgi_is_recognised_and_said_so_once(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(lambda environ, start_response: [], log_config=None, log_level="info")
    config.load()
    assert (config.interface, config.header_underscores, config.asgi_version) == ("wsgi", "drop", "3.0")
    assert [record.getMessage() for record in caplog.records] == [
        "APP looks like a WSGI application and is served as one; say so with --interface wsgi."
    ]


@pytest.mark.parametrize(("threads", "expected"), [(None, 10), (3, 3)])
def test_threads_are_those_of_wsgi(
    threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = []
    monkeypatch.setattr("a2wsgi.WSGIMiddleware", lambda app, workers: made.append(workers))
    Config(lambda environ, start_response: [], interface="wsgi", threads=threads, log_config=None).load()
    assert made == [expected]
    assert not caplog.records


def test_threads_of_an_asgi_application_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Config(app, threads=3, log_config=None).load()
    assert [record.getMessage() for record in caplog.records] == [
        "threads 3 has no effect: one event loop serves an ASGI application; raise workers"
    ]


def test_a_factory_is_called() -> None:
    config = Config(create_app, factory=True)
    config.load()
    assert config.loaded_app is app


def test_what_looks_like_a_factory_is_called_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(create_app, log_config=None)
    config.load()
    assert config.loaded_app is app
    assert "--factory" in caplog.text


async def coroutine_factory():
    return app


@pytest.mark.parametrize(
    ("given", "factory", "mend"),
    [
        (app, True, "without arguments"),
        (coroutine_factory, True, "make the factory a plain function"),
        (lambda: None, True, "which can't be called"),
        (42, False, "which can't be called"),
        (42, True, "without arguments"),
    ],
)
def test_what_is_no_application_is_refused(given: Any, factory: bool, mend: str) -> None:
    with pytest.raises(AppImportError, match=mend):
        Config(given, factory=factory).load()


def test_an_error_inside_the_factory_passes_through() -> None:
    def fail():
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        Config(fail, factory=True).load()


def test_a_program_can_catch_why_a_server_does_not_start() -> None:
    with pytest.raises(fastasgi.ConfigError) as raised:
        fastasgi.run("nowhere:app", port="x")
    assert isinstance(raised.value, fastasgi.FastasgiError)
    assert all(getattr(fastasgi, name) is not None for name in fastasgi.__all__)


def test_app_dir_is_searched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "only_here.py").write_text("def app(scope): ...")
    config = Config("only_here:app", app_dir=tmp_path)
    config.load_app()
    config.load()
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[0] == str(tmp_path)


def test_log_config_may_name_a_class_beside_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "beside_app.py").write_text("import logging\nclass Ours(logging.NullHandler): ...")
    handlers = {"ours": {"class": "beside_app.Ours"}}
    loggers = {"beside": {"handlers": ["ours"]}}
    Config("any:app", app_dir=tmp_path, log_config={"version": 1, "handlers": handlers, "loggers": loggers})
    (handler,) = logging.getLogger("beside").handlers
    assert type(handler).__name__ == "Ours"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(b"server", b"fastasgi")]),
        ({"server_header": False}, []),
        ({"headers": [("X-A", "\u00e9")]}, [(b"server", b"fastasgi"), (b"x-a", b"\xe9")]),
        ({"headers": [("Server", "mine")]}, [(b"server", b"mine")]),
    ],
)
def test_headers_are_encoded(settings: dict[str, Any], expected: list[tuple[bytes, bytes]]) -> None:
    config = Config(app, **settings)
    config.load()
    assert config.encoded_headers == expected


# Environment file


def test_env_file_sets_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dotenv")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("SHOP_OLD", "kept")
    path = tmp_path / "shop.env"
    path.write_text("SHOP_NEW='a b'\nSHOP_OLD=changed\n")
    Config(app, env_file=path)
    assert (os.environ["SHOP_NEW"], os.environ["SHOP_OLD"]) == ("a b", "kept")


def test_a_missing_env_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("dotenv")
    with pytest.raises(ConfigError, match=r"^env_file '.*/none.env' can't be read: No such file"):
        Config(app, env_file=tmp_path / "none.env")


def test_env_file_without_dotenv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    with pytest.raises(ConfigError, match="pip install python-dotenv"):
        Config(app, env_file="x.env")


# Event loop and sockets


def test_the_loop_asked_for_is_made() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert Config(app, loop="auto").get_loop_factory() is uvloop.new_event_loop
    loop = Config(app, loop="asyncio").get_loop_factory()()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()


def test_reuse_port_needs_the_platforms_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    assert not Config(app).reuse_port
    with pytest.raises(ConfigError, match=r"^reuse_port: this platform has no SO_REUSEPORT: leave it out$"):
        Config(app, reuse_port=True)


def test_uvloop_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ConfigError, match="pip install uvloop"):
        Config(app, loop="uvloop").get_loop_factory()


def test_bind_socket_gives_an_inheritable_socket_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    with Config(app, port=0, log_config=None, log_level="info").bind_socket() as sock:
        assert sock.get_inheritable()
        host, port = sock.getsockname()
    assert f"fastasgi running on http://{host}:{port} (Press CTRL+C to quit)" in caplog.text


def test_a_descriptor_goes_before_a_path_and_a_path_before_a_port(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        adopted = Config(app, fd=listener.fileno(), uds=path).bind_socket()
        with adopted:
            assert adopted.getsockname() == listener.getsockname()
    with Config(app, uds=path).bind_socket() as sock:
        assert sock.getsockname() == str(path)


def test_a_users_logging_config_stays_as_it_is() -> None:
    before = repr(LOGGING_CONFIG)
    Config(app, use_colors=True)
    assert repr(LOGGING_CONFIG) == before


def test_loop_may_be_an_import_string() -> None:
    factory = Config("main:app", loop="asyncio:SelectorEventLoop").get_loop_factory()
    assert factory is asyncio.SelectorEventLoop
    assert Config("main:app", loop="none").get_loop_factory() is asyncio.new_event_loop
    with pytest.raises(ConfigError, match=r"^loop 'no_such:thing' can't be imported: "):
        Config("main:app", loop="no_such:thing").get_loop_factory()
