"""Many worker processes: the supervisor, and what a worker does because it has one.

Knows processes, signals and the sockets that they share. Must not know: HTTP, connections.
"""
