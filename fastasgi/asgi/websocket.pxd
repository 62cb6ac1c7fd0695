"""An exchange of the websocket.* messages (ASGI WebSocket specification 2.5): their order, and what may stand in them.

The exchange is the same on all wires: its handshake belongs to an HTTP exchange, `request`, and a MessageConnection
carries its messages. Must not know: HTTP versions, sockets, frames.
"""

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.core.contracts cimport Connection


cdef enum:                              # of WebSocketExchange.state
    CONNECTING                          # the handshake has no answer
    DENYING                             # an HTTP response is the answer, and is not complete
    OPEN                                # the handshake is accepted
    CLOSED                              # the application has closed, denied, or returned
    GONE                                # the client has closed, or was lost


cdef class WebSocketExchange


cdef class MessageConnection(Connection):
    """What carries the messages of an open WebSocket for its exchange."""

    cdef:
        WebSocketExchange exchange      # None once the WebSocket is over
        bint full                       # as many messages wait in the exchange as may

    # Sends a text (str) or bytes. `blocked` of the exchange says afterwards whether the client reads too slowly.
    cdef int put_message(self, bint is_text, object data) except -1
    # Begins the closing handshake (RFC 6455 section 7.1.2). Raises ValueError for a code that may not be sent.
    cdef int put_close(self, int code, str reason) except -1
    cdef int go_on(self) except -1      # the exchange is no longer full


cdef class WebSocketExchange(Exchange):
    cdef:
        int state                       # CONNECTING and on
        HTTPExchange request            # None once the handshake is answered, or the client has gone
        object deflate                  # what negotiate_deflate() has returned, or None
        MessageConnection connection    # None before the WebSocket is open, and once it is lost

        # Inbound: what the client has sent and the application has not received
        bint connect_received           # the application has received websocket.connect
        dict message                    # the next websocket.receive, or None
        object more_messages            # collections.deque of the messages behind it, or None
        Py_ssize_t queued_count         # how many messages wait
        Py_ssize_t queued_size          # bytes in them, or code points of texts
        int close_code                  # for websocket.disconnect
        str close_reason                # for websocket.disconnect

    cdef int feed_message(self, bint is_text, object data) except -1
    cdef int feed_more_message(self, dict message) except -1
    cdef int feed_close(self, int code, str reason) except -1       # there will be no more messages
    cdef bint is_full(self) noexcept

    cdef object take_accept(self, dict message)
    cdef object take_denial(self, str kind, dict message)
    cdef MessageConnection open_connection(self)
    cdef object take_close(self, dict message)
    cdef object take_message(self, dict message)
    cdef int end(self) except -1                # for a shutdown: ends the WebSocket, unless it is being denied
    cdef int deny(self, int status) except -1
    cdef int answered(self, int status) except -1
    cdef int end_call(self, object exception) except -1
    cdef int give_up_denial(self) except -1
    cdef int log_answer(self, str answer) except -1


# The scope of a WebSocket, made of the scope that its handshake has as a request, which is changed
cdef dict websocket_scope(dict scope)
