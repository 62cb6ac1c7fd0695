"""See opening.pxd for the contracts."""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcmp

from fastasgi.core.contracts cimport ByteSink, Connection, Opener, Wire, WorkerContext
from fastasgi.wires.http1 cimport HTTP1Wire
from fastasgi.wires.proxyprotocol cimport open_proxy_protocol


cdef class Opening(Opener):
    """Opens HTTP/1.x, and what is registered beside it, on the connections of one worker. Raises ValueError for a limit
    in `config` that the parser can't keep."""

    def __init__(self, WorkerContext worker, config):
        self.worker = worker
        self.http1 = HTTP1Wire(config)
        self.proxy_peers = config.proxy_peers
        self.wires = []

    def register(self, Wire wire not None) -> None:
        """Let connections speak this wire if they ask for it, from the next one on."""
        self.wires.append(wire)
        self.longest_preface = max(self.longest_preface, len(wire.preface))

    cdef Connection open_first(self, ByteSink sink):
        if self.proxy_peers is None:
            return self.open_behind_proxy(sink)
        return open_proxy_protocol(self.worker, sink, self.proxy_peers)

    cdef Connection open_behind_proxy(self, ByteSink sink):
        cdef Connection handshake = sink.secure()
        return self.open_wire(sink, None) if handshake is None else handshake

    cdef Connection open_wire(self, ByteSink sink, str alpn):
        cdef Wire wire
        cdef PrefaceConnection connection
        if alpn is not None:
            for wire in self.wires:
                if wire.alpn == alpn:
                    return wire.open(self.worker, sink)
        if self.longest_preface and alpn is None:
            connection = PrefaceConnection.__new__(PrefaceConnection)
            connection.opening = self
            connection.begin_on(self.worker, sink, self.worker.limits.timeout_request_head)
            return connection
        return self.http1.open(self.worker, sink)

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n):
        return self.http1.refuse_plain(connection, p, n)


cdef class PrefaceConnection(Connection):

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef Wire wire
        self.hold_bytes(p, n, self.opening.longest_preface)
        for wire in self.opening.wires:
            n = len(wire.preface)
            if n and memcmp(self.held, <const char*>wire.preface, min(n, self.held_length)) == 0:
                if self.held_length < n:
                    return 0            # they may become this preface
                return self.hand_over(wire, self.deadline)
        return self.hand_over(self.opening.http1, self.deadline)

    cdef int hand_over(self, Wire wire, double deadline) except -1:
        cdef WorkerContext worker = self.worker
        cdef ByteSink sink = self.sink
        cdef Py_ssize_t n
        cdef char* first = self.detach_held(&n)
        self.leave_sink()
        try:
            return wire.open(worker, sink).inherit(deadline, first, n)
        finally:
            PyMem_RawFree(first)

    cdef int eof(self) except -1:
        return self.sink.end()

    cdef int drain_and_close(self, double delay_s) except -1:
        self.expect_first_request()
        return 0

    cdef bint gives_way(self) noexcept:
        return self.is_slow()

    cdef int expire(self) except -1:
        if self.sink is None:
            return 0
        # The beginning of a preface may be that of a request line too, whose time is over then
        return self.hand_over(self.opening.http1, self.worker.now) if self.held_length else self.sink.end()
