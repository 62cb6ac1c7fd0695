# cython: language_level=3
"""A second wire for tests: HTTP exchanges and WebSockets in netstrings, on what fastasgi offers to any wire.

A client begins with the preface. A payload's first byte is its kind. From a client: R "METHOD target", or W "target" for a WebSocket, with a line for each
field; B a piece of the request's body, E its end. To a client: S "status" and I "status" (informational) with fields, B
a piece of the response's body, T trailers, E its end; A with fields: the WebSocket is open, and frames follow (RFC 6455).
"""

from urllib.parse import unquote

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_RawFree

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport DISCARD_LIMIT, HTTPExchange
from fastasgi.asgi.httpconnection cimport HTTPConnection
from fastasgi.core.contracts cimport ByteSink, Connection, Wire, WorkerContext
from fastasgi.wires.websocket cimport new_websocket

from fastasgi.asgi.exchange import ClientDisconnected

cdef bytes PREFACE = b"netstrings\n"
cdef dict EXTENSIONS = {"http.response.early_hint": {}, "http.response.trailers": {}}


cdef class NetstringWire(Wire):

    def __init__(self):
        Wire.__init__(self, preface=PREFACE, alpn="netstrings")

    cdef Connection open(self, WorkerContext worker, ByteSink sink):
        cdef NetstringConnection connection = NetstringConnection.__new__(NetstringConnection)
        connection.begin_on(worker, sink, worker.limits.timeout_request_head)
        return connection


cdef class NetstringExchange(HTTPExchange):
    cdef NetstringConnection connection

    cdef int put(self, bytes kind, bytes data) except -1:
        if self.connection is None:
            raise ClientDisconnected("the client has disconnected")
        return self.connection.put(kind, data)

    cdef int put_response(self, bytes body, bint more) except -1:
        self.put(b"S", b"%d\n%b" % (self.status, lines(self.headers)))
        return self.put_data(body, more)

    cdef int put_data(self, bytes body, bint more) except -1:
        if body and not self.bodiless:
            self.put(b"B", body)
        if not (more or self.wants_trailers):
            return self.put(b"E", b"")
        self.connection.sink.push(False)
        self.blocked = self.connection.sink.blocked
        return 0

    cdef int put_informational(self, int status, list headers) except -1:
        return self.put(b"I", b"%d\n%b" % (status, lines(headers)))

    cdef int put_trailers(self) except -1:
        self.put(b"T", lines(self.trailers))
        return self.put(b"E", b"")

    cdef int want_body(self) except -1:
        return 0 if self.connection is None else self.connection.resume_reading()

    cdef int put_switch(self, list headers, Exchange websocket) except -1:
        cdef NetstringConnection connection = self.connection
        cdef Connection successor = new_websocket(websocket)
        cdef ByteSink sink
        cdef Py_ssize_t n
        cdef char* rest
        self.put(b"A", lines(headers))
        self.connection = connection.exchange = None
        sink = connection.sink
        rest = connection.detach_held(&n)
        connection.leave_sink()
        try:
            successor.begin_on(self.worker, sink, self.worker.limits.ws_ping_interval)
            sink.flush()
            successor.inherit(0, rest, n)
        finally:
            PyMem_RawFree(rest)
        return 0

    cdef int reset(self, bint has_begun) except -1:
        return self.leave_connection(True)

    cdef int ended(self) except -1:
        return self.leave_connection(self.wants_close or self.worker.draining)

    cdef int leave_connection(self, bint is_last) except -1:
        cdef NetstringConnection connection = self.connection
        self.connection = None
        return 0 if connection is None else connection.response_done(is_last)


