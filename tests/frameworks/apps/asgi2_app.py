"""No framework: an ASGI 2 double callable. Forms, events and lifespan would be code of this file alone."""

import json
from typing import Any
from urllib.parse import parse_qs

from bodies import Digest, download
from boxes import Boxes

LACKS = {"form", "events", "lifespan"}

boxes = Boxes()


class App:
    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        if self.scope["type"] != "http":
            raise ValueError(f"no {self.scope['type']}")
        self.receive, self.send = receive, send
        _, kind, *rest = self.scope["path"].split("/", 2)
        handler = getattr(self, f"{self.scope['method'].lower()}_{kind}", None)
        if handler is None:
            await self.respond(404, b"")
        else:
            await handler(*rest)

    async def respond(self, status: int, body: bytes, kind: bytes = b"text/plain; charset=utf-8") -> None:
        await self.start(status, [(b"content-type", kind), (b"content-length", b"%d" % len(body))])
        await self.send({"type": "http.response.body", "body": body})

    async def respond_json(self, value: Any) -> None:
        await self.respond(200, json.dumps(value).encode(), b"application/json")

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_piece(self, piece: bytes) -> None:
        await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def body(self) -> Any:
        more = True
        while more:
            message = await self.receive()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def get_items(self, id: str) -> None:
        query = parse_qs(self.scope["query_string"].decode())
        await self.respond_json({"id": int(id), "tags": query["tag"]})

    async def get_names(self, name: str) -> None:
        await self.respond_json({"name": name})

    async def post_box(self, name: str) -> None:
        boxes.put(name, b"".join([piece async for piece in self.body()]).decode())
        await self.start(204, [])
        await self.send({"type": "http.response.body"})

    async def get_box(self, name: str) -> None:
        await self.respond(200, (await boxes.take(name)).encode())

    async def post_upload(self) -> None:
        digest = Digest()
        async for piece in self.body():
            digest.feed(piece)
        await self.respond_json(digest.report())

    async def get_download(self) -> None:
        await self.start(200, [])
        for piece in download():
            await self.send_piece(piece)
        await self.send({"type": "http.response.body"})

    async def get_stream(self, name: str) -> None:
        await self.start(200, [(b"content-type", b"text/plain; charset=utf-8")])
        while (text := await boxes.take(name)) != "end":
            await self.send_piece(text.encode())
        await self.send({"type": "http.response.body"})

    async def get_poll(self, name: str) -> None:
        boxes.put(f"{name}.status", "waiting")
        text = await boxes.take_or_leave(name, self.receive)
        if text is None:
            boxes.put(f"{name}.status", "left")
        else:
            await self.respond(200, text.encode())

    async def post_task(self, name: str) -> None:
        await self.respond(202, b"")
        boxes.put(f"{name}.done", await boxes.take(name))


app = App
