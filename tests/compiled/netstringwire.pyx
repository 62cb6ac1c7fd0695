# cython: language_level=3
"""A second wire for tests: HTTP exchanges and WebSockets in netstrings, on what fastasgi offers to any wire.

netstringclient.py says what goes over it. The duties of a wire, for whoever writes another one:

- Say how clients ask for it (Wire), and put a connection on each new sink.
- Find requests in bytes that come in any pieces; begin none before its turn, nor while the client does not read.
- Make the scope, and start the exchange once what has come of its body is fed.
- Refuse what can't be understood and what the limits refuse; say so in the logs.
- Write what the exchange hands over; tell it when the client reads too slowly (`blocked`) and when no longer.
- Read no more while the application has much to receive, or much waits for its turn.
- End with a response behind which none may come, or that can't be completed; else go on with what is held.
- Hand the sink over to a WebSocket.
- Tell the exchange when its client has gone. One that has only ended its side gets what it has asked for.
- Bound the time for all that is due of the client.
- Drain: an idle connection ends, another one with the exchange that runs.
- Part exchange and connection, which refer to each other, when either is over.

Left out here: files, the server's own fields, the time for a whole head.
"""

import re
from urllib.parse import unquote

from libc.string cimport memmove

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport DISCARD_LIMIT, HTTPExchange
from fastasgi.asgi.httpconnection cimport TOO_LARGE, HTTPConnection
from fastasgi.codecs.heads cimport reason_phrase
from fastasgi.core.contracts cimport PEER_IS_GONE, ByteSink, Connection, Wire, WorkerContext
from fastasgi.core.counters cimport HTTP_1_1
from fastasgi.wires.websocket cimport new_websocket

from fastasgi.asgi.exchange import ClientDisconnected

PREFACE = b"netstrings\n"
LENGTH = re.compile(rb"(?:netstrings\n)?(\d{1,5}):")
cdef int MOST_HELD = 131072             # bytes, more than of any netstring
cdef dict EXTENSIONS = {"http.response.early_hint": {}, "http.response.trailers": {}}


cdef class NetstringWire(Wire):

    def __init__(self):
        Wire.__init__(self, preface=PREFACE, alpn="netstrings")

    cdef Connection open(self, WorkerContext worker, ByteSink sink):
        cdef NetstringConnection connection = NetstringConnection.__new__(NetstringConnection)
        connection.begin_on(worker, sink, worker.limits.timeout_request_head)
        return connection


cdef class NetstringExchange(HTTPExchange):
    cdef NetstringConnection connection     # None once the response is complete or the connection lost

    cdef int put(self, bytes kind, bytes data, bint more) except -1:
        if self.connection is None:
            raise ClientDisconnected("the client has disconnected")
        self.connection.put(kind, data)
        if more:
            self.connection.sink.push(False)
            self.blocked = self.connection.sink.blocked
        return 0

    cdef int put_response(self, bytes body, bint more) except -1:
        self.put(b"S", b"%d\n" % self.status + lines(self.headers), False)
        return self.put_data(body, more)

    cdef int put_data(self, bytes body, bint more) except -1:
        if body and not self.bodiless:
            self.put(b"B", body, more)
        return 0 if more or self.wants_trailers else self.put(b"E", b"", False)

    cdef int put_informational(self, int status, list headers) except -1:
        return self.put(b"I", b"%d\n" % status + lines(headers), True)

    cdef int put_trailers(self) except -1:
        self.put(b"T", lines(self.trailers), False)
        return self.put(b"E", b"", False)

    cdef int want_body(self) except -1:
        return 0 if self.connection is None else self.connection.go_on()

    cdef Connection put_switch(self, list headers, Exchange websocket):
        self.put(b"A", lines(headers), False)
        return new_websocket(websocket)

    cdef int hand_over(self, Connection successor) except -1:
        cdef NetstringConnection connection = self.connection
        self.connection = connection.exchange = None
        return connection.switch_to(successor)

    cdef int reset(self, bint has_begun) except -1:
        return self.leave(True)

    cdef int ended(self) except -1:
        return self.leave(self.wants_close or self.worker.draining or self.worker.limits.timeout_keep_alive <= 0)

    cdef int leave(self, bint is_last) except -1:
        cdef NetstringConnection connection = self.connection
        self.connection = None
        return 0 if connection is None else connection.response_done(is_last)


