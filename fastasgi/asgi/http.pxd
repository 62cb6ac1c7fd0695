"""An exchange of the http.* messages (ASGI HTTP specification 2.5): their order, and what may stand in them.

Knows which fields of a head are not the application's to set. Must not know: sinks, sockets, how versions of HTTP
differ, how a message is framed, stream identifiers. A wire extends HTTPExchange and fills the hooks at its end.
"""

from cpython.object cimport PyObject

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.record cimport RecordedExchange
from fastasgi.core.contracts cimport Connection


cdef enum:
    BODY_HIGH = 65536                   # if more bytes wait to be received, a wire reads no more
    DISCARD_LIMIT = 1048576             # bytes of a body that nobody wants which are read to keep a connection, at most


cdef enum:                              # of HTTPExchange.state: which message is due; only http writes it
    EXPECT_START
    START_HELD                          # the start message waits for the first piece of the body: both leave together
    EXPECT_BODY                         # the head is with the wire
    EXPECT_TRAILERS
    SENDING_FILE
    COMPLETE


cdef class HTTPExchange(RecordedExchange):
    cdef:
        # Inbound: what the client has sent and the application has not received
        object body                     # bytes, or None
        list more_body                  # further pieces, or None
        Py_ssize_t body_size            # bytes in both
        bint body_received              # the application has the message with more_body False
        bint knows_of_loss              # the application has heard that the client left within its request's body
        bint wants_call                 # the wire waits for want_body(), which also follows the end of the body
        bint expects_continue           # 100 Continue is due when the application asks for the body (RFC 9110 10.1.1)

        # Outbound
        int state                       # EXPECT_START and on
        int status
        bint is_head                    # the method is HEAD
        bint bodiless                   # method HEAD, status 204 or 304: body bytes are not sent
        list headers                    # of START_HELD: checked (bytes, bytes) tuples, without transfer-encoding
        Py_ssize_t headers_size         # bytes of their names and values
        long long content_length        # what the application has declared; -1 if nothing
        bint has_date                   # the headers have a date field
        bint has_server                 # the headers have a server field
        bint wants_close                # the application sent "connection: close"
        bint has_connection             # the application sent a connection field
        bint takes_push                 # the wire has put_push()
        bint wants_trailers             # the start message promised trailers
        list trailers                   # checked (bytes, bytes) tuples of http.response.trailers, or None
        Exchange websocket              # this request opens a WebSocket, and the application talks to that; or None
        bint shut_down                  # a shutdown has disconnected this exchange: send() raises
        readonly bint client_left       # the client has left before the response was complete
        bint perhaps_gone               # the client has ended its sending side: it waits for the response, or has gone
        double dropped_since            # loop.time() of the first message that was dropped for a client gone, or 0

    cdef inline int feed_body(self, bytes piece) except -1:
        self.body_size += len(piece)
        self.body_fed += len(piece)
        if self.body is None:
            self.body = piece
        else:
            self.feed_more_body(piece)
        if self.receivers:
            self.wake_receivers()
        return 0
    cdef int feed_more_body(self, bytes piece) except -1
    cdef inline int feed_end(self) except -1:
        self.body_complete = True
        if self.receivers:
            self.wake_receivers()
        return 0

    # To be called before a piece of the body is fed: while that goes on, the application may answer and the wire end
    cdef inline void expect_piece(self, bint is_last) noexcept:
        self.expects_continue = False
        if is_last:
            self.body_complete = True
            self.wants_call = False
    # To be called after a piece: whether the wire is to read no more until want_body(), since much waits to be received
    cdef inline bint is_full(self) noexcept:
        self.wants_call = not self.body_complete and self.body_size > BODY_HIGH
        return self.wants_call

    cdef inline bint has_begun(self) noexcept:  # a part of the response is with the wire
        return self.state > START_HELD
    cdef int ask_for_body(self) except -1       # the application waits for bytes that the wire does not read
    cdef object take_values(self, dict message, PyObject** values)      # values: see read_message()
    cdef int take_start(self, PyObject** values) except -1
    cdef object take_body(self, PyObject** values)
    cdef int begin_response(self, object given_status, object headers) except -1
    cdef int put_body(self, bytes body, bint more) except -1
    cdef object take_piece(self, object file, long long offset, long long count, bint more)
    cdef object body_sent_whole(self)
    cdef int file_sent(self, bint more) except -1       # put_file() has put all of it
    cdef int take_trailers(self, dict message) except -1
    cdef int take_early_hint(self, dict message) except -1
    cdef int count_body(self, long long n, bint more) except -1
    cdef int complete(self) except -1           # the last message is with the wire
    cdef int end_response(self, object exception) except -1
    cdef int give_up(self) except -1            # there will be no last message
    cdef int release(self) except -1
    # The client can't be reached any more. status: for the access log, if the response is not complete; 0: no line
    cdef int cut_off(self, int status) except -1
    cdef int peer_has_ended(self) except -1     # the client has ended its sending side after the whole request
    cdef int switch_to(self, Connection successor) except -1     # the WebSocket is accepted: see put_switch()
    cdef int tell_response(self, int status) except -1          # records it, see RecordedExchange
    cdef int put_error(self, int status, bytes body) except -1   # answers in the application's place, and closes

    # --- What a wire does with a checked message ---

    cdef int put_response(self, bytes body, bint more) except -1        # the head, and the first piece of the body
    cdef int put_data(self, bytes body, bint more) except -1            # a further piece of the body
    cdef int want_body(self) except -1          # the application waits for more of the body: read on
    cdef int put_informational(self, int status, list headers) except -1
    cdef int put_trailers(self) except -1       # self.trailers
    # A piece of the body from a file, which is closed at its end. Returns an awaitable
    cdef object put_file(self, object file, long long offset, long long count, bint more)
    # The application accepts the WebSocket with these fields, to which has_date and has_server belong. Returns what is
    # to carry this WebSocketExchange, a MessageConnection that has still to begin; hand_over() gives it the sink, and
    # the bytes that have come behind the handshake
    cdef Connection put_switch(self, list headers, Exchange websocket)
    cdef int hand_over(self, Connection successor) except -1
    # Another request, a GET of this path with these fields, is to be answered before the client sends it, if that is
    # allowed (ASGI extension "HTTP/2 Server Push")
    cdef int put_push(self, str path, list headers) except -1
    # The response can't be completed. has_begun: a part of it is with the wire
    cdef int reset(self, bint has_begun) except -1
    cdef int ended(self) except -1              # the response is complete


# A number in an application's message. Raises TypeError, which names `what`, for a float or anything else
cdef Py_ssize_t whole_number(object given, str what) except? -1
# Headers as a list of (bytes, bytes) tuples. Raises TypeError or FieldError for what may not stand on a wire
cdef list checked_headers(object headers)
