"""Programs that were written for uvicorn, with its name changed."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from serving import fetch, port_of, serving
from wire import hello, in_loop, served

import fastasgi as uvicorn
from fastasgi.errors import ConfigError
from fastasgi.logging import ColourizedFormatter
from fastasgi.middleware.asgi2 import ASGI2Middleware
from fastasgi.middleware.message_logger import MessageLoggerMiddleware
from fastasgi.middleware.wsgi import WSGIMiddleware
from fastasgi.protocols.utils import get_client_addr, get_path_with_query_string
from fastasgi.server import ServerState
from fastasgi.supervisors import ChangeReload


async def lifespan_app(scope: Any, receive: Any, send: Any) -> None:
    pass


def loaded(**settings: Any) -> uvicorn.Config:
    config = uvicorn.Config(lifespan_app, **settings)
    config.load()
    return config


# What a server tells of itself


@in_loop
async def test_server_state_tells_of_what_is_open_and_runs() -> None:
    release, begun = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        if scope["type"] == "http" and scope["path"] == "/wait":
            await release.wait()
        await hello(scope, receive, send)

    async with serving(app, lifespan="off") as server:
        state = server.server_state
        assert (state.total_requests, state.connections, state.tasks) == (0, set(), set())
        await fetch(port_of(server))
        assert (state.total_requests, state.tasks) == (1, set())
        begun.clear()
        waiting = asyncio.create_task(
            fetch(port_of(server), "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        )
        await begun.wait()
        assert (state.total_requests, len(state.connections), len(state.tasks)) == (2, 1, 1)
        state.connections.clear()  # a copy
        assert len(state.connections) == 1
        (task,) = state.tasks
        assert isinstance(task, asyncio.Task)
        release.set()
        await waiting
        assert state.tasks == set()
    assert server.server_state.total_requests == 2


def test_a_server_state_of_nothing() -> None:
    state = ServerState()
    assert (state.total_requests, state.connections, state.tasks) == (0, set(), set())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"app": "a:b", "reload": True}, True),
        ({"app": "a:b"}, False),
        ({"app": "a:b", "workers": 2}, False),
    ],
)
def test_should_reload(settings: dict[str, Any], expected: bool) -> None:
    config = uvicorn.Config(**settings)
    assert config.should_reload is expected
    assert config.use_subprocess is (len(settings) > 1)


# TLS contexts


def test_a_config_has_its_context(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue()
    assert loaded().ssl is None
    config = loaded(**pair.settings)
    assert isinstance(config.ssl, ssl.SSLContext)
    assert config.ssl is config.tls.context_for("localhost")
    assert config.http_protocol_class.__name__ == "TLSSink"


@in_loop
async def test_a_context_that_is_set_is_served_with(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    config = loaded(port=0)
    config.ssl = context
    assert config.ssl is context
    assert config.is_ssl
    config.ssl = None
    assert not config.is_ssl
    config.ssl = context
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    connection = asyncio.open_connection(
        "127.0.0.1", port_of(server), ssl=authority.client(), server_hostname="localhost"
    )
    _, writer = await connection
    assert writer.get_extra_info("ssl_object").version() is not None
    writer.close()
    await server.shutdown()


@pytest.mark.parametrize(
    ("settings", "http_class", "ws_class"),
    [
        ({}, "SocketSink", "SocketSink"),
        ({"http": "httptools", "ws": "none"}, "SocketSink", None),
        ({"interface": "wsgi"}, "SocketSink", None),
    ],
)
def test_the_class_of_a_connection(settings: dict[str, Any], http_class: str, ws_class: str | None) -> None:
    config = loaded(**settings)
    assert config.http_protocol_class.__name__ == http_class
    assert getattr(config.ws_protocol_class, "__name__", None) == ws_class


# Middleware, formatters, helpers


@in_loop
async def test_middleware_by_hand() -> None:
    class Double:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await hello(self.scope, receive, send)

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        wrapped = {"/asgi2": ASGI2Middleware(Double), "/wsgi": WSGIMiddleware(wsgi)}
        await wrapped[scope["path"]](scope, receive, send)

    async with serving(app, lifespan="off") as server:
        for path, body in (("/asgi2", b"hello"), ("/wsgi", b"/wsgi")):
            head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            assert body in await fetch(port_of(server), head)


@in_loop
async def test_log_level_trace_shows_the_messages(caplog: pytest.LogCaptureFixture) -> None:
    async with served(hello, log_level="trace", log_config=None) as running:
        await fetch(running.port)
    lines = [record.getMessage() for record in caplog.records if record.name == "fastasgi.asgi"]
    texts = "\n".join(lines)
    assert "Started {'type': 'http'" in texts
    assert "'headers': '<2 headers>'" in texts
    assert "Send {'type': 'http.response.body', 'body': '<5 bytes>'" in texts
    assert any(line.startswith("127.0.0.1:") and line.endswith("] Completed") for line in lines)


@in_loop
async def test_what_an_application_raises_passes_the_message_logger(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("inside")

    caplog.set_level(1, "fastasgi.asgi")
    with pytest.raises(KeyError, match="inside"):
        await MessageLoggerMiddleware(fail)({"type": "lifespan"}, None, None)
    assert caplog.messages[-1] == "ASGI [1] Raised KeyError"


def test_messages_are_not_looked_at_below_level_trace() -> None:
    assert loaded(log_level="debug").loaded_app is lifespan_app


def test_a_formatter_of_the_users_own() -> None:
    class Mine(ColourizedFormatter):
        def color_level_name(self, level_name: str, level_no: int) -> str:
            return f"<{level_name}>"

    record = logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO", "msg": "x"})
    assert Mine("%(levelprefix)s %(message)s", use_colors=True).format(record) == "<INFO>:     x"
    assert Mine("%(levelprefix)s %(message)s", use_colors=False).format(record) == "INFO:     x"


def test_helpers_for_access_logs() -> None:
    scope = {"client": ("::1", 5), "path": "/a b", "query_string": b"c=d"}
    assert get_client_addr(scope) == "::1:5"
    assert get_path_with_query_string(scope) == "/a%20b?c=d"
    scope = {"client": None, "path": "/", "query_string": b""}
    assert (get_client_addr(scope), get_path_with_query_string(scope)) == ("", "/")


# Supervisors by hand


def test_a_reloader_runs_servers_only() -> None:
    config = uvicorn.Config("app:app", reload=True)
    with pytest.raises(
        ConfigError, match=r"^target <.*> can't be run by a worker: give Server\(config\).run$"
    ):
        ChangeReload(config, target=print, sockets=[])
