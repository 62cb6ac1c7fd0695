"""One HTTP/2 stream: a request and its response (RFC 9113 section 8.1), or the WebSocket that a request opens.

Knows how ASGI messages look as frames. Must not know: how frames are read, sockets.
"""

from libc.stdint cimport int64_t

from fastasgi.core.contracts cimport Connection
from fastasgi.wires.http2output cimport OutboundStream
from fastasgi.wires.tunnel cimport TunnelSink


cdef class HTTP2Stream(OutboundStream):
    cdef:
        bint is_open                    # it is in connection.streams
        bint is_over                    # the response is complete, or there will be none
        bint is_pushed                  # the server has begun it (RFC 9113 section 8.4)
        bytes scheme                    # of the request, for what is pushed because of it
        bytes authority                 # the same; or None
        TunnelSink tunnel               # carries the WebSocket, if this stream is one that is open; or None
        Py_ssize_t head_size            # of the request's head, by the measure of RFC 7541 section 4.1
        double began_at                 # worker.now of the head's arrival, seconds
        double heard_at                 # worker.now of the last DATA, or of the response's end, seconds
        int64_t body_length             # what content-length says; -1: nothing
        int64_t body_read               # bytes of the body that have come
        Py_ssize_t discarded            # bytes of it that nobody wanted any more
        # Flow control toward us, in bytes (RFC 9113 section 5.2)
        int64_t window                  # what the peer may send before it gets credit
        int64_t window_left             # what it may still send now
        Py_ssize_t fed                  # what was fed to the exchange, and for which there is no credit yet
        int64_t credit                  # what may be returned, and has not been

    cdef int inherit_to(self, Connection successor) except -1
    cdef int open_block(self) except -1         # raises if the client has gone
    # The stream ends before its response: counts the application's call in connection.outliving_count while it goes on
    cdef int outlive(self) except -1
