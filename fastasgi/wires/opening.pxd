"""Who speaks on a new sink, as the settings, the protocol agreed on in TLS (ALPN), or the first bytes tell. The one
module that knows all wires.

Must not know: what is spoken, sinks.
"""

from fastasgi.core.contracts cimport ByteSink, Connection, Opener, Wire, WorkerContext
from fastasgi.trust.peers cimport TrustedPeers
from fastasgi.wires.http1 cimport HTTP1Wire


cdef class Opening(Opener):
    cdef:
        WorkerContext worker
        HTTP1Wire http1                 # spoken if nothing asks for another wire
        TrustedPeers proxy_peers        # peers whose connections begin with a PROXY header; None if there are none
        list wires                      # of Wire: those beside HTTP/1.x
        Py_ssize_t longest_preface      # bytes; 0 if no wire has a preface


cdef class PrefaceConnection(Connection):
    """Holds the first bytes on a sink until they tell which wire is spoken."""

    cdef Opening opening

    cdef int hand_over(self, Wire wire, double deadline) except -1
