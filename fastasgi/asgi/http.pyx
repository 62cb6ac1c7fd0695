"""See http.pxd for the contracts."""

import asyncio
import errno
import os
import stat
import sys

from cpython.contextvars cimport PyContext_Copy
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport INT64_MAX

from fastasgi.core.contracts cimport Connection, WorkerContext
from fastasgi.core.errorlog cimport type_name
from fastasgi.codecs.heads cimport check_value
from fastasgi.codecs.text cimport equals_folded, is_token, read_decimal, span_of
from fastasgi.asgi.exchange cimport READY, Exchange, PauseCall, as_bytes
from fastasgi.asgi.record cimport RecordedExchange

from fastasgi.codecs.heads import FieldError
from fastasgi.asgi.exchange import ClientDisconnected

cdef extern from "Python.h":
    PyObject* PyErr_Occurred() noexcept
    PyObject* PyDict_GetItemWithError(object mapping, object key) noexcept

CancelledError = asyncio.CancelledError

cdef enum:
    MOST_DIGITS = 19                    # of a Content-Length: as many as 2**63 - 1 has
    CLIENT_CLOSED_REQUEST = 499         # only for the access log, as in nginx's: no response has this status

cdef double PERHAPS_GONE_S = 2.0        # the time for a response to begin, see peer_has_ended()
cdef double SENDS_TO_NOBODY_S = 5.0     # the time in which messages are dropped before send() raises

cdef str HTTP_REQUEST = "http.request"
cdef str HTTP_DISCONNECT = "http.disconnect"
cdef str HTTP_START = "http.response.start"
cdef str HTTP_BODY = "http.response.body"
cdef str HTTP_TRAILERS = "http.response.trailers"
cdef str HTTP_EARLY_HINT = "http.response.early_hint"
cdef str HTTP_PATHSEND = "http.response.pathsend"
cdef str HTTP_ZEROCOPYSEND = "http.response.zerocopysend"
cdef str HTTP_PUSH = "http.response.push"
cdef str HTTP_DEBUG = "http.response.debug"     # ASGI extension "Debug": for test clients, and servers pass over it

