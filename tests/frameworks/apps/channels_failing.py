"""Django Channels: consumers in the event loop, under its origin check, sessions and users.

What is no WebSocket goes to Django.
"""

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path
from django_failing import app as django_app
from failures import fail

LACKS = {"background", "lifespan"}
ANSWERS = {"/stream/first gzip": {"500", "cut off"}}  # as Django's


def route(consumer: Any) -> ProtocolTypeRouter:
    sockets = URLRouter([path("websocket/<str:when>/<str:kind>/<str:mark>", consumer.as_asgi())])
    return ProtocolTypeRouter(
        {"http": django_app, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))}
    )


class Consumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        when, kind, mark = self.scope["url_route"]["kwargs"].values()
        if when == "before":
            fail(kind, mark)
        await self.accept()
        await self.send("in")
        fail(kind, mark)


app = route(Consumer)
