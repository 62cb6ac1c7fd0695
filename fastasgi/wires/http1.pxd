"""HTTP/1.1 and 1.0 on one sink (RFC 9112): requests, their responses, keep-alive, deadlines.

Knows how a response is laid out and when a connection ends; http1input reads the requests. Must not know: sockets,
the grammar (see _parser), the order of ASGI messages (see asgi.http).
"""

from libc.stdint cimport int64_t

from fastasgi._parser cimport HeadParser, RequestHead
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.codecs.heads cimport ConnectionOption
from fastasgi.core.contracts cimport ByteSink, Connection, Wire
from fastasgi.wires.handshake cimport Handshake
from fastasgi.wires.http1input cimport HTTP1Input


cdef class HTTP1Connection


cdef class HTTP1Wire(Wire):
    """What the HTTP/1.x connections of one worker share."""

    cdef:
        HeadParser parser               # the next head's; another one while it is lent

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n)   # see Opener


cdef class HTTP1Exchange(HTTPExchange):
    """One request and its response."""

    cdef:
        HTTP1Connection connection      # None once the response is complete, or the connection lost
        int minor_version               # the request's: HTTP/1.0 or 1.1
        bint chunked                    # the response is sent chunked
        bytes websocket_key             # the value of Sec-WebSocket-Key, if this request opens a WebSocket

    cdef ByteSink open_sink(self)               # the sink; raises if the client has gone meanwhile
    cdef int drop_field(self, bytes name) except -1


cdef class HTTP1Connection(HTTP1Input):
    cdef bint keep_alive                # another request may follow the current response

    cdef Handshake asked_handshake(self, const RequestHead* head, dict scope)
    cdef dict scope_of(self, HeadParser parser, str method)
    # What the access log reads of a request that is refused; None if the log is off
    cdef dict refused_scope(self, const RequestHead* head)

    cdef bint may_keep_alive(self, HTTP1Exchange exchange) noexcept
    cdef int response_done(self) except -1
    # scope and started_ns, the worker's turn_began_ns when the head came, are for logs; None and 0 if not known
    cdef int refuse(self, int status, str reason, bint is_head, dict scope, int64_t started_ns) except -1
    cdef int refuse_begun(self, int status, str reason, dict scope, bint is_head) except -1
    cdef int shed(self, const RequestHead* head, bint is_head, dict scope) except -1
    # Logs a refusal and puts its answer. option: SAY_NOTHING and on
    cdef int put_refusal(
        self, int status, str reason, bint is_head, ConnectionOption option, dict scope, int64_t started_ns) except -1
    cdef int linger(self) except -1
