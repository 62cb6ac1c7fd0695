"""The request that opens a WebSocket, in HTTP/1.1 (RFC 6455 section 4) or HTTP/2 (RFC 8441): what it has to say, and
the key in HTTP/1.1's answer.

Must not know: connections, ASGI.
"""


cdef class Handshake:
    """What a client asks for to open a WebSocket (RFC 6455 section 4.1)."""

    cdef:
        bytes key                       # the value of Sec-WebSocket-Key; None in HTTP/2
        object deflate                  # what negotiate_deflate() has returned, or None
        int status                      # the status with which the handshake is refused, or 0
        str reason                      # why it is refused


# Reads headers, whose names are in lower case. None if they do not ask for a WebSocket
cdef Handshake read_handshake(list headers)
# Reads those of an extended CONNECT for a WebSocket (RFC 8441 section 5), which has no key
cdef Handshake read_connect(list headers)
cdef Handshake refused(Handshake handshake, int status, str reason)      # the handshake, with this refusal in it
cdef bytes accept_key(bytes key)        # the value of Sec-WebSocket-Accept
