"""BlackSheep. It has no background tasks of its own: a handler starts one with asyncio.

An event stream isn't told that the client has gone: it ends when its events have found nobody for a while.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from blacksheep import Application, Request, Response, StreamedContent, json, text
from blacksheep.server.sse import ServerSentEventsResponse, TextServerSentEvent
from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes

LACKS = {"watching"}

boxes = Boxes()
tasks: set["asyncio.Task[None]"] = set()
app = Application()


@app.on_start
async def start(app: Application) -> None:
    app.started_text = "started"


@app.on_stop
async def stop(app: Application) -> None:
    print("stopped", file=sys.stderr)


@app.router.get("/started")
async def started() -> Response:
    return text(app.started_text)


@app.router.get("/items/{int:id}")
async def item(id: int, request: Request) -> Response:
    return json({"id": id, "tags": request.query["tag"]})


@app.router.get("/names/{name}")
async def name(name: str) -> Response:
    return json({"name": name})


@app.router.post("/box/{name}")
async def put(name: str, request: Request) -> Response:
    boxes.put(name, await request.text())
    return Response(204)


@app.router.get("/box/{name}")
async def take(name: str) -> Response:
    return text(await boxes.take(name))


@app.router.post("/upload")
async def upload(request: Request) -> Response:
    return json(await report_of_stream(request.stream()))


@app.router.post("/form")
async def form(request: Request) -> Response:
    fields = await request.form()
    (file,) = await request.files("file")
    report = report_of([file.data])
    return json({"note": fields["note"], "filename": file.file_name.decode(), **report})


@app.router.get("/download")
async def download() -> Response:
    return Response(200, content=StreamedContent(b"application/octet-stream", download_stream))


@app.router.get("/stream/{name}")
async def stream(name: str) -> Response:
    async def texts() -> AsyncIterator[bytes]:
        while (text := await boxes.take(name)) != "end":
            yield text.encode()

    return Response(200, content=StreamedContent(b"text/plain; charset=utf-8", texts))


@app.router.get("/events/{name}")
async def events(name: str) -> Response:
    async def texts() -> AsyncIterator[TextServerSentEvent]:
        try:
            while True:
                yield TextServerSentEvent(await boxes.take(name))
        finally:
            boxes.put(f"{name}.status", "left")

    return ServerSentEventsResponse(texts)


@app.router.get("/poll/{name}")
async def poll(name: str, request: Request) -> Response:
    boxes.put(f"{name}.status", "waiting")
    answer = await boxes.take_or_look(name, request.is_disconnected)
    if answer is None:
        boxes.put(f"{name}.status", "left")
    return text(answer or "")


@app.router.post("/task/{name}")
async def task(name: str) -> Response:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    running = asyncio.create_task(work())
    tasks.add(running)
    running.add_done_callback(tasks.discard)
    return Response(202)
