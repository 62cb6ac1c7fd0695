"""Where connections come from, and their bytes: sockets, plain or in TLS records.

Knows sockets, which of them are ready, OpenSSL, and what can't be a TLS record. Must not know: what the bytes
mean.
"""
