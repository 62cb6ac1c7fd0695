"""Django's WSGI handler under the customary middlewares. All runs in threads; it has no background tasks."""

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django_settings import configure
from failures import fail, good, headers_of_stream, pieces

ARGUMENTS = ["--interface", "wsgi"]
LACKS = {"background", "later", "lifespan", "thread", "websocket"}
# gzip writes its header before it asks for the first piece
ANSWERS = {"/stream/first gzip": "cut off"}

configure(__name__, "django_settings.in_thread")


def good_one(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse(good(mark), content_type="text/plain")


def raising(request: HttpRequest, kind: str, mark: str) -> HttpResponse:
    fail(kind, mark)


def stream(request: HttpRequest, where: str, mark: str) -> StreamingHttpResponse:
    headers = {"content-type": "text/plain", **headers_of_stream(where)}
    return StreamingHttpResponse(pieces(where, mark), headers=headers)


urlpatterns = [
    path("good/<str:mark>", good_one),
    path("raise/<str:kind>/<str:mark>", raising),
    path("stream/<str:where>/<str:mark>", stream),
]

app = get_wsgi_application()
