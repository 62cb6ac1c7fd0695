"""The bundled demo: ``fastasgi fastasgi.demo:app`` serves one page that shows, live, what the server does.

A plain ASGI 3 application without dependencies, which any ASGI server can run. Knows fastasgi's version.
Must not know: the server's inside.
"""

from __future__ import annotations

import asyncio

from fastasgi.demo import socket
from fastasgi.demo.request import Receive, Request, Scope, Send
from fastasgi.demo.routes import answer
from fastasgi.demo.traffic import Traffic

__all__ = ["app"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one ASGI scope: the lifespan, an HTTP request, or a WebSocket."""
    match scope["type"]:
        case "http":
            await _serve_http(scope, receive, send)
        case "lifespan":
            await _serve_lifespan(scope, receive, send)
        case "websocket":
            await socket.serve(scope, receive, send, _traffic_of(scope))
        case other:
            raise ValueError(f"the demo has no answer to a scope of type {other!r}")


def _traffic_of(scope: Scope) -> Traffic | None:
    traffic: Traffic | None = scope.get("state", {}).get("traffic")
    return traffic


async def _serve_http(scope: Scope, receive: Receive, send: Send) -> None:
    traffic = _traffic_of(scope)
    if traffic is None:
        message = "The demo keeps its counters in the lifespan state: run the server with lifespan on."
        await Request(scope, receive, send).respond_text(503, message)
        return
    traffic.begin()
    try:
        await answer(Request(scope, traffic.metered_receive(receive), traffic.metered_send(send)), traffic)
    except OSError:
        pass  # The client has gone; nobody is left to answer.
    finally:
        traffic.end()


async def _serve_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    traffic = scope["state"]["traffic"] = Traffic()
    sampler = asyncio.create_task(traffic.sample_forever())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    sampler.cancel()
    traffic.close()
    await send({"type": "lifespan.shutdown.complete"})
