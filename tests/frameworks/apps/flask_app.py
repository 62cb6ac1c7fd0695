"""Flask.

It has no server-sent events of its own (a streamed response writes them); what runs after a response is
``Response.call_on_close``. WSGI has no lifespan, and a handler that waits isn't told that the client has
gone.
"""

from collections.abc import Iterator
from typing import Any

import bodies
from bodies import report_of
from boxes import ThreadBoxes
from flask import Flask, Response, request

ARGUMENTS = ["--interface", "wsgi"]
LACKS = {"leaving a poll", "lifespan", "watching"}

boxes = ThreadBoxes()
app = Flask(__name__)


@app.get("/items/<int:id>")
def item(id: int) -> dict[str, Any]:
    return {"id": id, "tags": request.args.getlist("tag")}


@app.get("/names/<name>")
def name(name: str) -> dict[str, str]:
    return {"name": name}


@app.post("/box/<name>")
def put(name: str) -> Response:
    boxes.put(name, request.get_data(as_text=True))
    return Response(status=204)


@app.get("/box/<name>")
def take(name: str) -> Response:
    return Response(boxes.take(name), mimetype="text/plain")


@app.post("/upload")
def upload() -> dict[str, Any]:
    return report_of(iter(lambda: request.stream.read(65536), b""))


@app.post("/form")
def form() -> dict[str, Any]:
    file = request.files["file"]
    return {"note": request.form["note"], "filename": file.filename, **report_of(file.stream)}


@app.get("/download")
def download() -> Response:
    return Response(bodies.download())


@app.get("/stream/<name>")
def stream(name: str) -> Response:
    return Response(iter(lambda: boxes.take(name), "end"), mimetype="text/plain")


@app.get("/events/<name>")
def events(name: str) -> Response:
    def texts() -> Iterator[str]:
        try:
            while True:
                yield f"data: {boxes.take(name)}\n\n"
        finally:
            boxes.put(f"{name}.status", "left")

    return Response(texts(), mimetype="text/event-stream")


@app.get("/poll/<name>")
def poll(name: str) -> Response:
    boxes.put(f"{name}.status", "waiting")
    return Response(boxes.take(name), mimetype="text/plain")


@app.post("/task/<name>")
def task(name: str) -> Response:
    response = Response(status=202)
    response.call_on_close(lambda: boxes.put(f"{name}.done", boxes.take(name)))
    return response
