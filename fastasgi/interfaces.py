"""The forms an application may have (ASGI 3, ASGI 2, WSGI), and the way from ASGI 2 to 3."""

import functools
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from fastasgi.errors import ConfigError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Interface = Literal["asgi3", "asgi2", "wsgi"]


def detect_interface(app: Callable[..., Any]) -> Interface:
    """Tells an ASGI 3 from an ASGI 2 application by its shape, without calling it.

    A coroutine function, or an object whose ``__call__`` is one, is ASGI 3. A class is ASGI 2 (its instance
    takes receive and send) unless its instances can be awaited. Of other callables the number of arguments
    decides. Raises ConfigError for what looks like WSGI, which is never guessed.
    """
    while isinstance(app, functools.partial) and inspect.isclass(app.func):
        app = app.func
    if inspect.isclass(app):
        return "asgi3" if hasattr(app, "__await__") else "asgi2"
    if is_coroutine_callable(app):
        return "asgi3"
    arguments = _required_arguments(app)
    if arguments == 2:
        raise ConfigError(
            "the application takes two arguments, as WSGI does: pass --interface wsgi, or asgi3"
        )
    return "asgi3" if arguments == 3 else "asgi2"


def is_coroutine_callable(app: Any) -> bool:
    """Whether a call of app gives a coroutine: also through functools.partial and ``__call__``."""
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(app.__call__)


def takes_no_arguments(app: Callable[..., Any]) -> bool:
    """Whether app can be called with nothing, as an application factory is; never for ``*args`` wrappers."""
    try:
        signature = inspect.signature(app)
        signature.bind()
    except (TypeError, ValueError):
        return False
    return all(parameter.kind is not parameter.VAR_POSITIONAL for parameter in signature.parameters.values())


def _required_arguments(app: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(p.default is p.empty for p in positional)


def from_asgi2(app: Callable[..., Any]) -> ASGIApp:
    """An ASGI 3 callable of a double callable: ``app(scope)`` gives what takes receive and send."""

    async def asgi2(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi2
