"""Priorities of responses (RFC 9218): what the value of a Priority field, or of a PRIORITY_UPDATE frame, says.

Knows dictionaries of structured fields (RFC 9651). Must not know: streams, who comes before whom.
"""

from libc.stdint cimport uint8_t


cdef enum:
    MOST_URGENT = 0
    DEFAULT_URGENCY = 3
    LEAST_URGENT = 7


cdef struct Priority:
    uint8_t urgency             # from MOST_URGENT to LEAST_URGENT
    bint incremental            # the response is of use in parts: it shares with others of its urgency


# Reads a value of n bytes. Parameters that are missing, unknown, or have a value of another type or range do not count
# (RFC 9218 section 4). False if it is not a dictionary: then nothing of it counts. Borrows `p` for the call.
cdef bint read_priority(Priority* priority, const char* p, Py_ssize_t n) noexcept nogil
