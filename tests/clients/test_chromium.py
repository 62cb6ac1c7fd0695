"""Chromium over TLS: a page, its requests and its WebSockets on one HTTP/2 connection (RFC 8441)."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import Browser, with_chromium
from certificates import Pair
from wire import in_loop, read_body, respond, served

VISIT = """
(async () => {
  const open = () => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/socket`, ["other", "chat"]);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error("no WebSocket"));
  });
  const next = (socket) => new Promise((resolve) => (socket.onmessage = (event) => resolve(event.data)));
  const end = (socket) => new Promise((resolve) => {
    socket.onclose = (event) => resolve([event.code, event.reason, event.wasClean]);
  });
  const ask = async (n) => {
    const body = "x".repeat(n * 1000);
    const response = await fetch(`/echo?${n}`, { method: "POST", body });
    return (await response.text()) === body;
  };
  const abandon = async () => {
    const control = new AbortController();
    const response = await fetch("/endless", { signal: control.signal });
    await response.body.getReader().read();
    return control;
  };

  const sockets = [await open(), await open()];
  const asking = Promise.all(Array.from({ length: 60 }, (_, n) => ask(n)));
  const large = new Uint8Array(1_000_000).fill(7);
  const heard = [];
  for (const socket of sockets) {
    for (const message of ["hello", "żółw 🐢".repeat(1000), large]) {
      socket.send(message);
      const answer = await next(socket);
      heard.push(typeof message === "string" ? answer === message : answer.byteLength === large.length);
    }
  }
  const asked = await asking;
  const left = await Promise.all(Array.from({ length: 60 }, abandon));
  left.forEach((control) => control.abort());
  const after = await ask(1);
  const ends = sockets.map(end);
  sockets[0].close(3000, "bye");
  sockets[1].send("close");
  return {
    heard, asked, after, ends: await Promise.all(ends),
    agreed: sockets.map((socket) => [socket.protocol, socket.extensions]),
    by: [...new Set(performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol))],
  };
})()
"""


class Application:
    """What a page needs. `scopes` are all that it was called with, `codes` the WebSockets' last ones."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.codes: list[int] = []
        self.abandoned = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        function: Callable[..., Any] = getattr(self, scope["path"][1:] or "page", self.none)
        await function(receive, send)

    async def none(self, receive: Any, send: Any) -> None:
        await respond(send, b"", 404)

    async def page(self, receive: Any, send: Any) -> None:
        await respond(send, b"<!doctype html><title>Hello</title>", headers=[(b"content-type", b"text/html")])

    async def echo(self, receive: Any, send: Any) -> None:
        await respond(send, await read_body(receive))

    async def endless(self, receive: Any, send: Any) -> None:
        assert await read_body(receive) == b""
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert await receive() == {"type": "http.disconnect"}
        self.abandoned += 1

    async def socket(self, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 3456, "reason": "as you wish"})
            else:
                await send({**message, "type": "websocket.send"})
        self.codes.append(message["code"])


def visit(port: int, profile: Path) -> tuple[Any, list[str]]:
    """What the page told, and what it complained of."""
    browser = Browser(str(profile), "--ignore-certificate-errors")
    with contextlib.closing(browser):
        browser.call("Page.navigate", url=f"https://localhost:{port}/")
        browser.evaluate(
            "new Promise((resolve) => document.readyState === 'complete' ? resolve() : (onload = resolve))"
        )
        return browser.evaluate(VISIT), browser.complaints


@with_chromium
@in_loop
async def test_all_of_a_page_goes_over_one_connection(pair: Pair, tmp_path: Path) -> None:
    app = Application()
    async with served(app, **pair.settings) as server:
        told, complaints = await asyncio.to_thread(visit, server.port, tmp_path / "profile")
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert told["heard"] == [True] * 6
    assert told["asked"] == [True] * 60
    assert told["after"]
    assert told["ends"] == [[3000, "", True], [3456, "as you wish", True]]
    for protocol, extensions in told["agreed"]:
        assert (protocol, extensions.partition(";")[0]) == ("chat", "permessage-deflate")
    assert told["by"] == ["h2"]
    assert [text for text in complaints if "favicon" not in text] == [], json.dumps(complaints)
    assert app.abandoned == 60
    assert sorted(app.codes) == [3000, 3456]
    assert {scope["http_version"] for scope in app.scopes} == {"2"}
    assert len({tuple(scope["client"]) for scope in app.scopes}) == 1
    sockets = [scope for scope in app.scopes if scope["type"] == "websocket"]
    assert len(sockets) == 2
    for scope in sockets:
        assert scope["scheme"] == "wss"
        assert scope["subprotocols"] == ["other", "chat"]
        # What only the handshake of HTTP/1.1 has
        assert not {name for name, _ in scope["headers"]} & {b"sec-websocket-key", b"upgrade", b"connection"}
