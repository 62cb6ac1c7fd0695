"""HTTP/1.1 response heads and chunk framing: plain data in, bytes out (RFC 9112).

Every put_* writes at `p` and returns the end of what it wrote; the caller has made room. Must not know: ASGI, sockets,
requests, what a header means.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy


cdef enum:
    CHUNK_HEAD_ROOM = 18                # bytes that put_chunk_head writes at most
    DECIMAL_ROOM = 20                   # bytes that put_decimal writes at most


cdef enum Framing:                      # what tells a client where the body ends (RFC 9112 section 6.3)
    FRAMED_BY_HEAD                      # the method, the status, or the application's Content-Length
    FRAMED_BY_LENGTH                    # a Content-Length that is added
    FRAMED_BY_CHUNKS                    # Transfer-Encoding: chunked
    FRAMED_BY_CLOSE                     # the end of the connection


cdef enum ConnectionOption:             # what is added about the connection (RFC 9112 section 9)
    SAY_NOTHING
    SAY_CLOSE
    SAY_KEEP_ALIVE                      # to an HTTP/1.0 client, for which it is not the rule


cdef struct ResponseHead:               # a response's head, without the application's fields
    int status                          # 100 to 999
    bint has_server                     # the fields have a Server: the default one is left out
    bint has_date                       # the fields have a Date: the default one is left out
    Framing framing
    Py_ssize_t length                   # bytes of the body; used by FRAMED_BY_LENGTH only
    ConnectionOption option


cdef class DefaultFields:
    """The server's own fields, which every final response begins with. One object serves a whole worker."""

    cdef:
        bytes lines                     # all lines
        bytes server_line               # "server: ...\r\n"; empty if there is none
        bytes date_line                 # "date: ...\r\n" of `second`; empty if there is none
        bytes other_lines               # the lines of all other fields
        # The same fields as (name, value), the names in lower case
        list server_pairs               # one, or none, or as many as the settings have
        tuple date_pair                 # None if there is none
        list other_pairs
        bint is_dated                   # the fields have a Date
        long second                     # the second that date_line names, counted from the epoch
    # Sets the second that Date names. Whether it is another one than before. To be called before the first response.
    cpdef bint renew(self, long second) except -1


# Whether the bytes may stand on the wire as a field value: they have no CR, LF or NUL (RFC 9110 section 5.5). A field
# name has to be a token, see is_token() in text.
cdef bint check_value(const char* p, Py_ssize_t n) noexcept nogil

cpdef str reason_phrase(object status)  # RFC 9110's name of a status; empty if it has none

# How a response is framed. `bodiless`: its method or status allows no body. `has_length`: the application has given its
# Content-Length. `is_whole`: the whole body is there with the head. The client speaks HTTP/1.x, x being
# `minor_version`.
cdef Framing framing_of(bint bodiless, bint has_length, bint is_whole, int minor_version) noexcept nogil
# Writes the whole head, with the empty line. `fields` are (bytes, bytes) tuples; `defaults` is None for an interim
# response.
cdef char* put_head(char* p, const ResponseHead* head, DefaultFields defaults, list fields) noexcept
# Bytes that put_head() writes at most; `fields_bytes` is fields_size() of the fields.
cdef Py_ssize_t head_room(const ResponseHead* head, DefaultFields defaults, Py_ssize_t fields_bytes) noexcept
# A whole response in plain text. `fields` come before those that every such response has. The answer to a HEAD has the
# length of `text`, but not the text.
cdef bytes refusal(
    int status, ConnectionOption option, DefaultFields defaults, list fields, bytes text, bint is_head)

cdef char* put_fields(char* p, list fields) noexcept     # of (bytes, bytes) tuples
cdef Py_ssize_t fields_size(list fields) noexcept         # bytes that put_fields writes
cdef char* put_decimal(char* p, long long n) noexcept nogil              # n >= 0
cdef char* put_chunk_head(char* p, Py_ssize_t n) noexcept nogil          # n > 0
cdef inline char* put_bytes(char* p, bytes data) noexcept:
    memcpy(p, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return p + PyBytes_GET_SIZE(data)
