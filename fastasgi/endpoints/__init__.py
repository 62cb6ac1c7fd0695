"""Applications of our own beside the user's: what the server itself answers.

Knows ASGI, as any application does. Must not know: connections, the server's inside.
"""
