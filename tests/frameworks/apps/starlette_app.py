"""Starlette. It has no server-sent events of its own: a StreamingResponse writes them."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

boxes = Boxes()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"started": "started"}
    print("stopped", file=sys.stderr)


async def started(request: Request) -> Response:
    return PlainTextResponse(request.state.started)


async def item(request: Request) -> Response:
    return JSONResponse(
        {"id": request.path_params["id"], "tags": request.query_params.getlist("tag")},
    )


async def name(request: Request) -> Response:
    return JSONResponse({"name": request.path_params["name"]})


async def put(request: Request) -> Response:
    boxes.put(request.path_params["name"], (await request.body()).decode())
    return Response(status_code=204)


async def take(request: Request) -> Response:
    return PlainTextResponse(await boxes.take(request.path_params["name"]))


async def upload(request: Request) -> Response:
    return JSONResponse(await report_of_stream(request.stream()))


async def form(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        report = report_of([await file.read()])
        return JSONResponse({"note": fields["note"], "filename": file.filename, **report})


async def download(request: Request) -> Response:
    return StreamingResponse(download_stream())


async def stream(request: Request) -> Response:
    async def texts() -> AsyncIterator[str]:
        while (text := await boxes.take(request.path_params["name"])) != "end":
            yield text

    return StreamingResponse(texts(), media_type="text/plain")


async def events(request: Request) -> Response:
    name = request.path_params["name"]

    async def texts() -> AsyncIterator[str]:
        try:
            while True:
                yield f"data: {await boxes.take(name)}\n\n"
        finally:
            boxes.put(f"{name}.status", "left")

    return StreamingResponse(texts(), media_type="text/event-stream")


async def poll(request: Request) -> Response:
    name = request.path_params["name"]
    boxes.put(f"{name}.status", "waiting")
    text = await boxes.take_or_look(name, request.is_disconnected)
    if text is None:
        boxes.put(f"{name}.status", "left")
    return PlainTextResponse(text)


async def task(request: Request) -> Response:
    async def work(name: str) -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    return Response(status_code=202, background=BackgroundTask(work, request.path_params["name"]))


app = Starlette(
    routes=[
        Route("/started", started),
        Route("/items/{id:int}", item),
        Route("/names/{name}", name),
        Route("/box/{name}", take),
        Route("/box/{name}", put, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/download", download),
        Route("/stream/{name}", stream),
        Route("/events/{name}", events),
        Route("/poll/{name}", poll),
        Route("/task/{name}", task, methods=["POST"]),
    ],
    lifespan=lifespan,
)
