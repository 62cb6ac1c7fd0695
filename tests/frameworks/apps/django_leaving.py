"""Django's ASGI handler under the customary middlewares.

It has no server-sent events of its own, and no tasks that belong to a response.
"""

from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django_settings import configure
from leaving import FILE, Recorder, cancellation, held, slow, waiting_texts

LACKS = {"background", "events"}

configure(__name__)


async def plain(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse("plain")


async def slow_one(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse(await slow())


@csrf_exempt
async def echo(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse(request.body)


async def held_one(request: HttpRequest, mark: str) -> HttpResponse:
    return HttpResponse(await held(mark, cancellation()))


async def stream(request: HttpRequest, mark: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(waiting_texts(mark), content_type="text/plain")


def file(request: HttpRequest, mark: str) -> FileResponse:
    return FileResponse(open(FILE, "rb"))


urlpatterns = [
    path("plain/<str:mark>", plain),
    path("slow/<str:mark>", slow_one),
    path("echo/<str:mark>", echo),
    path("held/<str:mark>", held_one),
    path("stream/<str:mark>", stream),
    path("file/<str:mark>", file),
]

app = Recorder(get_asgi_application())
