"""See proxyprotocol.pxd for the contracts."""

import os

from cpython.bytearray cimport PyByteArray_AS_STRING

from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext
from fastasgi.trust.peers cimport address_text
from fastasgi.codecs.proxyheader cimport (
    PROXIED_INET, PROXIED_UNIX, ProxyHeader, begins_as_proxy_header, read_proxy_header,
)


cdef class ProxyProtocolConnection(Connection):

    def __cinit__(self, WorkerContext worker, ByteSink sink):
        self.worker = worker
        self.sink = sink
        self.peer_is_trusted = worker.proxy_peers.has_peer(sink.extra_info("peername"), sink.extra_info("sockname"))
        self.set_deadline(worker.head_timeout_s)
        worker.connections.add(self)

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytearray held = self.held         # keeps alive what p points to, and in no other call grows
        cdef ProxyHeader header
        cdef Py_ssize_t consumed
        cdef int begins
        if self.sink.closing:
            return 0
        if held is not None:
            self.held = None
            held += p[:n]
            p = PyByteArray_AS_STRING(held)
            n = len(held)
        if self.peer_is_trusted:
            consumed = read_proxy_header(p, n, &header)
            if consumed < 0:
                return self.refuse(header.reason.decode("ascii"))
            if consumed:
                self.tell_addresses(&header)
                return self.hand_over(p + consumed, n - consumed)
        else:
            begins = begins_as_proxy_header(p, n)
            if begins > 0:
                return self.refuse("a PROXY header of a peer that proxy_protocol does not name")
            if begins == 0:
                return self.hand_over(p, n)
        self.held = bytearray(p[:n]) if held is None else held
        return 0

    cdef int tell_addresses(self, ProxyHeader* header) except -1:
        cdef ByteSink sink = self.sink
        if header.kind == PROXIED_INET:
            sink.told = {
                "peername": (address_text(&header.source), header.source_port),
                "sockname": (address_text(&header.destination), header.destination_port),
            }
        elif header.kind == PROXIED_UNIX:
            sink.told = {
                "peername": os.fsdecode(header.source_path[:header.source_length]),
                "sockname": os.fsdecode(header.destination_path[:header.destination_length]),
            }
        else:
            sink.hides_client = True
        return 0

    cdef int hand_over(self, char* p, Py_ssize_t n) except -1:
        cdef ByteSink sink = self.sink
        cdef Connection successor
        if sink is None:
            return 0                    # lost meanwhile
        self.sink = None
        self.held = None
        self.worker.connections.discard(self)
        successor = sink.open_wire()
        # The head's time runs since the connection was made
        if 0 < self.deadline < successor.deadline:
            successor.deadline = self.deadline
        self.deadline = 0
        if n:
            successor.receive(p, n)
        return 0

    cdef int refuse(self, str reason) except -1:
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        peer = sink.extra_info("peername")
        # Without a name it has gone: that is how HAProxy's health checks end
        if peer is not None and self.worker.tells_refusal():
            name = "%s:%d" % tuple(peer[:2]) if isinstance(peer, (tuple, list)) else "a unix socket"
            self.worker.logger.warning("Connection of %s closed: %s", name, reason)
        self.deadline = 0
        return sink.abort()

    # --- Events ---

    cdef int eof(self) except -1:
        # A peer that has sent nothing has looked whether we listen
        if self.held is not None:
            return self.refuse("it has ended within its PROXY header")
        self.sink.end()
        return 0

    cdef int lost(self) except -1:
        self.deadline = 0
        self.sink = None
        self.held = None
        self.worker.connections.discard(self)
        return self.worker.note_idle()

    cdef int writable(self) except -1:
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        self.expect_first_request()
        return 0

    cdef int expire(self) except -1:
        if self.sink is None:
            return 0
        if self.held is None:
            return self.sink.end()
        return self.refuse("its PROXY header did not arrive within timeout_request_head")
