"""Quart under hooks of each kind and a middleware around its ASGI application.

For a handler that raises CancelledError it has no answer: it returns without one, or, since 0.23, when the
client leaves. It closes a WebSocket whose handler has raised as one whose handler has returned.
"""

from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from quart import Quart, Response, websocket

LACKS = {"cancelled", "compression"}
ANSWERS = {"/websocket/after/error": 1000, "/websocket/after/group": 1000}

app = Quart(__name__)


@app.before_serving
async def start() -> None:
    fail_in("startup")


@app.after_serving
async def stop() -> None:
    fail_in("shutdown")


@app.get("/good/<mark>")
async def good_one(mark: str) -> Response:
    return Response(good(mark), mimetype="text/plain")


@app.get("/raise/<kind>/<mark>")
async def raising(kind: str, mark: str) -> Response:
    fail(kind, mark)


@app.get("/raise-later/<kind>/<mark>")
async def raising_later(kind: str, mark: str) -> Response:
    await fail_later(kind, mark)


@app.get("/raise-in-thread/<kind>/<mark>")
def raising_in_thread(kind: str, mark: str) -> Response:
    fail(kind, mark)


@app.get("/stream/<where>/<mark>")
async def stream(where: str, mark: str) -> Response:
    headers = headers_of_stream(where)
    return Response(pieces_stream(where, mark), headers=headers, mimetype="text/plain")


@app.get("/background/<mark>")
async def background(mark: str) -> Response:
    app.add_background_task(fail_later, "error", mark)
    return Response("done", mimetype="text/plain")


@app.websocket("/websocket/<when>/<kind>/<mark>")
async def sockets(when: str, kind: str, mark: str) -> None:
    if when == "before":
        fail(kind, mark)
    await websocket.accept()
    await websocket.send("in")
    fail(kind, mark)


@app.before_request
@app.before_websocket
async def before() -> None:
    pass


@app.after_request
@app.after_websocket
async def after(response: Response | None) -> Response | None:
    if response is not None:
        response.headers["x-after"] = "1"
    return response


@app.teardown_request
@app.teardown_websocket
async def teardown(error: BaseException | None) -> None:
    pass


class Plain:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.running = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


app.asgi_app = Plain(app.asgi_app)
