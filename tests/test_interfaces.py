import asyncio
import functools
import sys
from typing import Any

import pytest

from fastasgi.errors import ConfigError
from fastasgi.interfaces import detect_interface, from_asgi2, takes_no_arguments
from fastasgi.wsgi import from_wsgi


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


def test_what_looks_like_wsgi_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="--interface wsgi"):
        detect_interface(wsgi)


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
    with pytest.raises(ConfigError, match=r"pip install 'fastasgi\[wsgi\]'"):
        from_wsgi(wsgi)


@pytest.mark.parametrize("app", [lambda: None, lambda a=1: None, lambda **kwargs: None, ASGI3Object])
def test_a_factory_takes_no_arguments(app: Any) -> None:
    assert takes_no_arguments(app)


@pytest.mark.parametrize("app", [asgi3, asgi2_function, ASGI2Class, lambda *args: None])
def test_an_application_is_no_factory(app: Any) -> None:
    assert not takes_no_arguments(app)
