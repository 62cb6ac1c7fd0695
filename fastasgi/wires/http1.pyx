"""See http1.pxd for the contracts."""

import os
import time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memchr, memcpy

from fastasgi.codecs.chunked cimport chunked_decode, chunked_reset
from fastasgi.core.contracts cimport (
    JOIN_LIMIT, PEER_HAS_ENDED, PEER_IS_GONE, ByteSink, Connection, WorkerContext, unknown_scope,
)
from fastasgi.codecs.heads cimport (
    CHUNK_HEAD_ROOM, fields_size, put_bytes, put_chunk_head, put_decimal, put_fields, status_line,
)
from fastasgi.trust.forwarded cimport Forwarding
from fastasgi.asgi.http cimport COMPLETE, SENDING_FILE, HTTPExchange, build_scope, scope_template
from fastasgi._parser cimport (
    HeadParser, RequestHead, has_forwarded, headers_of, is_of_head, method_of, path_of, skip_blank_lines, unlent_parser,
)
from fastasgi.asgi.websocket cimport Handshake, WebSocketExchange, accept_key, read_handshake, websocket_scope

from fastasgi.asgi.exchange import ClientDisconnected

cdef enum:
    REQUESTS_A_TURN = 64                # pipelined requests answered before other connections have their turn
    BODY_HIGH = 65536                   # bytes the application has not received at which reading pauses
    DISCARD_LIMIT = 1048576             # bytes of a body nobody wants that are read to keep the connection
    DIRECT_MIN = 65536                  # bytes still to come from which a read gets an object of its own
    FILE_PIECE = 262144                 # bytes of a file read at once where the kernel can't send it

cdef double LINGER_S = 2.0              # how long a closing connection waits for its peer to close

cdef dict EXTENSIONS_1_0 = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
cdef dict EXTENSIONS_1_1 = {
    "http.response.early_hint": {},
    "http.response.trailers": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}


cdef inline char* put_default_lines(char* p, HTTP1Exchange exchange) noexcept:
    """Write the server's own fields, but not those that the application has sent."""
    cdef WorkerContext worker = exchange.worker
    if not (exchange.has_date or exchange.has_server):
        return put_bytes(p, worker.default_lines)
    if not exchange.has_server:
        p = put_bytes(p, worker.server_line)
    if not exchange.has_date:
        p = put_bytes(p, worker.date_line)
    return put_bytes(p, worker.lines_without_server)


