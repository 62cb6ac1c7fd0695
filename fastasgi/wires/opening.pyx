"""See opening.pxd for the contracts."""

from libc.string cimport memcmp

from fastasgi.codecs.http2frames cimport PROTOCOL_ERROR
from fastasgi.core.contracts cimport ByteSink, Connection, Opener, Wire, WorkerContext
from fastasgi.wires.http1 cimport HTTP1Connection, HTTP1Wire
from fastasgi.wires.http2 cimport HTTP2Connection, HTTP2Wire
from fastasgi.wires.proxyprotocol cimport open_proxy_protocol


cdef class Opening(Opener):
    """Opens HTTP/1.x, HTTP/2, and what is registered beside them, on the connections of one worker. Raises ValueError
    for a limit in `config` that the parser can't keep."""

    def __init__(self, WorkerContext worker, config):
        self.worker = worker
        self.http1 = HTTP1Wire(config)
        self.proxy_peers = config.proxy_peers
        self.wires = []
        if config.http2 != "off":
            self.http2 = HTTP2Wire(config)
            self.register(self.http2)
        self.only_http2 = config.http2 == "only"

    def register(self, Wire wire not None) -> None:
        """Let connections speak this wire if they ask for it, from the next one on."""
        self.wires.append(wire)
        self.has_prefaces = self.has_prefaces or len(wire.preface) > 0

    cdef Connection open_first(self, ByteSink sink):
        if self.proxy_peers is None:
            return self.open_behind_proxy(sink)
        return open_proxy_protocol(self.worker, sink, self.proxy_peers)

    cdef Connection open_behind_proxy(self, ByteSink sink):
        cdef Connection handshake = sink.secure()
        if handshake is not None:
            return handshake
        return self.http2.open(self.worker, sink) if self.only_http2 else self.open_http1(sink)

    cdef Connection open_http1(self, ByteSink sink):
        cdef HTTP1Connection connection = <HTTP1Connection>self.http1.open(self.worker, sink)
        connection.may_be_other = self.has_prefaces
        return connection

    cdef Connection open_wire(self, ByteSink sink, str alpn):
        cdef Wire wire
        cdef HTTP2Connection connection
        if alpn is not None:
            for wire in self.wires:
                if wire.alpn == alpn:
                    return wire.open(self.worker, sink)
        if not self.only_http2:
            return self.open_http1(sink) if alpn is None else self.http1.open(self.worker, sink)
        connection = <HTTP2Connection>self.http2.open(self.worker, sink)
        connection.fail(PROTOCOL_ERROR, "the client has not asked for h2 by ALPN")      # RFC 9113 section 3.2
        return connection

    cdef Wire asked_wire(self, ByteSink sink, const char* p, Py_ssize_t n):
        cdef Wire wire
        cdef Py_ssize_t length
        for wire in self.wires:
            length = len(wire.preface)
            if length and memcmp(p, <const char*>wire.preface, min(n, length)) == 0:
                # In TLS only ALPN makes a connection HTTP/2 (RFC 9113 section 3.2)
                return None if wire is self.http2 and sink.extra_info("tls") is not None else wire
        return None

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n):
        return self.http1.refuse_plain(connection, p, n)
