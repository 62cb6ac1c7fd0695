"""The frames of an HTTP/2 connection that carry no part of a message: settings, windows, resets, pings (RFC 9113) and
priorities (RFC 9218).

Knows what each of them changes. Must not know: how frames are found in what comes, requests, deadlines.
"""

from libc.stdint cimport uint32_t, uint8_t

from fastasgi.codecs.http2frames cimport FrameHead
from fastasgi.codecs.priority cimport Priority
from fastasgi.wires.http2stream cimport HTTP2Stream
from fastasgi.wires.http2streams cimport HTTP2Streams


cdef class HTTP2Control(HTTP2Streams):
    cdef:
        bint tells_priority             # the client has said what is urgent
        uint32_t early_id               # the stream of the last PRIORITY_UPDATE that came before its stream
        Priority early_priority         # what it said

    # Each takes a whole frame, whose head is known to be right by itself
    cdef int take_settings(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_window_update(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_rst_stream(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_ping(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_priority(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_priority_update(self, const FrameHead* head, const uint8_t* p) except -1
    # Orders a stream's response by what its Priority field says (None: there is none), and by turns if the client never
    # says anything. So are those of a proxy ordered, whose clients know nothing of each other
    cdef int set_priority(self, HTTP2Stream stream, bytes field, bint via_proxy) except -1

    cdef int heard_ping(self, const uint8_t* opaque) except -1  # the peer has answered a PING
