"""HTTP/1.1 and 1.0 on one sink (RFC 9112): framing, keep-alive, pipelining, and the order of it all.

Knows what a head's framing means and how a response is laid out. Must not know: the kind of transport, the grammar
(see _parser), the order of ASGI messages (see http).
"""

from libc.stdint cimport int64_t

from fastasgi._parser cimport HeadParser, RequestHead
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.asgi.websocket cimport Handshake, WebSocketExchange
from fastasgi.codecs.chunked cimport ChunkedDecoder
from fastasgi.core.contracts cimport ByteSink, Connection


cdef class HTTP1Connection


cdef class HTTP1Exchange(HTTPExchange):
    """One request and its response."""

    cdef:
        HTTP1Connection connection      # None once the response is complete or the connection lost
        int minor_version               # of the request
        bint chunked                    # the response is sent chunked
        bint expects_continue           # 100 Continue is due when the application asks for the body

    cdef int begins_shutdown(self) except -1
    cdef ByteSink open_sink(self)               # raises where the client has gone meanwhile
    cdef int drop_content_length(self) except -1
    cdef int drop_connection(self) except -1


cdef class HTTP1Handshake(HTTP1Exchange):
    """The request that opens a WebSocket (RFC 6455 section 4). The application talks to `websocket`, that to this."""

    cdef:
        WebSocketExchange websocket
        bytes key                       # of Sec-WebSocket-Key


cdef enum:
    READ_HEAD
    READ_LENGTH                         # a body of known length
    READ_CHUNKS
    READ_NOTHING                        # closing: what comes is thrown away


cdef class HTTP1Connection(Connection):
    cdef:
        HTTP1Exchange exchange          # whose response is not complete, or None
        int state                       # READ_HEAD and on
        int64_t body_left               # bytes, in READ_LENGTH
        int64_t body_read               # bytes of the current body, decoded; since the response was complete, if it is
        ChunkedDecoder chunks
        bint keep_alive                 # after the current response
        bint beginning                  # a head is being read, and its request made, further up the stack
        bint receiving                  # receive() is under way further up the stack
        bint paused                     # the sink reads nothing for now
        bint resume_is_scheduled
        bint start_is_due               # the exchange waits for what came of its body
        bint reading_head               # held bytes are a part of a head, and its time runs
        Py_ssize_t blank_bytes          # of empty lines before the next head, which count as its own
        Py_ssize_t unsent               # bytes, of the sink when the client last took something
        double stalls_at                # of worker.now, seconds: until then it has to take more of them
        bint peer_is_done               # it has sent all it will, and perhaps waits for answers
        char* held                      # owned: bytes read and not yet understood, or NULL
        Py_ssize_t held_length          # bytes
        Py_ssize_t held_capacity        # bytes
        Connection successor            # another protocol's, that the sink carries now; None: none
        dict tls                        # of the scope's extensions; None: plain
        dict scope_template             # what is the same in all scopes of this connection; None before the first
        bint believes_forwarded         # its peer is trusted to tell of the clients
        bint strips_forwarded           # its peer is not, and the application is not to see what it says

    cdef bint is_worth_parsing(self, const char* p, Py_ssize_t n) noexcept
    cdef int process(self, char* p, Py_ssize_t n) except -1
    cdef int advance(self) except -1
    cdef int hold(self, char* p, Py_ssize_t n) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int schedule_resume(self) except -1
    cdef int resume_held(self) except -1

    cdef bint read_head(self) except -1         # whether there was a whole one
    cdef bint find_request_line(self) except -1     # whether it has begun
    cdef int hold_first(self) except -1
    cdef int begin(self, HeadParser parser) except -1
    cdef int find_addresses(self) except -1
    cdef HTTP1Exchange new_exchange(self, HeadParser parser, Handshake handshake)
    cdef dict new_scope(self, HeadParser parser)
    cdef dict refused_scope(self, const RequestHead* head)      # what the access log reads; None: it is off
    cdef int switch_to(self, Connection connection) except -1
    cdef int read_body(self) except -1
    cdef int read_chunks(self) except -1
    cdef int body_arrives(self, HTTP1Exchange exchange, bint all_of_it) except -1
    cdef int after_feed(self) except -1
    cdef int end_body(self) except -1

    cdef bint may_keep_alive(self, HTTP1Exchange exchange) noexcept
    cdef int response_done(self) except -1
    # scope and the perf_counter of the head's arrival are for the access log; None, 0: not known
    cdef int refuse(self, int status, str reason, bint is_head, dict scope, double started_at) except -1
    cdef int refuse_begun(self, int status, str reason, HeadParser parser, bint is_head) except -1
    cdef int refuse_body(self, int status, str reason) except -1
    cdef int watch_client(self) except -1
    cdef int watch_progress(self, Py_ssize_t unsent) except -1
    cdef int settle_eof(self) except -1
    cdef int close(self) except -1
    cdef int linger(self) except -1
