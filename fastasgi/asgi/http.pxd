"""An exchange of the http.* messages (ASGI HTTP specification 2.5): their order, and what may stand in them.

Must not know: what a sink is for, transports, HTTP versions, chunking, stream identifiers. A wire's stream object
extends HTTPExchange with the hooks at its end.
"""

from cpython.object cimport PyObject

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext


cdef enum:
    EXPECT_START
    EXPECT_BODY
    EXPECT_TRAILERS
    SENDING_FILE
    COMPLETE


cdef class HTTPExchange(Exchange):
    cdef:
        # Inbound: what the client has sent and the application has not received
        object body                     # bytes, or None
        list more_body                  # further pieces, or None
        Py_ssize_t body_size            # bytes in both
        bint body_complete              # the client has sent all of it
        bint body_received              # the application has the message with more_body False
        bint knows_of_loss              # it has heard that its client went before it had sent the whole body
        bint wants_call                 # the wire waits for want_body()

        # Outbound
        int state                       # EXPECT_START and on
        int status
        bint is_head                    # the method is HEAD
        bint bodiless                   # HEAD, 204 or 304: body bytes are not sent
        list headers                    # checked (bytes, bytes) tuples, without transfer-encoding
        Py_ssize_t headers_size         # bytes of names and values
        long long content_length        # that the application declared; -1: none
        long long body_sent             # bytes given to the wire
        Py_ssize_t unyielded            # bytes sent since the application last let others run
        bint has_date
        bint has_server
        bint wants_close                # the application sent "connection: close"
        bint has_connection             # the application sent a connection field
        bint wants_trailers             # the start message promised trailers
        list trailers
        double started_at               # time.perf_counter of the head's arrival, where the access log is on
        bint shut_down                  # by the server: send() raises
        readonly bint client_left       # before the response was complete
        bint perhaps_gone               # the client has sent all it will: it waits for the response, or has gone
        double dropped_since            # loop.time() of the first message after the client had gone, or 0

    cdef inline int feed_body(self, bytes piece) except -1:
        self.body_size += len(piece)
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

    cdef inline bint has_begun(self) noexcept:  # a part of the response is with the wire
        return self.state != EXPECT_START and self.headers is None
    cdef object take_values(self, dict message, PyObject** values)      # values: see read_message()
    cdef int take_start(self, PyObject** values) except -1
    cdef object take_body(self, PyObject** values)
    cdef int begin_response(self, object given_status, object headers) except -1
    cdef int put_body(self, bytes body, bint more) except -1
    cdef object take_file(self, str kind, dict message)
    cdef object body_sent_whole(self)
    cdef int file_sent(self, bint more) except -1       # put_file() has put all of it
    cdef int take_trailers(self, dict message) except -1
    cdef int take_early_hint(self, dict message) except -1
    cdef int count_body(self, long long n, bint more) except -1
    cdef int complete(self) except -1           # the last message is with the wire
    cdef int end_response(self, object exception) except -1
    cdef int give_up(self) except -1            # there will be no last message
    cdef int release(self) except -1
    # The client can't be reached any more. The access log says this status of an incomplete response; 0: nothing
    cdef int cut_off(self, int status) except -1
    cdef int peer_has_ended(self) except -1     # behind the whole request
    cdef int log_access(self, int status) except -1      # once
    cdef int put_error(self, int status, bytes body) except -1   # answer in the application's place, and close

    # What a wire does with a checked message
    cdef int put_response(self, bytes body, bint more) except -1        # head, and the first piece of the body
    cdef int put_data(self, bytes body, bint more) except -1
    cdef int want_body(self) except -1          # the application asks for what has not come
    cdef int put_informational(self, int status, list headers) except -1
    cdef int put_trailers(self) except -1       # self.trailers
    cdef object put_file(self, object file, long long offset, long long count, bint more)   # closes it; an awaitable
    # The client's switch of protocols is accepted with these fields; has_date and has_server are of them. The sink
    # carries the other protocol from here on; switch_to() then gives it its connection, and that the bytes which have
    # come already.
    cdef ByteSink put_switch(self, list headers)
    cdef int switch_to(self, Connection connection) except -1
    cdef int reset(self) except -1              # the response can't be completed
    cdef int ended(self) except -1              # the response is complete


# An application's number, of which a float is none; raises TypeError, where `what` names it
cdef Py_ssize_t whole_number(object given, str what) except? -1
cdef list checked_headers(object headers)       # of (bytes, bytes) tuples; raises for what may not go on a wire
cdef dict scope_template(WorkerContext worker, str scheme, object client, object server)
cdef dict build_scope(
    WorkerContext worker, dict template, str http_version, str method, str path, bytes raw_path, bytes query,
    list headers, dict extensions)