cdef class NetstringConnection(HTTPConnection):
    cdef NetstringExchange exchange     # whose response is not complete, or None
    cdef bint start_is_due              # the exchange waits for what came of its body
    cdef bint body_is_due               # the end of the last request has not come
    cdef bytes piece                    # of the body, not fed yet
    cdef Py_ssize_t body_read           # bytes
    cdef bint peer_is_done              # it sends nothing more, and perhaps waits for answers

    cdef int put(self, bytes kind, bytes data) except -1:
        cdef bytes text = b"%d:%b%b," % (len(data) + 1, kind, data)
        return self.sink.put(text, len(text))

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        if self.sink.closing:
            return 0
        self.hold_bytes(p, n, MOST_HELD)
        return self.resume_held()

    cdef int resume_held(self) except -1:
        while self.sink is not None and not self.sink.closing and (
                self.body_is_due or (self.exchange is None and not self.sink.blocked)):
            message = self.next_message()
            if message is None:
                break
            self.understand(message[:1], message[1:])
        if self.body_is_due:
            self.feed()
        return self.go_on()

    cdef bytes next_message(self):
        """The next netstring's text, or None if it has not come whole."""
        cdef bytes held = self.held[:min(self.held_length, MOST_HELD)]
        length = LENGTH.match(held)
        cdef Py_ssize_t end
        if length is None:
            if len(held) > len(PREFACE) + 5:
                self.sink.abort()
            return None
        end = length.end() + int(length[1])
        if end >= len(held):
            return None
        self.held_length -= end + 1
        memmove(self.held, self.held + end + 1, self.held_length)
        return held[length.end():end]

    cdef int understand(self, bytes kind, bytes data) except -1:
        if self.body_is_due and kind == b"B":
            self.piece += data
        elif self.body_is_due and kind == b"E":
            self.body_is_due = False
            self.feed()
        elif not self.body_is_due and kind in (b"R", b"W") and data:
            self.begin(kind == b"W", *data.split(b"\n"))
        else:
            self.sink.abort()
        return 0

    cdef int go_on(self) except -1:
        """Write, read or not, and watch the client, as it is due after what has been understood."""
        if self.sink is None or self.sink.closing:
            return 0
        self.sink.push(True)
        if self.held_length > MOST_HELD or (self.exchange is not None and self.exchange.wants_call):
            self.pause_reading()
        else:
            self.resume_reading()
        self.watches_peer = self.exchange is not None and (self.paused or self.peer_is_done)
        self.watch_client()
        return self.settle_eof() if self.peer_is_done and self.sink is not None else 0

    # --- Requests ---

    def begin(self, bint opens_websocket, bytes line, *fields):
        cdef NetstringExchange exchange = NetstringExchange.__new__(NetstringExchange)
        method, _, target = (b"GET " + line if opens_websocket else line).partition(b" ")
        path, _, query = target.partition(b"?")
        headers = [(name.lower(), value) for name, _, value in [field.partition(b": ") for field in fields if field]]
        scope = self.new_scope(
            "1.1", method.decode("latin-1"), unquote(path), path, query, headers, True, EXTENSIONS, None)
        if opens_websocket:
            self.begin_websocket(exchange, scope, None)
        else:
            self.begin_request(exchange, scope)
        exchange.connection = self
        exchange.is_head = method == b"HEAD"
        self.exchange = exchange
        self.piece = b""
        self.body_read = 0
        self.body_is_due = not opens_websocket
        self.start_is_due = True
        self.count_request(exchange, method.decode("latin-1"), HTTP_1_1)
        reason = self.unavailable(scope, opens_websocket)
        if reason is not None:
            self.refuse(503, reason)
        elif opens_websocket:
            self.feed()

    cdef int feed(self) except -1:
        """What has come of the body is the application's."""
        cdef NetstringExchange exchange = self.exchange
        cdef bytes piece = self.piece
        self.piece = b""
        self.body_read += len(piece)
        if exchange is None:
            return self.close() if self.body_read > DISCARD_LIMIT else 0
        if self.exceeds_body_limit(self.body_read):
            return self.refuse(413, TOO_LARGE)
        exchange.expect_piece(not self.body_is_due)
        if piece:
            exchange.feed_body(piece)
        elif not self.body_is_due:
            exchange.feed_end()
        exchange.is_full()
        if self.start_is_due:
            self.start_is_due = False
            exchange.start()
        return 0

    cdef int refuse(self, int status, str reason) except -1:
        """Answer in the application's place, if it has not begun to, and close."""
        cdef NetstringExchange exchange = self.exchange
        cdef bytes text = reason_phrase(status).encode()
        if not exchange.has_begun():
            self.log_refusal(exchange.scope, status, reason, len(text), exchange.started_ns)
            fields = [(b"content-type", b"text/plain; charset=utf-8")] + [(b"retry-after", b"1")] * (status == 503)
            self.put(b"S", b"%d\n" % status + lines(fields))
            if not exchange.is_head:
                self.put(b"B", text)
            self.put(b"E", b"")
        self.exchange = exchange.connection = None
        exchange.cut_off(exchange.status if exchange.has_begun() else 0)
        return self.close()

    # --- Ends ---

    cdef int response_done(self, bint is_last) except -1:
        self.exchange = None
        if is_last:
            return self.close()
        self.sink.push(True)
        return self.schedule_resume()

    cdef int close(self) except -1:
        """End after what was put: gently while the client sends, since it might lose that by a reset."""
        cdef bint sends = not self.peer_is_done and (self.body_is_due or self.held_length)
        self.body_is_due = False
        if self.sink is None or self.sink.closing:
            return 0
        self.expect_close()
        self.resume_reading()
        return self.sink.end_gently() if sends else self.sink.end()

    cdef int on_lost(self) except -1:
        cdef NetstringExchange exchange = self.exchange
        self.exchange = None
        self.body_is_due = False
        if exchange is None:
            return 0
        exchange.connection = None
        return exchange.feed_disconnect()

    cdef int eof(self) except -1:
        self.peer_is_done = True
        return self.settle_eof()

    cdef int settle_eof(self) except -1:
        """Whether the client, which sends nothing more, may wait for answers: 1, or 0 if the connection ends now."""
        if self.exchange is not None and self.exchange.body_complete and self.exchange.websocket is None:
            self.watches_peer = True
            self.exchange.peer_has_ended()
            return 1
        if self.exchange is None and self.held_length and (self.resume_is_scheduled or self.sink.blocked):
            return 1
        self.on_lost()
        return self.close()

    cdef int watch(self) except -1:
        return self.sink.abort() if self.sink.peer_state() == PEER_IS_GONE else 0

    cdef int drain_and_close(self, double delay_s) except -1:
        if self.exchange is not None:
            return self.exchange.begin_shutdown()
        if self.scope_template is None:
            self.expect_first_request()
            return 0
        return 0 if self.worker.keeps_idle else self.close()

    # --- A slow client ---

    cdef int watch_client(self) except -1:
        if self.sink is None or self.sink.closing or self.scope_template is None:
            return 0
        return self.bound_time(self.exchange, self.body_is_due)

    cdef int stalled(self) except -1:
        return self.watch_client()

    cdef int writable(self) except -1:
        self.watch_client()
        return self.schedule_resume() if self.exchange is None else self.exchange.unblock()

    cdef int expire(self) except -1:
        cdef Py_ssize_t unsent = 0 if self.sink is None else self.sink.unsent()
        if self.sink is None:
            return 0
        if unsent or self.sink.blocked:
            return 0 if self.may_take_longer(unsent) else self.sink.reset()
        if self.sink.closing:
            return self.sink.abort()
        if self.unsent:                 # it has taken all only now
            return self.watch_client()
        if self.exchange is None:
            return self.close()
        return 0 if self.exchange.has_begun() else self.refuse(408, "it did not arrive within timeout_request_body")


cdef bytes lines(list fields):
    return b"".join([b"%b: %b\n" % field for field in fields])
