"""Quart. A handler that ends closes; what it returns before it has accepted denies."""

import asyncio
import sys
from typing import Any

from quart import Quart, websocket

app = Quart(__name__)
rooms: dict[str, set[Any]] = {}


@app.websocket("/echo")
async def echo() -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send(await websocket.receive())
    except asyncio.CancelledError:
        # Quart tells a handler by this, without the code
        print("left", file=sys.stderr)
        raise


@app.websocket("/greet/<name>")
async def greet(name: str) -> None:
    await websocket.accept(subprotocol=websocket.requested_subprotocols[-1])
    await websocket.send_json({"name": name, "tags": websocket.args.getlist("tag")})
    await websocket.close(3001, "done")


@app.websocket("/deny")
async def deny() -> tuple[str, int]:
    return "Forbidden", 403


@app.websocket("/refuse")
async def refuse() -> tuple[str, int]:
    return "who are you?", 401


@app.websocket("/room/<name>")
async def room(name: str) -> None:
    members = rooms.setdefault(name, set())
    await websocket.accept()
    member = websocket._get_current_object()
    members.add(member)
    await websocket.send("in")
    try:
        while True:
            text = await websocket.receive()
            for other in list(members):
                await other.send(text)
    finally:
        members.discard(member)
        print("out", file=sys.stderr)
