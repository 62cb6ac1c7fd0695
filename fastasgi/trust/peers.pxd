"""Internet addresses, and the peers that are trusted to speak for others.

Knows the text forms of addresses and networks. Must not know: HTTP, connections, where a peer's name comes from.
"""

from libc.stdint cimport uint8_t


cdef struct Address:
    uint8_t bytes[16]
    int size                            # 4 or 16 bytes


cdef struct Network:
    Address address
    int bits                            # of the prefix


# Reads n bytes as an IPv4 or IPv6 address without zone; of an IPv4-mapped one, the IPv4 address. False: it is none.
cdef bint read_address(const char* p, Py_ssize_t n, Address* address) noexcept
cdef void take_mapped(Address* address) noexcept        # an IPv4-mapped IPv6 address becomes the IPv4 address
cdef str address_text(const Address* address)           # in its one canonical form (RFC 5952)


cdef class TrustedPeers:
    cdef:
        bint trusts_all
        Network* networks               # owned; a single address is one with all its bits
        int count
        # What is no address: "unix", paths of unix sockets as given and absolute, names of test clients
        frozenset names

    cdef bint has(self, const Address* address) noexcept
    cdef bint has_host(self, str host) except -1        # an address, or a name
    # The peer of a connection, as asyncio's "peername" and "sockname" have it
    cdef bint has_peer(self, object peer, object own) except -1
