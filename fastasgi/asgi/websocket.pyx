"""See websocket.pxd for the contracts."""

import base64
import collections
import hashlib
import http

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from libc.string cimport memcpy

from fastasgi.core.contracts cimport JOIN_LIMIT, OUT_FLUSH, ByteSink, WorkerContext
from fastasgi.asgi.exchange cimport READY, PauseCall
from fastasgi.codecs.frames cimport (
    FAILED,
    FRAME_HEAD_ROOM,
    NEED_DATA,
    OP_BINARY,
    OP_CLOSE,
    OP_PING,
    OP_PONG,
    OP_TEXT,
    Deflater,
    FrameDecoder,
    put_frame_head,
)
from fastasgi.asgi.http cimport HTTPExchange, checked_headers, whole_number

from fastasgi.logs.accesslog import client_text, target_text
from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.codecs.frames import DeflateSettings, close_payload, negotiate_deflate
from fastasgi._parser import ParseError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef str WEBSOCKET_CONNECT = "websocket.connect"
cdef str WEBSOCKET_RECEIVE = "websocket.receive"
cdef str WEBSOCKET_DISCONNECT = "websocket.disconnect"
cdef str WEBSOCKET_ACCEPT = "websocket.accept"
cdef str WEBSOCKET_SEND = "websocket.send"
cdef str WEBSOCKET_CLOSE = "websocket.close"
cdef str RESPONSE_START = "websocket.http.response.start"
cdef str RESPONSE_BODY = "websocket.http.response.body"

cdef enum:                              # RFC 6455 section 7.4.1, and its registry
    CLOSE_NORMAL = 1000
    CLOSE_ABNORMAL = 1006               # never on the wire: the connection was lost
    CLOSE_INTERNAL_ERROR = 1011
    CLOSE_SERVICE_RESTART = 1012

cdef enum:
    QUEUE_SIZE = 1048576                # of queued messages, beyond which no more are read
    FRAMES_A_TURN = 256                 # read before other connections have their turn
    DEFLATE_MIN = 256                   # bytes; what is shorter hardly gets smaller
    MAX_REASON_BYTES = 123              # RFC 6455 section 5.5: a code and a reason fill at most 125 bytes
    SEND_COST = 256                     # what a message of no bytes counts toward the pause, see sent_message()

cdef double CLOSE_TIMEOUT_S = 10.0      # for the peer to answer our Close frame; LINGER_S at the end of the server
cdef double HANDLER_END_S = 5.0         # for the application to end once its WebSocket was ended by a shutdown
cdef double LINGER_S = 2.0              # for the peer to close its connection

# The server's own wishes: 4 KiB windows for both sides keep a connection's memory small
cdef object DEFLATE_SETTINGS = DeflateSettings(server_max_window_bits=12, client_max_window_bits=12)

# Fields of the answer to a handshake that are the server's (RFC 6455 section 4.2.2)
cdef frozenset OWN_FIELDS = frozenset((
    b"connection", b"content-length", b"sec-websocket-accept", b"sec-websocket-extensions", b"transfer-encoding",
    b"upgrade"))


