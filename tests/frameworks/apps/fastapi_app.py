"""FastAPI."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes
from fastapi import BackgroundTasks, FastAPI, Form, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

boxes = Boxes()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"started": "started"}
    print("stopped", file=sys.stderr)


app = FastAPI(lifespan=lifespan)


@app.get("/started", response_class=PlainTextResponse)
async def started(request: Request) -> str:
    return request.state.started


@app.get("/items/{id}")
async def item(id: int, tag: Annotated[list[str], Query()]) -> dict[str, Any]:
    return {"id": id, "tags": tag}


@app.get("/names/{name}")
async def name(name: str) -> dict[str, str]:
    return {"name": name}


@app.post("/box/{name}", status_code=204)
async def put(name: str, request: Request) -> None:
    boxes.put(name, (await request.body()).decode())


@app.get("/box/{name}", response_class=PlainTextResponse)
async def take(name: str) -> str:
    return await boxes.take(name)


@app.post("/upload")
async def upload(request: Request) -> dict[str, Any]:
    return await report_of_stream(request.stream())


@app.post("/form")
async def form(note: Annotated[str, Form()], file: UploadFile) -> dict[str, Any]:
    return {"note": note, "filename": file.filename, **report_of([await file.read()])}


@app.get("/download")
async def download() -> StreamingResponse:
    return StreamingResponse(download_stream())


@app.get("/stream/{name}")
async def stream(name: str) -> StreamingResponse:
    async def texts() -> AsyncIterator[str]:
        while (text := await boxes.take(name)) != "end":
            yield text

    return StreamingResponse(texts(), media_type="text/plain")


@app.get("/events/{name}", response_class=EventSourceResponse)
async def events(name: str) -> AsyncIterator[ServerSentEvent]:
    try:
        while True:
            yield ServerSentEvent(raw_data=await boxes.take(name))
    finally:
        boxes.put(f"{name}.status", "left")


@app.get("/poll/{name}")
async def poll(name: str, request: Request) -> PlainTextResponse:
    boxes.put(f"{name}.status", "waiting")
    text = await boxes.take_or_look(name, request.is_disconnected)
    if text is None:
        boxes.put(f"{name}.status", "left")
    return PlainTextResponse(text)


@app.post("/task/{name}", status_code=202)
async def task(name: str, tasks: BackgroundTasks) -> None:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    tasks.add_task(work)
