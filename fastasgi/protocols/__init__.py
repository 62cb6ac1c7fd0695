"""What uvicorn's package of this name has for applications. The protocols are compiled: see ``sinks``.

Knows a scope's keys. Must not know: the server, connections.
"""
