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
        object logger                   # logging.Logger that is called for each response; None if lines are batched
        bint is_on                      # something would have been written when that was last looked at
        bint at_once                    # a batch is one line
        list atoms                      # the parts of a format string, each a str or an Atom; None for uvicorn's line
        bint as_json                    # a line is a JSON object
        bytes prefix                    # before each line of uvicorn's format
        bytes request_prefix            # colour codes around the request line, or b""
        bytes request_suffix
        dict status_texts               # status -> b"200 OK\n", coloured if colours are on
        bint use_colors
        char* lines                     # formatted, not yet written
        Py_ssize_t length               # bytes
        Py_ssize_t capacity             # bytes
        waiting_lines waiting           # these lines, for a signal that ends the process
        bint is_waiting                 # the handler of such signals knows of `waiting`

    # Finds out where lines go now. Whether anywhere. Nothing may be batched when this is called
    cdef bint look(self) except -1
    cdef int record(self, dict scope, int status, long long body_bytes, double duration_s) except -1
    cdef int outlive_signals(self) except -1
    cdef int put_default_line(self, dict scope, int status) except -1
    cdef int put_line(self, str line) except -1
    cdef char* reserve(self, Py_ssize_t n) except NULL
    cdef bytes status_text(self, int status)
