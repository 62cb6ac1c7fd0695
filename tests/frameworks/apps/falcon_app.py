"""Falcon's ASGI application.

It tells no waiting responder that the client has gone; an event stream hears of it at its next event.
"""

import sys
from collections.abc import AsyncIterator
from typing import Any

from bodies import download_stream, report_of_stream
from boxes import Boxes
from falcon import HTTP_202, HTTP_204, MEDIA_TEXT
from falcon.asgi import App, Request, Response, SSEvent

LACKS = {"leaving a poll", "watching"}

boxes = Boxes()


class Hooks:
    async def process_startup(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        self.started = "started"

    async def process_shutdown(self, scope: dict[str, Any], event: dict[str, Any]) -> None:
        print("stopped", file=sys.stderr)

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type, resp.text = MEDIA_TEXT, self.started


class Item:
    async def on_get(self, req: Request, resp: Response, id: int) -> None:
        resp.media = {"id": id, "tags": req.get_param_as_list("tag")}


class Name:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"name": name}


class Box:
    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        boxes.put(name, (await req.stream.read()).decode())
        resp.status = HTTP_204

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.content_type, resp.text = MEDIA_TEXT, await boxes.take(name)


class Upload:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.media = await report_of_stream(req.stream)


class Form:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.media = {}
        async for part in await req.get_media():
            if part.filename:
                resp.media.update({"filename": part.filename, **await report_of_stream(part.stream)})
            else:
                resp.media[part.name] = await part.text


class Download:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.stream = download_stream()


class Stream:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        async def texts() -> AsyncIterator[bytes]:
            while (text := await boxes.take(name)) != "end":
                yield text.encode()

        resp.content_type, resp.stream = MEDIA_TEXT, texts()


class Events:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        async def texts() -> AsyncIterator[SSEvent]:
            try:
                while True:
                    yield SSEvent(text=await boxes.take(name))
            finally:
                boxes.put(f"{name}.status", "left")

        resp.sse = texts()


class Poll:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        boxes.put(f"{name}.status", "waiting")
        resp.content_type, resp.text = MEDIA_TEXT, await boxes.take(name)


class Task:
    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        async def work() -> None:
            boxes.put(f"{name}.done", await boxes.take(name))

        resp.status = HTTP_202
        resp.schedule(work)


hooks = Hooks()
app = App(middleware=[hooks])
app.add_route("/started", hooks)
app.add_route("/items/{id:int}", Item())
app.add_route("/names/{name}", Name())
app.add_route("/box/{name}", Box())
app.add_route("/upload", Upload())
app.add_route("/form", Form())
app.add_route("/download", Download())
app.add_route("/stream/{name}", Stream())
app.add_route("/events/{name}", Events())
app.add_route("/poll/{name}", Poll())
app.add_route("/task/{name}", Task())