cdef class HTTP1Exchange(HTTPExchange):

    cdef ByteSink open_sink(self):
        if self.connection is None:
            raise ClientDisconnected("the client has disconnected")
        return self.connection.sink

    cdef int put_response(self, bytes body, bint more) except -1:
        cdef ByteSink sink = self.open_sink()
        cdef HTTP1Connection connection = self.connection
        cdef WorkerContext worker = self.worker
        cdef Py_ssize_t body_length = len(body)
        cdef bint adds_length = False
        cdef bytes line = status_line(self.status)
        cdef char* p
        if self.status == 204 and self.content_length >= 0:
            self.drop_content_length()
        if not (self.bodiless or self.content_length >= 0):
            if self.wants_trailers or more:
                self.chunked = self.minor_version == 1
                if not self.chunked:
                    # Without a length or chunks, the end of the connection ends the body (RFC 9112 section 6.3)
                    connection.keep_alive = False
            else:
                adds_length = True
        if connection.keep_alive and not connection.may_keep_alive(self):
            connection.keep_alive = False
        if self.has_connection and not self.wants_close and not connection.keep_alive:
            self.drop_connection()

        p = sink.reserve(
            len(line) + len(worker.default_lines) + self.headers_size + 4 * len(self.headers) + 128
            + (body_length if body_length <= JOIN_LIMIT else 0))
        p = put_fields(put_default_lines(put_bytes(p, line), self), self.headers)
        if adds_length:
            p = put_bytes(p, b"content-length: ")
            p = put_decimal(p, body_length)
            p = put_bytes(p, b"\r\n")
        elif self.chunked:
            p = put_bytes(p, b"transfer-encoding: chunked\r\n")
        if not connection.keep_alive:
            if not self.wants_close:
                p = put_bytes(p, b"connection: close\r\n")
        elif self.minor_version == 0 and not self.has_connection:
            p = put_bytes(p, b"connection: keep-alive\r\n")
        p[0] = b"\r"
        p[1] = b"\n"
        sink.commit(p + 2)
        return self.put_data(body, more)

    cdef int put_data(self, bytes body, bint more) except -1:
        cdef ByteSink sink = self.open_sink()
        cdef Py_ssize_t n = len(body)
        cdef char* p
        if self.chunked and not self.bodiless:
            p = sink.reserve(n + CHUNK_HEAD_ROOM + 8 if n <= JOIN_LIMIT else CHUNK_HEAD_ROOM)
            if n:
                p = put_chunk_head(p, n)
                sink.commit(p)
                if n <= JOIN_LIMIT:
                    p = put_bytes(put_bytes(p, body), b"\r\n")
                    sink.commit(p)
                else:
                    sink.put_object(body, b"\r\n" if more or self.wants_trailers else b"\r\n0\r\n\r\n")
            if not more and not self.wants_trailers and n <= JOIN_LIMIT:
                sink.commit(put_bytes(p, b"0\r\n\r\n"))
        elif n and not self.bodiless:
            if n <= JOIN_LIMIT:
                sink.commit(put_bytes(sink.reserve(n), body))
            else:
                sink.put_object(body, None)
        if more:
            sink.push(False)
            self.blocked = sink.blocked
        return 0

    cdef int drop_content_length(self) except -1:
        """RFC 9110 section 8.6: not in a 204."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != b"content-length"]
        self.content_length = -1
        return 0

    cdef int drop_connection(self) except -1:
        """The application's "keep-alive" may not contradict the "close" that we send (RFC 9112 section 9.6)."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != b"connection"]
        return 0

    cdef int want_body(self) except -1:
        cdef HTTP1Connection connection = self.connection
        self.wants_call = False
        if connection is None:
            return 0
        if self.expects_continue:
            self.expects_continue = False
            # RFC 9110 sections 10.1.1 and 15.2: due once asked for, but not once the response has begun
            if not self.has_begun():
                connection.sink.put(b"HTTP/1.1 100 Continue\r\n\r\n", 25)
                connection.sink.push(True)
        connection.resume_reading()
        return connection.watch_client()

    cdef int put_informational(self, int status, list headers) except -1:
        cdef ByteSink sink = self.open_sink()
        cdef bytes line
        if self.minor_version == 0:
            # RFC 9110 section 15.2: a 1.0 client knows no 1xx
            return 0
        line = status_line(status)
        sink.commit(put_bytes(put_fields(put_bytes(
            sink.reserve(len(line) + fields_size(headers) + 2), line), headers), b"\r\n"))
        sink.push(True)
        self.blocked = sink.blocked
        return 0

    cdef int put_trailers(self) except -1:
        cdef ByteSink sink = self.open_sink()
        if self.chunked and not self.bodiless:
            # RFC 9112 section 7.1.2
            sink.commit(put_bytes(put_fields(put_bytes(
                sink.reserve(fields_size(self.trailers) + 5), b"0\r\n"), self.trailers), b"\r\n"))
        return 0

    cdef object put_file(self, object file, long long offset, long long count, bint more):
        cdef ByteSink sink = self.open_sink()
        if self.headers is not None:
            if self.content_length < 0 and not more and not self.wants_trailers and (self.is_head or not self.bodiless):
                length = b"%d" % count
                self.headers.append((b"content-length", length))
                self.headers_size += 14 + len(length)
                self.content_length = count
            self.put_response(b"", True)
            self.headers = None
        self.state = SENDING_FILE
        return send_file(self, sink, file, offset, 0 if self.bodiless else count, more)

    cdef int reset(self) except -1:
        cdef HTTP1Connection connection = self.connection
        self.connection = None
        if connection is None:
            return 0
        connection.exchange = None
        connection.keep_alive = False
        cdef bint ends_with_connection = self.content_length < 0 and not self.chunked and not self.bodiless
        if ends_with_connection and self.status and self.headers is None:
            # An orderly end would pass for the end of the body
            connection.state = READ_NOTHING
            return connection.sink.reset()
        return connection.close()

    cdef int begins_shutdown(self) except -1:
        return 0                        # it has its grace time

    cdef int ended(self) except -1:
        cdef HTTP1Connection connection = self.connection
        self.connection = None
        return 0 if connection is None else connection.response_done()


