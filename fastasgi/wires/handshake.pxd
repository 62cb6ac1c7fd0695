"""The HTTP/1.1 request that opens a WebSocket (RFC 6455 section 4): what it has to say, and what answers it.

Must not know: connections, ASGI.
"""


cdef class Handshake:
    """What a client asks for to open a WebSocket (RFC 6455 section 4.1)."""

    cdef:
        bytes key                       # of Sec-WebSocket-Key
        list subprotocols               # of str
        object deflate                  # what negotiate_deflate() gave, or None
        int status                      # 0, or the status with which it is refused
        str reason                      # why


# None: the headers ask for something else than a WebSocket. `headers` have lower-cased names.
cdef Handshake read_handshake(list headers)
cdef Handshake refused(Handshake handshake, int status, str reason)      # the same one, refused
cdef bytes accept_key(bytes key)        # the value of Sec-WebSocket-Accept
