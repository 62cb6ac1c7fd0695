"""permessage-deflate (RFC 7692): deflates and inflates the messages of a WebSocket, and negotiates that.

Must not know: frames, limits of messages, the rest of the handshake.
"""

# The end of an empty block, which is left out of each message (RFC 7692 section 7.2.1)
cdef bytes DEFLATE_TAIL


cdef class Inflater:
    """Inflates the messages of one connection, piece by piece."""

    cdef:
        int window_bits                 # the window of the peer's deflater, as an exponent of 2: 8 to 15
        bint keeps_window               # context takeover: messages may refer to those before them
        object stream                   # zlib.decompressobj; None if the next message begins a new one
        bytes source                    # owned: what `stream` gets next
        bint source_is_last             # nothing of this message follows `source`
        bint fed                        # `stream` has got bytes of this message
        bint pending                    # next_piece() has more to give
        int final_blocks                # the number of final blocks of this message
        Py_ssize_t source_bytes         # deflated bytes of this message that have been fed
    # Gives the next piece of a message to the stream; the last piece ends with DEFLATE_TAIL.
    cdef int feed(self, bytes source, bint last) except -1
    cdef bytes next_piece(self, Py_ssize_t max_bytes)   # raises zlib.error if this is no deflate stream
    cdef int end_message(self) except -1


cdef class Deflater:
    """Deflates the messages of one connection."""

    cdef:
        int window_bits                 # our window, as an exponent of 2: 9 to 15
        bint keeps_window               # context takeover: messages may refer to those before them
        Py_ssize_t min_bytes            # shorter messages are sent plain
        object stream                   # zlib.compressobj; None if the next message begins a new one
    cpdef bytes deflate(self, bytes data)       # the payload of a compressed frame; None if it is to be sent plain