# Fields that a recipient needs before the body, or that frame the message
cdef frozenset NO_TRAILERS = frozenset((
    b"connection", b"content-encoding", b"content-length", b"content-range", b"content-type", b"host", b"keep-alive",
    b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade"))


cdef enum:
    TYPE
    STATUS
    HEADERS
    BODY
    MORE_BODY
    TRAILERS
    FIELD_COUNT

# The keys of the messages that every response consists of. They are interned, as an application's constants are
cdef tuple FIELD_NAMES = tuple([sys.intern(name) for name in (
    "type", "status", "headers", "body", "more_body", "trailers")])
cdef PyObject* FIELDS[FIELD_COUNT]
for field_index, field_name in enumerate(FIELD_NAMES):
    FIELDS[field_index] = <PyObject*>field_name


cdef class HTTPExchange(RecordedExchange):

    def __cinit__(self):
        self.content_length = -1

    # --- Inbound ---

    cdef int feed_more_body(self, bytes piece) except -1:
        if self.more_body is None:
            self.more_body = []
        self.more_body.append(piece)
        return 0

    cdef object next_message(self):
        cdef object body
        if self.disconnected or self.state == COMPLETE:
            self.knows_of_loss = self.gone and not self.body_complete and self.state != COMPLETE
            return {"type": HTTP_DISCONNECT}
        if self.body is None and (not self.body_complete or self.body_received):
            if self.wants_call:
                self.ask_for_body()
            return None
        body = self.body if self.body is not None else b""
        if self.more_body is not None:
            self.more_body.insert(0, body)
            body = b"".join(self.more_body)
            self.more_body = None
        self.body = None
        self.body_size = 0
        self.body_received = self.body_complete
        if self.wants_call:
            self.ask_for_body()
        return {"type": HTTP_REQUEST, "body": body, "more_body": not self.body_received}

    cdef int ask_for_body(self) except -1:
        self.wants_call = False
        if self.expects_continue:
            self.expects_continue = False
            # RFC 9110 sections 10.1.1 and 15.2: it is due when the body is asked for, unless the response has begun
            if not (self.has_begun() or self.gone):
                self.put_informational(100, [])
        return self.want_body()

    # --- Outbound ---

    cdef int start(self) except -1:
        return Exchange.start(self) if self.websocket is None else self.websocket.start()

    cdef object take(self, object message):
        cdef PyObject* values[FIELD_COUNT]
        if type(message) is not dict:
            message = dict(message)
        try:
            read_message(message, values)
            return self.take_values(message, values)
        finally:
            for value in values:
                Py_XDECREF(value)

    cdef object take_values(self, dict message, PyObject** values):
        cdef object kind
        if values[TYPE] is NULL:
            raise KeyError("type")
        kind = <object>values[TYPE]
        if self.state == COMPLETE:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        if self.gone:
            self.send_to_nobody()
            return PauseCall.__new__(PauseCall)
        if self.state == EXPECT_START:
            if kind == HTTP_START:
                self.take_start(values)
                return READY
            if kind == HTTP_EARLY_HINT:
                self.take_early_hint(message)
                return self.sent()
            expected = HTTP_START
        elif self.state == START_HELD or self.state == EXPECT_BODY:
            if kind == HTTP_BODY:
                return self.take_body(values)
            if kind == HTTP_PATHSEND or kind == HTTP_ZEROCOPYSEND:
                return take_file(self, kind, message)
            expected = HTTP_BODY
        elif self.state == EXPECT_TRAILERS:
            if kind == HTTP_TRAILERS:
                self.take_trailers(message)
                return self.sent()
            expected = HTTP_TRAILERS
        else:
            raise RuntimeError(f"ASGI message '{kind}' sent while a file is being sent.")
        if kind == HTTP_PUSH and self.takes_push:
            self.put_push(message["path"], checked_headers(message.get("headers", ())))
            return self.sent()
        if kind == HTTP_DEBUG:
            return READY
        raise RuntimeError(f"Expected ASGI message '{expected}', but got '{kind}'.")

    cdef int take_start(self, PyObject** values) except -1:
        if values[STATUS] is NULL:
            raise KeyError("status")
        cdef bint wants_trailers = values[TRAILERS] is not NULL and <object>values[TRAILERS]
        self.begin_response(<object>values[STATUS], <object>values[HEADERS] if values[HEADERS] is not NULL else ())
        self.wants_trailers = wants_trailers
        return 0

    cdef int begin_response(self, object given_status, object headers) except -1:
        """Check and hold what starts the response."""
        cdef Py_ssize_t status
        cdef bytes name, value
        cdef Py_ssize_t length
        cdef bint has_coding = False
        status = given_status if type(given_status) is int else whole_number(
            given_status, "http.response.start: status")
        if not 200 <= status <= 999:
            raise ValueError(f"http.response.start: status {status} is not a final status code, 200 to 999")
        cdef list checked = checked_headers(headers)
        if self.state != EXPECT_START:
            raise ClientDisconnected("the client has disconnected")     # while code of the application made headers
        self.headers = checked
        self.headers_size = 0
        self.content_length = -1
        self.has_date = self.has_server = self.wants_close = self.has_connection = False
        for pair in self.headers:
            name = <bytes>(<tuple>pair)[0]
            value = <bytes>(<tuple>pair)[1]
            length = len(name)
            if length == 4:
                self.has_date = self.has_date or equals_folded(span_of(name), b"date", 4)
            elif length == 6:
                self.has_server = self.has_server or equals_folded(span_of(name), b"server", 6)
            elif length == 10 and equals_folded(span_of(name), b"connection", 10):
                self.has_connection = True
                if b"close" in [token.strip() for token in value.lower().split(b",")]:
                    self.wants_close = True
            elif length == 14 and equals_folded(span_of(name), b"content-length", 14):
                if self.content_length >= 0:
                    raise ValueError("http.response.start: content-length is given twice")
                self.content_length = read_decimal(span_of(value), INT64_MAX) if len(value) <= MOST_DIGITS else -1
                if self.content_length < 0:
                    raise ValueError(f"http.response.start: content-length {value!r} is not a number of bytes")
            elif length == 17 and equals_folded(span_of(name), b"transfer-encoding", 17):
                has_coding = True
            self.headers_size += length + len(value)
        if has_coding:      # codings are the server's business (ASGI HTTP specification, "Response Start")
            self.headers = [
                pair for pair in self.headers
                if not equals_folded(span_of(<bytes>(<tuple>pair)[0]), b"transfer-encoding", 17)]
        self.status = <int>status
        self.bodiless = self.is_head or status == 204 or status == 304
        self.state = START_HELD
        return 0

    cdef object take_body(self, PyObject** values):
        cdef object value = <object>values[BODY] if values[BODY] is not NULL else b""
        cdef bint more = values[MORE_BODY] is not NULL and <object>values[MORE_BODY]
        cdef bytes body = value if type(value) is bytes else as_bytes(HTTP_BODY, "body", value)
        self.put_body(body, more)
        return self.sent_bytes(len(body)) if more else self.body_sent_whole()

    cdef int put_body(self, bytes body, bint more) except -1:
        self.count_body(len(body), more)
        if self.state != START_HELD:
            return self.put_data(body, more)
        self.put_response(body, more)
        self.headers = None
        self.state = EXPECT_BODY
        if more:
            self.note_first_byte()
        if self.perhaps_gone:
            self.tell_disconnect()
        return 0

    cdef object body_sent_whole(self):
        if self.wants_trailers:
            self.state = EXPECT_TRAILERS
        else:
            self.complete()
        return READY

    cdef int count_body(self, long long n, bint more) except -1:
        """Hold the application to the content-length it declared (RFC 9110 section 8.6)."""
        self.body_sent += n
        if self.content_length < 0 or self.bodiless:
            return 0
        if self.body_sent > self.content_length:
            self.body_sent -= n
            raise RuntimeError("Response content longer than Content-Length")
        if not more and self.body_sent < self.content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        return 0

    cdef object take_piece(self, object file, long long offset, long long count, bint more):
        self.count_body(count, more)
        if self.state == START_HELD:
            if self.content_length < 0 and not more and not self.wants_trailers and (self.is_head or not self.bodiless):
                length = b"%d" % count
                self.headers.append((b"content-length", length))
                self.headers_size += 14 + len(length)
                self.content_length = count
            self.put_response(b"", True)
            self.note_first_byte()
            self.headers = None
        self.state = SENDING_FILE
        return self.put_file(file, offset, 0 if self.bodiless else count, more)

    cdef int file_sent(self, bint more) except -1:
        self.state = EXPECT_BODY
        if not more:
            self.body_sent_whole()
        elif self.perhaps_gone:
            self.tell_disconnect()
        return 0

    cdef int take_trailers(self, dict message) except -1:
        cdef list trailers = checked_headers(message.get("headers", ()))
        for name, _ in trailers:
            if name.lower() in NO_TRAILERS:
                raise ValueError(f"http.response.trailers: {name!r} may not be a trailer (RFC 9110 section 6.5.1)")
        self.trailers = trailers if self.trailers is None else self.trailers + trailers
        if not message.get("more_trailers", False):
            self.put_trailers()
            self.complete()
        return 0

    cdef int take_early_hint(self, dict message) except -1:
        links = checked_headers([(b"link", link) for link in message.get("links", ())])
        return self.put_informational(103, links)

    cdef int complete(self) except -1:
        self.state = COMPLETE
        self.count_finished()
        self.ended()
        self.tell_response(self.status)
        return self.release()

    cdef int release(self) except -1:
        """Wake whoever waits: nothing will come or go any more."""
        if self.receivers:
            self.wake_receivers()
        if self.blocked:
            self.unblock()
        return 0

    cdef int switch_to(self, Connection successor) except -1:
        self.state = COMPLETE
        self.tell_response(101)
        return self.hand_over(successor)

    cdef int begin_shutdown(self) except -1:
        # A request has its grace time. If it opens a WebSocket, it ends as WebSockets do
        return self.websocket.begin_shutdown() if self.websocket is not None and self.worker.ends_websockets else 0

    cdef int tell_response(self, int status) except -1:
        cdef bint is_aborted = status == CLIENT_CLOSED_REQUEST and self.state != COMPLETE
        return self.record(status, is_aborted, 0 if self.bodiless else self.body_sent) if self.worker.observes else 0

    cdef int feed_disconnect(self) except -1:
        if self.websocket is not None:
            self.disconnected = self.gone = True
            self.tell_response(CLIENT_CLOSED_REQUEST)
            self.release()
            return self.websocket.feed_disconnect()
        self.client_left = self.state != COMPLETE
        return self.cut_off(CLIENT_CLOSED_REQUEST)

    cdef int cut_off(self, int status) except -1:
        if self.state != COMPLETE and status:
            self.tell_response(status)
        self.body = self.more_body = None
        self.body_size = 0
        return Exchange.feed_disconnect(self)

    def disconnect(self):
        """Tell the application that its client has gone, whether or not it has. The response is not completed."""
        self.shut_down = True
        self.cut_off(self.status if self.has_begun() else 0)

    cdef int peer_has_ended(self) except -1:
        """If a client has only shut its sending side (`nc -N`, a TLS close_notify), it waits for the response. But most
        have closed, which looks the same until a write fails. Frameworks such as Django and Quart drop a response when
        they hear of a disconnect: so they hear of it when the first part has left, or when it is late."""
        if self.perhaps_gone or self.disconnected:
            return 0
        self.perhaps_gone = True
        if self.has_begun():
            return self.tell_disconnect()
        self.worker.loop.call_later(PERHAPS_GONE_S, self.expect_no_more, context=PyContext_Copy(self.worker.context))
        return 0

    def expect_no_more(self):
        """The callback of peer_has_ended()."""
        cdef WorkerContext worker = self.worker
        cdef bint was = worker.enter()
        try:
            if not self.disconnected:
                self.tell_disconnect()
        finally:
            worker.leave(was)

    cdef int send_to_nobody(self) except -1:
        """Do nothing at first: applications expect that, and with an exception each client that leaves would be an
        event in an error tracker. But raise after SENDS_TO_NOBODY_S, since nothing is to stream for ever."""
        cdef double now = self.worker.loop.time()
        if self.dropped_since == 0:
            self.dropped_since = now
        if now - self.dropped_since >= SENDS_TO_NOBODY_S or self.shut_down:
            raise ClientDisconnected("the client has disconnected")
        return 0

    # --- The end of the call ---

    cdef int returned(self, object exception) except -1:
        if exception is None and self.state == COMPLETE:
            return 0
        cdef bint is_lost = self.knows_of_loss and issubclass(type(exception), Exception)
        cdef bint is_fault = not is_lost and self.is_fault(exception)
        cdef str left_out = None
        if exception is None and not self.disconnected:
            left_out = "starting response" if self.state == EXPECT_START else "completing response"
        try:
            # The response ends first: its line in the access log is to stand before a traceback, and code of the user's
            # may run while that is logged
            if self.state != COMPLETE:
                self.end_response(exception)
        finally:
            if is_lost:
                # An application that lacks its input may raise, as Starlette raises ClientDisconnect: no fault
                self.worker.logger.info("The client left within its request's body: %s", type_name(exception))
            else:
                self.tell_end(exception, is_fault, left_out)
        return 0

    cdef int end_response(self, object exception) except -1:
        """End the response in place of an application that has returned, or raised this, before it was complete."""
        is_over = exception is None or issubclass(type(exception), CancelledError)
        if self.gone or self.has_begun() or (self.disconnected and is_over):
            return self.give_up()
        return self.put_error(500, b"Internal Server Error")

    cdef int give_up(self) except -1:
        if self.perhaps_gone:
            self.tell_response(CLIENT_CLOSED_REQUEST)
        elif self.has_begun():
            self.tell_response(self.status)
        cdef bint has_begun = self.has_begun()
        self.state = COMPLETE
        self.reset(has_begun)
        return self.release()

    cdef int put_error(self, int status, bytes body) except -1:
        if self.gone:
            return self.give_up()
        self.state = EXPECT_START
        self.body_sent = 0
        self.taking = True              # meanwhile a finalizer's send() is refused
        try:
            self.begin_response(
                status, [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")])
            self.wants_trailers = False
            self.put_body(body, False)
        finally:
            self.taking = False
        return self.complete()

    cdef int put_response(self, bytes body, bint more) except -1:
        raise NotImplementedError

    cdef int put_data(self, bytes body, bint more) except -1:
        raise NotImplementedError

    cdef int want_body(self) except -1:
        raise NotImplementedError

    cdef int put_informational(self, int status, list headers) except -1:
        raise NotImplementedError

    cdef int put_trailers(self) except -1:
        raise NotImplementedError

    cdef object put_file(self, object file, long long offset, long long count, bint more):
        raise NotImplementedError

    cdef Connection put_switch(self, list headers, Exchange websocket):
        raise NotImplementedError

    cdef int hand_over(self, Connection successor) except -1:
        raise NotImplementedError

    cdef int put_push(self, str path, list headers) except -1:
        raise NotImplementedError

    cdef int reset(self, bint has_begun) except -1:
        raise NotImplementedError

    cdef int ended(self) except -1:
        raise NotImplementedError


cdef object take_file(HTTPExchange exchange, str kind, dict message):
    """http.response.pathsend and http.response.zerocopysend: a file's bytes as a piece of the body."""
    cdef object file = opened_file(kind, message)
    try:
        offset, count, more = file_piece(file, kind, message)
        return exchange.take_piece(file, offset, count, more)
    except BaseException:
        file.close()
        raise


cdef object opened_file(str kind, dict message):
    cdef object given
    if kind == HTTP_PATHSEND:
        return open_regular(message["path"])
    given = message["file"]
    # A descriptor of our own: the application may close its own once send() has returned
    return os.fdopen(os.dup(given.fileno() if hasattr(given, "fileno") else given), "rb", buffering=0)


cdef tuple file_piece(object file, str kind, dict message):
    """What a message asks for of its file: the offset, the number of bytes, and whether more body follows."""
    cdef object given
    cdef long long offset = 0
    cdef long long count, most
    cdef bint more = False
    if kind == HTTP_ZEROCOPYSEND:
        more = message.get("more_body", False)
        given = message.get("offset")
        offset = file.tell() if given is None else whole_number(given, f"{kind}: offset")
    if offset < 0:
        raise ValueError(f"{kind}: offset {offset} is negative")
    count = max(0, os.fstat(file.fileno()).st_size - offset)
    if kind == HTTP_ZEROCOPYSEND:
        given = message.get("count")
        if given is not None:
            most = whole_number(given, f"{kind}: count")
            if most < 0:
                raise ValueError(f"{kind}: count {most} is negative")
            count = min(count, most)
        if message.get("offset") is None:
            # As sendfile() does if it is given no offset
            file.seek(offset + count)
    return offset, count, more


cdef object open_regular(path):
    """Open a regular file for reading. Anything else has no size, and opening it might block: OSError."""
    cdef int fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "http.response.pathsend: not a regular file", os.fspath(path))
    except BaseException:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb", buffering=0)


cdef int read_message(dict message, PyObject** values) except -1:
    """Find the values of the usual keys; NULL if there is none. The caller owns a reference to each, also if this
    raises: what follows may run code of the application that changes its message. That begins here, with the comparison
    of keys that are not interned; interned ones are compared by identity, in one pass."""
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t position = 0
    cdef bint has_others = False
    cdef int i
    for i in range(FIELD_COUNT):
        values[i] = NULL
    while PyDict_Next(message, &position, &key, &value):
        for i in range(FIELD_COUNT):
            if key is FIELDS[i]:
                Py_INCREF(<object>value)
                values[i] = value
                break
        else:
            has_others = True
    if has_others:
        for i in range(FIELD_COUNT):
            if values[i] is NULL:
                values[i] = PyDict_GetItemWithError(message, <object>FIELDS[i])
                if values[i] is not NULL:
                    Py_INCREF(<object>values[i])
                elif PyErr_Occurred() is not NULL:
                    return -1
    return 0


cdef Py_ssize_t whole_number(object given, str what) except? -1:
    if not hasattr(type(given), "__index__"):
        raise TypeError(f"{what} is {type_name(given)}, int expected")
    return given


cdef list checked_headers(object headers):
    cdef list checked = list(headers)
    cdef bytes name, value
    cdef object pair
    cdef Py_ssize_t i
    for i in range(len(checked)):
        pair = checked[i]
        if type(pair) is not tuple or len(<tuple>pair) != 2 or type((<tuple>pair)[0]) is not bytes \
                or type((<tuple>pair)[1]) is not bytes:
            pair = checked[i] = as_field(pair)
        name = <bytes>(<tuple>pair)[0]
        value = <bytes>(<tuple>pair)[1]
        if not is_token(<char*>name, len(name)):
            raise FieldError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
        if not check_value(<char*>value, len(value)):
            raise FieldError(f"header {name!r}: the value {value!r} has a CR, LF or NUL (RFC 9110 section 5.5)")
    return checked


cdef tuple as_field(object pair):
    name, value = pair
    for part in (name, value):
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(f"header {name!r}: {part!r} is {type(part).__name__}, bytes expected")
    return bytes(name), bytes(value)
