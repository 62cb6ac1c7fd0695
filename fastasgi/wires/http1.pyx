"""See http1.pxd for the contracts."""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t

from fastasgi._parser cimport (
    HeadParser, LlhttpHeadParser, RequestHead, has_forwarded, headers_of, is_of_head, method_of, path_of,
    unlent_parser,
)
from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport DISCARD_LIMIT, HTTPExchange
from fastasgi.asgi.httpconnection cimport TOO_LARGE
from fastasgi.codecs.heads cimport (
    CHUNK_HEAD_ROOM, FRAMED_BY_CHUNKS, FRAMED_BY_CLOSE, FRAMED_BY_HEAD, SAY_CLOSE, SAY_KEEP_ALIVE, SAY_NOTHING,
    ConnectionOption, ResponseHead, fields_size, framing_of, head_room, put_bytes, put_chunk_head, put_fields,
    put_head, reason_phrase, refusal,
)
from fastasgi.core.contracts cimport (
    JOIN_LIMIT, PEER_HAS_ENDED, PEER_IS_GONE, ByteSink, Connection, Wire, WorkerContext, unknown_scope,
)
from fastasgi.core.counters cimport (
    BAD_REQUEST, BODY_TIMEOUT, HEAD_TIMEOUT, HTTP_1_0, HTTP_1_1, KEEP_ALIVE_TIMEOUT, WIRE_HTTP1, WRITE_TIMEOUT,
)
from fastasgi.wires.handshake cimport Handshake, accept_key, read_handshake, refused
from fastasgi.wires.http1input cimport READ_CHUNKS, READ_HEAD, READ_LENGTH, READ_NOTHING, HTTP1Input
from fastasgi.wires.websocket cimport WebSocketConnection, new_websocket

from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.asgi.httpconnection import head_limits
from fastasgi.core.counters import IS_OVERLOADED

cdef enum:
    FILE_PIECE = 262144                 # bytes of a file that are read at once, if the kernel can't send it

cdef str OLD_HANDSHAKE = (
    "A WebSocket handshake came in HTTP/1.0, which has none: it is a plain request to the application. "
    "Behind nginx, set proxy_http_version 1.1.")

cdef dict EXTENSIONS_1_0 = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
cdef dict EXTENSIONS_1_1 = {
    "http.response.early_hint": {},
    "http.response.trailers": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}


cdef class HTTP1Wire(Wire):

    def __init__(self, config):
        Wire.__init__(self, alpn="http/1.1")
        parser = LlhttpHeadParser if config.http == "httptools" else HeadParser
        self.parser = parser(**head_limits(config))

    cdef Connection open(self, WorkerContext worker, ByteSink sink):
        cdef HTTP1Connection connection = HTTP1Connection.__new__(HTTP1Connection)
        connection.parser = self.parser
        connection.wire = WIRE_HTTP1
        connection.begin_on(worker, sink, worker.limits.timeout_request_head)
        return connection

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n):
        cdef bytes text = b"This port speaks TLS: use https.\n"
        cdef bint is_head = is_of_head(p, n)
        connection.log_refusal(None, 400, "plain HTTP where TLS is spoken", 0 if is_head else len(text), 0)
        return refusal(400, SAY_CLOSE, connection.worker.fields, [], text, is_head)


