"""Where a connection's bytes come from and go to: an asyncio transport, plain or in TLS records.

Knows transports, sockets, OpenSSL, and what can't be a TLS record. Must not know: what the bytes mean.
"""
