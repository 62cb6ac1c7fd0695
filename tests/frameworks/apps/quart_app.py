"""Quart. It has no server-sent events of its own: a streamed response writes them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes
from quart import Quart, Response, request

boxes = Boxes()
app = Quart(__name__)


@app.before_serving
async def start() -> None:
    app.started = "started"


@app.after_serving
async def stop() -> None:
    print("stopped", file=sys.stderr)


@app.get("/started")
async def started() -> Response:
    return Response(app.started, mimetype="text/plain")


@app.get("/items/<int:id>")
async def item(id: int) -> dict[str, Any]:
    return {"id": id, "tags": request.args.getlist("tag")}


@app.get("/names/<name>")
async def name(name: str) -> dict[str, str]:
    return {"name": name}


@app.post("/box/<name>")
async def put(name: str) -> Response:
    boxes.put(name, await request.get_data(as_text=True))
    return Response(status=204)


@app.get("/box/<name>")
async def take(name: str) -> Response:
    return Response(await boxes.take(name), mimetype="text/plain")


@app.post("/upload")
async def upload() -> dict[str, Any]:
    return await report_of_stream(request.body)


@app.post("/form")
async def form() -> dict[str, Any]:
    file = (await request.files)["file"]
    note = (await request.form)["note"]
    return {"note": note, "filename": file.filename, **report_of(file.stream)}


@app.get("/download")
async def download() -> Response:
    return Response(download_stream())


@app.get("/stream/<name>")
async def stream(name: str) -> Response:
    async def texts() -> AsyncIterator[str]:
        while (text := await boxes.take(name)) != "end":
            yield text

    return Response(texts(), mimetype="text/plain")


@app.get("/events/<name>")
async def events(name: str) -> Response:
    async def texts() -> AsyncIterator[str]:
        try:
            while True:
                yield f"data: {await boxes.take(name)}\n\n"
        finally:
            boxes.put(f"{name}.status", "left")

    response = Response(texts(), mimetype="text/event-stream")
    response.timeout = None
    return response


@app.get("/poll/<name>")
async def poll(name: str) -> Response:
    boxes.put(f"{name}.status", "waiting")
    try:
        return Response(await boxes.take(name), mimetype="text/plain")
    except asyncio.CancelledError:
        boxes.put(f"{name}.status", "left")
        raise


@app.post("/task/<name>")
async def task(name: str) -> Response:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    app.add_background_task(work)
    return Response(status=202)
