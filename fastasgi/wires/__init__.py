"""The protocols that peers speak, each as a Connection on any sink: HTTP/1.x, the PROXY header before it.

Knows framing, keep-alive, and the codecs. Must not know: the kind of transport, TLS, the order of ASGI
messages.
"""
