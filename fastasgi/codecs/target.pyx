"""See target.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memchr

from fastasgi.codecs.scan cimport SCAN_REGNAME, scan, scan_choose, scan_hex, scan_is, scan_lower
from fastasgi.codecs.text cimport MAX_PORT, Span, is_digit, read_decimal, span

scan_choose()


# --- Host and authority (RFC 3986 section 3.2) ---

cdef const uint8_t* skip_ipv4(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The end of the IPv4 address at `p`, or NULL."""
    cdef const uint8_t* octet
    cdef int i
    for i in range(4):
        if i:
            if p == end or p[0] != c".":
                return NULL
            p += 1
        octet = p
        while p < end and is_digit(p[0]):
            p += 1
        # dec-octet: no zero stands before other digits
        if read_decimal(span(octet, p), 255) < 0 or (octet[0] == c"0" and p - octet > 1):
            return NULL
    return p


cdef bint is_ipv6(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """IPv6address: eight groups; "::" may once stand for one or more; the last two may be an IPv4 address."""
    cdef int groups = 0
    cdef int digits
    cdef bint compressed = False
    cdef const uint8_t* group
    if end - p >= 2 and p[0] == c":" and p[1] == c":":
        compressed = True
        p += 2
        if p == end:
            return True
    while True:
        group = p
        digits = 0
        while p < end and scan_hex(p[0]) >= 0:
            digits += 1
            p += 1
        if p < end and p[0] == c".":
            return skip_ipv4(group, end) == end and (groups + 2 < 8 if compressed else groups + 2 == 8)
        groups += 1
        if digits == 0 or digits > 4 or groups > 8:
            return False
        if p == end:
            return groups < 8 if compressed else groups == 8
        if p[0] != c":":
            return False
        p += 1
        if p < end and p[0] == c":":
            if compressed:
                return False
            compressed = True
            p += 1
            if p == end:
                return groups < 8


cdef bint is_ipvfuture(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )"""
    cdef const uint8_t* dot = p + 1
    if end - p < 4 or scan_lower[p[0]] != c"v":
        return False
    while dot < end and scan_hex(dot[0]) >= 0:
        dot += 1
    if dot == p + 1 or dot >= end - 1 or dot[0] != c".":
        return False
    p = dot + 1
    while p < end and (scan_is(SCAN_REGNAME, p[0]) or p[0] == c":"):
        p += 1
    return p == end


cdef bint is_host(const uint8_t* p, const uint8_t* end) noexcept nogil:
    # An empty host is an empty reg-name
    cdef const uint8_t* close
    if p < end and p[0] == c"[":
        close = <const uint8_t*>memchr(p, c"]", end - p)
        if close is NULL or not (is_ipv6(p + 1, close) or is_ipvfuture(p + 1, close)):
            return False
        p = close + 1
    else:
        p = scan(SCAN_REGNAME, p, end)
        while end - p >= 3 and p[0] == c"%" and scan_hex(p[1]) >= 0 and scan_hex(p[2]) >= 0:
            p = scan(SCAN_REGNAME, p + 3, end)
    if p == end:
        return True
    # The port, too, may be empty (RFC 3986 section 3.2.3)
    return p[0] == c":" and (p + 1 == end or read_decimal(span(p + 1, end), MAX_PORT) >= 0)


# --- Paths ---

cdef Py_ssize_t unquote(const uint8_t* p, const uint8_t* end, uint8_t* out) noexcept nogil:
    """Decode %xx, but no "%" without two hexadecimal digits. Returns the bytes written, at most end - p."""
    cdef uint8_t* start = out
    cdef int high
    cdef int low
    while p < end:
        if p[0] == c"%" and end - p >= 3:
            high = scan_hex(p[1])
            low = scan_hex(p[2])
            if high >= 0 and low >= 0:
                out[0] = <uint8_t>(high << 4 | low)
                out += 1
                p += 3
                continue
        out[0] = p[0]
        out += 1
        p += 1
    return out - start


cdef str decode_encoded(Span path):
    cdef uint8_t near[1024]
    cdef uint8_t* buffer = near
    cdef const uint8_t* p = <const uint8_t*>path.p
    cdef Py_ssize_t n
    if path.n > <Py_ssize_t>sizeof(near):
        buffer = <uint8_t*>PyMem_Malloc(path.n)
        if buffer is NULL:
            raise MemoryError
    try:
        n = unquote(p, p + path.n, buffer)
        return PyUnicode_DecodeUTF8(<const char*>buffer, n, "replace")
    finally:
        if buffer != near:
            PyMem_Free(buffer)


cpdef tuple split_target(bytes target):
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(target)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(target)
    cdef Span path
    cdef Span query
    cdef bint is_plain
    cdef bytes raw_path = target
    if p == end or p[0] != c"/":
        return None
    p = read_path(p, end, &path, &is_plain)
    if read_query(p, end, &query) != end:
        return None
    if p != end:
        raw_path = PyBytes_FromStringAndSize(path.p, path.n)
    return decode_path(path, is_plain), raw_path, PyBytes_FromStringAndSize(query.p, query.n)


# --- For Python: tests ---

def check_host(bytes host not None, *, bint named=False):
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(host)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(host)
    return bool(is_named_host(p, end) if named else is_host(p, end))
