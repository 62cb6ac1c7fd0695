"""See heads.pxd for the contracts."""

import http

from libc.string cimport memchr, memcpy


class FieldError(ValueError):
    """A response field that may not go on the wire: it would let the application's data end the field."""


cdef enum:
    STATUS_COUNT = 1000

cdef list STATUS_LINES = [None] * STATUS_COUNT
cdef char TOKEN[256]                    # 1 at each tchar (RFC 9110 section 5.6.2)


# Where http.HTTPStatus has an older name in some version of Python (RFC 9110 section 15.5)
cdef dict PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def reason_phrase(status) -> str:
    """RFC 9110's name of a status code; empty where it has none."""
    try:
        return PHRASES.get(status) or http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def fill_tables():
    for status in range(100, STATUS_COUNT):
        STATUS_LINES[status] = b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status).encode("ascii"))
    for byte in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        TOKEN[byte] = 1


fill_tables()


cdef bint check_name(const char* p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int token = n > 0
    for i in range(n):
        token &= TOKEN[<unsigned char>p[i]]
    return token


cdef bint check_value(const char* p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint bad = False
    if n > 256:
        return memchr(p, 13, n) is NULL and memchr(p, 10, n) is NULL and memchr(p, 0, n) is NULL
    for i in range(n):
        bad |= (p[i] == 13) | (p[i] == 10) | (p[i] == 0)
    return not bad


cdef bytes status_line(int status):
    return <bytes>STATUS_LINES[status]


cdef char* put_bytes(char* p, bytes data) noexcept:
    memcpy(p, <char*>data, len(data))
    return p + len(data)


cdef char* put_fields(char* p, list fields) noexcept:
    cdef object field
    for field in fields:
        p = put_bytes(p, <bytes>(<tuple>field)[0])
        p[0] = b":"
        p[1] = b" "
        p = put_bytes(p + 2, <bytes>(<tuple>field)[1])
        p[0] = b"\r"
        p[1] = b"\n"
        p += 2
    return p


cdef Py_ssize_t fields_size(list fields) noexcept:
    cdef object field
    cdef Py_ssize_t size = 0
    for field in fields:
        size += len(<bytes>(<tuple>field)[0]) + len(<bytes>(<tuple>field)[1]) + 4
    return size


cdef char* put_decimal(char* p, long long n) noexcept nogil:
    cdef char digits[DECIMAL_ROOM]
    cdef int count = 0
    cdef int i
    while True:
        digits[count] = <char>(48 + n % 10)
        n //= 10
        count += 1
        if n == 0:
            break
    for i in range(count):
        p[i] = digits[count - 1 - i]
    return p + count


cdef char* put_chunk_head(char* p, Py_ssize_t n) noexcept nogil:
    cdef char* digits = b"0123456789abcdef"
    cdef int shift = 60
    while shift > 0 and (n >> shift) == 0:
        shift -= 4
    while shift >= 0:
        p[0] = digits[(n >> shift) & 15]
        p += 1
        shift -= 4
    p[0] = b"\r"
    p[1] = b"\n"
    return p + 2
