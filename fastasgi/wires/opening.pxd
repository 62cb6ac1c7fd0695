"""Who speaks on a new sink, as the settings, the protocol agreed on in TLS (ALPN), or the first bytes tell. The one
module that knows all wires.

Must not know: what is spoken, sinks.
"""

from fastasgi.core.contracts cimport ByteSink, Connection, Opener, WorkerContext
from fastasgi.trust.peers cimport TrustedPeers
from fastasgi.wires.http1 cimport HTTP1Wire
from fastasgi.wires.http2 cimport HTTP2Wire


cdef class Opening(Opener):
    cdef:
        WorkerContext worker
        HTTP1Wire http1                 # spoken if nothing asks for another wire
        HTTP2Wire http2                 # None if it is not spoken
        bint only_http2                 # HTTP/1.x is not spoken
        TrustedPeers proxy_peers        # peers whose connections begin with a PROXY header; None if there are none
        list wires                      # of Wire: those beside HTTP/1.x
        bint has_prefaces               # one of them is asked for by the first bytes

    cdef Connection open_http1(self, ByteSink sink)
