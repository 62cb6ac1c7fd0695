"""An open WebSocket on any sink: its frames (RFC 6455), compression, keep-alive and closing handshake.

Must not know: how it was opened, the order of ASGI messages, sockets.
"""

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.websocket cimport MessageConnection
from fastasgi.codecs.deflate cimport Deflater
from fastasgi.codecs.frames cimport FrameDecoder


cdef class WebSocketConnection(MessageConnection):
    cdef:
        FrameDecoder decoder
        Deflater deflater               # None if permessage-deflate was not negotiated
        bytes pong                      # payload of the pong that the peer's last ping still needs, or None
        bint ping_is_out                # no pong has come since our last ping
        bint close_sent                 # our Close frame is with the sink; nothing may follow it
        bint ended                      # nothing more is read; the peer is to close

    cdef int hold(self, const char* p, Py_ssize_t n) except -1
    cdef int put_control(self, int opcode, bytes payload) except -1
    cdef int put_pong(self) except -1
    cdef int fail(self, int code, str reason) except -1
    cdef int finish(self, int code, str reason, bint gently) except -1
    cdef int wait_for_ping(self) except -1


# A connection for this WebSocketExchange, which is open from now on; it has still to begin on a sink
cdef WebSocketConnection new_websocket(Exchange exchange)
