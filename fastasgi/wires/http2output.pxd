"""What goes out on an HTTP/2 connection (RFC 9113): header blocks, DATA within the windows, and whose turn it is.

Knows flow control toward the peer (section 5.2), and RFC 9218's order. Must not know: what comes in, how a request
becomes a stream, sockets.
"""

from libc.stdint cimport int64_t, uint32_t, uint8_t

from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.asgi.httpconnection cimport HTTPConnection
from fastasgi.codecs.hpack cimport HPACKEncoder
from fastasgi.codecs.http2frames cimport Settings
from fastasgi.wires.streamtable cimport StreamTable


cdef enum:
    QUEUE_HIGH = 65536                  # if more bytes of a stream wait, its application waits too
    QUEUE_LOW = 16384                   # until no more than these wait
    PIECE_COST = 64                     # bytes that each piece counts besides its own, since it is an object
    CONTROL_MOST = 262144               # bytes of heads and control frames that wait, at most, while more is understood
    LARGE_DATA = 512                    # bytes from which on a DATA frame speaks for the peer that sends or takes it
    LARGE_REWARD = 10                   # control frames that it is worth
    FAIR_DATA = 256                     # bytes of a frame that a window has cut off, and that is worth something yet
    FAIR_REWARD = 2                     # the same for one that is as large, or all that we have: it moves two windows
    DATA_SIZE = 16375                   # bytes of a DATA frame's payload: with its head it fills one TLS record


cdef class HTTP2Output


cdef class OutboundStream(HTTPExchange):
    """A stream as far as it sends: what waits, and how much of it may leave."""

    cdef:
        HTTP2Output connection
        uint32_t id
        int64_t send_window             # bytes that the peer accepts on this stream; below 0 if it has shrunk
        bytes piece                     # the first of the bytes that wait, or None
        Py_ssize_t piece_at             # bytes of it that have been put
        list more_pieces                # those behind it, or None
        Py_ssize_t waiting_size         # bytes in all of them that have not been put
        int file                        # descriptor of a file whose bytes come behind them, or -1
        long long file_at               # offset of the next byte
        long long file_left             # bytes of it that have not been put
        int file_error                  # errno of a read that failed; -1: the file has ended early
        bint waits                      # the stream is in connection.waiting
        bint end_is_due                 # nothing but trailers follows what waits
        bint end_is_put                 # the frame with END_STREAM is with the sink
        list last_fields                # trailers that follow what waits, or None
        double moved_at                 # worker.now of the last progress of what waits, seconds
        Py_ssize_t moved_size           # bytes put since then
        uint8_t urgency                 # 0 is the most urgent (RFC 9218 section 4.1)
        bint incremental                # it shares its turn with others (RFC 9218 section 4.2)

    cdef inline bint has_bytes(self) noexcept:
        return self.waiting_size > 0 or self.file_left > 0
    cdef inline Py_ssize_t backlog(self) noexcept:      # bytes of memory that wait, about
        return self.waiting_size + (0 if self.more_pieces is None else PIECE_COST * len(self.more_pieces))
    cdef int hold_piece(self, bytes data) except -1
    cdef inline bint ends_with_bytes(self) noexcept:    # its last DATA frame has END_STREAM
        return self.end_is_due and self.last_fields is None
    cdef int take_pieces(self, char* p, Py_ssize_t n) except -1    # moves the next n bytes that wait to p
    cdef int skip_piece(self, Py_ssize_t n) except -1   # n bytes of the first piece have been put
    cdef int drop_waiting(self) except -1
    # All that was to be sent is with the sink
    cdef int sent_all(self) except -1
    # Fewer than QUEUE_LOW bytes wait, or the file is put
    cdef int relieve(self) except -1


cdef class HTTP2Output(HTTPConnection):
    cdef:
        HPACKEncoder encoder
        Settings peer                   # what the peer has set
        StreamTable streams             # those that are open
        int64_t send_window             # bytes that the peer accepts on the connection
        list waiting                    # OutboundStreams with bytes or an end to be put
        int outliving_count             # calls of the application that go on though the peer has ended their streams
        bint pumping                    # pump() is under way further up the stack
        bint gave_turn_to_first         # of equally urgent streams, the last frame was of one that shares no turns
        int rewards                     # control frames that the DATA of late allows the peer
        Py_ssize_t control_size         # bytes of heads and control frames put while the sink was blocked

    # --- Header blocks ---

    # Makes room for the frames of a header block, and returns where the first one's payload begins
    cdef char* frame_room(self, Py_ssize_t fields_bytes, Py_ssize_t count) except NULL
    # Makes room for a header block of `count` fields with names and values of this size: fields are put at what this
    # returns, and end_block() follows. No Python code may run in between
    cdef char* begin_block(self, Py_ssize_t fields_bytes, Py_ssize_t count) except NULL
    cdef int end_block(self, uint32_t stream_id, char* end, bint ends_stream) except -1
    # The same for a block that is not a HEADERS'
    cdef int end_frames(self, uint8_t kind, uint32_t stream_id, char* end, uint8_t flags) except -1
    cdef int put_reset(self, uint32_t stream_id, uint32_t code) except -1
    cdef int put_credit(self, uint32_t stream_id, uint32_t increment) except -1
    cdef inline void note_control(self, Py_ssize_t n) noexcept:     # so many bytes of a head or control frame are put
        if self.sink.blocked:
            self.control_size += n

    # Whether the peer makes us answer and does not read, so that no more of what it sends is to be understood
    cdef inline bint is_flooded(self) noexcept:
        return self.control_size > CONTROL_MOST

    # --- DATA ---

    cdef int put_data(self, OutboundStream stream, bytes data, bint ends) except -1
    cdef int put_file(self, OutboundStream stream, int file, long long offset, long long count, bint ends) except -1
    cdef int put_last_fields(self, OutboundStream stream, list fields) except -1        # behind what waits
    cdef int wait_for_turn(self, OutboundStream stream) except -1
    cdef int leave_waiting(self, OutboundStream stream) except -1
    cdef int pump(self) except -1               # puts what may be put
    cdef int put_frame(self, OutboundStream stream) except -1
    cdef int put_views(self, OutboundStream stream, Py_ssize_t most) except -1
    cdef int note_put(self, OutboundStream stream, Py_ssize_t n) except -1
    cdef Py_ssize_t read_file(self, OutboundStream stream, char* p, Py_ssize_t n) except -1
    cdef int put_end(self, OutboundStream stream) except -1
    cdef OutboundStream next_stream(self)
    cdef int push(self) except -1               # writes now, or with what others put in this turn of the loop

    # --- What a stream tells its connection ---

    cdef int settle(self, OutboundStream stream) except -1      # something of it is over
    cdef int return_credit(self, OutboundStream stream) except -1       # the application has received
    cdef int cancel(self, OutboundStream stream, uint32_t code) except -1       # RST_STREAM; it is open no more
    cdef int promise(self, OutboundStream stream, str path, list headers) except -1     # PUSH_PROMISE, if it is allowed
