"""An exchange of the websocket.* messages (ASGI WebSocket specification 2.5): their order, and what may stand in them.

The exchange is the same whatever brought it here: the handshake belongs to the HTTP exchange that `request` is, and a
MessageConnection carries the messages. Must not know: HTTP versions, transports, frames.
"""

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.core.contracts cimport Connection


cdef enum:                              # of WebSocketExchange.state
    CONNECTING                          # the handshake has no answer
    DENYING                             # it is being answered with an HTTP response
    OPEN
    CLOSED                              # the application has closed, denied, or returned
    GONE                                # the client has closed, or was lost


cdef class WebSocketExchange


cdef class MessageConnection(Connection):
    """What an open WebSocket has to do for its exchange."""

    cdef:
        WebSocketExchange exchange      # None once it is over
        bint full                       # the exchange holds as much as it may

    # Sends a text (str) or bytes; `blocked` of the exchange says afterwards whether the client reads too slowly.
    cdef int put_message(self, bint is_text, object data) except -1
    # Begins the closing handshake (RFC 6455 section 7.1.2). Raises ValueError for a code that may not be sent.
    cdef int put_close(self, int code, str reason) except -1
    cdef int go_on(self) except -1      # the exchange can hold more again


cdef class WebSocketExchange(Exchange):
    cdef:
        int state                       # CONNECTING and on
        HTTPExchange request            # None once the handshake is answered, or the client gone
        object deflate                  # what negotiate_deflate() gave, or None
        MessageConnection connection    # None before it is open and once it is lost

        # Inbound: what the client has sent and the application has not received
        bint connect_received           # websocket.connect has been
        dict message                    # websocket.receive, or None
        object more_messages            # collections.deque of those behind it, or None
        Py_ssize_t queued_count
        Py_ssize_t queued_size          # bytes, or code points of texts
        int close_code                  # of websocket.disconnect
        str close_reason

    cdef int feed_message(self, bint is_text, object data) except -1
    cdef int feed_more_message(self, dict message) except -1
    cdef int feed_close(self, int code, str reason) except -1       # there will be no more messages
    cdef bint is_full(self) noexcept

    cdef object take_accept(self, dict message)
    cdef object take_denial(self, str kind, dict message)
    cdef MessageConnection open_connection(self)
    cdef object take_close(self, dict message)
    cdef object take_message(self, dict message)
    cdef int end(self) except -1                # for a shutdown: unless it is being denied
    cdef int deny(self, int status) except -1
    cdef int answered(self, int status) except -1
    cdef int end_call(self, object exception) except -1
    cdef int give_up_denial(self) except -1
    cdef int log_answer(self, str answer) except -1


# The scope of a WebSocket, out of the one that its handshake would have as a request; takes that over.
cdef dict websocket_scope(dict scope, list subprotocols)
