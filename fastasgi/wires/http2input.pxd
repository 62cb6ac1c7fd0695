"""What comes on an HTTP/2 connection (RFC 9113): frames, found in whatever pieces they are read, in order.

Knows which frame may come when, and header blocks in several frames. Must not know: how a request is answered, which
deadlines there are, what fields mean.
"""

from libc.stdint cimport uint32_t, uint8_t

from fastasgi.codecs.hpack cimport HPACKDecoder
from fastasgi.codecs.http2frames cimport FrameHead
from fastasgi.codecs.http2head cimport HTTP2RequestHead
from fastasgi.wires.http2bodies cimport HTTP2Bodies
from fastasgi.wires.http2stream cimport HTTP2Stream


cdef class HTTP2Input(HTTP2Bodies):
    cdef:
        HPACKDecoder decoder
        HTTP2RequestHead head           # the worker's; another one is used while it is lent
        bint beginning                  # a header block is being read, and its request made, further up the stack
        Py_ssize_t needed               # bytes that have to be held before they are looked at again
        int turn_left                   # requests that may still begin in this turn of the event loop

        # The header block that is being gathered
        uint32_t block_id               # its stream; 0: there is none
        uint8_t block_flags             # of its HEADERS
        uint32_t block_dependency       # the stream on which its HEADERS depends
        int block_frames                # so far
        char* block                     # owned, or NULL
        Py_ssize_t block_length
        Py_ssize_t block_limit          # bytes that a block may have, compressed
        HTTP2Stream ended_by_trailers   # its last frame was HEADERS, which is being read; or None

    cdef int advance(self) except -1
    cdef int settle_read(self) except -1
    cdef int hold(self, Py_ssize_t needed) except -1
    cdef int hold_first(self) except -1
    cdef bint read_preface(self) except -1
    cdef bint read_frame(self) except -1
    cdef int begin_frames(self) except -1
    cdef int take_frame(self, const FrameHead* head, const uint8_t* p) except -1

    cdef int take_headers(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int take_continuation(self, const FrameHead* head, const uint8_t* p) except -1
    cdef int gather_block(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef int read_block(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef bint decode_block(self, HTTP2RequestHead head, const uint8_t* p, Py_ssize_t n) except -1
    cdef HTTP2Stream take_block(self, HTTP2RequestHead head, uint32_t stream_id, bint ends)
    cdef HTTP2Stream begin_stream(self, HTTP2RequestHead head, uint32_t stream_id, bint ends)
    cdef int take_trailers(self, HTTP2Stream stream, HTTP2RequestHead head, bint ends) except -1
    cdef int end_by_trailers(self) except -1

    # --- What is made of it ---

    cdef bint begin(self, HTTP2Stream stream, HTTP2RequestHead head) except -1      # whether a request is to be started
    cdef int heard_goaway(self) except -1
