"""The peers that are trusted to speak for others: addresses, networks, unix sockets, names.

Knows how users write them. Must not know: HTTP, connections, where a peer's name comes from.
"""

from fastasgi.codecs.address cimport Address


cdef struct Network:
    Address address
    int bits                            # length of the prefix


cdef class TrustedPeers:
    cdef:
        bint trusts_all                 # everybody is trusted
        Network* networks               # owned; a single address is a network whose prefix has all bits
        int count                       # of networks
        # Whatever is no address: "unix", paths of unix sockets as given and absolute, names of test clients
        frozenset names

    cdef bint has(self, const Address* address) noexcept
    cdef bint has_host(self, str host) except -1        # host: an address, or a name
    # Whether the peer of a connection is trusted. peer and own are asyncio's "peername" and "sockname"
    cdef bint has_peer(self, object peer, object own) except -1
