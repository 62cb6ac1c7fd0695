"""The bodies of requests on an HTTP/2 connection: DATA frames, in whatever pieces they are read (RFC 9113 section 6.1).

Knows what a stream may send, and when its exchange gets it. Must not know: how frames are found, how a request is
answered.
"""

from libc.stdint cimport uint8_t

from fastasgi.codecs.http2frames cimport FrameHead
from fastasgi.wires.http2control cimport HTTP2Control
from fastasgi.wires.http2stream cimport HTTP2Stream


cdef enum:                              # of HTTP2Bodies.state
    READ_PREFACE
    READ_SETTINGS                       # the client's first frame is due
    READ_FRAMES
    READ_DATA                           # the payload of a DATA frame
    READ_NOTHING                        # closing: what comes is thrown away


cdef class HTTP2Bodies(HTTP2Control):
    cdef:
        int state                       # READ_PREFACE and on
        # The DATA frame that is being read, in READ_DATA
        uint8_t data_flags
        Py_ssize_t data_left            # bytes of its data still to come
        Py_ssize_t padding_left         # bytes of padding behind them

    cdef int begin_data(self, const FrameHead* head, const uint8_t* p) except -1
    cdef HTTP2Stream checked_data(self, HTTP2Stream stream, const FrameHead* head, Py_ssize_t n)
    cdef int read_data(self) except -1
    cdef int end_data_frame(self) except -1
    cdef int begin_gathering(self, HTTP2Stream stream, Py_ssize_t room) except -1
    cdef int feed_gathered(self, bint is_last) except -1
    cdef int feed(self, HTTP2Stream stream, bytes piece, bint is_last) except -1
    cdef int discard(self, HTTP2Stream stream, Py_ssize_t n, bint is_last) except -1
    cdef int start_due(self) except -1

    # --- What is made of it ---

    # Answers in place of an application whose response has not begun; else ends the stream
    cdef int refuse_body(self, HTTP2Stream stream, int status, str reason) except -1
