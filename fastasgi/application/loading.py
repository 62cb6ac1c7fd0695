"""From the setting ``app`` to an ASGI 3 callable: finds it, calls a factory, settles the interface."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from fastasgi.application.importer import call_factory, import_from_string
from fastasgi.application.interfaces import (
    ASGIApp,
    detect_interface,
    from_asgi2,
    is_coroutine_callable,
    takes_no_arguments,
)
from fastasgi.application.wsgi import DEFAULT_THREADS, from_wsgi
from fastasgi.errors import AppImportError

logger = logging.getLogger("fastasgi.error")


class ApplicationSettings(Protocol):
    """The settings that say what the application is."""

    app: ASGIApp | Callable[..., Any] | str
    app_dir: str | os.PathLike[str] | None
    factory: bool
    interface: str
    threads: int | None


class Loaded(NamedTuple):
    """An application as it is served, and the interface that it was written for."""

    app: ASGIApp
    interface: str


def look_in(app_dir: str | os.PathLike[str] | None) -> None:
    """Have imports look for modules in this folder first; None changes nothing."""
    if app_dir is not None:
        folder = os.path.abspath(app_dir)
        if sys.path[:1] != [folder]:
            sys.path.insert(0, folder)


def find_app(settings: ApplicationSettings) -> Any:
    """Import what app names. Raises AppImportError, or what the user's module raises."""
    look_in(settings.app_dir)
    return import_from_string(settings.app)


def as_asgi3(settings: ApplicationSettings, found: Any) -> Loaded:
    """Make an ASGI 3 callable of what ``find_app`` has found.

    Raises AppImportError or ConfigError, or what the user's code raises.
    """
    app = _called_factory(settings, found)
    if not callable(app):
        raise AppImportError(f"app {settings.app!r} is {app!r}, which can't be called: name an application")
    interface = settings.interface
    if interface == "auto":
        interface = detect_interface(app)
        if interface == "wsgi":
            logger.info(
                "APP looks like a WSGI application and is served as one; say so with --interface wsgi."
            )
    if settings.threads is not None and interface != "wsgi":
        logger.warning(
            "threads %d has no effect: one event loop serves an ASGI application; raise workers",
            settings.threads,
        )
    if interface == "asgi2":
        app = from_asgi2(app)
    elif interface == "wsgi":
        app = from_wsgi(app, settings.threads or DEFAULT_THREADS)
    return Loaded(app, interface)


def _called_factory(settings: ApplicationSettings, app: Any) -> Any:
    """The application: what the factory returns if app is one, else app itself."""
    if settings.factory:
        if not callable(app) or not takes_no_arguments(app):
            raise AppImportError(
                f"app {settings.app!r} can't be called without arguments, as --factory asks for"
            )
        if is_coroutine_callable(app):
            raise AppImportError(
                f"app {settings.app!r} is a coroutine function: make the factory a plain function"
            )
        return call_factory(app)
    if callable(app) and takes_no_arguments(app) and not is_coroutine_callable(app):
        logger.warning("APP looks like an application factory and is called as one; say so with --factory.")
        return call_factory(app)
    return app