cdef class WebSocketExchange(Exchange):

    # Inbound

    cdef int feed_message(self, str key, object data) except -1:
        cdef dict message = {"type": WEBSOCKET_RECEIVE, key: data}
        self.queued_count += 1
        self.queued_size += len(data)
        if self.message is None:
            self.message = message
        else:
            self.feed_more_message(message)
        self.connection.full = (
            self.queued_size >= QUEUE_SIZE or self.queued_count >= self.worker.ws_max_queue)
        if self.receivers:
            self.wake_receivers()
        return 0

    cdef int feed_more_message(self, dict message) except -1:
        if self.more_messages is None:
            self.more_messages = collections.deque()
        self.more_messages.append(message)
        return 0

    cdef int feed_close(self, int code, str reason) except -1:
        if self.disconnected:
            return 0
        self.close_code = code
        self.close_reason = reason
        if self.state != CLOSED:
            self.state = GONE
        return Exchange.feed_disconnect(self)

    cdef int feed_disconnect(self) except -1:
        self.request = None
        return self.feed_close(CLOSE_ABNORMAL, "")

    cdef object next_message(self):
        cdef dict message = self.message
        if not self.connect_received:
            self.connect_received = True
            return {"type": WEBSOCKET_CONNECT}
        if message is not None:
            self.message = self.more_messages.popleft() if self.more_messages else None
            self.queued_count -= 1
            self.queued_size -= len(message["text"] if "text" in message else message["bytes"])
            if self.connection is not None:
                self.connection.take_one()
            return message
        if self.disconnected:
            return {"type": WEBSOCKET_DISCONNECT, "code": self.close_code, "reason": self.close_reason}
        return None

    # Outbound

    cdef object take(self, object message):
        cdef dict given = message if type(message) is dict else dict(message)
        cdef object kind = given["type"]
        if self.state == OPEN:
            if kind == WEBSOCKET_SEND:
                return self.take_message(given)
            if kind == WEBSOCKET_CLOSE:
                return self.take_close(given)
            expected = f"'{WEBSOCKET_SEND}' or '{WEBSOCKET_CLOSE}'"
        elif self.state == CONNECTING:
            if kind == WEBSOCKET_ACCEPT:
                return self.take_accept(given)
            if kind == WEBSOCKET_CLOSE:
                self.deny(403)
                return READY
            if kind == RESPONSE_START:
                return self.take_denial(kind, given)
            expected = f"'{WEBSOCKET_ACCEPT}', '{WEBSOCKET_CLOSE}' or '{RESPONSE_START}'"
        elif self.state == DENYING:
            if kind == RESPONSE_BODY:
                return self.take_denial(kind, given)
            expected = f"'{RESPONSE_BODY}'"
        elif self.state == GONE:
            if kind == WEBSOCKET_CLOSE:
                return READY            # it is closed
            raise ClientDisconnected("the client has disconnected")
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after the WebSocket was closed.")
        raise RuntimeError(f"Expected ASGI message {expected}, but got '{kind}'.")

    cdef object take_accept(self, dict message):
        cdef object subprotocol = message.get("subprotocol")
        cdef list fields = []
        cdef object deflate = self.deflate if self.worker.ws_per_message_deflate else None
        cdef bint has_date = False
        cdef bint has_server = False
        for name, value in checked_headers(message.get("headers") or ()):
            name = name.lower()
            if name == b"sec-websocket-protocol":
                raise ValueError("websocket.accept: give the subprotocol as subprotocol, not among the headers")
            if name not in OWN_FIELDS:
                fields.append((name, value))
                has_date = has_date or name == b"date"
                has_server = has_server or name == b"server"
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        if deflate is not None:
            fields.append((b"sec-websocket-extensions", deflate[0]))
        cdef HTTPExchange request = self.request
        if request is None:
            raise ClientDisconnected("the client has disconnected")     # while its values were made
        request.has_date = has_date
        request.has_server = has_server
        cdef ByteSink sink = request.put_switch(checked_headers(fields))
        cdef WebSocketConnection connection = WebSocketConnection.__new__(WebSocketConnection, self.worker, sink)
        connection.exchange = self
        connection.decoder = FrameDecoder(
            max_message_bytes=self.worker.ws_max_size, deflate=None if deflate is None else deflate[1])
        if deflate is not None:
            connection.deflater = Deflater(deflate[1], min_bytes=DEFLATE_MIN)
        self.request = None
        self.connection = connection
        self.state = OPEN
        request.switch_to(connection)
        self.log_answer("[accepted]")
        return self.sent()

    cdef object take_denial(self, str kind, dict message):
        cdef HTTPExchange request = self.request
        cdef bint more
        cdef bytes body
        if request is None:
            raise ClientDisconnected("the client has disconnected")
        if kind == RESPONSE_START:
            request.begin_response(message["status"], message.get("headers", ()))
            if self.request is None:
                raise ClientDisconnected("the client has disconnected")
            self.state = DENYING
            return READY
        more = message.get("more_body", False)
        body = as_bytes(kind, "body", message.get("body", b""))
        if self.request is None:
            raise ClientDisconnected("the client has disconnected")
        request.put_body(body, more)
        if more:
            return request.sent()
        self.answered(request.status)
        request.body_sent_whole()
        self.feed_close(CLOSE_ABNORMAL, "")
        return READY

    cdef int deny(self, int status) except -1:
        """Answer the handshake in the application's place."""
        cdef HTTPExchange request = self.request
        if request is None:
            return 0
        self.answered(status)
        request.put_error(status, http.HTTPStatus(status).phrase.encode())
        # What a client does not wait for is none of its business: receive() ends all the same
        return self.feed_close(CLOSE_ABNORMAL, "")

    cdef int answered(self, int status) except -1:
        """The handshake is denied."""
        self.state = CLOSED
        self.request = None
        self.count_finished()
        return self.log_answer(str(status))

    cdef object take_message(self, dict message):
        cdef object text = message.get("text")
        cdef WebSocketConnection connection
        if text is None:
            data = as_bytes(WEBSOCKET_SEND, "bytes", message.get("bytes"))
            connection = self.open_connection()
            connection.put_message(OP_BINARY, data)
            return self.sent_message(len(data))
        # Subclasses too: templates make texts that are marked as safe
        if not isinstance(text, str):
            raise TypeError(f"websocket.send: text is {type(text).__name__}, str expected")
        connection = self.open_connection()
        connection.put_message(OP_TEXT, text)
        return self.sent_message(len(text))

    cdef WebSocketConnection open_connection(self):
        if self.state != OPEN or self.connection is None:
            raise ClientDisconnected("the client has disconnected")     # while the message's values were made
        return self.connection

    cdef object sent_message(self, Py_ssize_t size):
        """What send() returns: an application that sends without end to a client that reads lets others run."""
        if self.blocked:
            return self.sent()
        self.unyielded += size + SEND_COST
        if self.unyielded > 2 * OUT_FLUSH:
            self.unyielded = 0
            return PauseCall.__new__(PauseCall)
        return READY

    cdef object take_close(self, dict message):
        cdef object given = message.get("code")
        cdef str reason = message.get("reason") or ""
        cdef int code = CLOSE_NORMAL
        cdef WebSocketConnection connection
        if given is not None:
            whole_number(given, "websocket.close: code")
            code = given
        connection = self.open_connection()
        connection.put_close(code, shortened(reason))
        self.state = CLOSED
        self.count_finished()
        self.feed_close(code, reason)
        return READY

    cdef int log_answer(self, str answer) except -1:
        cdef dict scope = self.scope
        self.scope = None
        if scope is None:
            return 0
        self.worker.logger.info('%s - "WebSocket %s" %s', client_text(scope), target_text(scope), answer)
        return 0

    # The end of the call

    cdef int returned(self, object exception) except -1:
        cdef bint is_fault = self.is_fault(exception)
        cdef str left_out = None
        if exception is None and self.state == CONNECTING:
            left_out = "accepting or closing the WebSocket"
        elif exception is None and self.state == DENYING:
            left_out = "completing response"
        try:
            # First: its line is to stand before a traceback, and code of the user's may run while that is logged
            self.end_call(exception)
        finally:
            if is_fault:
                self.log_fault(exception)
            elif left_out is not None:
                self.worker.logger.error(f"ASGI callable returned without {left_out}.")
        return 0

    cdef int end_call(self, object exception) except -1:
        """In place of an application that has returned or raised this."""
        cdef HTTPExchange request = self.request
        cdef WebSocketConnection connection = self.connection
        if self.state == CONNECTING:
            self.deny(500)
        elif self.state == DENYING:
            if request.headers is not None:
                self.deny(500)
            else:
                self.give_up_denial()
        elif self.state == OPEN and connection is not None:
            connection.put_close(CLOSE_NORMAL if exception is None else CLOSE_INTERNAL_ERROR, "")
            self.state = CLOSED
            self.feed_close(CLOSE_NORMAL, "")
        return 0

    def disconnect(self):
        """Shutdown: end the WebSocket, or, before it is open, its handshake."""
        self.end()
        if self.state == DENYING:
            self.give_up_denial()

    cdef int end(self) except -1:
        cdef WebSocketConnection connection = self.connection
        if self.state == OPEN and connection is not None:
            connection.put_close(CLOSE_SERVICE_RESTART, "")
            self.feed_close(CLOSE_SERVICE_RESTART, "")
        elif self.state == CONNECTING:
            self.deny(503)
            self.state = GONE           # an accept that comes late is no error
        else:
            return 0
        # A handler that waits for something else than its client hears of nothing; the grace time is for requests
        self.worker.loop.call_later(HANDLER_END_S, self.cancel, context=PyContext_Copy(self.worker.context))
        return 0

    cdef int give_up_denial(self) except -1:
        """Its response will not be completed."""
        cdef HTTPExchange request = self.request
        self.count_finished()
        self.feed_disconnect()
        request.disconnected = request.gone = True
        return request.give_up()


