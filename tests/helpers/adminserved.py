"""An admin listener, alone or on real sockets, that tells of a server which does not exist."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from serving import WAIT_S

from fastasgi import Server
from fastasgi.admin.access import Access
from fastasgi.admin.app import AdminApp
from fastasgi.admin.counts import Counts
from fastasgi.admin.listener import PATIENCE_S, listener_config
from fastasgi.admin.report import Report, WorkerReport
from fastasgi.system.sockets import bind_all, parse_bind

TOKEN = "s3cret-of-this-test"
LOCAL = "host: localhost"
BEARER = f"authorization: Bearer {TOKEN}"


class FakeSource:
    """Tells what a test sets."""

    def __init__(self) -> None:
        self.value = Report(
            at=time.time(),
            started_at=time.time() - 60,
            phase="running",
            is_live=True,
            live_reason="the supervisor runs",
            is_ready=True,
            ready_reason="2 of 2 workers serve",
            workers=[
                WorkerReport(1, 4712, "starting", time.time() - 5),
                WorkerReport(0, 4711, "serving", time.time() - 50, time.time() - 40),
            ],
        )
        self.error: Exception | None = None

    def report(self) -> Report:
        if self.error is not None:
            raise self.error
        return self.value

    def counts(self) -> list[Counts]:
        return []


@dataclass
class Answer:
    """A response of the application, or of a server."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    is_complete: bool = False

    def __getitem__(self, name: str) -> str:
        """The only value of a field."""
        (value,) = [value for key, value in self.headers if key == name.encode()]
        return value.decode()

    def __contains__(self, name: str) -> bool:
        return any(key == name.encode() for key, _ in self.headers)


class Asked:
    """An application that is asked without a server."""

    def __init__(self, source: FakeSource, admin: str = "127.0.0.1:9000", token: str | None = None) -> None:
        self.app = AdminApp(source, Access(admin, None, token))

    async def __call__(
        self,
        target: str,
        *fields: str,
        method: str = "GET",
        pieces: tuple[bytes, ...] = (b"",),
        scheme: str = "http",
    ) -> Answer:
        """Its whole response; fields are lines such as "host: localhost"."""
        path, _, query = target.partition("?")
        parts = (line.partition(": ") for line in fields)
        headers = [(name.encode(), value.encode("latin-1")) for name, _, value in parts]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "scheme": scheme,
            "client": ("192.0.2.7", 4000),
        }
        coming = list(pieces)
        answer = Answer(0, [])

        async def receive() -> dict[str, Any]:
            if not coming:
                await asyncio.get_running_loop().create_future()
            piece = coming.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(coming)}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], message["headers"]
                return
            answer.body += message["body"]
            answer.is_complete = not message["more_body"]

        await self.app(scope, receive, send)
        return answer


@contextlib.asynccontextmanager
async def serving_admin(
    source: FakeSource,
    admin: str = "127.0.0.1:0",
    token: str | None = None,
    timeout_write: float | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A listener in the running loop, with the settings of real ones; it is stopped gracefully in the end.

    settings are some of those that a server shares with its listener.
    """
    own = {"admin": admin, "admin_token_file": None, "admin_token": token, "log_config": None}
    config = listener_config(own | settings, None, source)
    if timeout_write is not None:
        config.timeout_write = timeout_write
    sockets, files = bind_all([parse_bind(admin)], 0o600, reuse_port=False)
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets))
    while not server.started and not task.done():
        await asyncio.sleep(0)
    try:
        yield server
    finally:
        server.should_exit = True
        asyncio.get_running_loop().call_later(PATIENCE_S, setattr, server, "force_exit", True)
        async with asyncio.timeout(WAIT_S):
            await task
        for file in files:
            file.remove()


def idle_socket(port: int, request: bytes) -> socket.socket:
    """A connection that has asked and reads nothing, with as little room for an answer as there can be."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.connect(("127.0.0.1", port))
    sock.sendall(request)
    return sock
