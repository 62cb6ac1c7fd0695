import asyncio
import functools
import sys
from typing import Any

import falcon
import falcon.asgi
import flask
import pytest
from django.core.handlers.wsgi import WSGIHandler

from fastasgi.application.interfaces import detect_interface, from_asgi2, takes_no_arguments
from fastasgi.application.wsgi import from_wsgi
from fastasgi.errors import ConfigError


async def asgi3(scope, receive, send):
    await send(scope)


def asgi3_plain(scope, receive, send):
    return asgi3(scope, receive, send)


class ASGI3Object:
    async def __call__(self, scope, receive, send):
        await send(scope)

    async def method(self, scope, receive, send):
        await send(scope)


class ASGI3Awaitable:
    def __init__(self, scope, receive, send): ...

    def __await__(self): ...


class ASGI2Class:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await send(self.scope)


def asgi2_function(scope):
    async def instance(receive, send):
        await send(scope)

    return instance


class ASGI2Object:
    def __call__(self, scope):
        return asgi2_function(scope)


def wsgi(environ, start_response):
    start_response("201 Created", [("X-Path", environ["PATH_INFO"])])
    return [environ["wsgi.input"].read(), b"!"]


@pytest.mark.parametrize(
    "app",
    [
        asgi3,
        asgi3_plain,
        ASGI3Object(),
        ASGI3Object().method,
        ASGI3Awaitable,
        functools.partial(asgi3),
        functools.partial(functools.partial(ASGI3Object())),
        lambda scope, receive, send: asgi3(scope, receive, send),
    ],
)
def test_asgi3_is_detected(app: Any) -> None:
    assert detect_interface(app) == "asgi3"


@pytest.mark.parametrize(
    "app",
    [
        ASGI2Class,
        asgi2_function,
        ASGI2Object(),
        functools.partial(asgi2_function),
        functools.partial(ASGI2Class),
        lambda *args: None,
    ],
)
def test_asgi2_is_detected(app: Any) -> None:
    assert detect_interface(app) == "asgi2"


class WSGIObject:
    def __call__(self, environ, start_response): ...

    def method(self, environ, start_response): ...


class WSGIClass:
    def __init__(self, environ, start_response): ...

    def __iter__(self): ...


def configured_wsgi(settings, environ, start_response): ...


def framework_app(module: str, name: str, call: Any) -> Any:
    """An instance of a class derived from what poses as a framework's."""
    base = type(name, (), {"__module__": module, "__call__": call})
    return type("Site", (base,), {})()


def two_arguments(self, environ, callback): ...


def any_arguments(self, *args): ...


@pytest.mark.parametrize(
    "app",
    [
        wsgi,
        lambda environ, start_response, *more, debug=False: [],
        WSGIObject(),
        WSGIObject().method,
        WSGIClass,
        functools.partial(configured_wsgi, {}),
        flask.Flask(__name__),
        flask.Flask(__name__).wsgi_app,
        falcon.App(),
        WSGIHandler.__new__(WSGIHandler),
        framework_app("bottle", "Bottle", two_arguments),
        framework_app("pyramid.router", "Router", any_arguments),
        framework_app("flask.app", "Flask", any_arguments),
        framework_app("falcon.app", "App", any_arguments),
    ],
)
def test_wsgi_is_detected(app: Any) -> None:
    assert detect_interface(app) == "wsgi"


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (falcon.asgi.App(), "asgi3"),
        (framework_app("falcon.asgi.app", "App", any_arguments), "asgi3"),
        (framework_app("flask.app", "Flask", ASGI3Object.__call__), "asgi3"),
        (framework_app("flask.app", "Flask", lambda self, scope, receive, send: None), "asgi3"),
        (framework_app("mybottle", "Bottle", any_arguments), "asgi2"),
        (flask.Flask, "asgi2"),
    ],
)
def test_a_frameworks_name_alone_makes_no_wsgi(app: Any, interface: str) -> None:
    assert detect_interface(app) == interface


async def start_response_coroutine(environ, start_response): ...


def test_a_coroutine_function_is_never_wsgi() -> None:
    assert detect_interface(start_response_coroutine) == "asgi3"


@pytest.mark.parametrize(
    "app",
    [lambda environ, respond: [], lambda start_response, environ: [], framework_app("x", "X", two_arguments)],
)
def test_what_only_takes_two_arguments_is_not_guessed(app: Any) -> None:
    with pytest.raises(ConfigError, match="--interface wsgi, or asgi3"):
        detect_interface(app)


@pytest.mark.parametrize("app", [ASGI2Class, asgi2_function])
def test_a_double_callable_gets_scope_then_receive_and_send(app: Any) -> None:
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http"}
    asyncio.run(from_asgi2(app)(scope, None, send))
    assert sent == [scope]


def test_wsgi_runs_behind_asgi() -> None:
    sent = []
    messages = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "http_version": "1.1"}
    scope["headers"] = [(b"transfer-encoding", b"chunked")]
    asyncio.run(from_wsgi(wsgi)(scope, receive, send))
    assert sent[0] == {"type": "http.response.start", "status": 201, "headers": [(b"x-path", b"/x")]}
    assert b"".join(message.get("body", b"") for message in sent) == b"ab!"
    assert not sent[-1].get("more_body")


def test_wsgi_without_a2wsgi_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ConfigError, match=r"^a WSGI application .*: pip install 'fastasgi\[wsgi\]'$"):
        from_wsgi(wsgi)


def test_a_body_that_is_not_there_can_be_read_after_the_response_has_begun() -> None:
    sent = []
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def serve() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1"}
        async with asyncio.timeout(5):
            await from_wsgi(wsgi)({**scope, "headers": []}, receive, send)

    asyncio.run(serve())
    assert b"".join(message.get("body", b"") for message in sent) == b"!"


def test_wsgi_errors_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(environ, start_response):
        print("no database", file=environ["wsgi.errors"])
        start_response("200 OK", [])
        return []

    async def receive():
        await asyncio.Event().wait()

    async def send(message): ...

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1"}
    asyncio.run(from_wsgi(failing)({**scope, "headers": []}, receive, send))
    assert capsys.readouterr() == ("", "no database\n")


@pytest.mark.parametrize("app", [lambda: None, lambda a=1: None, lambda **kwargs: None, ASGI3Object])
def test_a_factory_takes_no_arguments(app: Any) -> None:
    assert takes_no_arguments(app)


@pytest.mark.parametrize("app", [asgi3, asgi2_function, ASGI2Class, lambda *args: None])
def test_an_application_is_no_factory(app: Any) -> None:
    assert not takes_no_arguments(app)
