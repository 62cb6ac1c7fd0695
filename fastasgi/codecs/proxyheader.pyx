"""See proxyheader.pxd for the contracts."""

from collections import namedtuple

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fastasgi.codecs.address cimport Address, address_text, read_address, unmap
from fastasgi.codecs.text cimport MAX_PORT_DIGITS, is_digit, read_port, span

cdef enum:
    MAX_V1 = 107                # bytes of a version 1 header, CRLF included
    V1_BEGINNING = 6
    SIGNATURE = 12
    V2_FIXED = 16               # bytes before the addresses
    UNIX_PATH = 108

cdef const char* BEGINNING_1 = "PROXY "
cdef const char* BEGINNING_2 = "\r\n\r\n\0\r\nQUIT\n"


cdef inline Py_ssize_t refuse(ProxyHeader* header, const char* reason) noexcept:
    header.reason = reason
    return -1


cdef int begins_with(const char* p, Py_ssize_t n, const char* beginning, Py_ssize_t length) noexcept:
    """1, 0, or -1 if more bytes are needed to tell."""
    if memcmp(p, beginning, min(n, length)) != 0:
        return 0
    return 1 if n >= length else -1


cdef int begins_as_proxy_header(const char* p, Py_ssize_t n) noexcept:
    cdef int first = begins_with(p, n, BEGINNING_1, V1_BEGINNING)
    return first if first else begins_with(p, n, BEGINNING_2, SIGNATURE)


cdef Py_ssize_t read_proxy_header(const char* p, Py_ssize_t n, ProxyHeader* header) noexcept:
    cdef int beginning = begins_as_proxy_header(p, n)
    memset(header, 0, sizeof(ProxyHeader))
    if beginning < 0:
        return 0
    if beginning == 0:
        return refuse(header, "no PROXY header comes first")
    return read_v1(p, n, header) if p[0] == c"P" else read_v2(<const uint8_t*>p, n, header)


# --- Version 1: a line ---

cdef Py_ssize_t read_v1(const char* p, Py_ssize_t n, ProxyHeader* header) noexcept:
    cdef const char* start = p
    cdef const char* end = p + min(n, MAX_V1 - 1)       # where the longest line has its LF
    cdef const char* name = p + V1_BEGINNING
    cdef int unknown = begins_with(name, end - name, b"UNKNOWN", 7)
    cdef int tcp = begins_with(name, end - name, b"TCP4 ", 5) or begins_with(name, end - name, b"TCP6 ", 5)
    cdef bint is_ipv6
    cdef int fits
    header.version = 1
    if unknown < 0 or tcp < 0:
        return 0
    if unknown:
        p = name + 7
        fits = read_ignored(&p, end)
    elif not tcp:
        return refuse(header, "a PROXY line of an unknown protocol")
    else:
        is_ipv6 = name[3] == c"6"
        p = name + 5
        fits = read_v1_address(&p, end, is_ipv6, &header.source)
        if fits > 0:
            fits = read_v1_address(&p, end, is_ipv6, &header.destination)
        if fits > 0:
            fits = read_v1_port(&p, end, c" ", &header.source_port)
        if fits > 0:
            fits = read_v1_port(&p, end, c"\r", &header.destination_port)
    if fits == 0:
        return refuse(header, "a malformed PROXY line")
    if fits < 0:
        return 0 if n < MAX_V1 - 1 else refuse(header, "a PROXY line is too long")
    if p == start + n:
        return 0
    if p[0] != c"\n":
        return refuse(header, "a PROXY line does not end with CRLF")
    if tcp:
        header.kind = PROXIED_INET
    return p + 1 - start


# Each of these reads a part of a line and the byte behind it, and moves *p behind both. It returns 1; 0 if no line goes
# on like that; -1 if more bytes are needed.

cdef int read_ignored(const char** p, const char* end) noexcept:
    """Read what stands behind UNKNOWN, up to the CR: it is to be ignored."""
    cdef const char* q = p[0]
    if q < end and q[0] != c" " and q[0] != c"\r":
        return 0
    while q < end and q[0] != c"\r":
        if q[0] == c"\n":
            return 0
        q += 1
    p[0] = q + 1
    return 1 if q < end else -1


