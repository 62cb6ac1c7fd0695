"""Django's ASGI handler.

It has no server-sent events of its own (a StreamingHttpResponse writes them), no background tasks (the view
starts one with asyncio) and no lifespan.
"""

import asyncio
from collections.abc import AsyncIterator

import django
from bodies import download_stream, report_of
from boxes import Boxes
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

LACKS = {"lifespan"}

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[], SECRET_KEY="test")
django.setup()

boxes = Boxes()
tasks: set["asyncio.Task[None]"] = set()


async def item(request: HttpRequest, id: int) -> HttpResponse:
    return JsonResponse({"id": id, "tags": request.GET.getlist("tag")})


async def name(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name})


async def box(request: HttpRequest, name: str) -> HttpResponse:
    if request.method == "POST":
        boxes.put(name, request.body.decode())
        return HttpResponse(status=204)
    return HttpResponse(await boxes.take(name), content_type="text/plain")


async def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse(report_of(iter(lambda: request.read(65536), b"")))


async def form(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse(
        {"note": request.POST["note"], "filename": file.name, **report_of(file.chunks())},
    )


async def download(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(download_stream())


async def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def texts() -> AsyncIterator[str]:
        while (text := await boxes.take(name)) != "end":
            yield text

    return StreamingHttpResponse(texts(), content_type="text/plain")


async def events(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def texts() -> AsyncIterator[str]:
        try:
            while True:
                yield f"data: {await boxes.take(name)}\n\n"
        finally:
            boxes.put(f"{name}.status", "left")

    return StreamingHttpResponse(texts(), content_type="text/event-stream")


async def poll(request: HttpRequest, name: str) -> HttpResponse:
    boxes.put(f"{name}.status", "waiting")
    try:
        return HttpResponse(await boxes.take(name), content_type="text/plain")
    except asyncio.CancelledError:
        boxes.put(f"{name}.status", "left")
        raise


async def task(request: HttpRequest, name: str) -> HttpResponse:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    running = asyncio.create_task(work())
    tasks.add(running)
    running.add_done_callback(tasks.discard)
    return HttpResponse(status=202)


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
    path("task/<str:name>", task),
]

app = get_asgi_application()
