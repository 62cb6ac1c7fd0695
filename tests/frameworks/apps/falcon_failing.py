"""Falcon's ASGI application under middleware objects and its CORS.

It leaves its tasks to asyncio, which logs what they raise when they are collected.
"""

import asyncio
from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream
from falcon import MEDIA_TEXT
from falcon.asgi import App, Request, Response, WebSocket

LACKS = {"background", "compression"}
ANSWERS = {"/websocket/before/error": 403, "/websocket/before/group": 403}


class Hooks:
    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        fail_in("startup")

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        fail_in("shutdown")

    async def process_request(self, req: Request, resp: Response) -> None:
        req.context.before = True

    async def process_resource(self, req: Request, resp: Response, resource: Any, params: Any) -> None:
        req.context.resource = resource

    async def process_response(self, req: Request, resp: Response, resource: Any, succeeded: bool) -> None:
        resp.set_header("x-after", "1")

    async def process_request_ws(self, req: Request, ws: WebSocket) -> None:
        req.context.before = True


class Good:
    async def on_get(self, req: Request, resp: Response, mark: str) -> None:
        resp.content_type, resp.text = MEDIA_TEXT, good(mark)


class Raising:
    async def on_get(self, req: Request, resp: Response, kind: str, mark: str) -> None:
        fail(kind, mark)


class RaisingLater:
    async def on_get(self, req: Request, resp: Response, kind: str, mark: str) -> None:
        await fail_later(kind, mark)


class RaisingInThread:
    async def on_get(self, req: Request, resp: Response, kind: str, mark: str) -> None:
        await asyncio.to_thread(fail, kind, mark)


class Stream:
    async def on_get(self, req: Request, resp: Response, where: str, mark: str) -> None:
        resp.set_headers(headers_of_stream(where))
        resp.content_type, resp.stream = MEDIA_TEXT, pieces_stream(where, mark)


class Sockets:
    async def on_websocket(self, req: Request, ws: WebSocket, when: str, kind: str, mark: str) -> None:
        if when == "before":
            fail(kind, mark)
        await ws.accept()
        await ws.send_text("in")
        fail(kind, mark)


app = App(middleware=[Hooks()], cors_enable=True)
app.add_route("/good/{mark}", Good())
app.add_route("/raise/{kind}/{mark}", Raising())
app.add_route("/raise-later/{kind}/{mark}", RaisingLater())
app.add_route("/raise-in-thread/{kind}/{mark}", RaisingInThread())
app.add_route("/stream/{where}/{mark}", Stream())
app.add_route("/websocket/{when}/{kind}/{mark}", Sockets())
