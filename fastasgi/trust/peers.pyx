"""See peers.pxd for the contracts."""

import ipaddress
import os

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.string cimport memcmp, memcpy

from fastasgi.codecs.address cimport Address, read_address

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef class TrustedPeers:

    def __cinit__(self, peers, *, bint allow_names=False):
        cdef list names = []
        cdef list networks = []
        for text in split_peers(peers):
            # If names are allowed, an asterisk beside others is a name, as it is to uvicorn's middleware
            if text == "*" and (not allow_names or peers in ("*", ["*"])):
                self.trusts_all = True
            elif text == "unix":
                names.append(text)
            elif text.startswith(("unix:", "/")):
                path = path_of(text)
                names += path, os.path.abspath(path)
            else:
                try:
                    networks.append(read_network(text))
                except ValueError:
                    if not allow_names or "/" in text or "%" in text:
                        raise
                    names.append(text)
        self.names = frozenset(names)
        self.networks = <Network*>PyMem_RawCalloc(max(1, len(networks)), sizeof(Network))
        if self.networks is NULL:
            raise MemoryError()
        for packed, bits in networks:
            memcpy(self.networks[self.count].address.bytes, <const char*>(<bytes>packed), len(packed))
            self.networks[self.count].address.size = len(packed)
            self.networks[self.count].bits = bits
            self.count += 1

    def __dealloc__(self):
        PyMem_RawFree(self.networks)

    def __contains__(self, host) -> bool:
        return self.has_host(host) if isinstance(host, str) else self.trusts_all

    def trusts_peer(self, peer, own) -> bool:
        """Whether the peer of a connection is trusted."""
        return self.has_peer(peer, own)

    cdef bint has(self, const Address* address) noexcept:
        cdef Network* network = self.networks
        cdef Network* end = network + self.count
        cdef int whole
        cdef int rest
        if self.trusts_all:
            return True
        while network < end:
            whole = network.bits >> 3
            rest = network.bits & 7
            if (
                network.address.size == address.size
                and memcmp(network.address.bytes, address.bytes, whole) == 0
                and (rest == 0 or (network.address.bytes[whole] ^ address.bytes[whole]) >> (8 - rest) == 0)
            ):
                return True
            network += 1
        return False

    cdef bint has_host(self, str host) except -1:
        cdef Address address
        cdef Py_ssize_t n
        cdef const char* p
        cdef str without_zone           # keeps alive what p points to
        if self.trusts_all:
            return True
        # A zone says through which interface a link-local address is reached (RFC 4007 section 11)
        without_zone = host.partition("%")[0] if "%" in host else host
        p = PyUnicode_AsUTF8AndSize(without_zone, &n)
        if read_address(p, n, &address):
            return self.has(&address)
        return host in self.names

    cdef bint has_peer(self, object peer, object own) except -1:
        if self.trusts_all:
            return True
        if isinstance(peer, (tuple, list)):
            return self.has_host(peer[0])
        # An Internet peer that has reset its connection has no name any more, though its bytes can still be read
        if not self.names or not isinstance(own, (str, bytes)):
            return False
        if "unix" in self.names:
            return True
        # Only our own path identifies the unix socket: the peer's is whatever the peer has bound itself to
        path = os.fsdecode(own)
        return bool(path) and (path in self.names or os.path.abspath(path) in self.names)


def split_peers(peers) -> list:
    """The texts that a text with commas, or several such texts, stand for."""
    return [
        item.strip() for text in ([peers] if isinstance(peers, str) else peers)
        for item in text.split(",") if item.strip()
    ]


cdef str path_of(str text):
    """A unix socket's path, with or without "unix:" and "unix://" before it."""
    return text.removeprefix("unix:").removeprefix("//") if text.startswith("unix:") else text


cdef tuple read_network(str text):
    """The bytes and the prefix length of an address or network. Raises ValueError, which says how to write one."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r}: give an address, a network such as 10.0.0.0/8, unix, unix:PATH or *") from None
        raise ValueError(f"{text!r} has bits behind the network's prefix: write {meant}") from None
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which a peer's address is compared without: leave it out")
    packed = network.network_address.packed
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        return packed[12:], network.prefixlen - 96
    return packed, network.prefixlen
