"""Bytes in, plain data out, and back: the grammar of everything that stands on a wire.

Knows RFCs and nothing of this server. Must not know: asyncio, ASGI, sockets, settings.
``fastasgi._parser``, which reads the heads of requests, is the first of the codecs; its path is fixed.
"""
