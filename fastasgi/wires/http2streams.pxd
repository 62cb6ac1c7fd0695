"""The open streams of an HTTP/2 connection (RFC 9113 section 5): their beginning and end, the credit that the peer has
for sending bodies, and the budgets that bound what it may cost.

Must not know: frames as they come, requests, deadlines.
"""

from libc.stdint cimport int64_t, uint32_t, uint8_t

from fastasgi.wires.http2output cimport HTTP2Output
from fastasgi.wires.http2stream cimport HTTP2Stream


cdef enum:
    RESET_IDS = 32                      # streams that we have reset and remember
    CONTROLS_MOST = 1000                # of the budget of control frames
    REWARDS_MOST = 100000               # control frames that DATA may allow beside it; they take some milliseconds
    CONTROLS_RENEWAL = 100              # a second
    RESETS_RENEWAL = 10                 # of the budget of resets, a second


cdef struct Budget:
    double left                         # frames that are still tolerated
    double renewed_at                   # worker.now of the last renewal, seconds


cdef class HTTP2Streams(HTTP2Output):
    cdef:
        bint receiving                  # receive() is under way further up the stack
        uint32_t last_id                # the highest stream of the peer's that has been seen
        uint32_t last_served            # after a GOAWAY: streams above this one are not served; else 2**31-1
        uint32_t last_pushed            # the last stream that the server has begun
        int pushed_count                # open streams that the server has begun
        uint32_t[RESET_IDS] reset_ids   # the last streams that we have reset: frames for them may be under way
        int reset_count
        int uploads                     # open streams of whose body the end has not come
        Py_ssize_t heads_size           # of the heads of all open streams, by the measure of RFC 7541 section 4.1

        # What comes, as it is being read
        HTTP2Stream data_stream         # whose DATA is being read; None: it is thrown away
        HTTP2Stream gathered_stream     # whose DATA, of one or several frames, is gathered; or None
        bytes gathered                  # that DATA, in an object with room for the rest of the read
        Py_ssize_t gathered_size
        HTTP2Stream due                 # it starts once this read has no more of its body; or None

        # Flow control toward us, in bytes
        int64_t window                  # what the peer may send before it gets credit
        int64_t window_left             # what it may still send now
        int64_t credit                  # what may be returned, and has not been
        int64_t stream_window           # what each stream has at first
        int64_t wide_window             # what a stream's window has grown to, which the next ones get too
        # A PING of ours, by whose answer a client has the credit that was sent with it
        bint probing
        uint32_t probed_stream          # the stream whose window is in question
        int64_t probed_room             # bytes that were left of it
        int64_t probed_size             # bytes that have come since then

        Budget resets                   # streams that are reset
        Budget controls                 # frames that cost much and bring little

    cdef HTTP2Stream find(self, uint32_t stream_id)     # None if it is not open
    cdef bint is_idle(self, uint32_t stream_id) noexcept        # no frame has named it (RFC 9113 section 5.1)
    cdef bint was_reset(self, uint32_t stream_id) noexcept      # frames for it may be under way, and are to be ignored
    cdef int remember_reset(self, uint32_t stream_id) noexcept
    cdef HTTP2Stream new_stream(self, uint32_t stream_id)
    cdef int open(self, HTTP2Stream stream) except -1

    cdef int remove(self, HTTP2Stream stream) except -1         # it is closed
    cdef int lose_stream(self, HTTP2Stream stream) except -1    # the peer has ended it, or made it end
    # Resets a stream for a fault of the peer's (RFC 9113 section 5.4.2), which counts against it
    cdef int fail_stream(self, uint32_t stream_id, uint32_t code) except -1
    # Takes `cost` from a budget, which holds `most` at most and gets `renewal` a second; a negative one is a good deed.
    # If it is used up, the connection ends: False
    cdef bint spend(self, Budget* budget, double cost, double most, double renewal) except -1
    cdef double most_resets(self) noexcept

    cdef int add_credit(self, int64_t n) except -1      # for the connection
    cdef int collect_credit(self) except -1
    cdef int probe(self, HTTP2Stream stream) except -1
    cdef int widen(self) except -1
    cdef int widen_to(self, HTTP2Stream stream, int64_t window) except -1
    cdef int put_ping_frame(self, bytes opaque) except -1

    # --- What is made of it ---

    # Ends the connection for a fault of the peer's (RFC 9113 section 5.4.1)
    cdef int fail(self, uint32_t code, str reason) except -1
    cdef int settle_idle(self) except -1        # the last stream is closed
    cdef int watch_time(self) except -1         # sets the deadline for what is due


cdef bytes PROBE                        # the payload of the PING that measures