cdef class HTTP1Exchange(HTTPExchange):

    cdef ByteSink open_sink(self):
        if self.connection is None:
            raise ClientDisconnected("the client has disconnected")
        return self.connection.sink

    cdef int put_response(self, bytes body, bint more) except -1:
        cdef ByteSink sink = self.open_sink()
        cdef HTTP1Connection connection = self.connection
        cdef WorkerContext worker = self.worker
        cdef ResponseHead head
        cdef Py_ssize_t room = len(body) if len(body) <= JOIN_LIMIT else 0
        if self.status == 204 and self.content_length >= 0:
            # RFC 9110 section 8.6: a 204 has no Content-Length
            self.drop_field(b"content-length")
            self.content_length = -1
        head.status = self.status
        head.has_server = self.has_server
        head.has_date = self.has_date
        head.framing = framing_of(
            self.bodiless, self.content_length >= 0, not (more or self.wants_trailers), self.minor_version)
        head.length = len(body)
        head.option = SAY_NOTHING
        self.chunked = head.framing == FRAMED_BY_CHUNKS
        if connection.keep_alive and (head.framing == FRAMED_BY_CLOSE or not connection.may_keep_alive(self)):
            connection.keep_alive = False
        if not connection.keep_alive and not self.wants_close:
            head.option = SAY_CLOSE
            if self.has_connection:
                # The application's field may not contradict "close" (RFC 9112 section 9.6)
                self.drop_field(b"connection")
        elif connection.keep_alive and self.minor_version == 0 and not self.has_connection:
            head.option = SAY_KEEP_ALIVE
        room += head_room(&head, worker.fields, self.headers_size + 4 * len(self.headers))
        sink.commit(put_head(sink.reserve(room), &head, worker.fields, self.headers))
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

    cdef int drop_field(self, bytes name) except -1:
        self.headers = [pair for pair in self.headers if pair[0].lower() != name]
        return 0

    cdef int want_body(self) except -1:
        cdef HTTP1Connection connection = self.connection
        if connection is None:
            return 0
        connection.resume_reading()
        return connection.watch_client()

    cdef int put_informational(self, int status, list headers) except -1:
        cdef ByteSink sink = self.open_sink()
        cdef ResponseHead head
        if self.minor_version == 0:
            # RFC 9110 section 15.2: a client of HTTP/1.0 knows no 1xx
            return 0
        head.status = status
        head.framing = FRAMED_BY_HEAD
        head.option = SAY_NOTHING
        sink.commit(put_head(
            sink.reserve(head_room(&head, None, fields_size(headers))), &head, None, headers))
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
        return send_file(self, self.open_sink(), file, offset, count, more)

    cdef Connection put_switch(self, list headers, Exchange websocket):
        cdef ByteSink sink = self.open_sink()
        cdef WorkerContext worker = self.worker
        cdef list fields = [
            (b"upgrade", b"websocket"), (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_key(self.websocket_key)), *headers,
        ]
        cdef WebSocketConnection successor = new_websocket(websocket)
        cdef ResponseHead head
        head.status = 101
        head.has_server = self.has_server
        head.has_date = self.has_date
        head.framing = FRAMED_BY_HEAD
        head.option = SAY_NOTHING
        sink.commit(put_head(
            sink.reserve(head_room(&head, worker.fields, fields_size(fields))), &head, worker.fields, fields))
        return successor

    cdef int hand_over(self, Connection successor) except -1:
        cdef HTTP1Connection connection = self.connection
        self.connection = None
        return successor.on_lost() if connection is None else connection.switch_to(successor)

    cdef int reset(self, bint has_begun) except -1:
        cdef HTTP1Connection connection = self.connection
        self.connection = None
        if connection is None:
            return 0
        connection.exchange = None
        connection.keep_alive = False
        cdef bint ends_with_connection = self.content_length < 0 and not self.chunked and not self.bodiless
        if ends_with_connection and has_begun:
            # The client would take an orderly end for the end of the body
            connection.state = READ_NOTHING
            return connection.sink.reset()
        return connection.close()

    cdef int ended(self) except -1:
        cdef HTTP1Connection connection = self.connection
        self.connection = None
        return 0 if connection is None else connection.response_done()