cdef int read_v1_address(const char** p, const char* end, bint is_ipv6, Address* address) noexcept:
    cdef const char* start = p[0]
    cdef const char* q = start
    while q < end and (is_digit(q[0]) or q[0] == c"." or (is_ipv6 and (q[0] == c":" or is_hex(q[0])))):
        q += 1
    if q == end:
        return -1
    p[0] = q + 1
    return (
        q[0] == c" "
        and (memchr(start, c":", q - start) is not NULL) == is_ipv6
        and read_address(start, q - start, address)
    )


cdef inline bint is_hex(char c) noexcept:
    """Whether it is a letter of a hexadecimal number."""
    return c"a" <= (c | 0x20) <= c"f"


cdef int read_v1_port(const char** p, const char* end, char behind, int* port) noexcept:
    """Read a port without leading zeros, and the byte `behind` it."""
    cdef const char* start = p[0]
    cdef const char* q = start
    while q < end and is_digit(q[0]) and q - start < MAX_PORT_DIGITS:
        q += 1
    if q == end and q == start:
        return -1
    port[0] = read_port(span(start, q))
    if port[0] < 0 or (q - start > 1 and start[0] == c"0"):
        return 0
    if q == end:
        return -1
    p[0] = q + 1
    return q[0] == behind


# --- Version 2: binary ---

cdef Py_ssize_t read_v2(const uint8_t* p, Py_ssize_t n, ProxyHeader* header) noexcept:
    cdef Py_ssize_t length
    cdef int family
    header.version = 2
    if n > 12 and p[12] != 0x20 and p[12] != 0x21:
        return refuse(header, "a PROXY header of an unknown version or command")
    if n > 13 and (p[13] >> 4 > 3 or (p[13] & 15) > 2):
        return refuse(header, "a PROXY header of an unknown address family or protocol")
    if n < V2_FIXED:
        return 0
    length = p[14] << 8 | p[15]
    # LOCAL, an unknown family, or no stream: the connection's own addresses stay
    family = p[13] >> 4 if p[12] == 0x21 and (p[13] & 15) == 1 else 0
    if length < (0, 12, 36, 2 * UNIX_PATH)[family]:
        return refuse(header, "a PROXY header too short for its addresses")
    if n < V2_FIXED + length:
        return 0
    p += V2_FIXED
    if family == 1:
        read_packed(p, 4, header)
    elif family == 2:
        read_packed(p, 16, header)
    elif family == 3:
        header.kind = PROXIED_UNIX
        header.source_path = <const char*>p
        header.source_length = path_length(p)
        header.destination_path = <const char*>p + UNIX_PATH
        header.destination_length = path_length(p + UNIX_PATH)
    return V2_FIXED + length


cdef void read_packed(const uint8_t* p, int size, ProxyHeader* header) noexcept:
    header.kind = PROXIED_INET
    header.source.size = header.destination.size = size
    memcpy(header.source.bytes, p, size)
    memcpy(header.destination.bytes, p + size, size)
    unmap(&header.source)
    unmap(&header.destination)
    p += 2 * size
    header.source_port = p[0] << 8 | p[1]
    header.destination_port = p[2] << 8 | p[3]


cdef Py_ssize_t path_length(const uint8_t* p) noexcept:
    """The length of a path without its padding. A name in Linux's abstract namespace begins with a zero."""
    cdef Py_ssize_t n = UNIX_PATH
    while n and p[n - 1] == 0:
        n -= 1
    return n


# --- For Python: tests ---

DecodedProxyHeader = namedtuple("DecodedProxyHeader", "consumed version source destination")


def decode_proxy_header(bytes data not None):
    cdef ProxyHeader header
    cdef Py_ssize_t n = read_proxy_header(data, len(data), &header)
    if n == 0:
        return None
    if n < 0:
        raise ValueError(header.reason.decode("ascii"))
    source = destination = None
    if header.kind == PROXIED_INET:
        source = address_text(&header.source), header.source_port
        destination = address_text(&header.destination), header.destination_port
    elif header.kind == PROXIED_UNIX:
        source = header.source_path[:header.source_length]
        destination = header.destination_path[:header.destination_length]
    return DecodedProxyHeader(n, header.version, source, destination)
