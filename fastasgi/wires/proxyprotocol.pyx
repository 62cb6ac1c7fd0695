"""See proxyprotocol.pxd for the contracts."""

import os

from cpython.mem cimport PyMem_RawFree

from fastasgi.codecs.address cimport address_text
from fastasgi.codecs.proxyheader cimport (
    MAX_PROXY_HEADER, PROXIED_INET, PROXIED_UNIX, ProxyHeader, begins_as_proxy_header, read_proxy_header,
)
from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext
from fastasgi.core.counters cimport BAD_PROXY_HEADER, HEAD_TIMEOUT
from fastasgi.trust.peers cimport TrustedPeers


cdef ProxyProtocolConnection open_proxy_protocol(WorkerContext worker, ByteSink sink, TrustedPeers peers):
    cdef ProxyProtocolConnection connection = ProxyProtocolConnection.__new__(ProxyProtocolConnection)
    connection.peer_is_trusted = peers.has_peer(sink.extra_info("peername"), sink.extra_info("sockname"))
    connection.begin_on(worker, sink, worker.limits.timeout_request_head)
    return connection


cdef class ProxyProtocolConnection(Connection):

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        """Join bytes with those that are held, and read them again: nearly always a header comes in one piece."""
        cdef char* joined = NULL
        if self.sink.closing:
            return 0
        if self.held_length:
            self.hold_bytes(p, n, MAX_PROXY_HEADER)
            p = joined = self.detach_held(&n)
        try:
            return self.read(p, n)
        finally:
            PyMem_RawFree(joined)

    cdef int read(self, char* p, Py_ssize_t n) except -1:
        cdef ProxyHeader header
        cdef Py_ssize_t consumed
        cdef int begins
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
        return self.hold_bytes(p, n, MAX_PROXY_HEADER)

    cdef int tell_addresses(self, ProxyHeader* header) except -1:
        cdef ByteSink sink = self.sink
        if header.kind == PROXIED_INET:
            sink.proxied_info = {
                "peername": (address_text(&header.source), header.source_port),
                "sockname": (address_text(&header.destination), header.destination_port),
            }
        elif header.kind == PROXIED_UNIX:
            sink.proxied_info = {
                "peername": os.fsdecode(header.source_path[:header.source_length]),
                "sockname": os.fsdecode(header.destination_path[:header.destination_length]),
            }
        else:
            sink.hides_client = True
        return 0

    cdef int hand_over(self, char* p, Py_ssize_t n) except -1:
        cdef WorkerContext worker = self.worker
        cdef ByteSink sink = self.sink
        # The time of the first head runs since the connection was made
        cdef double deadline = self.deadline
        if sink is None:
            return 0                    # the connection was lost meanwhile
        self.leave_sink()
        return worker.opener.open_behind_proxy(sink).inherit(deadline, p, n)

    cdef int refuse(self, str reason) except -1:
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        # A peer without a name has gone, as HAProxy's health checks do
        if sink.extra_info("peername") is not None and self.count_refusal(BAD_PROXY_HEADER, reason):
            self.worker.logger.warning("Connection of %s closed: %s", self.peer_text(), reason)
        self.deadline = 0
        return sink.abort()

    # --- Events ---

    cdef int eof(self) except -1:
        # If a peer has sent nothing, it has looked whether we listen
        return self.refuse("it has ended within its PROXY header") if self.held_length else self.sink.end()

    cdef int drain_and_close(self, double delay_s) except -1:
        self.expect_first_request()
        return 0

    cdef bint gives_way(self) noexcept:
        return self.is_slow()

    cdef int expire(self) except -1:
        if self.sink is None:
            return 0
        self.worker.counts.timeouts[HEAD_TIMEOUT] += 1
        if self.held_length == 0:
            return self.sink.end()
        return self.refuse("its PROXY header did not arrive within timeout_request_head")
