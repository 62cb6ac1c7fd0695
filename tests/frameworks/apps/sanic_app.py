"""Sanic as an ASGI application: none of its own workers, managers or reloaders.

As such it tells no handler that the client has gone: an event stream ends when its events have found nobody
for a while. It has no server-sent events of its own: a streamed response writes them.
"""

import sys

from bodies import download_stream, report_of, report_of_stream
from boxes import Boxes
from sanic import HTTPResponse, Request, Sanic, empty, json, text

LACKS = {"leaving a poll", "watching"}

boxes = Boxes()
app = Sanic("contract")
app.config.MOTD = False


@app.before_server_start
async def start(app: Sanic) -> None:
    app.ctx.started = "started"


@app.after_server_stop
async def stop(app: Sanic) -> None:
    print("stopped", file=sys.stderr)


@app.get("/started")
async def started(request: Request) -> HTTPResponse:
    return text(request.app.ctx.started)


@app.get("/items/<id:int>")
async def item(request: Request, id: int) -> HTTPResponse:
    return json({"id": id, "tags": request.args.getlist("tag")})


@app.get("/names/<name>", unquote=True)
async def name(request: Request, name: str) -> HTTPResponse:
    return json({"name": name})


@app.post("/box/<name>")
async def put(request: Request, name: str) -> HTTPResponse:
    boxes.put(name, request.body.decode())
    return empty()


@app.get("/box/<name>")
async def take(request: Request, name: str) -> HTTPResponse:
    return text(await boxes.take(name))


@app.post("/upload", stream=True)
async def upload(request: Request) -> HTTPResponse:
    return json(await report_of_stream(request.stream))


@app.post("/form")
async def form(request: Request) -> HTTPResponse:
    file = request.files["file"][0]
    return json({"note": request.form["note"][0], "filename": file.name, **report_of([file.body])})


@app.get("/download")
async def download(request: Request) -> None:
    response = await request.respond()
    async for piece in download_stream():
        await response.send(piece)
    await response.eof()


@app.get("/stream/<name>")
async def stream(request: Request, name: str) -> None:
    response = await request.respond(content_type="text/plain; charset=utf-8")
    while (piece := await boxes.take(name)) != "end":
        await response.send(piece)
    await response.eof()


@app.get("/events/<name>")
async def events(request: Request, name: str) -> None:
    response = await request.respond(content_type="text/event-stream")
    try:
        while True:
            await response.send(f"data: {await boxes.take(name)}\n\n")
    finally:
        boxes.put(f"{name}.status", "left")


@app.get("/poll/<name>")
async def poll(request: Request, name: str) -> HTTPResponse:
    boxes.put(f"{name}.status", "waiting")
    return text(await boxes.take(name))


@app.post("/task/<name>")
async def task(request: Request, name: str) -> HTTPResponse:
    async def work() -> None:
        boxes.put(f"{name}.done", await boxes.take(name))

    request.app.add_task(work())
    return empty(202)
