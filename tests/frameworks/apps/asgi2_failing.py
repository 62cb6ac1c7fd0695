"""No framework: an ASGI 2 double callable under a middleware of the same kind.

Threads and compression would be code of this file alone.
"""

from typing import Any

from failures import fail, fail_in, fail_later, good, headers_of_stream, pieces_stream

ARGUMENTS = ["--lifespan", "on"]
LACKS = {"compression", "thread"}


class Application:
    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        self.receive, self.send = receive, send
        if self.scope["type"] == "lifespan":
            await self.lifespan()
        else:
            _, name, *arguments = self.scope["path"].split("/")
            await getattr(self, name.replace("-", "_"))(*arguments)

    async def lifespan(self) -> None:
        for phase in ("startup", "shutdown"):
            await self.receive()
            fail_in(phase)
            await self.send({"type": f"lifespan.{phase}.complete"})

    async def start(self, headers: dict[str, str] | None = None) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        await self.send({"type": "http.response.start", "status": 200, "headers": pairs})

    async def respond(self, text: str) -> None:
        await self.start()
        await self.send({"type": "http.response.body", "body": text.encode()})

    async def good(self, mark: str) -> None:
        await self.respond(good(mark))

    async def raise_(self, kind: str, mark: str) -> None:
        fail(kind, mark)

    async def raise_later(self, kind: str, mark: str) -> None:
        await fail_later(kind, mark)

    async def stream(self, where: str, mark: str) -> None:
        await self.start(headers_of_stream(where))
        async for piece in pieces_stream(where, mark):
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def background(self, mark: str) -> None:
        await self.respond("done")
        await fail_later("error", mark)

    async def websocket(self, when: str, kind: str, mark: str) -> None:
        if when == "before":
            fail(kind, mark)
        await self.send({"type": "websocket.accept"})
        await self.send({"type": "websocket.send", "text": "in"})
        fail(kind, mark)


setattr(Application, "raise", Application.raise_)


class App:
    def __init__(self, scope: dict[str, Any]) -> None:
        self.app = Application(scope)

    async def __call__(self, receive: Any, send: Any) -> None:
        try:
            await self.app(receive, send)
        finally:
            del self.app


app = App
