"""See websocket.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from libc.string cimport memcpy

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.websocket cimport MessageConnection, WebSocketExchange
from fastasgi.codecs.deflate cimport Deflater
from fastasgi.codecs.frames cimport (
    CLOSE_ABNORMAL, CLOSE_INTERNAL_ERROR, FAILED, FRAME_HEAD_ROOM, NEED_DATA, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG,
    OP_TEXT, FrameDecoder, put_frame_head,
)
from fastasgi.core.contracts cimport JOIN_LIMIT, ByteSink
from fastasgi.core.counters cimport WEBSOCKET_PING_TIMEOUT, WIRE_WEBSOCKET

from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.codecs.frames import close_payload

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    FRAMES_A_TURN = 256                 # frames that are read before other connections have their turn
    DEFLATE_MIN = 256                   # bytes; a shorter message hardly gets smaller
    MAX_REASON_BYTES = 123              # RFC 6455 section 5.5: a code and a reason fill at most 125 bytes

cdef double CLOSE_TIMEOUT_S = 10.0      # for the peer to answer our Close frame; a shutdown gives it less


cdef WebSocketConnection new_websocket(Exchange exchange):
    cdef WebSocketExchange websocket = <WebSocketExchange?>exchange
    cdef WebSocketConnection connection = WebSocketConnection.__new__(WebSocketConnection)
    cdef object deflate = None if websocket.deflate is None else websocket.deflate[1]
    connection.decoder = FrameDecoder(
        max_message_bytes=websocket.worker.limits.ws_max_size, deflate=deflate)
    if deflate is not None:
        connection.deflater = Deflater(deflate, min_bytes=DEFLATE_MIN)
    connection.wire = WIRE_WEBSOCKET
    connection.exchange = websocket
    websocket.connection = connection
    return connection


cdef class WebSocketConnection(MessageConnection):

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytes joined
        if self.ended:
            return 0
        if self.at < self.end:
            joined = self.rest_and(p, n)
            return self.receive(PyBytes_AS_STRING(joined), len(joined))
        if self.held_length or self.full or self.exchange.taking:
            # `taking` is set if frames came with the handshake: the application, which is accepting, has still to
            # receive
            return self.hold(p, n)
        return self.process(p, n)

    cdef int process(self, char* p, Py_ssize_t n) except -1:
        """Understand frames until the exchange is full, and write all answers at once."""
        cdef ByteSink sink = self.sink
        cdef FrameDecoder decoder = self.decoder
        cdef WebSocketExchange exchange = self.exchange
        cdef int frames = 0
        cdef int event
        cdef bint was_corked = sink.corked
        sink.corked = True
        self.at = p
        self.end = p + n
        try:
            while self.at < self.end and not self.ended:
                if self.full or frames == FRAMES_A_TURN:
                    self.hold(self.at, self.end - self.at)
                    break
                event = decoder.decode(<const char**>&self.at, self.end)
                frames += 1
                if event == NEED_DATA:
                    break
                if event == OP_TEXT or event == OP_BINARY:
                    if not self.close_sent:
                        exchange.feed_message(event == OP_TEXT, decoder.payload())
                elif event == OP_PING:
                    self.pong = decoder.payload()
                    self.put_pong()
                elif event == OP_PONG:
                    self.ping_is_out = False
                    self.wait_for_ping()
                elif event == OP_CLOSE:
                    self.finish(decoder.close_code, decoder.close_reason, False)
                elif event == FAILED:
                    self.fail(decoder.close_code, decoder.close_reason)
        finally:
            self.at = self.end = NULL
            sink.corked = was_corked
        if sink.out_length and not was_corked:
            sink.flush()
        return 0

    cdef int hold(self, const char* p, Py_ssize_t n) except -1:
        """Keep bytes that can't be understood now, and read no more until they can."""
        self.hold_bytes(p, n, n)
        self.pause_reading()
        if not self.full:
            self.schedule_resume()
        return 0

    cdef int put_off_rest(self) except -1:
        cdef char* p = self.at
        self.at = self.end
        return self.hold(p, self.end - p)

    cdef int go_on(self) except -1:
        self.full = False
        return self.schedule_resume() if self.paused else 0

    cdef int resume_held(self) except -1:
        """Go on with held bytes, and send a pong that is due."""
        if self.sink is None or self.ended:
            return 0
        self.put_pong()
        if self.full or self.sink is None or self.ended:
            return 0
        if self.held_length:
            self.process_held()
        return self.resume_reading() if self.held_length == 0 else 0

    # --- Frames out ---

    cdef int put_message(self, bint is_text, object data) except -1:
        cdef ByteSink sink = self.sink
        cdef bytes payload = None
        cdef const char* source
        if self.close_sent or sink is None:
            raise ClientDisconnected("the client has disconnected")
        cdef Py_ssize_t n
        cdef char* p
        cdef bint compressed = False
        if is_text:
            source = PyUnicode_AsUTF8AndSize(data, &n)
        else:
            payload = <bytes>data
            source = <const char*>payload
            n = len(payload)
        if self.deflater is not None and n >= self.deflater.min_bytes:
            if payload is None:
                payload = PyBytes_FromStringAndSize(source, n)
            deflated = self.deflater.deflate(payload)
            if deflated is not None:
                compressed = True
                payload = deflated
                source = <const char*>payload
                n = len(payload)
        p = sink.reserve(FRAME_HEAD_ROOM + (n if n <= JOIN_LIMIT else 0))
        p = put_frame_head(p, OP_TEXT if is_text else OP_BINARY, compressed, n)
        if n <= JOIN_LIMIT:
            memcpy(p, source, n)
            sink.commit(p + n)
        else:
            sink.commit(p)
            sink.put_object(PyBytes_FromStringAndSize(source, n) if payload is None else payload, None)
        sink.push(True)
        if self.exchange is not None:
            self.exchange.blocked = sink.blocked
        return 0

    cdef int put_control(self, int opcode, bytes payload) except -1:
        cdef ByteSink sink = self.sink
        cdef Py_ssize_t n = len(payload)
        cdef char* p = put_frame_head(sink.reserve(FRAME_HEAD_ROOM + n), opcode, False, n)
        memcpy(p, <const char*>payload, n)
        sink.commit(p + n)
        return sink.push(True)

    cdef int put_pong(self) except -1:
        """Answer the last ping, now or once the client reads. The pings before it need no answer (RFC 6455 section
        5.5.3), so that no flood of them costs memory."""
        cdef bytes payload = self.pong
        if payload is None or self.close_sent or self.sink.blocked:
            return 0
        self.pong = None
        return self.put_control(OP_PONG, payload)

    cdef int put_close(self, int code, str reason) except -1:
        cdef bytes payload = close_payload(code, shortened(reason))
        if self.close_sent or self.sink is None:
            return 0
        self.close_sent = True          # set first, since a finalizer may send during the write
        self.put_control(OP_CLOSE, payload)
        if self.worker.ends_websockets:
            self.expect_close()
        else:
            self.set_deadline(CLOSE_TIMEOUT_S)
        # Messages that still come before the peer's answer are thrown away
        self.full = False
        if self.paused:
            self.schedule_resume()
        return 0

    cdef int fail(self, int code, str reason) except -1:
        """_Fail the WebSocket Connection_ (RFC 6455 section 7.1.7)."""
        if not self.close_sent:
            self.worker.logger.info("WebSocket failed with %d: %s", code, reason)
        return self.finish(code, reason, True)

    cdef int finish(self, int code, str reason, bint gently) except -1:
        """Read nothing more, since the peer has closed, or can't be understood. The server ends the connection first
        (RFC 6455 section 7.1.1): gently if more may be on its way."""
        cdef WebSocketExchange exchange = self.exchange
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        self.ended = True
        if not self.close_sent:
            self.close_sent = True
            self.put_control(OP_CLOSE, close_payload(code, shortened(reason) if gently else ""))
        self.expect_close()
        self.drop_held()
        self.exchange = None
        if gently:
            self.resume_reading()
            sink.end_gently()
        else:
            sink.end()
        if exchange is not None:
            exchange.connection = None
            exchange.feed_close(code, reason)
        return 0

    # --- Events ---

    cdef int eof(self) except -1:
        cdef WebSocketExchange exchange = self.exchange
        self.ended = True
        self.exchange = None
        if self.sink is not None:
            self.sink.end()
        if exchange is not None:
            exchange.connection = None
            exchange.feed_close(CLOSE_ABNORMAL, "")
        return 0

    cdef int on_lost(self) except -1:
        cdef WebSocketExchange exchange = self.exchange
        self.ended = True
        self.exchange = None
        if exchange is not None:
            exchange.connection = None
            exchange.feed_close(CLOSE_ABNORMAL, "")
        return 0

    cdef int writable(self) except -1:
        self.unsent = 0
        if self.pong is not None:
            self.schedule_resume()
        if self.exchange is not None:
            return self.exchange.unblock()
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        cdef WebSocketExchange exchange = self.exchange
        if exchange is None or not self.worker.ends_websockets:
            return 0
        if delay_s == 0:
            return exchange.end()
        self.worker.loop.call_later(delay_s, exchange.disconnect, context=PyContext_Copy(self.worker.context))
        return 0

    cdef int wait_for_ping(self) except -1:
        """Set the deadline for our next ping (RFC 6455 section 5.5.2)."""
        if not self.close_sent and not self.ended:
            self.set_deadline(self.worker.limits.ws_ping_interval)
        return 0

    cdef int expire(self) except -1:
        cdef Py_ssize_t unsent
        if self.sink is None:
            return 0
        unsent = self.sink.unsent()
        if self.sink is None:
            return 0
        if unsent and self.has_taken(unsent):
            if self.ended or self.close_sent:
                self.expect_close()
            else:
                self.set_deadline(self.worker.limits.ws_ping_interval)
            return 0
        if self.ended or self.close_sent:
            return self.sink.abort()
        if self.full:
            # A pong could not be read now. But the ping shows proxies in between that the connection lives
            if not unsent:
                self.put_control(OP_PING, b"")
            return self.wait_for_ping()
        if self.ping_is_out:
            self.worker.counts.timeouts[WEBSOCKET_PING_TIMEOUT] += 1
            self.fail(CLOSE_INTERNAL_ERROR, "keepalive ping timeout")
            return 0
        self.put_control(OP_PING, b"")
        self.ping_is_out = True
        if self.worker.limits.ws_ping_timeout > 0:
            self.set_deadline(self.worker.limits.ws_ping_timeout)
        else:
            self.wait_for_ping()
            self.ping_is_out = False
        return 0


cdef str shortened(str reason):
    """As much of a reason as a Close frame takes, in whole characters."""
    cdef bytes data = reason.encode("utf-8", "replace")
    if len(data) <= MAX_REASON_BYTES:
        return reason if b"?" not in data else data.decode()
    return data[:MAX_REASON_BYTES].decode("utf-8", "ignore")
