"""How many connections each worker of a server has and gets, in memory that they share.

A worker writes its own row and reads those of the others. Must not know: what is done about it, who makes the memory.
"""

from libc.stdint cimport int64_t, uint32_t


cdef struct Row:                        # ROW_SIZE bytes
    uint32_t connections                # that are open
    uint32_t accepts                    # whether this worker accepts connections
    double accepted                     # how many it has got, of which each counts half as much a second later,
    int64_t accepted_ns                 # as of this time of the monotonic clock
    int64_t seen_ns                     # when its event loop last turned, as far as is known, of the monotonic clock


cdef class Shares:
    """One worker's row, and a view of all others."""

    cdef:
        Py_buffer memory
        char* rows                      # borrows from `memory`
        Row* own

    cdef inline void tell(self, Py_ssize_t connections) noexcept:
        self.own.connections = connections
    cdef void count_accepted(self, int64_t now_ns) noexcept
    cdef void set_accepts(self, bint accepts) noexcept
    cdef void beat(self) noexcept               # to be called each second or more often
    # Whether this worker has or gets more than its share: more than another one that accepts, and whose loop has turned
    # since this time, or since SILENT_NS
    cdef bint is_ahead(self, int64_t now_ns, int64_t since_ns) noexcept
    cdef int accepting(self, int64_t now_ns) noexcept   # the number of workers that accept, this one included
