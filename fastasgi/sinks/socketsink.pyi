"""The socket's side of a connection."""

class SocketSink:
    """Reads and writes for a connection."""
