"""TLS ClientHellos: Python's own, and some made by hand."""

import contextlib
import ssl
from itertools import pairwise

NAME = "www.server.example"


def client_hello(name: str | None = NAME, protocols: list[str] | None = None, **details: object) -> bytes:
    """A record as Python's own client sends it; details are attributes of its context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    for attribute, value in details.items():
        setattr(context, attribute, value)
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def record(body: bytes, kind: int = 22) -> bytes:
    return bytes([kind, 3, 1]) + len(body).to_bytes(2, "big") + body


def in_records(hello: bytes, *places: int) -> bytes:
    """The same message in several records, cut at these places."""
    message = hello[5:]
    cuts = [0, *sorted({place for place in places if 0 < place < len(message)}), len(message)]
    return b"".join(record(message[begin:end]) for begin, end in pairwise(cuts))


def vector(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


def made(extensions: bytes | None, *, names: bytes = b"", session: bytes = b"") -> bytes:
    """A hello of TLS 1.2 with these extensions, or with a server_name extension of these contents."""
    if names:
        extensions = b"\0\0" + vector(names)
    body = b"\3\3" + bytes(32) + vector(session, 1) + vector(b"\xc0\x2f") + vector(b"\0", 1)
    if extensions is not None:
        body += vector(extensions)
    return record(b"\1" + vector(body, 3))


def host(name: bytes) -> bytes:
    return vector(b"\0" + vector(name))
