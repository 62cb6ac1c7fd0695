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

# Of frameworks whose applications may not show it by their arguments; a class stands before its base classes
FRAMEWORK_CLASSES: dict[str, Interface] = {
    "bottle.Bottle": "wsgi",
    "django.core.handlers.wsgi.WSGIHandler": "wsgi",
    "falcon.asgi.app.App": "asgi3",
    "falcon.app.App": "wsgi",
    "flask.app.Flask": "wsgi",
    "pyramid.router.Router": "wsgi",
}


def detect_interface(app: Callable[..., Any]) -> Interface:
    """Tells the interface of an application by its shape, without calling it.

    A coroutine function, or an object whose ``__call__`` is one, is ASGI 3. What takes two arguments, the
    second one named start_response (PEP 3333), is WSGI. A class is ASGI 2 otherwise (its instance takes
    receive and send) unless its instances can be awaited. Of other callables the number of arguments decides,
    and FRAMEWORK_CLASSES. Raises ConfigError for what takes two arguments of which nothing is known.
    """
    names = _required_arguments(app)
    takes_start_response = names is not None and len(names) == 2 and names[1] == "start_response"
    function = app.func if isinstance(app, functools.partial) else app
    if inspect.isclass(function):
        if hasattr(function, "__await__"):
            return "asgi3"
        return "wsgi" if takes_start_response else "asgi2"
    if is_coroutine_callable(app) or (names is not None and len(names) == 3):
        return "asgi3"
    if takes_start_response:
        return "wsgi"
    for base in type(function).__mro__:
        if (interface := FRAMEWORK_CLASSES.get(f"{base.__module__}.{base.__qualname__}")) is not None:
            return interface
    if names is not None and len(names) == 2:
        raise ConfigError(
            "the application takes two arguments, as WSGI does: pass --interface wsgi, or asgi3"
        )
    return "asgi2"


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


def _required_arguments(app: Callable[..., Any]) -> list[str] | None:
    """The names of the positional arguments without a default; None if they can't be told."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in positional if p.default is p.empty]


def from_asgi2(app: Callable[..., Any]) -> ASGIApp:
    """An ASGI 3 callable of a double callable: ``app(scope)`` gives what takes receive and send."""

    async def asgi2(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi2
