"""HTTP/1.1 and 1.0 on one sink (RFC 9112): framing, keep-alive, pipelining, and the order of it all.

Knows what a head's framing means and how a response is laid out. Must not know: the kind of transport, the grammar
(see _parser), the order of ASGI messages (see asgi.http).
"""

from libc.stdint cimport int64_t

from fastasgi._parser cimport HeadParser, RequestHead
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.asgi.httpconnection cimport HTTPConnection
from fastasgi.codecs.chunked cimport ChunkedDecoder
from fastasgi.core.contracts cimport ByteSink, Connection, Wire
from fastasgi.wires.handshake cimport Handshake


cdef class HTTP1Connection


cdef class HTTP1Wire(Wire):
    """What the HTTP/1.x connections of one worker share."""

    cdef:
        HeadParser parser
        bint has_seen_old_handshake     # of a WebSocket, in HTTP/1.0

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n)   # see Opener
    cdef int note_old_handshake(self, HTTP1Connection connection) except -1


cdef class HTTP1Exchange(HTTPExchange):
    """One request and its response."""

    cdef:
        HTTP1Connection connection      # None once the response is complete or the connection lost
        int minor_version               # of the request
        bint chunked                    # the response is sent chunked
        bytes websocket_key             # of Sec-WebSocket-Key, if this request opens a WebSocket

    cdef ByteSink open_sink(self)               # raises if the client has gone meanwhile
    cdef int drop_field(self, bytes name) except -1


cdef enum:                              # of HTTP1Connection.state
    READ_HEAD
    READ_LENGTH                         # a body of known length
    READ_CHUNKS
    READ_NOTHING                        # closing: what comes is thrown away


cdef class HTTP1Connection(HTTPConnection):
    cdef:
        HTTP1Wire wire
        HTTP1Exchange exchange          # whose response is not complete, or None
        int state                       # READ_HEAD and on
        int64_t body_left               # bytes, in READ_LENGTH
        int64_t body_read               # bytes of the current body, decoded; since the response was complete, if it is
        ChunkedDecoder chunks
        bint keep_alive                 # after the current response
        bint beginning                  # a head is being read, and its request made, further up the stack
        bint receiving                  # receive() is under way further up the stack
        bint start_is_due               # the exchange waits for what came of its body
        bint reading_head               # held bytes are a part of a head, and its time runs
        Py_ssize_t blank_bytes          # of empty lines before the next head, which count as its own
        double stalls_at                # of worker.now, seconds: until then the client has to take more
        bint peer_is_done               # it has sent all it will, and perhaps waits for answers

    cdef inline bint may_begin(self) noexcept:          # the next request: nobody is being answered, the client reads
        return self.exchange is None and not self.sink.blocked and not self.sink.closing
    cdef inline bint holds_much(self) noexcept:         # more than a head may have: nothing is to be read meanwhile
        return self.held_length > self.wire.parser.max_head_bytes
    cdef bint is_worth_parsing(self, const char* p, Py_ssize_t n) noexcept
    cdef int process(self, char* p, Py_ssize_t n) except -1
    cdef int advance(self) except -1
    cdef int hold(self, char* p, Py_ssize_t n) except -1

    cdef bint read_head(self) except -1         # whether there was a whole one
    cdef bint find_request_line(self) except -1     # whether it has begun
    cdef int hold_first(self) except -1
    cdef int begin(self, HeadParser parser) except -1
    cdef Handshake asked_handshake(self, const RequestHead* head, dict scope)
    cdef int begin_body(self, HTTP1Exchange exchange, const RequestHead* head) except -1
    cdef dict scope_of(self, HeadParser parser, str method)
    cdef dict refused_scope(self, const RequestHead* head)      # what the access log reads; None: it is off
    cdef int switch_to(self, Connection connection) except -1
    cdef int read_body(self) except -1
    cdef int read_chunks(self) except -1
    cdef int feed(self, bytes piece, bint is_last) except -1
    cdef int discard(self, bint is_last) except -1
    cdef int end_body(self) except -1

    cdef bint may_keep_alive(self, HTTP1Exchange exchange) noexcept
    cdef int response_done(self) except -1
    # scope and the perf_counter of the head's arrival are for the access log; None, 0: not known
    cdef int refuse(self, int status, str reason, bint is_head, dict scope, double started_at) except -1
    cdef int refuse_begun(self, int status, str reason, dict scope, bint is_head) except -1
    cdef int refuse_body(self, int status, str reason) except -1
    cdef int watch_client(self) except -1
    cdef int watch_progress(self) except -1
    cdef int settle_eof(self) except -1
    cdef int close(self) except -1
    cdef int linger(self) except -1