cdef class WebSocketConnection(Connection):

    def __cinit__(self, WorkerContext worker, ByteSink sink):
        self.worker = worker
        self.sink = sink
        self.wait_for_ping()
        worker.connections.add(self)

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytes joined
        if self.ended:
            return 0
        if self.at < self.end:
            joined = self.rest_and(p, n)
            return self.receive(PyBytes_AS_STRING(joined), len(joined))
        if self.held is not None or self.full or self.exchange.taking:
            # Also where frames came with the handshake: an application that accepts has still to ask for messages
            return self.hold(p, n)
        return self.decode(p, n)

    cdef int decode(self, char* p, Py_ssize_t n) except -1:
        """Understand what there is, as far as somebody takes it, and write what came of it at once."""
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
                        exchange.feed_message("text" if event == OP_TEXT else "bytes", decoder.take())
                elif event == OP_PING:
                    self.pong = decoder.take()
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
        """Keep what nobody takes now, and read no more until somebody does."""
        cdef bytes rest = PyBytes_FromStringAndSize(p, n)
        self.held = rest if self.held is None else self.held + rest
        if not self.paused:
            self.paused = True
            self.sink.pause_reading()
        if not self.full:
            self.schedule_resume()
        return 0

    cdef int put_off_rest(self) except -1:
        cdef char* p = self.at
        self.at = self.end
        return self.hold(p, self.end - p)

    cdef int take_one(self) except -1:
        cdef WebSocketExchange exchange = self.exchange
        if self.full and exchange is not None:
            self.full = exchange.queued_size >= QUEUE_SIZE or exchange.queued_count >= self.worker.ws_max_queue
            if not self.full and self.paused:
                self.schedule_resume()
        return 0

    cdef int schedule_resume(self) except -1:
        if not self.resume_is_scheduled:
            self.resume_is_scheduled = True
            self.worker.loop.call_soon(self.resume, context=PyContext_Copy(self.worker.context))
        return 0

    def resume(self):
        """Go on with held bytes, and a pong, in a turn of the event loop of its own."""
        cdef WorkerContext worker = self.worker
        cdef bytes held = self.held
        self.resume_is_scheduled = False
        if self.sink is None or self.ended:
            return
        self.put_pong()
        if self.full or self.sink is None or self.ended:
            return
        self.held = None
        cdef bint was = worker.enter()
        try:
            if held is not None:
                self.decode(PyBytes_AS_STRING(held), len(held))
        finally:
            worker.leave(was)
        if self.held is None and self.paused and self.sink is not None:
            self.paused = False
            self.sink.resume_reading()

    # --- Frames out ---

    cdef int put_message(self, int opcode, object data) except -1:
        cdef ByteSink sink = self.sink
        cdef bytes payload = None
        cdef const char* source
        if self.close_sent or sink is None:
            raise ClientDisconnected("the client has disconnected")
        cdef Py_ssize_t n
        cdef char* p
        cdef bint compressed = False
        if opcode == OP_TEXT:
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
        p = put_frame_head(p, opcode, compressed, n)
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
        """Answer the last ping, now or once the client reads. Those before it need no answer (RFC 6455 section 5.5.3),
        so that no flood of them takes memory."""
        cdef bytes payload = self.pong
        if payload is None or self.close_sent or self.sink.blocked:
            return 0
        self.pong = None
        return self.put_control(OP_PONG, payload)

    cdef int put_close(self, int code, str reason) except -1:
        """Begin the closing handshake (RFC 6455 section 7.1.2). Raises ValueError for a code that may not be sent."""
        cdef bytes payload = close_payload(code, reason)
        if self.close_sent or self.sink is None:
            return 0
        self.close_sent = True          # first: a finalizer may send while that is written
        self.put_control(OP_CLOSE, payload)
        self.set_deadline(LINGER_S if self.worker.ends_websockets else CLOSE_TIMEOUT_S)
        # What still comes is thrown away up to the peer's answer
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
        """Nothing more is read: the peer has closed, or can't be understood. The server ends the connection first
        (RFC 6455 section 7.1.1), gently where more may be on its way."""
        cdef WebSocketExchange exchange = self.exchange
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        self.ended = True
        if not self.close_sent:
            self.close_sent = True
            self.put_control(OP_CLOSE, close_payload(code, shortened(reason) if gently else ""))
        self.set_deadline(LINGER_S)
        self.held = None
        self.exchange = None
        if gently:
            if self.paused:
                self.paused = False
                sink.resume_reading()
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

    cdef int lost(self) except -1:
        cdef WebSocketExchange exchange = self.exchange
        self.ended = True
        self.deadline = 0
        self.sink = None
        self.exchange = None
        self.held = None
        self.worker.connections.discard(self)
        if exchange is not None:
            exchange.connection = None
            exchange.feed_close(CLOSE_ABNORMAL, "")
        return self.worker.note_idle()

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
        """Keep-alive (RFC 6455 section 5.5.2) without a timer of its own."""
        if not self.close_sent and not self.ended:
            self.deadline = 0
            if self.worker.ws_ping_interval_s > 0:
                self.set_deadline(self.worker.ws_ping_interval_s)
        return 0

    cdef int expire(self) except -1:
        cdef Py_ssize_t unsent
        if self.sink is None:
            return 0
        unsent = self.sink.unsent()
        if self.sink is None:
            return 0
        if unsent and unsent != self.unsent:
            # A slow client has its time again for as long as it takes something
            self.unsent = unsent
            self.set_deadline(LINGER_S if self.ended or self.close_sent else self.worker.ws_ping_interval_s)
            return 0
        if self.ended or self.close_sent:
            return self.sink.abort()
        if self.full:
            # A pong could not be read; but whatever is on the way sees that the connection lives
            if not unsent:
                self.put_control(OP_PING, b"")
            return self.wait_for_ping()
        if self.ping_is_out:
            self.fail(CLOSE_INTERNAL_ERROR, "keepalive ping timeout")
            return 0
        self.put_control(OP_PING, b"")
        self.ping_is_out = True
        if self.worker.ws_ping_timeout_s > 0:
            self.set_deadline(self.worker.ws_ping_timeout_s)
        else:
            self.wait_for_ping()
            self.ping_is_out = False
        return 0


