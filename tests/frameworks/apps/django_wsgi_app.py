"""Django's WSGI handler.

It takes a body without content-length for an empty one, and has no server-sent events of its own (a
StreamingHttpResponse writes them) and no background tasks. WSGI has no lifespan, and a handler that waits
isn't told that the client has gone.
"""

from collections.abc import Iterator

import bodies
import django
from bodies import report_of
from boxes import ThreadBoxes
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

ARGUMENTS = ["--interface", "wsgi"]
LACKS = {"background", "chunked upload", "leaving a poll", "lifespan", "watching"}

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], SECRET_KEY="test")
django.setup()

boxes = ThreadBoxes()


def item(request: HttpRequest, id: int) -> HttpResponse:
    return JsonResponse({"id": id, "tags": request.GET.getlist("tag")})


def name(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name})


def box(request: HttpRequest, name: str) -> HttpResponse:
    if request.method == "POST":
        boxes.put(name, request.body.decode())
        return HttpResponse(status=204)
    return HttpResponse(boxes.take(name), content_type="text/plain")


def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse(report_of(iter(lambda: request.read(65536), b"")))


def form(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse(
        {"note": request.POST["note"], "filename": file.name, **report_of(file.chunks())},
    )


def download(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(bodies.download())


def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    texts = iter(lambda: boxes.take(name), "end")
    return StreamingHttpResponse(texts, content_type="text/plain")


def events(request: HttpRequest, name: str) -> StreamingHttpResponse:
    def texts() -> Iterator[str]:
        try:
            while True:
                yield f"data: {boxes.take(name)}\n\n"
        finally:
            boxes.put(f"{name}.status", "left")

    return StreamingHttpResponse(texts(), content_type="text/event-stream")


def poll(request: HttpRequest, name: str) -> HttpResponse:
    boxes.put(f"{name}.status", "waiting")
    return HttpResponse(boxes.take(name), content_type="text/plain")


urlpatterns = [
    path("items/<int:id>", item),
    path("names/<str:name>", name),
    path("box/<str:name>", box),
    path("upload", upload),
    path("form", form),
    path("download", download),
    path("stream/<str:name>", stream),
    path("events/<str:name>", events),
    path("poll/<str:name>", poll),
]

app = get_wsgi_application()
