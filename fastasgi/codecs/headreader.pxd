"""What the readers of request heads have in common, whatever the version of HTTP: the limits, and the shared pairs.

Must not know: the grammar of a head.
"""

from fastasgi.codecs.fieldnames cimport SharedPairs


cdef enum Underscores:          # what happens to a field with "_" in its name
    UNDERSCORES_ALLOW           # it is like any other
    UNDERSCORES_DROP            # it is left out, though limits count it
    UNDERSCORES_REFUSE          # 400


cdef class HeadReader:
    """Reads request heads within limits. One object serves all connections of a worker in turn."""

    cdef:
        bint lent               # the result is in use further up the stack
        Py_ssize_t max_request_line_bytes       # without its CRLF
        Py_ssize_t max_head_bytes
        int max_header_count
        int underscores         # one of Underscores
        SharedPairs shared      # the pairs that repeat


cdef HeadReader unlent_reader(HeadReader reader)        # this one; if it is lent, a new one with its type and limits
