"""HTTP/1.1 response heads and chunk framing: plain data in, bytes out (RFC 9112).

Every put_* writes at `p` and returns the end of what it wrote; the caller has made room. Must not know: ASGI, sockets,
requests, what a header means.
"""


cdef enum:
    CHUNK_HEAD_ROOM = 18                # bytes that put_chunk_head writes at most
    DECIMAL_ROOM = 20                   # bytes that put_decimal writes at most

# Whether the bytes may stand on the wire as a field name (a token, RFC 9110 section 5.1) or as a field value (no CR,
# LF, NUL, section 5.5).
cdef bint check_name(const char* p, Py_ssize_t n) noexcept nogil
cdef bint check_value(const char* p, Py_ssize_t n) noexcept nogil

cdef bytes status_line(int status)      # 100 to 999
cdef char* put_bytes(char* p, bytes data) noexcept
cdef char* put_fields(char* p, list fields) noexcept     # of (bytes, bytes) tuples
cdef char* put_decimal(char* p, long long n) noexcept nogil              # n >= 0
cdef char* put_chunk_head(char* p, Py_ssize_t n) noexcept nogil          # n > 0
cdef Py_ssize_t fields_size(list fields) noexcept         # bytes that put_fields writes