cdef bytes as_bytes(str kind, str key, object value):
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{kind}: {key} is {type(value).__name__}, bytes expected")


cdef str shortened(str reason):
    """As much of a reason as a Close frame takes, in whole characters."""
    cdef bytes data = reason.encode("utf-8", "replace")
    if len(data) <= MAX_REASON_BYTES:
        return reason if b"?" not in data else data.decode()
    return data[:MAX_REASON_BYTES].decode("utf-8", "ignore")


# --- The handshake ---

cdef Handshake refused(Handshake handshake, int status, str reason):
    handshake.status = status
    handshake.reason = reason
    return handshake


cdef Handshake read_handshake(list headers):
    cdef Handshake handshake = Handshake.__new__(Handshake)
    cdef list upgrades = []
    cdef list keys = []
    cdef list versions = []
    cdef list protocols = []
    cdef list extensions = []
    cdef bytes name, value
    handshake.subprotocols = []
    for name, value in headers:
        if name == b"upgrade":
            upgrades.append(value)
        elif name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"sec-websocket-protocol":
            protocols.append(value)
        elif name == b"sec-websocket-extensions":
            extensions.append(value)
    if b"websocket" not in [token.strip() for token in b",".join(upgrades).lower().split(b",")]:
        return None
    # RFC 6455 section 4.2.1
    if not versions:
        return refused(handshake, 400, "the handshake has no Sec-WebSocket-Version")
    if versions != [b"13"]:
        return refused(handshake, 426, "the WebSocket version is not 13")
    if len(keys) != 1 or not is_key(keys[0]):
        return refused(handshake, 400, "the handshake has no valid Sec-WebSocket-Key")
    handshake.key = keys[0]
    if extensions:
        try:
            handshake.deflate = negotiate_deflate(extensions, DEFLATE_SETTINGS)
        except ParseError as error:
            return refused(handshake, error.status, str(error))
    for value in b",".join(protocols).split(b","):
        value = value.strip(b" \t")
        if value:
            handshake.subprotocols.append(value.decode("latin-1"))
    return handshake


cdef bint is_key(bytes key):
    """Whether it stands for 16 bytes in base64."""
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


cdef bytes accept_key(bytes key):
    # RFC 6455 section 4.2.2
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())


cdef dict websocket_scope(dict scope, list subprotocols):
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = subprotocols
    scope["asgi"]["spec_version"] = "2.4"       # of the WebSocket specification: send() raises once the client has gone
    scope["extensions"] = {"websocket.http.response": {}}
    return scope
