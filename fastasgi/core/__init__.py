"""What all compiled layers above share: the worker, a connection, a sink, memory, tasks that start in place.

Knows the event loop. Must not know: the application's messages, HTTP, WebSockets, TLS, the kind of transport.
"""