cdef class NetstringConnection(HTTPConnection):
    cdef NetstringExchange exchange     # whose response is not complete, or None
    cdef bint body_is_due               # of the last request: its end has not come
    cdef Py_ssize_t body_read
    cdef bint has_begun                 # the preface has come

    cdef int put(self, bytes kind, bytes data) except -1:
        cdef bytes text = b"%d:%b%b," % (len(data) + 1, kind, data)
        return self.sink.put(text, len(text))

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        self.hold_bytes(p, n, n)
        return self.resume_held()

    cdef int resume_held(self) except -1:
        """Understand each netstring that has come whole, but no request before the last one has its answer."""
        cdef bytes held
        while self.sink is not None and not self.sink.closing and (self.exchange is None or self.body_is_due):
            held = self.held[:self.held_length]
            if not self.has_begun and held.startswith(PREFACE):
                self.has_begun = True
                self.hold_only(held[len(PREFACE):])
                continue
            size, colon, rest = held.partition(b":")
            if not colon or len(rest) <= int(size):
                break
            self.hold_only(rest[int(size) + 1:])
            self.understand(rest[:1], rest[1:int(size)])
        return 0 if self.sink is None else self.sink.push(True)

    cdef int hold_only(self, bytes data) except -1:
        self.drop_held()
        return self.hold_bytes(data, len(data), len(data))

    cdef int understand(self, bytes kind, bytes data) except -1:
        if self.body_is_due and kind in (b"B", b"E"):
            return self.feed(data if kind == b"B" else None, kind == b"E")
        if self.body_is_due or kind not in (b"R", b"W"):
            return self.sink.abort()
        self.begin(kind == b"W", *data.split(b"\n"))
        return 0

    def begin(self, bint opens_websocket, bytes line, *fields):
        cdef NetstringExchange exchange = NetstringExchange.__new__(NetstringExchange)
        headers = [tuple(field.split(b": ", 1)) for field in fields if field]
        method, _, target = (b"GET " + line if opens_websocket else line).partition(b" ")
        raw_path, _, query = target.partition(b"?")
        scope = self.new_scope(
            "1.1", method.decode(), unquote(raw_path), raw_path, query, headers, False, EXTENSIONS)
        self.deadline = 0
        self.exchange = exchange
        exchange.connection = self
        exchange.is_head = method == b"HEAD"
        if opens_websocket:
            self.begin_websocket(exchange, scope, None)
        else:
            self.begin_request(exchange, scope)
        self.body_read = 0
        self.body_is_due = not opens_websocket
        exchange.body_complete = opens_websocket
        reason = self.unavailable(scope, opens_websocket)
        if reason is not None:
            return exchange.put_error(503, reason.encode())
        self.count_request(exchange)
        exchange.start()

    cdef int feed(self, bytes piece, bint is_last) except -1:
        cdef NetstringExchange exchange = self.exchange
        self.body_is_due = not is_last
        self.body_read += 0 if piece is None else len(piece)
        if exchange is None:
            return self.sink.end() if self.body_read > DISCARD_LIMIT else 0
        if self.exceeds_body_limit(self.body_read):
            exchange.cut_off(0)
            return exchange.leave_connection(True)
        exchange.expect_piece(is_last)
        if piece is None:
            return exchange.feed_end()
        exchange.feed_body(piece)
        return self.pause_reading() if self.exchange is exchange and exchange.is_full() else 0

    cdef int response_done(self, bint is_last) except -1:
        self.exchange = None
        if is_last:
            return self.sink.end()
        self.sink.push(True)
        self.resume_reading()
        self.set_deadline(self.worker.limits.timeout_keep_alive)
        return self.schedule_resume()

    cdef int eof(self) except -1:
        if self.exchange is not None and not self.body_is_due and self.exchange.websocket is None:
            self.exchange.peer_has_ended()
            return 1
        return self.sink.end()

    cdef int on_lost(self) except -1:
        cdef NetstringExchange exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.connection = None
            exchange.feed_disconnect()
        return 0

    cdef int writable(self) except -1:
        return 0 if self.exchange is None else self.exchange.unblock()

    cdef int drain_and_close(self, double delay_s) except -1:
        return self.sink.end() if self.exchange is None else self.exchange.begin_shutdown()

    cdef int expire(self) except -1:
        return 0 if self.sink is None else self.sink.end()


cdef bytes lines(list fields):
    return b"".join([b"%b: %b\n" % field for field in fields])
