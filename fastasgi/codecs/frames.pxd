"""WebSocket frames (RFC 6455): those of a client, with compressed messages inflated, and the heads of a server's.

Knows the grammar of frames, what may follow what, and the limits. Must not know: asyncio, ASGI, sockets, the handshake,
what is answered to a ping or a close.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastasgi.codecs.deflate cimport Inflater


cdef enum Opcode:                       # RFC 6455 section 5.2
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10


# What FrameDecoder.decode returns besides OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING and OP_PONG
cdef enum:
    NEED_DATA = 0
    FAILED = 16


cdef enum:                              # RFC 6455 section 7.4.1, and its registry
    CLOSE_NORMAL = 1000
    CLOSE_PROTOCOL_ERROR = 1002
    CLOSE_NO_STATUS = 1005              # never on the wire: a Close frame without a code
    CLOSE_ABNORMAL = 1006               # never on the wire: the connection was lost
    CLOSE_INVALID_DATA = 1007
    CLOSE_TOO_BIG = 1009
    CLOSE_INTERNAL_ERROR = 1011
    CLOSE_SERVICE_RESTART = 1012


cdef enum:
    MAX_CONTROL_BYTES = 125             # bytes of a control frame's payload, at most (RFC 6455 section 5.5)
    CLIENT_HEAD_ROOM = 14               # bytes of a masked frame's head, at most
    FRAME_HEAD_ROOM = 10                # bytes that put_frame_head writes, at most


# Writes the head of a server's frame at `p`: not fragmented, not masked. Returns the end of what it wrote.
cdef char* put_frame_head(char* p, int opcode, bint compressed, Py_ssize_t payload_bytes) noexcept nogil


cdef class FrameDecoder:
    """Reads what one client sends.

    A message that is whole in one read goes from there straight into its str or bytes. Any other message is put
    together in one buffer, which grows with what has arrived and never by what a head announces. Whatever costs time
    and brings no bytes is limited: fragments, final blocks, and deflated bytes of which nothing comes.
    """

    cdef:
        # The last event
        object data                     # owned: str of a text; bytes of a binary message, a ping or a pong
        int close_code                  # OP_CLOSE: the peer's, CLOSE_NO_STATUS if it sent none; FAILED: ours
        str close_reason                # the peer's; or the fault, to tell the peer and the log

        # Settings
        Py_ssize_t max_message_bytes    # limit on a message's payload, inflated
        Inflater inflater               # None if permessage-deflate was not negotiated

        # The frame under way
        bint in_payload                 # its head was read
        bint over                       # a Close frame has come: the rest is thrown away
        bint failed                     # FAILED has been returned
        bint final                      # FIN: the message ends with this frame
        uint8_t opcode                  # one of Opcode
        uint8_t part_bytes              # bytes in `part`
        uint32_t key                    # the mask as its bytes lie in memory; the first is for the next payload byte
        int64_t left                    # payload bytes still to come
        # A head that came in part, or the payload of a control frame
        uint8_t part[MAX_CONTROL_BYTES]

        # The message under way
        uint8_t message                 # OP_TEXT or OP_BINARY; 0 between two messages
        int fragments                   # the number of frames behind its first one
        bint compressed                 # RSV1 of its first frame
        int utf8                        # the Utf8State behind the text in the buffer
        PyObject* buffer                # owned: the bytes object in which the message is put together, or NULL
        Py_ssize_t size                 # bytes of the buffer that are used
        Py_ssize_t capacity             # bytes of the buffer

    # Goes on at *p up to the next event, and moves *p behind the bytes that it consumed; if the event is NEED_DATA,
    # these are all up to `end`. Borrows the bytes for the call. Nothing more can be read after a MemoryError, nor after
    # FAILED, which is returned again.
    cdef int decode(self, const char** p, const char* end) except -1
    cdef inline object payload(self):   # the data of the last event, which is no longer kept here
        data = self.data
        self.data = None
        return data
