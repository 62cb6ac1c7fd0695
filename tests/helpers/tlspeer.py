"""A TLS client that has its records in its hands."""

import asyncio
import ssl
from typing import Any

from certificates import Authority
from wire import Served, hello, request


def mutual(authority: Authority, required: int = 2) -> dict[str, Any]:
    return {"ssl_cert_reqs": required, "ssl_ca_certs": authority.path}


def tls_of(scopes: list[Any]) -> dict[str, Any]:
    """An application's last scope's extension."""
    return scopes[-1]["extensions"]["tls"]


def noting(scopes: list[Any], app: Any = hello) -> Any:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await app(scope, receive, send)

    return noting


async def exchange(running: Served, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """One request on a connection of its own, and how that connection was."""
    client = await running.connect(ssl=context, server_hostname=name)
    assert (await client.ask(request())).status == 200
    client.close()
    return client.writer.get_extra_info("ssl_object")


class Records:
    """A TLS client on a plain connection: what it sends can be cut, held back and damaged."""

    def __init__(
        self,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        name: str = "localhost",
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    @classmethod
    async def connect(cls, running: Served, *arguments: Any) -> "Records":
        self = cls(*arguments)
        self.client = await running.connect()
        return self

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.read()
            else:
                return await self.flush()

    async def flush(self) -> None:
        await self.client.write(self.outgoing.read())

    async def read(self) -> None:
        data = await self.client.reader.read(65536)
        self.incoming.write(data) if data else self.incoming.write_eof()

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def decrypted(self) -> bytes:
        """What comes next; nothing at the server's close_notify. Raises SSLEOFError where that is missing."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self.read()

    async def rest(self) -> bytes:
        """All that comes before the server's close_notify."""
        data = bytearray()
        while piece := await self.decrypted():
            data += piece
        return bytes(data)

    async def until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            piece = await self.decrypted()
            assert piece, data
            data += piece
        return data


async def until_closed(running: Served) -> None:
    while running.context.registry.connection_count:
        await asyncio.sleep(0.005)
