"""See websocket.pxd for the contracts."""

import collections

from cpython.contextvars cimport PyContext_Copy

from fastasgi.asgi.exchange cimport READY, as_bytes
from fastasgi.asgi.http cimport HTTPExchange, checked_headers, whole_number
from fastasgi.codecs.heads cimport reason_phrase
from fastasgi.codecs.frames cimport CLOSE_ABNORMAL, CLOSE_INTERNAL_ERROR, CLOSE_NORMAL, CLOSE_SERVICE_RESTART

from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.logs.accesslog import client_text, target_text

cdef str WEBSOCKET_CONNECT = "websocket.connect"
cdef str WEBSOCKET_RECEIVE = "websocket.receive"
cdef str WEBSOCKET_DISCONNECT = "websocket.disconnect"
cdef str WEBSOCKET_ACCEPT = "websocket.accept"
cdef str WEBSOCKET_SEND = "websocket.send"
cdef str WEBSOCKET_CLOSE = "websocket.close"
cdef str RESPONSE_START = "websocket.http.response.start"
cdef str RESPONSE_BODY = "websocket.http.response.body"

cdef enum:
    QUEUE_SIZE = 1048576                # bytes of queued messages at which no more are read
    SEND_COST = 256                     # bytes that an empty message counts toward a pause, see sent_bytes()

cdef double HANDLER_END_S = 5.0         # for the application to end, once a shutdown has ended its WebSocket

# Fields of the answer to a handshake that are the server's (RFC 6455 section 4.2.2)
cdef frozenset OWN_FIELDS = frozenset((
    b"connection", b"content-length", b"sec-websocket-accept", b"sec-websocket-extensions", b"transfer-encoding",
    b"upgrade"))


cdef class MessageConnection(Connection):

    cdef int put_message(self, bint is_text, object data) except -1:
        raise NotImplementedError

    cdef int put_close(self, int code, str reason) except -1:
        raise NotImplementedError

    cdef int go_on(self) except -1:
        raise NotImplementedError


