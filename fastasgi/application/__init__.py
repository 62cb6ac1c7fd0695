"""The user's application: finding it, telling its interface, and its start and end.

Knows import strings, ASGI 2 and 3, WSGI, the lifespan protocol. Must not know: connections, worker processes.
"""
