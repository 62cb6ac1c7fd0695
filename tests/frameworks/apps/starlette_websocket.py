"""Starlette."""

import sys

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: dict[str, set[WebSocket]] = {}


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message["reason"])
            if "text" in message:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect as left:
        print(f"left with {left.code}", file=sys.stderr)


async def greet(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=websocket.scope["subprotocols"][-1])
    await websocket.send_json(
        {"name": websocket.path_params["name"], "tags": websocket.query_params.getlist("tag")}
    )
    await websocket.close(3001, "done")


async def deny(websocket: WebSocket) -> None:
    await websocket.close()


async def refuse(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("who are you?", 401))


async def room(websocket: WebSocket) -> None:
    members = rooms.setdefault(websocket.path_params["name"], set())
    await websocket.accept()
    members.add(websocket)
    await websocket.send_text("in")
    try:
        async for text in websocket.iter_text():
            for member in members:
                await member.send_text(text)
    finally:
        members.discard(websocket)
        print("out", file=sys.stderr)


app = Starlette(
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/greet/{name}", greet),
        WebSocketRoute("/deny", deny),
        WebSocketRoute("/refuse", refuse),
        WebSocketRoute("/room/{name}", room),
    ]
)
