"""Django's ASGI handler under the customary middlewares, one that runs in a thread and one in the event loop.

It has no background tasks of its own, no lifespan and no WebSockets.
"""

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django_settings import configure
from failures import fail, fail_later, good, headers_of_stream, pieces_stream

LACKS = {"background", "lifespan", "websocket"}
# Django 6 sends gzip's header before it asks for the first piece
ANSWERS = {"/stream/first gzip": {"500", "cut off"}}

configure(__name__, "django_settings.in_loop", "django_settings.in_thread", "django_settings.in_loop")


async def good_one(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse(good(mark), content_type="text/plain")


async def raising(request: HttpRequest, kind: str, mark: str) -> HttpResponse:
    fail(kind, mark)


async def raising_later(request: HttpRequest, kind: str, mark: str) -> HttpResponse:
    await fail_later(kind, mark)


def raising_in_thread(request: HttpRequest, kind: str, mark: str) -> HttpResponse:
    fail(kind, mark)


async def stream(request: HttpRequest, where: str, mark: str) -> StreamingHttpResponse:
    headers = {"content-type": "text/plain", **headers_of_stream(where)}
    return StreamingHttpResponse(pieces_stream(where, mark), headers=headers)


urlpatterns = [
    path("good/<str:mark>", good_one),
    path("raise/<str:kind>/<str:mark>", raising),
    path("raise-later/<str:kind>/<str:mark>", raising_later),
    path("raise-in-thread/<str:kind>/<str:mark>", raising_in_thread),
    path("stream/<str:where>/<str:mark>", stream),
]

app = get_asgi_application()
