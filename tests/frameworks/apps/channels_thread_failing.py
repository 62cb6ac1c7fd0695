"""Django Channels: consumers in threads."""

from channels.generic.websocket import WebsocketConsumer
from channels_failing import route
from failures import fail

LACKS = {"background", "compression", "http", "later", "lifespan", "thread"}


class Consumer(WebsocketConsumer):
    def connect(self) -> None:
        when, kind, mark = self.scope["url_route"]["kwargs"].values()
        if when == "before":
            fail(kind, mark)
        self.accept()
        self.send("in")
        fail(kind, mark)


app = route(Consumer)
