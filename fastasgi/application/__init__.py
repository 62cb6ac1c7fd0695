"""The user's application: finding it, telling its interface, its event loop, its start and end.

Knows import strings, ASGI 2 and 3, WSGI, the lifespan protocol. Must not know: Config, connections, worker
processes.
"""
