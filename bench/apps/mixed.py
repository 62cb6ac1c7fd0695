"""A Starlette application for visitors: they log in, browse, post, and hold a WebSocket."""

import secrets

from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route, WebSocketRoute

PAGE_SIZE = 20
LIMIT = 1000

sessions = {}
items = [{"id": number, "name": f"item {number}", "price": number * 1.5} for number in range(500)]


def visitor_of(connection):
    """Who is logged in by this connection's cookie, or None."""
    return sessions.get(connection.cookies.get("session"))


async def log_in(request):
    """Begin a session and go to the list."""
    form = await request.form()
    key = secrets.token_hex(16)
    sessions[key] = form["user"]
    response = RedirectResponse("/items?page=1", 303)
    response.set_cookie("session", key, httponly=True)
    return response


async def list_items(request):
    """A page of the list."""
    page = int(request.query_params.get("page", 1))
    return JSONResponse(
        {"visitor": visitor_of(request), "items": items[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]}
    )


async def read_item(request):
    """One item."""
    return JSONResponse(items[int(request.path_params["number"])])


async def post_item(request):
    """A new item, by one who is logged in."""
    if visitor_of(request) is None:
        return JSONResponse({"error": "not logged in"}, 403)
    item = await request.json()
    if len(items) < LIMIT:
        items.append({"id": len(items), **item})
    return JSONResponse({"id": len(items)}, 201)


async def feed(websocket):
    """Answer each message of one who is logged in."""
    if visitor_of(websocket) is None:
        return await websocket.close(4401)
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Starlette(
    routes=[
        Route("/login", log_in, methods=["POST"]),
        Route("/items", list_items),
        Route("/items", post_item, methods=["POST"]),
        Route("/items/{number:int}", read_item),
        WebSocketRoute("/feed", feed),
    ]
)