async def send_file(HTTP1Exchange exchange, ByteSink sink, file, offset, count, bint more):
    """Send `count` bytes of `file` from `offset` on as body, by the kernel where the sink can, and close it.

    The client may be gone at the first step already, and after each wait: then there is nothing more to do.
    """
    with file:
        if exchange.gone or sink.closing:
            exchange.feed_disconnect()
            return
        if exchange.chunked and count:
            sink.commit(put_chunk_head(sink.reserve(CHUNK_HEAD_ROOM), count))
        sent = await sink.send_file(file, offset, count)
        while sent < count:
            if exchange.gone or sink.closing:
                exchange.feed_disconnect()
                return
            piece = os.pread(file.fileno(), min(count - sent, FILE_PIECE), offset + sent)
            if not piece:
                raise RuntimeError(f"the file has {sent} of the {count} bytes that were to be sent")
            sink.put_object(<bytes>piece, None)
            sink.push(False)
            sent += len(piece)
            exchange.blocked = sink.blocked
            await exchange.sent()
    if exchange.gone or sink.closing:
        exchange.feed_disconnect()
        return
    if exchange.chunked:
        if count:
            sink.put(b"\r\n", 2)
        if not more and not exchange.wants_trailers:
            sink.put(b"0\r\n\r\n", 5)
    exchange.file_sent(more)


cdef class HTTP1Handshake(HTTP1Exchange):

    cdef int start(self) except -1:
        return self.websocket.start()

    cdef int feed_disconnect(self) except -1:
        self.disconnected = self.gone = True
        self.release()
        return self.websocket.feed_disconnect()

    cdef int begins_shutdown(self) except -1:
        cdef WebSocketExchange websocket = self.websocket
        return websocket.end() if self.worker.ends_websockets else 0

    cdef int log_access(self, int status) except -1:
        return 0                        # the websocket does, in its own form

    cdef ByteSink put_switch(self, list headers):
        cdef WorkerContext worker = self.worker
        cdef ByteSink sink = self.open_sink()
        cdef bytes accept = accept_key(self.key)
        cdef bytes line = b"HTTP/1.1 101 Switching Protocols\r\n"
        cdef bytes switch = b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
        cdef char* p = sink.reserve(
            len(line) + len(worker.default_lines) + len(switch) + len(accept) + 4 + fields_size(headers))
        p = put_bytes(put_bytes(put_default_lines(put_bytes(p, line), self), switch), accept)
        p = put_fields(put_bytes(p, b"\r\n"), headers)
        sink.commit(put_bytes(p, b"\r\n"))
        self.state = COMPLETE
        return sink

    cdef int switch_to(self, Connection connection) except -1:
        cdef HTTP1Connection http1 = self.connection
        self.connection = None
        return connection.lost() if http1 is None else http1.switch_to(connection)


