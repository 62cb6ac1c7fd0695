"""Applications that keep a record of what happens to them."""

import asyncio

GET = "GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


class Recorder:
    """An application whose requests wait, with a record of its lifespan and of how its requests ended."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = (await receive())["type"]
                self.events.append(message.removeprefix("lifespan."))
                await send({"type": f"{message}.complete"})
            return
        self.begun.set()
        try:
            await self.wait(receive)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        if "disconnected" not in self.events:
            await hello(scope, receive, send)
            self.events.append("answered")

    async def wait(self, receive) -> None:
        await self.release.wait()


class Stubborn(Recorder):
    """Its requests ignore everything."""

    async def wait(self, receive) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.events.append("ignored")