cdef class WebSocketExchange(Exchange):

    # --- Inbound ---

    cdef int feed_message(self, bint is_text, object data) except -1:
        cdef dict message = {"type": WEBSOCKET_RECEIVE, "text" if is_text else "bytes": data}
        self.worker.counts.messages_received += 1
        self.queued_count += 1
        self.queued_size += len(data)
        if self.message is None:
            self.message = message
        else:
            self.feed_more_message(message)
        self.connection.full = self.is_full()
        if self.receivers:
            self.wake_receivers()
        return 0

    cdef bint is_full(self) noexcept:
        return self.queued_size >= QUEUE_SIZE or 0 < self.worker.limits.ws_max_queue <= self.queued_count

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
            if self.connection is not None and self.connection.full and not self.is_full():
                self.connection.go_on()
            return message
        if self.disconnected:
            return {"type": WEBSOCKET_DISCONNECT, "code": self.close_code, "reason": self.close_reason}
        return None

    # --- Outbound ---

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
                return READY            # it is closed already
            raise ClientDisconnected("the client has disconnected")
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after the WebSocket was closed.")
        raise RuntimeError(f"Expected ASGI message {expected}, but got '{kind}'.")

    cdef object take_accept(self, dict message):
        cdef object subprotocol = message.get("subprotocol")
        cdef list fields = []
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
        if not self.worker.limits.ws_per_message_deflate:
            self.deflate = None
        if self.deflate is not None:
            fields.append((b"sec-websocket-extensions", self.deflate[0]))
        cdef HTTPExchange request = self.request
        if request is None:
            raise ClientDisconnected("the client has disconnected")     # while code of the application made values
        request.has_date = has_date
        request.has_server = has_server
        fields = checked_headers(fields)
        successor = request.put_switch(fields, self)
        self.request = None
        self.state = OPEN
        request.switch_to(successor)
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
        request.put_error(status, reason_phrase(status).encode())
        # Whether or not the client waits for the answer, receive() ends
        return self.feed_close(CLOSE_ABNORMAL, "")

    cdef int answered(self, int status) except -1:
        """Note that the handshake is denied."""
        self.state = CLOSED
        self.request = None
        self.count_finished()
        return self.log_answer(str(status))

    cdef object take_message(self, dict message):
        cdef object text = message.get("text")
        if text is None:
            data = as_bytes(WEBSOCKET_SEND, "bytes", message.get("bytes"))
            self.open_connection().put_message(False, data)
            self.worker.counts.messages_sent += 1
            return self.sent_bytes(len(data) + SEND_COST)
        # Subclasses are texts too: templates have one for texts that are safe
        if not isinstance(text, str):
            raise TypeError(f"websocket.send: text is {type(text).__name__}, str expected")
        self.open_connection().put_message(True, text)
        self.worker.counts.messages_sent += 1
        return self.sent_bytes(len(text) + SEND_COST)

    cdef MessageConnection open_connection(self):
        if self.state != OPEN or self.connection is None:
            raise ClientDisconnected("the client has disconnected")     # while code of the application made values
        return self.connection

    cdef object take_close(self, dict message):
        cdef object given = message.get("code")
        cdef str reason = message.get("reason") or ""
        cdef int code = CLOSE_NORMAL
        if given is not None:
            whole_number(given, "websocket.close: code")
            code = given
        self.open_connection().put_close(code, reason)
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

    # --- The end of the call ---

    cdef int returned(self, object exception) except -1:
        cdef bint is_fault = self.is_fault(exception)
        cdef str left_out = None
        if exception is None and self.state == CONNECTING:
            left_out = "accepting or closing the WebSocket"
        elif exception is None and self.state == DENYING:
            left_out = "completing response"
        try:
            # The call ends first: its line is to stand before a traceback, and code of the user's may run while that is
            # logged
            self.end_call(exception)
        finally:
            self.tell_end(exception, is_fault, left_out)
        return 0

    cdef int end_call(self, object exception) except -1:
        """End the WebSocket in place of an application that has returned, or raised this."""
        cdef HTTPExchange request = self.request
        cdef MessageConnection connection = self.connection
        if self.state == CONNECTING:
            self.deny(500)
        elif self.state == DENYING:
            if request.has_begun():
                self.give_up_denial()
            else:
                self.deny(500)
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

    cdef int begin_shutdown(self) except -1:
        return self.end()

    cdef int end(self) except -1:
        cdef MessageConnection connection = self.connection
        if self.state == OPEN and connection is not None:
            connection.put_close(CLOSE_SERVICE_RESTART, "")
            self.feed_close(CLOSE_SERVICE_RESTART, "")
        elif self.state == CONNECTING:
            self.deny(503)
            self.state = GONE           # so that an accept that comes late is no error
        else:
            return 0
        # A handler that does not wait for its client hears nothing of that; and the grace time is for requests
        self.worker.loop.call_later(HANDLER_END_S, self.cancel, context=PyContext_Copy(self.worker.context))
        return 0

    cdef int give_up_denial(self) except -1:
        """Give up a denial whose response will not be completed."""
        cdef HTTPExchange request = self.request
        self.count_finished()
        self.feed_disconnect()
        request.disconnected = request.gone = True
        return request.give_up()


cdef dict websocket_scope(dict scope):
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = offered_subprotocols(scope["headers"])
    scope["asgi"]["spec_version"] = "2.4"       # WebSocket specification: send() raises once the client has gone
    scope["extensions"] = {"websocket.http.response": {}}
    return scope


cdef list offered_subprotocols(list headers):
    """What Sec-WebSocket-Protocol offers (RFC 6455 section 4.1), in order, as str."""
    offered = b",".join([value for name, value in headers if name == b"sec-websocket-protocol"])
    subprotocols = [text.strip(b" \t").decode("latin-1") for text in offered.split(b",")]
    return [text for text in subprotocols if text]