cdef class HTTP1Connection(Connection):

    def __cinit__(self, WorkerContext worker, ByteSink sink):
        self.worker = worker
        self.sink = sink
        self.set_deadline(worker.head_timeout_s)
        worker.connections.add(self)

    def __dealloc__(self):
        PyMem_RawFree(self.held)

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytes joined
        cdef char* block = NULL
        if self.state == READ_NOTHING:
            return 0
        if self.beginning:
            return self.hold(p, n)
        if self.at < self.end:
            joined = self.rest_and(p, n)
            return self.receive(PyBytes_AS_STRING(joined), len(joined))
        if self.held_length:
            if not self.is_worth_parsing(p, n):
                return self.hold(p, n)
            self.hold(p, n)
            p = block = self.held
            n = self.held_length
            self.held = NULL
            self.held_length = self.held_capacity = 0
        try:
            self.process(p, n)
        finally:
            PyMem_RawFree(block)
        return 0

    cdef bint is_worth_parsing(self, const char* p, Py_ssize_t n) noexcept:
        """Whether more bytes behind the held ones can change anything: a head is parsed again only when it has grown
        by a line or past a limit, so that bytes that come one by one cost no more than a parse a line."""
        cdef Py_ssize_t line_limit = self.worker.parser.max_request_line_bytes
        cdef Py_ssize_t length = self.held_length + n
        if self.exchange is not None or self.sink.blocked or self.resume_is_scheduled:
            return False
        if memchr(p, 10, n) is not NULL or self.blank_bytes + length > self.worker.max_head_bytes:
            return True
        return self.held_length <= line_limit < length

    cdef int process(self, char* p, Py_ssize_t n) except -1:
        """Understand what can be understood, hold the rest, and write what came of it at once."""
        cdef ByteSink sink = self.sink
        cdef bint was_receiving = self.receiving
        cdef bint was_corked = sink.corked
        self.receiving = True
        sink.corked = True
        self.at = p
        self.end = p + n
        try:
            self.advance()
            if self.at < self.end and self.state != READ_NOTHING:
                self.hold(self.at, self.end - self.at)
        finally:
            self.at = self.end = NULL
            self.receiving = was_receiving
            sink.corked = was_corked
        if sink.out_length:
            sink.flush()
        if self.successor is not None:
            return 0
        if self.peer_is_done:
            self.settle_eof()
        return 0

    cdef int advance(self) except -1:
        """Understand what lies from `at` to `end`, each piece of which is behind `at` once the application sees it."""
        cdef int requests = 0
        cdef HTTP1Exchange exchange     # keeps it alive: its response may be complete while it starts
        while self.at < self.end:
            if self.state == READ_HEAD:
                if self.exchange is not None or self.sink.blocked or self.sink.closing:
                    return 0
                requests += 1
                if requests > REQUESTS_A_TURN:
                    return self.schedule_resume()
                if not self.read_head():
                    return 0
            elif self.state == READ_LENGTH:
                self.read_body()
            elif self.state == READ_CHUNKS:
                self.read_chunks()
            else:
                self.at = self.end
            # Whatever came of the body is there before the application asks for it
            if self.start_is_due and (self.at == self.end or self.state == READ_HEAD):
                self.start_is_due = False
                exchange = self.exchange
                if exchange is not None:
                    exchange.start()
        return 0

    cdef int hold(self, char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t capacity
        cdef char* block
        if self.held_length + n > self.held_capacity:
            capacity = max(self.held_length + n, min(2 * self.held_capacity, self.worker.max_head_bytes))
            block = <char*>PyMem_RawRealloc(self.held, capacity)
            if block is NULL:
                raise MemoryError()
            self.held = block
            self.held_capacity = capacity
        memcpy(self.held + self.held_length, p, n)
        self.held_length += n
        if self.exchange is None and not self.sink.blocked and not self.resume_is_scheduled:
            # A CR in front may become an empty line, which is no part of a head
            if not self.reading_head and self.held[0] != c"\r":
                self.reading_head = True
                if self.scope_template is not None:
                    self.set_deadline(self.worker.head_timeout_s)
                # That of a first head runs since the connection was made
        elif self.held_length > self.worker.max_head_bytes:
            self.pause_reading()
            self.watches_peer = self.exchange is not None
        return 0

    cdef int put_off_rest(self) except -1:
        cdef char* p = self.at
        self.at = self.end
        self.schedule_resume()
        return self.hold(p, self.end - p)

    cdef int pause_reading(self) except -1:
        if not self.paused:
            self.paused = True
            self.sink.pause_reading()
        return 0

    cdef int resume_reading(self) except -1:
        if self.paused and self.sink is not None:
            self.paused = False
            self.watches_peer = self.peer_is_done
            self.sink.resume_reading()
        return 0

    cdef int schedule_resume(self) except -1:
        if not self.resume_is_scheduled:
            self.resume_is_scheduled = True
            self.worker.loop.call_soon(self.resume, context=PyContext_Copy(self.worker.context))
        return 0

    def resume(self):
        """Go on with held bytes, in a turn of the event loop of its own."""
        cdef WorkerContext worker = self.worker
        cdef bint was = worker.enter()
        self.resume_is_scheduled = False
        try:
            self.resume_held()
        finally:
            worker.leave(was)

    cdef int resume_held(self) except -1:
        cdef char* block = self.held
        cdef Py_ssize_t n = self.held_length
        if self.sink is None or self.exchange is not None or self.state == READ_NOTHING or self.sink.blocked:
            return 0
        if n == 0 or self.beginning:
            return 0
        self.held = NULL
        self.held_length = self.held_capacity = 0
        try:
            self.process(block, n)
        finally:
            PyMem_RawFree(block)
        self.watches_peer = self.exchange is not None and (self.peer_is_done or (self.paused and self.held_length > 0))
        if self.held_length <= self.worker.max_head_bytes and (
                self.exchange is None or not self.exchange.wants_call):
            self.resume_reading()
        return 0

    # --- Requests ---

    cdef bint read_head(self) except -1:
        cdef HeadParser parser = unlent_parser(self.worker.parser)
        cdef RequestHead* head = &parser.head
        cdef char* at = self.at
        cdef Py_ssize_t n = 0
        parser.lent = self.beginning = True
        try:
            if at[0] != c"\r" or self.find_request_line():
                at = self.at
                n = parser.parse(at, self.end, self.blank_bytes)
                if self.at != at:
                    return False        # put off meanwhile
                if n > 0:
                    self.at += n
                    self.begin(parser)
                elif n < 0:
                    self.refuse(
                        head.status, head.reason.decode("ascii"), is_of_head(at, self.end - at),
                        self.refused_scope(head), 0)
        finally:
            parser.lent = self.beginning = False
        if self.held_length and self.at < self.end:
            self.hold_first()
        return n > 0

    cdef bint find_request_line(self) except -1:
        """Skip the empty lines that may stand before it (RFC 9112 section 2.2). The connection stays idle meanwhile,
        with the time that it has."""
        cdef bint begun
        cdef Py_ssize_t n = skip_blank_lines(self.at, self.end, &begun)
        self.at += n
        self.blank_bytes += n
        if self.blank_bytes > self.worker.max_head_bytes:
            self.refuse(431, "too many empty lines before the request line", False, None, 0)
            return False
        return begun

    cdef int hold_first(self) except -1:
        """Hold the rest of the read under way, before what has come since."""
        cdef bytes later = PyBytes_FromStringAndSize(self.held, self.held_length)
        cdef char* p = self.at
        self.at = self.end
        self.held_length = 0
        self.hold(p, self.end - p)
        return self.hold(PyBytes_AS_STRING(later), len(later))

    cdef int begin(self, HeadParser parser) except -1:
        cdef RequestHead* head = &parser.head
        cdef WorkerContext worker = self.worker
        cdef HTTP1Exchange exchange
        cdef Handshake handshake = None
        cdef str method = method_of(head)
        cdef bint is_head = method == "HEAD"
        self.deadline = 0
        self.unsent = 0
        self.reading_head = False
        self.blank_bytes = 0
        self.keep_alive = head.keep_alive
        if worker.max_body_bytes and head.content_length > worker.max_body_bytes:
            return self.refuse_begun(413, "the body is larger than limit_request_body", parser, is_head)
        if head.upgrade and worker.ws and method == "GET":
            handshake = read_handshake(headers_of(parser))
            if handshake is not None and head.minor_version == 0:
                worker.note_old_handshake()
                handshake = None        # RFC 9110 section 7.8: a request like any other
            if handshake is not None and handshake.status == 0 and (head.content_length > 0 or head.chunked):
                # Behind it bytes would mean one thing here and another to a proxy
                return self.refuse_begun(400, "a WebSocket handshake has no body", parser, False)
            if handshake is not None and handshake.status:
                return self.refuse_begun(handshake.status, handshake.reason, parser, False)
            if handshake is not None and worker.ends_websockets:
                return self.refuse_begun(503, "the server is stopping", parser, False)
        if worker.max_concurrency and worker.unfinished_count >= worker.max_concurrency and (
                worker.passes_limits is None or handshake is not None
                or not worker.passes_limits(self.new_scope(parser))):
            return self.refuse_begun(503, "limit_concurrency is reached", parser, is_head)
        exchange = self.new_exchange(parser, handshake)
        if self.state == READ_NOTHING:
            return 0                    # ended or lost while the addresses were asked for
        self.body_read = 0
        if head.content_length > 0:
            self.state = READ_LENGTH
            self.body_left = head.content_length
            exchange.expects_continue = exchange.wants_call = head.expect_continue
        elif head.chunked:
            self.state = READ_CHUNKS
            chunked_reset(&self.chunks)
            exchange.expects_continue = exchange.wants_call = head.expect_continue
        else:
            exchange.body_complete = True
        if worker.access_log is not None:
            exchange.started_at = time.perf_counter()
        exchange.is_head = is_head
        self.exchange = exchange
        self.watch_client()
        self.start_is_due = True
        worker.request_count += 1
        if worker.request_count == worker.max_requests and worker.on_max_requests is not None:
            worker.on_max_requests()
        return 0

    cdef HTTP1Exchange new_exchange(self, HeadParser parser, Handshake handshake):
        cdef RequestHead* head = &parser.head
        cdef HTTP1Handshake opening
        cdef HTTP1Exchange exchange
        cdef dict scope = self.new_scope(parser)
        if handshake is None:
            exchange = HTTP1Exchange.__new__(HTTP1Exchange)
        else:
            exchange = opening = HTTP1Handshake.__new__(HTTP1Handshake)
        exchange.worker = self.worker
        exchange.connection = self
        exchange.minor_version = head.minor_version
        if handshake is None:
            exchange.scope = scope
            if self.tls is not None:
                scope["extensions"]["tls"] = self.tls.copy()
            return exchange
        opening.key = handshake.key
        opening.websocket = WebSocketExchange.__new__(WebSocketExchange)
        opening.websocket.worker = self.worker
        opening.websocket.request = opening
        opening.websocket.deflate = handshake.deflate
        opening.websocket.scope = websocket_scope(scope, handshake.subprotocols)
        if self.tls is not None:
            opening.websocket.scope["extensions"]["tls"] = self.tls.copy()
        return exchange

    cdef dict new_scope(self, HeadParser parser):
        cdef RequestHead* head = &parser.head
        cdef dict scope
        if self.scope_template is None:
            self.find_addresses()
        scope = build_scope(
            self.worker, self.scope_template, "1.1" if head.minor_version else "1.0", method_of(head), path_of(head),
            PyBytes_FromStringAndSize(head.path.p, head.path.n),
            PyBytes_FromStringAndSize(head.query.p, head.query.n),
            headers_of(parser), EXTENSIONS_1_1 if head.minor_version else EXTENSIONS_1_0)
        if self.believes_forwarded and has_forwarded(head):
            self.worker.forwarding.believe(scope)
        elif self.strips_forwarded:
            scope["headers"] = self.worker.forwarding.without_forwarded(scope["headers"])
        return scope

    cdef dict refused_scope(self, const RequestHead* head):
        if self.worker.access_log is None or self.sink is None:
            return None
        cdef dict scope = unknown_scope(self.sink)
        if head.method.n:
            scope["method"] = method_of(head)
        if head.path.n and head.status != 414:      # of that the rest is missing
            scope["raw_path"] = PyBytes_FromStringAndSize(head.path.p, head.path.n)
            scope["query_string"] = PyBytes_FromStringAndSize(head.query.p, head.query.n)
        if head.minor_version >= 0:
            scope["http_version"] = "1.1" if head.minor_version else "1.0"
        return scope

    cdef int switch_to(self, Connection connection) except -1:
        """Hand the sink over, and what of the other protocol has been read."""
        cdef char* held = self.held
        cdef Py_ssize_t n = self.held_length
        cdef ByteSink sink = self.sink
        self.resume_reading()
        self.exchange = None
        self.state = READ_NOTHING
        self.deadline = 0
        self.successor = connection
        self.held = NULL
        self.held_length = self.held_capacity = 0
        self.worker.connections.discard(self)
        self.sink = None
        sink.carry(connection)
        if not sink.corked:
            sink.flush()
        try:
            if n:
                connection.receive(held, n)
        finally:
            PyMem_RawFree(held)
        if self.at < self.end:
            held = self.at
            n = self.end - held
            self.at = self.end
            connection.receive(held, n)
        return 0

    cdef int find_addresses(self) except -1:
        """client and server of the scope: (host, port), or of a unix socket None and (path, None)."""
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

    cdef int read_body(self) except -1:
        cdef char* p = self.at
        cdef Py_ssize_t n = min(<int64_t>(self.end - p), self.body_left)
        cdef HTTP1Exchange exchange = self.exchange
        cdef bytes piece
        self.at = p + n
        self.body_left -= n
        self.body_read += n
        if exchange is not None:
            piece = self.worker.take_read(p, n) if self.at == self.end else PyBytes_FromStringAndSize(p, n)
            self.body_arrives(exchange, self.body_left == 0)
            exchange.feed_body(piece)
            self.after_feed()
        elif self.body_read > DISCARD_LIMIT and self.body_left:
            self.at = self.end
            return self.close()
        elif self.body_left == 0:
            self.end_body()
        if self.state == READ_LENGTH:
            self.direct_bytes = self.body_left if self.exchange is not None and self.body_left >= DIRECT_MIN else 0
            self.watch_client()
        return 0

    cdef int read_chunks(self) except -1:
        cdef char* p = self.at
        cdef Py_ssize_t body
        cdef Py_ssize_t n = chunked_decode(&self.chunks, p, self.end - p, &body)
        cdef Py_ssize_t limit = self.worker.max_body_bytes
        cdef HTTP1Exchange exchange = self.exchange
        if n < 0:
            self.at = self.end
            return self.refuse_body(400, "malformed chunked body")
        self.at = p + n
        self.body_read += body
        if limit and self.body_read > limit and exchange is not None:
            self.at = self.end
            return self.refuse_body(413, "the body is larger than limit_request_body")
        if exchange is not None:
            self.body_arrives(exchange, self.chunks.done)
            if body:
                exchange.feed_body(PyBytes_FromStringAndSize(p, body))
                self.after_feed()
            elif self.chunks.done:
                exchange.feed_end()
        elif self.body_read > DISCARD_LIMIT:
            self.at = self.end
            return self.close()
        elif self.chunks.done:
            self.end_body()
        if self.state == READ_CHUNKS:
            self.watch_client()
        return 0

    cdef int body_arrives(self, HTTP1Exchange exchange, bint all_of_it) except -1:
        """Before a piece is fed: the application may answer, and close, while it takes that."""
        exchange.expects_continue = False
        if all_of_it:
            exchange.body_complete = True
            exchange.wants_call = False
            self.end_body()
        return 0

    cdef int after_feed(self) except -1:
        """Stop reading when the application has much left to receive; it may be gone by now."""
        cdef HTTP1Exchange exchange = self.exchange
        if exchange is not None and not exchange.body_complete:
            exchange.wants_call = exchange.body_size > BODY_HIGH
            if exchange.wants_call:
                self.pause_reading()
        return 0

    cdef int end_body(self) except -1:
        self.state = READ_HEAD
        self.direct_bytes = 0
        self.resume_reading()
        return self.watch_client()

    # --- Responses ---

    cdef bint may_keep_alive(self, HTTP1Exchange exchange) noexcept:
        """Whether another request may follow. What is left of this one's body must be worth reading to its end."""
        if exchange.wants_close or self.worker.draining or self.worker.keep_alive_timeout_s <= 0:
            return False
        if exchange.body_complete:
            return True
        if exchange.expects_continue:
            # The client may send the body, or not (RFC 9110 section 10.1.1)
            return False
        return self.state != READ_LENGTH or self.body_left <= DISCARD_LIMIT

    cdef int response_done(self) except -1:
        self.exchange = None
        self.direct_bytes = 0
        self.body_read = 0              # from here on, what is read for nobody
        if not self.keep_alive or (self.worker.draining and not self.worker.lingers):
            return self.close()
        self.sink.push(True)
        self.watch_client()
        if self.paused and self.held_length <= self.worker.max_head_bytes:
            self.resume_reading()
        if self.receiving and not self.worker.nests:
            return 0                    # advance() goes on
        if self.at < self.end:
            self.put_off_rest()
        if self.held_length:
            self.schedule_resume()
        elif self.peer_is_done:
            return self.close()
        return 0

    cdef int refuse(self, int status, str reason, bint is_head, dict scope, double started_at) except -1:
        """Answer in the application's place, and close: what follows on this connection can't be trusted."""
        cdef ByteSink sink = self.sink
        cdef bytes line = status_line(status)
        cdef bytes text = line[13:len(line) - 2]
        cdef bytes offered
        if sink is None:
            return 0
        self.log_refusal(
            scope, status, 0 if is_head else len(text), time.perf_counter() - started_at if started_at else -1)
        if self.worker.tells_refusal():
            self.worker.logger.warning("Request of %s refused with %d: %s", self.peer(), status, reason)
        sink.put(line, len(line))
        sink.put(self.worker.default_lines, len(self.worker.default_lines))
        if status == 503:
            sink.put(b"retry-after: 1\r\n", 16)
        elif status == 426:
            # RFC 9110 section 15.5.22, RFC 6455 section 4.4
            offered = b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
            sink.put(offered, len(offered))
        text = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
            len(text), b"" if is_head else text)
        sink.put(text, len(text))
        self.keep_alive = False
        return self.linger()

    cdef int refuse_begun(self, int status, str reason, HeadParser parser, bint is_head) except -1:
        """The same, of a request whose head is understood."""
        if self.worker.access_log is None:
            return self.refuse(status, reason, is_head, None, 0)
        return self.refuse(status, reason, is_head, self.new_scope(parser), time.perf_counter())

    cdef int refuse_body(self, int status, str reason) except -1:
        """The same, once the application may be running."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef bint nothing_sent = exchange is None or not exchange.has_begun()
        cdef dict scope = None
        if exchange is not None:
            self.exchange = None
            exchange.connection = None
            if nothing_sent:
                scope = exchange.scope
            if self.start_is_due:
                self.start_is_due = False
            else:
                exchange.cut_off(0 if nothing_sent else exchange.status)
        if self.sink is None:
            return 0                    # lost while the application heard of it
        if nothing_sent and exchange is not None:
            return self.refuse(status, reason, exchange.is_head, scope, exchange.started_at)
        if self.worker.tells_refusal():
            self.worker.logger.warning("Connection of %s closed in a request's body: %s", self.peer(), reason)
        return self.close()

    cdef int watch_client(self) except -1:
        """Bound the time in which the client does nothing: takes nothing of a response that waits in the sink, sends
        nothing of a body that still has no response, or, between two requests, asks for nothing."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        if sink.blocked:
            return self.watch_progress(sink.unsent())
        self.unsent = 0
        if exchange is None:
            self.set_deadline(self.worker.keep_alive_timeout_s)
        elif (self.state == READ_LENGTH or self.state == READ_CHUNKS) and not (
                self.paused or exchange.expects_continue or exchange.has_begun()):
            self.set_deadline(self.worker.body_timeout_s)
        else:
            self.deadline = 0
        return 0

    cdef int watch_progress(self, Py_ssize_t unsent) except -1:
        """The client has taken all but this much just now: it has timeout_write to take more, and is looked at each
        tick, since its system takes what it has room for a moment later."""
        self.unsent = unsent
        self.stalls_at = self.worker.now + self.worker.write_timeout_s
        self.deadline = self.worker.now if self.worker.write_timeout_s > 0 else 0
        return 0

    cdef int close(self) except -1:
        """End the connection after what was put, at once where the client has sent nothing else."""
        if not self.peer_is_done and (self.state != READ_HEAD or self.held_length or self.at < self.end):
            return self.linger()
        self.state = READ_NOTHING
        if self.sink is None:
            return 0
        self.unsent = 0
        self.set_deadline(LINGER_S)
        return self.sink.end()

    cdef int linger(self) except -1:
        """End our half of the connection. While the client may still be sending, a close would answer with a reset,
        which could take the response away from it (RFC 9112 section 9.6)."""
        self.state = READ_NOTHING
        self.direct_bytes = 0
        if self.sink is None:
            return 0
        self.unsent = 0
        self.set_deadline(LINGER_S)
        self.resume_reading()
        return self.sink.end_gently()

    # --- Events ---

    cdef int eof(self) except -1:
        self.peer_is_done = True
        return self.settle_eof()

    cdef int settle_eof(self) except -1:
        """Whether the peer, which sends nothing more, may wait for answers: 1, or 0 where the connection ends now."""
        cdef HTTP1Exchange exchange = self.exchange
        if exchange is not None:
            if exchange.body_complete and not isinstance(exchange, HTTP1Handshake):
                self.watches_peer = True
                exchange.peer_has_ended()
                return 1
            self.exchange = None
            exchange.connection = None
            self.state = READ_NOTHING
            self.start_is_due = False
            exchange.feed_disconnect()
        elif self.held_length and self.state == READ_HEAD and (self.resume_is_scheduled or self.sink.blocked):
            return 1
        self.state = READ_NOTHING
        self.watches_peer = False
        if self.sink is not None:
            self.sink.end()
        return 0

    cdef int watch(self) except -1:
        cdef int state
        if self.sink is None or self.exchange is None:
            return 0
        state = self.sink.peer_state()
        if state == PEER_IS_GONE:
            return self.sink.abort()
        if state == PEER_HAS_ENDED:
            self.exchange.peer_has_ended()
        return 0

    cdef int lost(self) except -1:
        cdef HTTP1Exchange exchange = self.exchange
        self.state = READ_NOTHING
        self.start_is_due = False
        self.deadline = 0
        self.watches_peer = False
        self.sink = None
        self.exchange = None
        self.worker.connections.discard(self)
        if exchange is not None:
            exchange.connection = None
            exchange.feed_disconnect()
        return self.worker.note_idle()

    cdef int stalled(self) except -1:
        return self.watch_client() if self.state != READ_NOTHING else 0

    cdef int writable(self) except -1:
        cdef HTTP1Exchange exchange = self.exchange
        if self.state != READ_NOTHING:
            self.watch_client()
        if exchange is not None:
            return exchange.unblock()
        if self.held_length:
            self.schedule_resume()
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        cdef HTTP1Exchange exchange = self.exchange
        if exchange is not None:
            return exchange.begins_shutdown()
        if self.state == READ_NOTHING:
            return 0
        if self.scope_template is not None and not self.reading_head:
            # Idle: a client has to expect the end of the connection now, but its next request may be under way
            return 0 if self.worker.lingers else self.close()
        self.expect_first_request()
        return 0

    cdef int expire(self) except -1:
        cdef Py_ssize_t unsent
        cdef HeadParser parser
        cdef bint is_head
        if self.sink is None:
            return 0
        unsent = self.sink.unsent()
        if self.sink is None:
            return 0
        if unsent or self.sink.blocked:
            if unsent != self.unsent:
                # A slow client has its time again for as long as it takes something
                return self.watch_progress(unsent)
            if self.worker.now < self.stalls_at:
                self.deadline = self.worker.now
                return 0
        elif self.unsent and self.state == READ_NOTHING:
            # What it has to take before it closes too has only now gone
            self.unsent = 0
            self.set_deadline(LINGER_S)
            return 0
        elif self.unsent and not self.reading_head:
            return self.watch_client()
        if self.exchange is not None and self.sink.blocked:
            # The end that is missing may be all that tells the client
            return self.sink.reset()
        if self.state == READ_NOTHING or unsent:
            return self.sink.abort()
        if self.exchange is not None:
            if self.exchange.has_begun():
                return 0
            return self.refuse_body(408, "it did not arrive within timeout_request_body")
        if self.reading_head:
            is_head = is_of_head(self.held, self.held_length)
            parser = unlent_parser(self.worker.parser)
            parser.parse(self.held, self.held + self.held_length, self.blank_bytes)
            return self.refuse(
                408, "the head did not arrive within timeout_request_head", is_head,
                self.refused_scope(&parser.head), 0)
        return self.close()
