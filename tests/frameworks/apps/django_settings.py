"""Django's settings of a project as startproject makes it, without a database."""

from collections.abc import Awaitable, Callable

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse


def configure(urls: str, *first: str, **more: object) -> None:
    """Set up Django: the customary middlewares, behind those named first."""
    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
        ],
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "loggers": {"django": {"handlers": ["console"], "level": "ERROR"}},
        },
        MIDDLEWARE=[
            *first,
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        ROOT_URLCONF=urls,
        SECRET_KEY="test",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        **more,
    )
    django.setup()


def in_thread(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that can only be called in a thread."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["x-in-thread"] = "1"
        return response

    return middleware


def in_loop(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponse]],
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """A middleware that can only be called in the event loop."""

    async def middleware(request: HttpRequest) -> HttpResponse:
        response = await get_response(request)
        response["x-in-loop"] = "1"
        return response

    return middleware


in_loop.sync_capable, in_loop.async_capable = False, True
