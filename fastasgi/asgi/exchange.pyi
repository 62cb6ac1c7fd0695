"""What an application may need to know of its calls by the server."""

class ClientDisconnected(ConnectionError):
    """The client has gone: raised by `send` (ASGI HTTP specification 2.4, "Disconnected Client")."""
