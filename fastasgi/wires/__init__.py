"""The protocols that peers speak, each as a Connection on any sink: HTTP/1.x, the PROXY header before it.

Knows framing, keep-alive, the codecs, and which protocol TLS has agreed on. Must not know: sockets, how TLS
works, the order of ASGI messages.
"""
