"""Text as it stands on a wire, in borrowed bytes: tokens, blanks, letter case, decimal numbers (RFC 9110 section 5.6).

Must not know: which protocol a text belongs to. Everything is inline.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t

from fastasgi.codecs.scan cimport SCAN_TOKEN, scan_is_blank, scan_lower, scan_table


cdef struct Span:
    const char* p               # borrows
    Py_ssize_t n                # bytes


cdef enum:
    MAX_PORT = 65535
    MAX_PORT_DIGITS = 5         # the digits of a node-port (RFC 7239 section 6)
    MAX_LENGTH_DIGITS = 19      # the digits of a Content-Length: as many as 2**63 - 1 has


cdef inline Span span(const void* p, const void* end) noexcept nogil:
    cdef Span text
    text.p = <const char*>p
    text.n = <const char*>end - <const char*>p
    return text


cdef inline Span span_of(bytes data) noexcept:
    cdef Span text
    text.p = PyBytes_AS_STRING(data)
    text.n = PyBytes_GET_SIZE(data)
    return text


cdef inline const uint8_t* trim_left(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The first byte behind the blanks at `p` (RFC 9110 section 5.6.3)."""
    while p < end and scan_is_blank(p[0]):
        p += 1
    return p


cdef inline const uint8_t* trim_right(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The end of the text, without the blanks there."""
    while end > p and scan_is_blank((end - 1)[0]):
        end -= 1
    return end


cdef inline Span trimmed(const void* p, const void* end) noexcept nogil:
    """The text without blanks on either side."""
    cdef const uint8_t* start = trim_left(<const uint8_t*>p, <const uint8_t*>end)
    return span(start, trim_right(start, <const uint8_t*>end))


cdef inline bint is_token(const char* p, Py_ssize_t n) noexcept nogil:
    """Whether these bytes are a token (RFC 9110 section 5.6.2)."""
    cdef uint8_t inside = 255 if n > 0 else 0       # the classes of scan.h to which all bytes belong, a bit each
    cdef Py_ssize_t i
    for i in range(n):
        inside &= scan_table[<uint8_t>p[i]]
    return inside >> SCAN_TOKEN & 1


cdef inline bint equals_folded(Span text, const char* lower, Py_ssize_t n) noexcept nogil:
    """Whether a text is the token `lower`, n bytes in lower case, if the case of its letters does not count."""
    cdef Py_ssize_t i
    if text.n != n:
        return False
    for i in range(n):
        if scan_lower[<uint8_t>text.p[i]] != <uint8_t>lower[i]:
            return False
    return True


cdef inline bint is_digit(uint8_t byte) noexcept nogil:
    return c"0" <= byte <= c"9"


cdef inline int64_t read_decimal(Span digits, int64_t most) noexcept nogil:
    """The number that the digits stand for; zeros may stand in front. -1 if it is more than `most`, or if there are no
    digits or other bytes.
    """
    cdef int64_t number = 0
    cdef Py_ssize_t i
    cdef int digit
    if digits.n <= 0:
        return -1
    for i in range(digits.n):
        digit = <uint8_t>digits.p[i] - c"0"
        if not 0 <= digit <= 9 or number > (most - digit) // 10:
            return -1
        number = number * 10 + digit
    return number


cdef inline int read_port(Span digits) noexcept nogil:
    """The port that up to five digits stand for; -1 if they stand for none."""
    return <int>read_decimal(digits, MAX_PORT) if digits.n <= MAX_PORT_DIGITS else -1


cdef inline int64_t read_length(Span digits) noexcept nogil:
    """The bytes that the digits of a Content-Length stand for (RFC 9110 section 8.6); -1 if they stand for none."""
    return read_decimal(digits, INT64_MAX) if digits.n <= MAX_LENGTH_DIGITS else -1
