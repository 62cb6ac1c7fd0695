"""The PROXY header, which comes before all else on a connection and tells for whom a proxy has made it.

Reads the header, tells the sink the client's addresses, and hands the sink over to whoever speaks next. Must not know:
the header's form, what is spoken behind it.
"""

from fastasgi.codecs.proxyheader cimport ProxyHeader
from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext
from fastasgi.trust.peers cimport TrustedPeers


cdef class ProxyProtocolConnection(Connection):
    cdef:
        bint peer_is_trusted            # the peer has to send a header; if it is not trusted, it must not

    cdef int read(self, char* p, Py_ssize_t n) except -1
    cdef int tell_addresses(self, ProxyHeader* header) except -1
    cdef int hand_over(self, char* p, Py_ssize_t n) except -1
    cdef int refuse(self, str reason) except -1


# A new connection, which has the sink. peers: those that have to send a header
cdef ProxyProtocolConnection open_proxy_protocol(WorkerContext worker, ByteSink sink, TrustedPeers peers)
