"""HTTP/2 on one sink (RFC 9113): requests and what answers them, settings, deadlines, the connection's end.

Knows when a request is refused, and when a stream or the connection ends; http2input reads the frames, http2output
writes them. Must not know: sockets, the order of ASGI messages (see asgi.http).
"""

from libc.stdint cimport uint32_t, uint8_t

from fastasgi.codecs.http2head cimport HTTP2RequestHead
from fastasgi.core.contracts cimport Wire
from fastasgi.wires.http2input cimport HTTP2Input
from fastasgi.wires.http2output cimport OutboundStream
from fastasgi.wires.http2stream cimport HTTP2Stream


cdef class HTTP2Wire(Wire):
    """What the HTTP/2 connections of one worker share."""

    cdef:
        HTTP2RequestHead head           # the next request's; another one while it is lent
        bytes greeting                  # what the server sends first: SETTINGS, and more window for the connection


cdef class HTTP2Connection(HTTP2Input):
    cdef:
        double partial_by               # the worker.now by which the rest of a frame or header block is due; or 0
        double idle_by                  # by which the next request is due; or 0
        double final_by                 # by which the last GOAWAY is due; or 0
        double heard_at                 # of the last bytes that have come
        double pinged_at                # of a keep-alive PING of ours without an answer; or 0
        bint peer_leaves                # the peer has sent GOAWAY
        bint goaway_is_put              # the first GOAWAY of a shutdown

    cdef dict scope_of(self, HTTP2RequestHead head)
    cdef bint begin_websocket_of(self, HTTP2Stream stream, HTTP2RequestHead head, dict scope) except -1
    # Answers in the application's place
    cdef bint refuse(self, HTTP2Stream stream, int status, str reason, dict scope) except -1
    cdef int put_answer(self, HTTP2Stream stream, int status, bytes text) except -1
    cdef int begin_pushed(self, HTTP2Stream stream, dict scope) except -1
    cdef int put_goaway_frame(self, uint32_t last_id, uint32_t code) except -1
    cdef int put_last_goaway(self) except -1
    cdef int close(self) except -1
    cdef int close_idle(self) except -1
    cdef int disconnect_all(self) except -1
    cdef double next_time(self) noexcept
    cdef int expire_waits(self) except -1
    cdef int expire_pings(self) except -1
    cdef int expire_streams(self) except -1
    cdef int expire_stream(self, HTTP2Stream stream) except -1
