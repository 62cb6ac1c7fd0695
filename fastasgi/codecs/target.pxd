"""What a request asks for: the path and query of its target, and the host (RFC 9110 sections 4.2 and 7.1, RFC 3986).

One grammar for all versions of HTTP. Must not know: requests, methods, which forms of a target a version has. Pointers
are borrowed for the length of a call, and spans point into what was given.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from fastasgi.codecs.scan cimport SCAN_PATH, SCAN_QUERY, scan
from fastasgi.codecs.text cimport Span, span


cdef inline str method_text(Span method):
    """The text of a token; interned if it is a common method."""
    cdef const char* p = method.p
    cdef Py_ssize_t n = method.n
    if n == 3:
        if memcmp(p, "GET", 3) == 0:
            return "GET"
        if memcmp(p, "PUT", 3) == 0:
            return "PUT"
    elif n == 4:
        if memcmp(p, "POST", 4) == 0:
            return "POST"
        if memcmp(p, "HEAD", 4) == 0:
            return "HEAD"
    elif n == 5:
        if memcmp(p, "PATCH", 5) == 0:
            return "PATCH"
    elif n == 6:
        if memcmp(p, "DELETE", 6) == 0:
            return "DELETE"
    elif n == 7:
        if memcmp(p, "OPTIONS", 7) == 0:
            return "OPTIONS"
    return PyUnicode_DecodeASCII(p, n, NULL)


cdef inline const uint8_t* read_path(
    const uint8_t* p, const uint8_t* end, Span* path, bint* is_plain
) noexcept nogil:
    """Read a path, perhaps an empty one. Returns the first byte that can't belong to it.

    is_plain: there is no "%" in it, so that its bytes are the decoded path.
    """
    cdef const uint8_t* start = p
    is_plain[0] = True
    p = scan(SCAN_PATH, p, end)
    while p < end and p[0] == c"%":
        is_plain[0] = False
        p = scan(SCAN_PATH, p + 1, end)
    path[0] = span(start, p)
    return p


cdef inline const uint8_t* read_query(const uint8_t* p, const uint8_t* end, Span* query) noexcept nogil:
    """Read the query that may follow a path. Returns the first byte that can't belong to it."""
    if p == end or p[0] != c"?":
        query[0] = span(p, p)
        return p
    cdef const uint8_t* start = p + 1
    p = scan(SCAN_QUERY, start, end)
    query[0] = span(start, p)
    return p


# A path as text: percent-decoded, UTF-8, invalid sequences replaced. A "%" without two hexadecimal digits stays
cdef str decode_encoded(Span path)
cdef inline str decode_path(Span path, bint is_plain):
    return PyUnicode_DecodeASCII(path.p, path.n, NULL) if is_plain else decode_encoded(path)


# (path, raw_path, query) of a target that is a path with or without a query (RFC 9112 section 3.2.1); None if it is not
cpdef tuple split_target(bytes target)


# Whether this is uri-host [ ":" port ], the value of a Host (RFC 9110 section 7.2), perhaps with an empty host
cdef bint is_host(const uint8_t* p, const uint8_t* end) noexcept nogil


cdef inline bint is_named_host(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether this is_host() and its host is not empty, as in each http and https URI (RFC 9110 section 4.2.1)."""
    return p < end and p[0] != c":" and is_host(p, end)
