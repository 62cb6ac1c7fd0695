"""The fields that the server itself puts into every response: those of the settings, `server` and `date`.

Must not know: responses.
"""


cdef class ServerFields:
    """As header lines, "name: value" with CRLF, as HTTP/1.x has them."""

    cdef:
        bytes lines                     # all of them, with the date of this second
        bytes other_lines               # without server and date
        bytes server_line               # empty if the server field is off
        bytes date_line                 # of this second; empty if the date field is off
        bint has_date                   # the date field is on
        long second                     # of the Unix clock: the one that date_line names

    cdef bint renew(self, long second) except -1        # whether it is a new second
    # The lines, but not those of fields that the application has sent. Returns the end of what it has written; the
    # caller has room for `lines`.
    cdef char* put(self, char* p, bint without_server, bint without_date) noexcept
