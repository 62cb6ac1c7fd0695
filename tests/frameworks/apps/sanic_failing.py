"""Sanic as an ASGI application, under its request and response middlewares.

It has accepted a WebSocket before its handler runs, and takes a handler that has raised for one that has
returned. It leaves its tasks to asyncio, which logs what they raise when they are collected.
"""

import asyncio
from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from sanic import HTTPResponse, Request, Sanic, text

LACKS = {"background", "compression", "handshake"}
ANSWERS = {"/websocket/after/error": 1000, "/websocket/after/group": 1000}
SILENT = {"/websocket/after/cancelled"}

app = Sanic("failing")
app.config.MOTD = False


@app.before_server_start
async def start(app: Sanic) -> None:
    fail_in("startup")


@app.after_server_stop
async def stop(app: Sanic) -> None:
    fail_in("shutdown")


@app.get("/good/<mark>")
async def good_one(request: Request, mark: str) -> HTTPResponse:
    return text(good(mark))


@app.get("/raise/<kind>/<mark>")
async def raising(request: Request, kind: str, mark: str) -> HTTPResponse:
    fail(kind, mark)


@app.get("/raise-later/<kind>/<mark>")
async def raising_later(request: Request, kind: str, mark: str) -> HTTPResponse:
    await fail_later(kind, mark)


@app.get("/raise-in-thread/<kind>/<mark>")
async def raising_in_thread(request: Request, kind: str, mark: str) -> HTTPResponse:
    await asyncio.to_thread(fail, kind, mark)


@app.get("/stream/<where>/<mark>")
async def stream(request: Request, where: str, mark: str) -> None:
    headers = headers_of_stream(where)
    response = await request.respond(content_type="text/plain", headers=headers)
    async for piece in pieces_stream(where, mark):
        await response.send(piece)
    await response.eof()


@app.websocket("/websocket/<when>/<kind>/<mark>")
async def sockets(request: Request, websocket: Any, when: str, kind: str, mark: str) -> None:
    await websocket.send("in")
    fail(kind, mark)


@app.on_request
async def before(request: Request) -> None:
    request.ctx.before = True


@app.on_response
async def after(request: Request, response: HTTPResponse) -> None:
    response.headers["x-after"] = "1"
