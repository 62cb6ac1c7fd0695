"""The ASGI state machines: one call of the application, whatever wire it came over.

Knows the messages of ASGI, their order and what may stand in them. Must not know: how versions of HTTP differ
(it has their names, for scopes), sockets, how bytes lie on a wire.
"""
