"""See httpconnection.pxd for the contracts."""

import os

from cpython.mem cimport PyMem_RawFree

from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.asgi.websocket cimport WebSocketExchange, websocket_scope
from fastasgi.core.contracts cimport ByteSink, WorkerContext
from fastasgi.core.counters cimport WEBSOCKET, method_of
from fastasgi.core.overload cimport LoadShedder
from fastasgi.trust.forwarded cimport Forwarding

from fastasgi.core.counters import IS_FULL, IS_OVERLOADED, IS_STOPPING

# Seconds. Clients that were refused at once come again one after the other
cdef tuple RETRY_AFTER = (b"1", b"2", b"3")

MOST_LINE_BYTES, MOST_HEAD_BYTES, MOST_FIELDS = 2**20, 2**22, 32768

TOO_LARGE = "the body is larger than limit_request_body"


cdef class HTTPConnection(Connection):

    cdef int find_addresses(self) except -1:
        """Make the scope template, and decide whether the peer is believed.

        client and server are (host, port), or for a unix socket None and (path, None).
        """
        cdef Forwarding forwarding = self.worker.forwarding
        cdef ByteSink sink = self.sink
        peer = sink.extra_info("peername")
        own = sink.extra_info("sockname")
        client = (peer[0], peer[1]) if isinstance(peer, (tuple, list)) else None
        if isinstance(own, (tuple, list)):
            server = (own[0], own[1])
        else:
            server = (os.fsdecode(own), None) if own else None
        self.tls = sink.extra_info("tls")
        self.scope_template = scope_template(self.worker, "http" if self.tls is None else "https", client, server)
        if forwarding is not None:
            self.believes_forwarded = not sink.hides_client and forwarding.trusted.has_peer(peer, own)
            self.strips_forwarded = forwarding.strips and not self.believes_forwarded
        return 0

    cdef dict new_scope(
        self, str http_version, str method, str path, bytes raw_path, bytes query, list headers, bint tells_client,
        dict extensions, str scheme,
    ):
        cdef WorkerContext worker = self.worker
        cdef dict scope
        if self.scope_template is None:
            self.find_addresses()
        scope = self.scope_template.copy()
        scope["asgi"] = worker.asgi.copy()
        if http_version != "1.1":
            scope["http_version"] = http_version
        scope["method"] = method
        if not worker.root_path or path == "*":         # "*" is no path: RFC 9112 section 3.2.4
            scope["path"] = path
            scope["raw_path"] = raw_path
        else:
            scope["path"] = worker.root_path + path
            scope["raw_path"] = worker.raw_root_path + raw_path
        scope["query_string"] = query
        scope["headers"] = headers
        scope["state"] = worker.state.copy() if worker.state else {}
        scope["extensions"] = extensions.copy()
        if self.believes_forwarded:
            if scheme == "http" or scheme == "https":
                scope["scheme"] = scheme
            if tells_client:
                worker.forwarding.believe(scope)
        elif self.strips_forwarded:
            scope["headers"] = worker.forwarding.without_forwarded(headers)
        return scope

    cdef str unavailable(self, dict scope, bint opens_websocket):
        cdef WorkerContext worker = self.worker
        if opens_websocket and worker.ends_websockets:
            return IS_STOPPING
        cdef bint is_full = 0 < worker.limits.limit_concurrency <= worker.registry.unfinished_count
        if not is_full and (worker.shedder is None or not worker.shedder.refuses()):
            return None
        if not opens_websocket and worker.passes_limits is not None and worker.passes_limits(scope):
            if not is_full:
                worker.shedder.let_in()
            return None
        return IS_FULL if is_full else IS_OVERLOADED

    cdef bytes retry_after(self):
        cdef LoadShedder shedder = self.worker.shedder
        if shedder is None or not shedder.rule.is_shedding:
            return RETRY_AFTER[0]
        return RETRY_AFTER[shedder.rule.refused % len(RETRY_AFTER)]

    cdef int begin_request(self, HTTPExchange exchange, dict scope) except -1:
        exchange.worker = self.worker
        exchange.scope = scope
        if self.tls is not None:
            scope["extensions"]["tls"] = self.tls.copy()
        return 0

    cdef int begin_websocket(self, HTTPExchange exchange, dict scope, object deflate) except -1:
        cdef WebSocketExchange websocket = WebSocketExchange.__new__(WebSocketExchange)
        websocket.worker = exchange.worker = self.worker
        websocket.request = exchange
        websocket.deflate = deflate
        websocket.scope = websocket_scope(scope)
        if self.tls is not None:
            websocket.scope["extensions"]["tls"] = self.tls.copy()
        exchange.websocket = websocket
        return 0

    cdef int count_request(self, HTTPExchange exchange, str method, int protocol) except -1:
        exchange.started_ns = self.worker.turn_began_ns
        if self.worker.measures:
            if exchange.websocket is None:
                exchange.protocol = protocol
                exchange.method = method_of(method)
            else:
                exchange.protocol = WEBSOCKET       # its method is GET; CONNECT, as in HTTP/2, counts as that
        return self.worker.registry.count_request()

    cdef int bound_time(self, HTTPExchange exchange, bint body_is_due) except -1:
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        if sink.blocked:
            self.unsent = sink.unsent()
            return self.watch_progress()
        self.unsent = 0
        if exchange is None:
            self.note_wait()
            self.set_deadline(self.worker.limits.timeout_keep_alive)
            return self.worker.registry.offer_room()
        if body_is_due and not (self.paused or exchange.expects_continue or exchange.has_begun()):
            self.set_deadline(self.worker.limits.timeout_request_body)
        else:
            self.deadline = 0
        return 0

    cdef int watch_progress(self) except -1:
        """Give the client timeout_write to read more than it has now. Each tick looks whether it has, since its system
        may accept some bytes a moment later."""
        cdef double timeout_s = self.worker.limits.timeout_write
        self.stalls_at = self.worker.now + timeout_s
        self.deadline = self.worker.now if timeout_s > 0 else 0
        return 0

    cdef bint may_take_longer(self, Py_ssize_t unsent) noexcept:
        if self.has_taken(unsent):
            self.watch_progress()
            return True
        if self.worker.now < self.stalls_at:
            self.deadline = self.worker.now
            return True
        return False

    cdef int switch_to(self, Connection successor) except -1:
        cdef ByteSink sink = self.sink
        cdef Py_ssize_t n
        cdef char* held = self.detach_held(&n)
        try:
            self.resume_reading()
            self.leave_sink()
            successor.begin_on(self.worker, sink, self.worker.limits.ws_ping_interval)
            if not sink.corked:
                sink.flush()
            return successor.inherit(0, held, n)
        finally:
            PyMem_RawFree(held)


def head_limits(config):
    """The limits on a request's head, for the parsers of all versions of HTTP; those that are off get one that no
    request comes near, since a head is kept in memory."""
    return {
        "max_request_line_bytes": config.limit_request_line or MOST_LINE_BYTES,
        "max_head_bytes": config.limit_request_head or MOST_HEAD_BYTES,
        "max_header_count": config.limit_request_fields or MOST_FIELDS,
        "underscores": config.header_underscores or "allow",
    }


cdef dict scope_template(WorkerContext worker, str scheme, object client, object server):
    """The keys of a connection's HTTP scopes in their order, with the values that are the same in all of them."""
    return {
        "type": "http",
        "asgi": worker.asgi,
        "http_version": "1.1",
        "server": server,
        "client": client,
        "scheme": scheme,
        "method": None,
        "root_path": worker.root_path,
        "path": None,
        "raw_path": None,
        "query_string": None,
        "headers": None,
        "state": None,
        "extensions": None,
    }
