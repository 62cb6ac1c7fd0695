"""Who speaks on a new connection: told by the PROXY header, by TLS, by the protocol agreed on (ALPN), or by its first
bytes. The one module that knows all wires.

Must not know: what is spoken, sinks.
"""

from fastasgi.core.contracts cimport ByteSink, Connection, Opener, WorkerContext
from fastasgi.trust.peers cimport TrustedPeers
from fastasgi.wires.http1 cimport HTTP1Wire


cdef class Opening(Opener):
    cdef:
        WorkerContext worker
        HTTP1Wire http1
        TrustedPeers proxy_peers        # whose connections begin with a PROXY header; None: nobody's
        list wires                      # of Wire: what is spoken beside HTTP/1.x
        Py_ssize_t longest_preface      # bytes; 0: no connection is told by its first bytes


cdef class PrefaceConnection(Connection):
    """Holds a connection's first bytes until they tell which wire it is."""

    cdef Opening opening
