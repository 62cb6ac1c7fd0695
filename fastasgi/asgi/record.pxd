"""What is told of a response when it is over: it is counted, and has its line in the access log.

Must not know: what a response consists of.
"""

from libc.stdint cimport int64_t

from fastasgi.asgi.exchange cimport Exchange


cdef class RecordedExchange(Exchange):
    cdef:
        # The worker's turn_began_ns when the request's head came; 0 once the response is recorded
        int64_t started_ns
        int64_t first_byte_ns           # from then to the first byte of a response that goes on; or 0
        int protocol                    # HTTP_1_0 and on, if the worker measures
        int method                      # its index in METHODS, if the worker measures
        bint body_complete              # the client has sent all of the request's body
        long long body_sent             # bytes of the response's body that the wire has got
        long long body_fed              # bytes of the request's body that have come
        bint was_slow                   # slow_requests() has returned it
        public bint has_line            # the log has told of it while it ran

    # To be called while the worker observes; only the first call records. is_aborted: the client left before the
    # response was complete. body_bytes: those on the wire
    cdef int record(self, int status, bint is_aborted, long long body_bytes) except -1
    cdef int count_response(self, int status, bint is_aborted, int64_t duration_ns) except -1
    cdef int note_slow(self, dict scope, int64_t duration_ns) except -1
    cdef void note_first_byte(self) noexcept            # the response has begun, and goes on
