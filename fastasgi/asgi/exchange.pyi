"""What an application can meet of the calls that the server makes of it."""

class ClientDisconnected(ConnectionError):
    """The client has gone: raised by `send` (ASGI HTTP specification 2.4, "Disconnected Client")."""
