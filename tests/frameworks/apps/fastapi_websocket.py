"""FastAPI: dependencies, parameters and the exceptions that deny."""

import sys
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.responses import PlainTextResponse

app = FastAPI()
rooms: dict[str, set[WebSocket]] = {}


@app.websocket("/echo")
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


def last_subprotocol(websocket: WebSocket) -> str:
    return str(websocket.scope["subprotocols"][-1])


@app.websocket("/greet/{name}")
async def greet(
    websocket: WebSocket,
    name: str,
    tag: Annotated[list[str], Query()],
    subprotocol: Annotated[str, Depends(last_subprotocol)],
) -> None:
    await websocket.accept(subprotocol=subprotocol)
    await websocket.send_json({"name": name, "tags": tag})
    await websocket.close(3001, "done")


@app.websocket("/deny")
async def deny(websocket: WebSocket) -> None:
    raise WebSocketException(3000, "no")


@app.exception_handler(HTTPException)
async def as_text(websocket: WebSocket, error: HTTPException) -> None:
    await websocket.send_denial_response(PlainTextResponse(error.detail, error.status_code))


@app.websocket("/refuse")
async def refuse(websocket: WebSocket) -> None:
    raise HTTPException(401, "who are you?")


@app.websocket("/room/{name}")
async def room(websocket: WebSocket, name: str) -> None:
    members = rooms.setdefault(name, set())
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
