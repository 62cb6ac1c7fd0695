"""Litestar."""

import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body, Parameter
from litestar.response import ServerSentEvent, Stream

boxes = Boxes()


async def start(app: Litestar) -> None:
    app.state.started = "started"


async def stop(app: Litestar) -> None:
    print("stopped", file=sys.stderr)


@get("/started", media_type=MediaType.TEXT)
async def started(state: State) -> str:
    return state.started


@get("/items/{id:int}")
async def item(id: int, tags: Annotated[list[str], Parameter(query="tag")]) -> dict[str, Any]:
    return {"id": id, "tags": tags}


@get("/names/{name:str}")
async def name(name: str) -> dict[str, str]:
    return {"name": name}


@post("/box/{name:str}", status_code=204)
async def put(name: str, request: Request) -> None:
    boxes.put(name, (await request.body()).decode())


@get("/box/{name:str}", media_type=MediaType.TEXT)
async def take(name: str) -> str:
    return await boxes.take(name)


@post("/upload")
async def upload(request: Request) -> dict[str, Any]:
    return await report_of_stream(request.stream())


@post("/form")
async def form(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    file: UploadFile = data["file"]
    return {"note": data["note"], "filename": file.filename, **report_of([await file.read()])}


@get("/download")
async def download() -> Stream:
    return Stream(download_stream())


@get("/stream/{name:str}")
async def stream(name: str) -> Stream:
    async def texts() -> AsyncIterator[str]:
        while (text := await boxes.take(name)) != "end":
            yield text

    return Stream(texts(), media_type=MediaType.TEXT)


@get("/events/{name:str}")
async def events(name: str) -> ServerSentEvent:
    async def texts() -> AsyncIterator[str]:
        try:
            while True:
                yield await boxes.take(name)
        finally:
            boxes.put(f"{name}.status", "left")

    return ServerSentEvent(texts())


@get("/poll/{name:str}", media_type=MediaType.TEXT)
async def poll(name: str, request: Request) -> str | None:
    boxes.put(f"{name}.status", "waiting")
    text = await boxes.take_or_leave(name, request.receive)
    if text is None:
        boxes.put(f"{name}.status", "left")
    return text


@post("/task/{name:str}", status_code=202)
async def task(name: str) -> Response[None]:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    return Response(None, background=BackgroundTask(work))


app = Litestar(
    [started, item, name, put, take, upload, form, download, stream, events, poll, task],
    on_startup=[start],
    on_shutdown=[stop],
)
