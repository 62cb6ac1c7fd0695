"""See heads.pxd for the contracts."""

import http
from email.utils import formatdate

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memset


class FieldError(ValueError):
    """A response field that may not go on the wire: it would let the application's data end the field."""


cdef enum:
    STATUS_COUNT = 1000
    ADDED_ROOM = 64                     # bytes that put_head() adds behind the fields, at most

cdef list STATUS_LINES = [None] * STATUS_COUNT

# Of every refusal, which is sent in the application's place
cdef list REFUSAL_FIELDS = [(b"content-type", b"text/plain; charset=utf-8")]

cdef dict PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
# For these http.HTTPStatus of some versions of Python has names that are older than RFC 9110 section 15.5
PHRASES |= {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


cpdef str reason_phrase(object status):
    return PHRASES.get(status, "")


def fill_status_lines():
    for status in range(100, STATUS_COUNT):
        STATUS_LINES[status] = b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status).encode("ascii"))


fill_status_lines()


cdef bint check_value(const char* p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint bad = False
    if n > 256:
        return memchr(p, c"\r", n) is NULL and memchr(p, c"\n", n) is NULL and memchr(p, 0, n) is NULL
    for i in range(n):
        bad |= (p[i] == c"\r") | (p[i] == c"\n") | (p[i] == 0)
    return not bad


cdef class DefaultFields:

    def __init__(self, fields, *, bint dated):
        fields = list(fields)
        lines = [(name.lower(), b"%b: %b\r\n" % (name, value)) for name, value in fields]
        self.server_line = b"".join([line for name, line in lines if name == b"server"])
        self.other_lines = b"".join([line for name, line in lines if name != b"server"])
        pairs = [(bytes(name).lower(), bytes(value)) for name, value in fields]
        self.server_pairs = [pair for pair in pairs if pair[0] == b"server"]
        self.other_pairs = [pair for pair in pairs if pair[0] != b"server"]
        self.is_dated = dated
        self.renew(0)

    cpdef bint renew(self, long second) except -1:
        if self.lines is not None and second == self.second:
            return False
        self.second = second
        # RFC 9110 section 6.6.1
        date = formatdate(second, usegmt=True).encode()
        self.date_line = b"date: %b\r\n" % date if self.is_dated else b""
        self.date_pair = (b"date", date) if self.is_dated else None
        self.lines = self.server_line + self.date_line + self.other_lines
        return True


cdef inline char* put_defaults(char* p, DefaultFields defaults, bint has_server, bint has_date) noexcept:
    if not (has_server or has_date):
        return put_bytes(p, defaults.lines)
    if not has_server:
        p = put_bytes(p, defaults.server_line)
    if not has_date:
        p = put_bytes(p, defaults.date_line)
    return put_bytes(p, defaults.other_lines)


cdef Framing framing_of(bint bodiless, bint has_length, bint is_whole, int minor_version) noexcept nogil:
    if bodiless or has_length:
        return FRAMED_BY_HEAD
    if is_whole:
        return FRAMED_BY_LENGTH
    return FRAMED_BY_CHUNKS if minor_version == 1 else FRAMED_BY_CLOSE


cdef char* put_head(char* p, const ResponseHead* head, DefaultFields defaults, list fields) noexcept:
    p = put_bytes(p, <bytes>STATUS_LINES[head.status])
    if defaults is not None:
        p = put_defaults(p, defaults, head.has_server, head.has_date)
    p = put_fields(p, fields)
    if head.framing == FRAMED_BY_LENGTH:
        p = put_decimal(put_bytes(p, b"content-length: "), head.length)
        p = put_bytes(p, b"\r\n")
    elif head.framing == FRAMED_BY_CHUNKS:
        p = put_bytes(p, b"transfer-encoding: chunked\r\n")
    if head.option == SAY_CLOSE:
        p = put_bytes(p, b"connection: close\r\n")
    elif head.option == SAY_KEEP_ALIVE:
        p = put_bytes(p, b"connection: keep-alive\r\n")
    return put_bytes(p, b"\r\n")


cdef Py_ssize_t head_room(const ResponseHead* head, DefaultFields defaults, Py_ssize_t fields_bytes) noexcept:
    cdef Py_ssize_t room = PyBytes_GET_SIZE(<bytes>STATUS_LINES[head.status]) + fields_bytes + ADDED_ROOM
    return room if defaults is None else room + PyBytes_GET_SIZE(defaults.lines)


cdef bytes refusal(
    int status, ConnectionOption option, DefaultFields defaults, list fields, bytes text, bint is_head,
):
    cdef ResponseHead head
    cdef bytes data
    cdef char* end
    memset(&head, 0, sizeof(head))
    head.status = status
    head.framing = FRAMED_BY_LENGTH
    head.option = option
    head.length = PyBytes_GET_SIZE(text)
    fields = fields + REFUSAL_FIELDS
    data = PyBytes_FromStringAndSize(NULL, head_room(&head, defaults, fields_size(fields)) + head.length)
    end = put_head(PyBytes_AS_STRING(data), &head, defaults, fields)
    if not is_head:
        end = put_bytes(end, text)
    return data[:end - PyBytes_AS_STRING(data)]


cdef char* put_fields(char* p, list fields) noexcept:
    cdef object field
    for field in fields:
        p = put_bytes(p, <bytes>(<tuple>field)[0])
        p[0] = c":"
        p[1] = c" "
        p = put_bytes(p + 2, <bytes>(<tuple>field)[1])
        p[0] = c"\r"
        p[1] = c"\n"
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
        digits[count] = <char>(c"0" + n % 10)
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
    p[0] = c"\r"
    p[1] = c"\n"
    return p + 2


# --- For Python: tests ---

# In the order of Framing and of ConnectionOption
_FRAMINGS = ("head", "length", "chunks", "close")
_OPTIONS = (None, "close", "keep-alive")


def encode_head(
    int status, list fields not None, DefaultFields defaults=None, *, bint has_server=False, bint has_date=False,
    str framing="head", Py_ssize_t length=0, str option=None,
):
    cdef ResponseHead head
    cdef bytes data
    cdef char* end
    cdef Py_ssize_t room
    if not 100 <= status < STATUS_COUNT:
        raise ValueError(f"{status} is no status")
    head.status = status
    head.has_server = has_server
    head.has_date = has_date
    head.framing = <Framing><int>_FRAMINGS.index(framing)
    head.length = length
    head.option = <ConnectionOption><int>_OPTIONS.index(option)
    room = head_room(&head, defaults, fields_size(fields))
    data = PyBytes_FromStringAndSize(NULL, room)
    end = put_head(PyBytes_AS_STRING(data), &head, defaults, fields)
    assert end - PyBytes_AS_STRING(data) <= room
    return data[:end - PyBytes_AS_STRING(data)]


def choose_framing(*, bint bodiless, bint has_length, bint is_whole, int minor_version):
    return _FRAMINGS[framing_of(bodiless, has_length, is_whole, minor_version)]


def encode_refusal(
    int status, list fields not None, bytes text not None, DefaultFields defaults not None, *, bint is_head=False,
    str option="close",
):
    return refusal(status, <ConnectionOption><int>_OPTIONS.index(option), defaults, fields, text, is_head)
