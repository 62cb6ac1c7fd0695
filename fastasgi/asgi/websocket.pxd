"""WebSockets: an exchange of the websocket.* messages (ASGI WebSocket specification 2.5), and the connection that
carries its frames (RFC 6455).

The exchange is the same whatever brought it here: the handshake belongs to the HTTP exchange that `request` is, and
the frames go over the sink which that hands over. Must not know: HTTP versions, transports, the grammar of frames.
"""

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.codecs.frames cimport Deflater, FrameDecoder
from fastasgi.core.contracts cimport Connection, WorkerContext


cdef enum:
    CONNECTING                          # the handshake has no answer
    DENYING                             # it is being answered with an HTTP response
    OPEN
    CLOSED                              # the application has closed, denied, or returned
    GONE                                # the client has closed, or was lost


cdef class WebSocketConnection


cdef class WebSocketExchange(Exchange):
    cdef:
        int state                       # CONNECTING and on
        HTTPExchange request            # None once the handshake is answered, or the client gone
        object deflate                  # what negotiate_deflate() gave, or None
        Py_ssize_t unyielded            # bytes sent since the application last let others run
        WebSocketConnection connection  # None before it is open and once it is lost

        # Inbound: what the client has sent and the application has not received
        bint connect_received           # websocket.connect has been
        dict message                    # websocket.receive, or None
        object more_messages            # collections.deque of those behind it, or None
        Py_ssize_t queued_count
        Py_ssize_t queued_size          # bytes, or code points of texts
        int close_code                  # of websocket.disconnect
        str close_reason

    cdef int feed_message(self, str key, object data) except -1     # key: "text" or "bytes"
    cdef int feed_more_message(self, dict message) except -1
    cdef int feed_close(self, int code, str reason) except -1       # there will be no more messages

    cdef object take_accept(self, dict message)
    cdef object take_denial(self, str kind, dict message)
    cdef WebSocketConnection open_connection(self)
    cdef object take_close(self, dict message)
    cdef object take_message(self, dict message)
    cdef object sent_message(self, Py_ssize_t size)
    cdef int end(self) except -1                # for a shutdown: unless it is being denied
    cdef int deny(self, int status) except -1
    cdef int answered(self, int status) except -1
    cdef int end_call(self, object exception) except -1
    cdef int give_up_denial(self) except -1
    cdef int log_answer(self, str answer) except -1


cdef class WebSocketConnection(Connection):
    cdef:
        WebSocketExchange exchange      # None once it is over
        FrameDecoder decoder
        Deflater deflater               # None: permessage-deflate was not negotiated
        bytes held                      # read and not yet understood, while nobody takes what is in it; or None
        bytes pong                      # payload of the pong that the last ping still needs, or None
        bint full                       # the exchange holds as much as it may
        bint paused                     # the sink reads nothing for now
        bint resume_is_scheduled
        bint ping_is_out                # no pong has come since the last ping
        Py_ssize_t unsent               # bytes, of the sink when the deadline last passed
        bint close_sent                 # our Close frame; nothing may follow it
        bint ended                      # nothing more is read; the peer is to close

    cdef int decode(self, char* p, Py_ssize_t n) except -1
    cdef int hold(self, const char* p, Py_ssize_t n) except -1
    cdef int take_one(self) except -1           # the application has received a message
    cdef int schedule_resume(self) except -1
    cdef int put_message(self, int opcode, object data) except -1   # str or bytes
    cdef int put_control(self, int opcode, bytes payload) except -1
    cdef int put_pong(self) except -1
    cdef int put_close(self, int code, str reason) except -1
    cdef int fail(self, int code, str reason) except -1
    cdef int finish(self, int code, str reason, bint gently) except -1
    cdef int wait_for_ping(self) except -1


cdef class Handshake:
    """What a client asks for to open a WebSocket (RFC 6455 section 4.1)."""

    cdef:
        bytes key                       # of Sec-WebSocket-Key
        list subprotocols               # of str
        object deflate                  # what negotiate_deflate() gave, or None
        int status                      # 0, or the status with which it is refused
        str reason                      # why


# None: the headers ask for something else than a WebSocket. `headers` have lower-cased names.
cdef Handshake read_handshake(list headers)
cdef bytes accept_key(bytes key)        # the value of Sec-WebSocket-Accept
# The scope of a WebSocket, out of the one that its handshake would have as a request; takes that over.
cdef dict websocket_scope(dict scope, list subprotocols)
