"""The sink of a WebSocket inside HTTP/2 (RFC 8441): its bytes are the DATA of a stream.

Knows what a ByteSink promises. Must not know: WebSockets, the connection's other streams.
"""

from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext
from fastasgi.wires.http2output cimport OutboundStream


cdef class TunnelSink(ByteSink):
    cdef:
        OutboundStream stream           # None once it is closed
        Connection connection           # who has this sink's events
        ByteSink carrier                # the HTTP/2 connection's sink
        bint reads                      # the bytes that come are taken at once
        bint peer_is_done               # no more bytes come
        bint loss_is_scheduled          # the connection hears of it in an event of its own
        bint is_lost                    # the connection has heard that this sink is closed

    cdef int begin(self, OutboundStream stream) except -1
    # n bytes have come, which are borrowed for the call. Whether there is credit for them at once
    cdef bint feed(self, char* p, Py_ssize_t n) except -1
    cdef int feed_end(self) except -1           # the peer has ended its half
    cdef int feed_loss(self) except -1          # the stream is closed
    cdef int relieve(self) except -1            # little waits to be sent
    cdef int tell_loss(self) except -1
    cdef int put_data(self, bytes data) except -1
    cdef int put_end(self) except -1
    cdef int close(self, bint resets) except -1
