"""What comes on an HTTP/1.x connection (RFC 9112): heads and bodies, found in whatever pieces they are read, in order.

Knows pipelining, which bytes are held, and when reading pauses. Must not know: how a request is answered, which
deadlines there are, the grammar (see _parser).
"""

from libc.stdint cimport int64_t

from fastasgi._parser cimport HeadParser, RequestHead
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.asgi.httpconnection cimport HTTPConnection
from fastasgi.codecs.chunked cimport ChunkedDecoder
from fastasgi.core.contracts cimport Wire


cdef enum:                              # of HTTP1Input.state
    READ_HEAD
    READ_LENGTH                         # a body of known length
    READ_CHUNKS
    READ_NOTHING                        # closing: what comes is thrown away


cdef class HTTP1Input(HTTPConnection):
    cdef:
        HeadParser parser               # the worker's; another one is used while it is lent, see unlent_parser()
        HTTPExchange exchange           # the one whose response is not complete, or None
        int state                       # READ_HEAD and on
        int64_t body_left               # bytes of the body still to come, in READ_LENGTH
        int64_t body_read               # bytes of the body, decoded; counted anew once the response is complete
        ChunkedDecoder chunks           # in READ_CHUNKS
        bint beginning                  # a head is being read, and its request made, further up the stack
        bint receiving                  # receive() is under way further up the stack
        bint start_is_due               # the exchange starts once this read has no more of its body
        bint reading_head               # held bytes are a part of a head, and its time runs
        Py_ssize_t blank_bytes          # bytes of empty lines before the next head, which count as its own
        bint may_be_other               # the first bytes are due, which may be those of another wire
        bint peer_is_done               # the peer sends nothing more, and perhaps waits for answers

    # Whether the next request may begin: nobody is being answered, and the client reads
    cdef inline bint may_begin(self) noexcept:
        return self.exchange is None and not self.sink.blocked and not self.sink.closing
    # Whether more is held than a head may have, so that nothing is to be read meanwhile
    cdef inline bint holds_much(self) noexcept:
        return self.held_length > self.parser.max_head_bytes
    cdef int receive_first(self, char* p, Py_ssize_t n) except -1
    cdef int give_to(self, Wire wire, char* p, Py_ssize_t n) except -1
    cdef bint is_worth_parsing(self, const char* p, Py_ssize_t n) noexcept
    cdef int advance(self) except -1
    cdef int hold(self, char* p, Py_ssize_t n) except -1

    cdef bint read_head(self) except -1         # whether there was a whole head, or one to be refused
    cdef bint find_request_line(self) except -1     # whether a request line has begun
    cdef int hold_first(self) except -1
    # Has the body that follows the head, if there is one, read next. Whether there is one
    cdef bint expect_body(self, const RequestHead* head) noexcept
    cdef int begin_body(self, HTTPExchange exchange, const RequestHead* head) except -1
    cdef int read_body(self) except -1
    cdef int read_chunks(self) except -1
    cdef int feed(self, bytes piece, bint is_last) except -1
    cdef int discard(self, bint is_last) except -1
    cdef int end_body(self) except -1

    # --- What is made of it ---

    cdef int begin(self, HeadParser parser) except -1           # a head has been understood
    cdef int refuse_head(self, HeadParser parser, bint is_head) except -1       # the parser has refused a head
    cdef int refuse_early(self, int status, str reason) except -1       # an answer is due before there is a head
    cdef int refuse_body(self, int status, str reason) except -1        # a body is refused; the application may run
    cdef int watch_client(self) except -1       # the client is to do something else now: sets the deadline for that
    cdef int settle_eof(self) except -1         # the peer is done, and all that it had sent is understood
    cdef int close(self) except -1
