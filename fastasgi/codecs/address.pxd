"""Internet addresses: their text forms, and their bytes.

Must not know: who has one.
"""

from libc.stdint cimport uint8_t


cdef struct Address:
    uint8_t bytes[16]                   # in network order; an IPv4 address has the first 4 of them
    int size                            # how many of the bytes it has: 4 or 16


# Reads n bytes as an IPv4 or IPv6 address without zone; an IPv4-mapped one gives the IPv4 address. False if it is none
cdef bint read_address(const char* p, Py_ssize_t n, Address* address) noexcept
cdef void unmap(Address* address) noexcept              # an IPv4-mapped IPv6 address becomes the IPv4 address
cdef str address_text(const Address* address)           # the one canonical form (RFC 5952)
# "host:port" for asyncio's peername or a scope's client, a tuple or list. IPv6 has no brackets, as in uvicorn's logs
cdef str endpoint_text(object endpoint)