async def send_file(HTTP1Exchange exchange, ByteSink sink, file, offset, count, bint more):
    """Send `count` bytes of `file` from `offset` on as a piece of the body, by the kernel if the sink can, and close
    it.

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


cdef class HTTP1Connection(HTTP1Input):

    # --- Requests ---

    cdef int begin(self, HeadParser parser) except -1:
        cdef RequestHead* head = &parser.head
        cdef HTTP1Exchange exchange
        cdef Handshake handshake = None
        cdef str method = method_of(head)
        cdef bint is_head = method == "HEAD"
        cdef dict scope
        cdef str reason
        self.deadline = 0
        self.unsent = 0
        self.reading_head = False
        self.blank_bytes = 0
        self.keep_alive = head.keep_alive
        scope = self.scope_of(parser, method)
        if self.state == READ_NOTHING:
            return 0                    # the connection has ended while its addresses were asked for
        if self.exceeds_body_limit(head.content_length):
            return self.refuse_begun(413, TOO_LARGE, scope, is_head)
        if head.upgrade and self.worker.limits.serves_websockets and method == "GET":
            handshake = self.asked_handshake(head, scope)
            if handshake is not None and handshake.status:
                return self.refuse_begun(handshake.status, handshake.reason, scope, False)
        reason = self.unavailable(scope, handshake is not None)
        if reason is IS_OVERLOADED:
            return self.shed(head, is_head, scope)
        if reason is not None:
            return self.refuse_begun(503, reason, scope, is_head)
        exchange = HTTP1Exchange.__new__(HTTP1Exchange)
        exchange.connection = self
        exchange.minor_version = head.minor_version
        exchange.is_head = is_head
        if handshake is None:
            self.begin_request(exchange, scope)
        else:
            exchange.websocket_key = handshake.key
            self.begin_websocket(exchange, scope, handshake.deflate)
        self.begin_body(exchange, head)
        self.exchange = exchange
        self.watch_client()
        self.start_is_due = True
        return self.count_request(exchange, method, HTTP_1_1 if head.minor_version else HTTP_1_0)

    cdef Handshake asked_handshake(self, const RequestHead* head, dict scope):
        """The handshake of a request that asks for a WebSocket, with a status if it is refused; None for any other."""
        cdef Handshake handshake = read_handshake(scope["headers"])
        if handshake is None:
            return None
        if head.minor_version == 0:
            self.worker.logger.warn_once(OLD_HANDSHAKE)
            return None                 # RFC 9110 section 7.8: this is a request like any other
        if handshake.status == 0 and (head.content_length > 0 or head.chunked):
            # The bytes behind the head would mean one thing here and another to a proxy
            return refused(handshake, 400, "a WebSocket handshake has no body")
        return handshake

    cdef dict scope_of(self, HeadParser parser, str method):
        cdef RequestHead* head = &parser.head
        return self.new_scope(
            "1.1" if head.minor_version else "1.0", method, path_of(head),
            PyBytes_FromStringAndSize(head.path.p, head.path.n),
            PyBytes_FromStringAndSize(head.query.p, head.query.n),
            headers_of(parser), self.worker.forwarding is not None and has_forwarded(head),
            EXTENSIONS_1_1 if head.minor_version else EXTENSIONS_1_0, None)

    cdef dict refused_scope(self, const RequestHead* head):
        if self.sink is None:
            return None
        cdef dict scope = unknown_scope(self.sink)
        if head.method.n:
            scope["method"] = method_of(head)
        if head.path.n and head.status != 414:      # with 414 the rest of the path is missing
            scope["raw_path"] = PyBytes_FromStringAndSize(head.path.p, head.path.n)
            scope["query_string"] = PyBytes_FromStringAndSize(head.query.p, head.query.n)
        if head.minor_version >= 0:
            scope["http_version"] = "1.1" if head.minor_version else "1.0"
        return scope

    cdef int switch_to(self, Connection successor) except -1:
        cdef char* rest
        self.exchange = None
        self.state = READ_NOTHING
        HTTP1Input.switch_to(self, successor)
        rest = self.at
        self.at = self.end
        return successor.inherit(0, rest, self.end - rest)

    # --- Responses ---

    cdef bint may_keep_alive(self, HTTP1Exchange exchange) noexcept:
        """Whether another request may follow. The rest of this one's body has to be small enough to be read."""
        if exchange.wants_close or self.worker.draining or self.worker.limits.timeout_keep_alive <= 0:
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
        if not self.keep_alive or (self.worker.draining and not self.worker.keeps_idle):
            return self.close()
        self.sink.push(True)
        self.watch_client()
        if not self.holds_much():
            self.resume_reading()
        if self.receiving and not self.worker.tasks.nests:
            return 0                    # advance() goes on
        if self.at < self.end:
            self.put_off_rest()
        if self.held_length:
            self.schedule_resume()
        elif self.peer_is_done:
            return self.close()
        return 0

    cdef int refuse(self, int status, str reason, bint is_head, dict scope, int64_t started_ns) except -1:
        """Answer in the application's place, and close the connection: what follows on it can't be trusted."""
        if self.sink is None:
            return 0
        self.put_refusal(status, reason, is_head, SAY_CLOSE, scope, started_ns)
        self.keep_alive = False
        return self.linger()

    cdef int shed(self, const RequestHead* head, bint is_head, dict scope) except -1:
        """Refuse a request for overload. Nothing is wrong with it, so that others may follow: for a client to connect
        again would only be more work."""
        cdef ConnectionOption option = SAY_NOTHING
        cdef bint has_body = self.expect_body(head)
        if self.worker.draining or self.worker.limits.timeout_keep_alive <= 0 or (
                has_body and (head.expect_continue or head.content_length > DISCARD_LIMIT)):
            self.keep_alive = False
        if not self.keep_alive:
            option = SAY_CLOSE
        elif head.minor_version == 0:
            option = SAY_KEEP_ALIVE
        self.put_refusal(503, IS_OVERLOADED, is_head, option, scope, self.worker.turn_began_ns)
        return 0 if self.sink is None else self.response_done()

    cdef int put_refusal(
        self, int status, str reason, bint is_head, ConnectionOption option, dict scope, int64_t started_ns,
    ) except -1:
        cdef bytes text = reason_phrase(status).encode()
        cdef bytes response
        cdef list fields = []
        self.log_refusal(scope, status, reason, 0 if is_head else len(text), started_ns)
        if self.sink is None:
            return 0                    # lost while it was logged
        if status == 503:
            fields = [(b"retry-after", self.retry_after())]
        elif status == 426:
            # RFC 9110 section 15.5.22, RFC 6455 section 4.4
            fields = [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        response = refusal(status, option, self.worker.fields, fields, text, is_head)
        return self.sink.put(response, len(response))

    cdef int refuse_head(self, HeadParser parser, bint is_head) except -1:
        cdef RequestHead* head = &parser.head
        return self.refuse(head.status, head.reason.decode("ascii"), is_head, self.refused_scope(head), 0)

    cdef int refuse_early(self, int status, str reason) except -1:
        return self.refuse(status, reason, False, None, 0)

    cdef int refuse_begun(self, int status, str reason, dict scope, bint is_head) except -1:
        """Refuse a request whose head is understood, and has just come."""
        return self.refuse(status, reason, is_head, scope, self.worker.turn_began_ns)

    cdef int refuse_body(self, int status, str reason) except -1:
        """Refuse the body of a request whose application may be running. If its response has begun, only close."""
        cdef HTTP1Exchange exchange = <HTTP1Exchange>self.exchange
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
            return 0                    # the connection was lost while the application heard of it
        if nothing_sent and exchange is not None:
            return self.refuse(status, reason, exchange.is_head, scope, exchange.started_ns)
        if self.count_refusal(BAD_REQUEST, reason):
            self.worker.logger.warning("Connection of %s closed in a request's body: %s", self.peer_text(), reason)
        return self.close()

    cdef int watch_client(self) except -1:
        return self.bound_time(self.exchange, self.state == READ_LENGTH or self.state == READ_CHUNKS)

    cdef int close(self) except -1:
        """End the connection after what was put: at once if the client has sent nothing else, otherwise linger."""
        if not self.peer_is_done and (self.state != READ_HEAD or self.held_length or self.at < self.end):
            return self.linger()
        self.state = READ_NOTHING
        if self.sink is None:
            return 0
        self.unsent = 0
        self.expect_close()
        return self.sink.end()

    cdef int linger(self) except -1:
        """End our half of the connection, and read on until the client closes. If it is still sending, a close would
        answer it with a reset, which could take the response away from it (RFC 9112 section 9.6)."""
        self.state = READ_NOTHING
        self.direct_bytes = 0
        if self.sink is None:
            return 0
        self.unsent = 0
        self.expect_close()
        self.resume_reading()
        return self.sink.end_gently()

    # --- Events ---

    cdef int eof(self) except -1:
        self.peer_is_done = True
        return self.settle_eof()

    cdef int settle_eof(self) except -1:
        """What follows when the peer sends nothing more: 1 if it may wait for answers, 0 if the connection ends."""
        cdef HTTP1Exchange exchange = <HTTP1Exchange>self.exchange
        if exchange is not None:
            if exchange.body_complete and exchange.websocket is None:
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

    cdef int on_lost(self) except -1:
        cdef HTTP1Exchange exchange = <HTTP1Exchange>self.exchange
        self.state = READ_NOTHING
        self.start_is_due = False
        self.exchange = None
        if exchange is not None:
            exchange.connection = None
            exchange.feed_disconnect()
        return 0

    cdef int stalled(self) except -1:
        return self.watch_client() if self.state != READ_NOTHING else 0

    cdef int writable(self) except -1:
        cdef HTTP1Exchange exchange = <HTTP1Exchange>self.exchange
        if self.state != READ_NOTHING:
            self.watch_client()
        if exchange is not None:
            return exchange.unblock()
        if self.held_length:
            self.schedule_resume()
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        cdef HTTP1Exchange exchange = <HTTP1Exchange>self.exchange
        if exchange is not None:
            return exchange.begin_shutdown()
        if self.state == READ_NOTHING:
            return 0
        if self.scope_template is not None and not self.reading_head:
            # Idle: a client has to expect the end of the connection now, but its next request may be under way
            return 0 if self.worker.keeps_idle else self.close()
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
            if self.may_take_longer(unsent):
                return 0
        elif self.unsent and self.state == READ_NOTHING:
            # Only now has it read all that it has to read before it closes too
            self.unsent = 0
            self.expect_close()
            return 0
        elif self.unsent and not self.reading_head:
            return self.watch_client()
        if self.sink.blocked or unsent:
            self.worker.counts.timeouts[WRITE_TIMEOUT] += 1
        if self.exchange is not None and self.sink.blocked:
            # That the end is missing may be all that tells the client that it has not got everything
            return self.sink.reset()
        if self.state == READ_NOTHING or unsent:
            return self.sink.abort()
        if self.exchange is not None:
            if self.exchange.has_begun():
                return 0
            self.worker.counts.timeouts[BODY_TIMEOUT] += 1
            return self.refuse_body(408, "it did not arrive within timeout_request_body")
        if self.reading_head:
            self.worker.counts.timeouts[HEAD_TIMEOUT] += 1
            is_head = is_of_head(self.held, self.held_length)
            parser = unlent_parser(self.parser)
            parser.parse(self.held, self.held + self.held_length, self.blank_bytes)
            return self.refuse(
                408, "the head did not arrive within timeout_request_head", is_head,
                self.refused_scope(&parser.head), 0)
        self.worker.counts.timeouts[KEEP_ALIVE_TIMEOUT] += 1
        return self.close()
