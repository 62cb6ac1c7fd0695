"""What all compiled layers above share: the worker, a connection, a sink, memory, tasks that start in place.

Knows the event loop, and that some sinks are secured, requests refused, and WebSockets ended apart from
requests: that is for workers to decide. Must not know: how HTTP, WebSockets or TLS work, the application's
messages, where a sink's bytes go.
"""
