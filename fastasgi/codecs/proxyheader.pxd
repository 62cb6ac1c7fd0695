"""The PROXY protocol's header, versions 1 and 2 (HAProxy's proxy-protocol.txt): bytes in, plain data out.

Must not know: sockets, who may send one. Pointers are borrowed for the length of one call, and so are the paths.
"""

from fastasgi.codecs.address cimport Address


cdef enum:
    PROXIED_UNKNOWN             # by the proxy for itself (LOCAL), or for a client that it does not name
    PROXIED_INET                # for a client with an Internet address
    PROXIED_UNIX                # for a client of a unix socket


cdef struct ProxyHeader:
    int version                 # 1 or 2
    int kind                    # one of the above; says which of the following fields are set
    Address source              # of PROXIED_INET: the client's address
    Address destination         # of PROXIED_INET: the address that the client connected to
    int source_port
    int destination_port
    const char* source_path     # of PROXIED_UNIX; borrows
    Py_ssize_t source_length    # bytes
    const char* destination_path
    Py_ssize_t destination_length
    const char* reason          # of a malformed header: a static sentence for the log


# Returns how many bytes the header has; 0 if more are needed; -1 if it is malformed, mostly as soon as that shows
cdef Py_ssize_t read_proxy_header(const char* p, Py_ssize_t n, ProxyHeader* header) noexcept
# Returns 1 if the bytes begin as a header does, 0 if they don't, -1 if more are needed to tell
cdef int begins_as_proxy_header(const char* p, Py_ssize_t n) noexcept

cdef enum:
    MAX_PROXY_HEADER = 65551    # bytes of a header, at most
