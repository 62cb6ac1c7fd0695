"""The access log: one line a response, formatted at once and written in batches.

Knows the scope's keys and the formats. Must not know: connections, exchanges, where the lines go (see accessroute).
"""

cdef extern from "logs/fatal.h" nogil:
    struct waiting_lines:
        char** lines
        Py_ssize_t* length
        int descriptor


cdef class AccessLog:
    cdef:
        object route                    # AccessRoute
        object write                    # its write(): takes whole lines
        object logger                   # logging.Logger, one call a response; None: lines are batched for write
        bint is_on                      # when it was last looked at, something would have been written
        bint at_once                    # a batch is one line
        list atoms                      # of a format string: literal str, or Atom; None: uvicorn's line
        bint as_json
        bytes prefix                    # before each line of uvicorn's format
        bytes request_prefix            # colour codes around the request line, or b""
        bytes request_suffix
        dict status_texts               # status -> b"200 OK\n", coloured if colours are on
        bint use_colors
        char* lines                     # formatted, not yet written
        Py_ssize_t length               # bytes
        Py_ssize_t capacity             # bytes
        waiting_lines waiting           # the same, for a signal that ends the process
        bint is_waiting                 # such signals know of it

    cdef bint look(self) except -1      # where lines go now; whether anywhere. Nothing may be batched
    cdef int record(self, dict scope, int status, long long body_bytes, double duration_s) except -1
    cdef int outlive_signals(self) except -1
    cdef int put_default_line(self, dict scope, int status) except -1
    cdef int put_line(self, str line) except -1
    cdef char* reserve(self, Py_ssize_t n) except NULL
    cdef bytes status_text(self, int status)
