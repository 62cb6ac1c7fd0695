"""Django Channels: consumers, and groups by its layer in memory. It has no denial response."""

import sys
from typing import Any
from urllib.parse import parse_qs

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="test",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.safestring import mark_safe  # noqa: E402

urlpatterns: list[Any] = []


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        # As a rendered template is
        await self.send(mark_safe(text_data) if text_data is not None else None, bytes_data)

    async def disconnect(self, code: int) -> None:
        print(f"left with {code}", file=sys.stderr)


class Greet(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept(subprotocol=self.scope["subprotocols"][-1])
        tags = parse_qs(self.scope["query_string"].decode())["tag"]
        await self.send_json({"name": self.scope["url_route"]["kwargs"]["name"], "tags": tags})
        await self.close(3001, "done")


class Deny(WebsocketConsumer):
    """In a thread."""

    def connect(self) -> None:
        self.close()


class Room(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.name = self.scope["url_route"]["kwargs"]["name"]
        await self.accept()
        await self.channel_layer.group_add(self.name, self.channel_name)
        await self.send("in")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send(self.name, {"type": "said", "text": text_data})

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.name, self.channel_name)
        print("out", file=sys.stderr)


app = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("echo", Echo.as_asgi()),
                path("greet/<str:name>", Greet.as_asgi()),
                path("deny", Deny.as_asgi()),
                path("room/<str:name>", Room.as_asgi()),
            ]
        ),
    }
)
