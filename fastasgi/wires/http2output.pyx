"""See http2output.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_Copy
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcpy

from fastasgi.codecs.http2frames cimport (
    DATA, END_STREAM, FRAME_HEAD, HEADERS, MAX_FRAME_SIZE, RST_STREAM_ROOM, WINDOW_UPDATE_ROOM, block_room,
    put_block_heads, put_frame_head, put_rst_stream, put_window_update,
)
from fastasgi.codecs.heads cimport fields_size
from fastasgi.core.contracts cimport ByteSink

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* p, size_t n, long long offset)

cdef enum:
    PUMP_SIZE = 1048576                 # bytes that are put of one connection before others have their turn, about
    PROGRESS = 1024                     # bytes; a peer that takes fewer, but not all, has made no progress
    VIEWS_MIN = 65536                   # bytes from which on a copy costs more than many small objects
    VIEWS_SIZE = 524000                 # bytes that are put at once of one: 32 frames
    NO_FILE = -1


cdef class OutboundStream(HTTPExchange):

    def __cinit__(self):
        self.file = NO_FILE

    cdef int hold_piece(self, bytes data) except -1:
        self.waiting_size += PyBytes_GET_SIZE(data)
        if self.piece is None:
            self.piece = data
            self.piece_at = 0
        elif self.more_pieces is None:
            self.more_pieces = [data]
        else:
            self.more_pieces.append(data)
        return 0

    cdef int take_pieces(self, char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t part
        while n:
            part = min(n, PyBytes_GET_SIZE(self.piece) - self.piece_at)
            memcpy(p, PyBytes_AS_STRING(self.piece) + self.piece_at, part)
            p += part
            n -= part
            self.skip_piece(part)
        return 0

    cdef int skip_piece(self, Py_ssize_t n) except -1:
        self.waiting_size -= n
        self.piece_at += n
        if self.piece_at == PyBytes_GET_SIZE(self.piece):
            self.piece_at = 0
            self.piece = self.more_pieces.pop(0) if self.more_pieces else None
        return 0

    cdef int drop_waiting(self) except -1:
        self.piece = self.more_pieces = self.last_fields = None
        self.waiting_size = self.file_left = 0
        self.end_is_due = False
        return 0

    cdef int sent_all(self) except -1:
        raise NotImplementedError

    cdef int relieve(self) except -1:
        return self.unblock() if self.blocked else 0


cdef class HTTP2Output(HTTPConnection):

    def __cinit__(self):
        self.streams = StreamTable()
        self.waiting = []

    # --- Header blocks ---

    cdef char* frame_room(self, Py_ssize_t fields_bytes, Py_ssize_t count) except NULL:
        cdef Py_ssize_t room = self.encoder.room(self.worker.fields, fields_bytes, count)
        return self.sink.reserve(block_room(room, MAX_FRAME_SIZE)) + FRAME_HEAD

    cdef char* begin_block(self, Py_ssize_t fields_bytes, Py_ssize_t count) except NULL:
        return self.encoder.begin_block(self.frame_room(fields_bytes, count))

    cdef int end_block(self, uint32_t stream_id, char* end, bint ends_stream) except -1:
        return self.end_frames(HEADERS, stream_id, end, END_STREAM if ends_stream else 0)

    cdef int end_frames(self, uint8_t kind, uint32_t stream_id, char* end, uint8_t flags) except -1:
        cdef ByteSink sink = self.sink
        cdef char* p = sink.out + sink.out_length
        end = put_block_heads(p, end - p - FRAME_HEAD, kind, flags, stream_id, MAX_FRAME_SIZE)
        self.note_control(end - p)
        sink.commit(end)
        return 0

    cdef int put_reset(self, uint32_t stream_id, uint32_t code) except -1:
        self.sink.commit(put_rst_stream(self.sink.reserve(RST_STREAM_ROOM), stream_id, code))
        self.note_control(RST_STREAM_ROOM)
        return 0

    cdef int put_credit(self, uint32_t stream_id, uint32_t increment) except -1:
        self.sink.commit(put_window_update(self.sink.reserve(WINDOW_UPDATE_ROOM), stream_id, increment))
        self.note_control(WINDOW_UPDATE_ROOM)
        return 0

    # --- DATA ---

    cdef int put_data(self, OutboundStream stream, bytes data, bint ends) except -1:
        cdef ByteSink sink = self.sink
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        cdef char* p
        if n == 0 and not ends:
            return 0
        if self.waiting or sink.blocked or n > DATA_SIZE or (
                n and (n > self.send_window or n > stream.send_window)):
            if n:
                stream.hold_piece(data)
            stream.end_is_due = ends
            self.wait_for_turn(stream)
            self.pump()
            stream.blocked = stream.backlog() > QUEUE_HIGH
            return 0
        p = put_frame_head(sink.reserve(FRAME_HEAD + n), <uint32_t>n, DATA, END_STREAM if ends else 0, stream.id)
        memcpy(p, PyBytes_AS_STRING(data), n)
        sink.commit(p + n)
        self.send_window -= n
        stream.send_window -= n
        self.rewards += LARGE_REWARD if n >= LARGE_DATA else FAIR_REWARD
        if ends:
            stream.end_is_put = True
            return stream.sent_all()
        return 0

    cdef int put_file(self, OutboundStream stream, int file, long long offset, long long count, bint ends) except -1:
        stream.file = file
        stream.file_at = offset
        stream.file_left = count
        stream.end_is_due = ends
        stream.blocked = count > 0
        if count or ends:
            self.wait_for_turn(stream)
            self.pump()
        return 0

    cdef int put_last_fields(self, OutboundStream stream, list fields) except -1:
        stream.last_fields = fields
        stream.end_is_due = True
        if stream.waits:
            return 0
        return self.put_end(stream)

    cdef int wait_for_turn(self, OutboundStream stream) except -1:
        if not stream.waits:
            stream.waits = True
            stream.moved_at = self.worker.now
            stream.moved_size = 0
            self.waiting.append(stream)
        return 0

    cdef int leave_waiting(self, OutboundStream stream) except -1:
        if stream.waits:
            stream.waits = False
            self.waiting.remove(stream)
        return 0

    cdef int pump(self) except -1:
        cdef Py_ssize_t left = PUMP_SIZE
        cdef OutboundStream stream
        if self.pumping:
            return 0
        self.pumping = True
        try:
            while self.waiting and self.sink is not None and not self.sink.blocked and not self.sink.closing:
                if left <= 0:
                    self.worker.loop.call_soon(self.pump_on, context=PyContext_Copy(self.worker.context))
                    break
                stream = self.next_stream()
                if stream is None:
                    break
                left -= self.put_frame(stream)
        finally:
            self.pumping = False
        return 0

    def pump_on(self):
        """The callback of pump()."""
        cdef bint was = self.worker.enter()
        try:
            self.pump()
            if self.sink is not None:
                self.sink.push(True)
        finally:
            self.worker.leave(was)

    cdef OutboundStream next_stream(self):
        """Whose frame is next (RFC 9218 section 10); None if the windows are shut.

        Of the most urgent streams, those that share no turns come one after the other, by their identifiers. If others
        are as urgent, these and those have every other frame.
        """
        cdef OutboundStream stream
        cdef OutboundStream first = None        # that shares no turns
        cdef OutboundStream shared = None       # whose turn it is of the others
        cdef int urgency = 8
        for stream in self.waiting:
            if stream.urgency > urgency or (stream.has_bytes() and (self.send_window <= 0 or stream.send_window <= 0)):
                continue
            if stream.urgency < urgency:
                urgency = stream.urgency
                first = shared = None
            if stream.incremental:
                if shared is None:
                    shared = stream
            elif first is None or stream.id < first.id:
                first = stream
        if first is None or (shared is not None and self.gave_turn_to_first):
            self.gave_turn_to_first = False
            return shared
        self.gave_turn_to_first = True
        return first

    cdef int put_frame(self, OutboundStream stream) except -1:
        """Put the next DATA frame of a stream, or its end. Returns how many bytes it has."""
        cdef ByteSink sink = self.sink
        cdef bint from_file = stream.waiting_size == 0
        cdef Py_ssize_t n = min(<long long>DATA_SIZE, stream.file_left if from_file else stream.waiting_size)
        cdef Py_ssize_t most = min(self.send_window, stream.send_window)
        cdef char* p
        if n == 0:
            self.leave_waiting(stream)
            self.put_end(stream)
            return FRAME_HEAD
        if sink.takes_views and len(self.waiting) == 1 and most >= VIEWS_MIN and not from_file and (
                PyBytes_GET_SIZE(stream.piece) - stream.piece_at >= VIEWS_MIN):
            return self.put_views(stream, most)
        n = min(n, most)
        p = sink.reserve(FRAME_HEAD + n)
        if from_file:
            n = self.read_file(stream, p + FRAME_HEAD, n)
            if n == 0:
                return 0
        else:
            stream.take_pieces(p + FRAME_HEAD, n)
        put_frame_head(
            p, <uint32_t>n, DATA, END_STREAM if not stream.has_bytes() and stream.ends_with_bytes() else 0, stream.id)
        sink.commit(p + FRAME_HEAD + n)
        if n >= LARGE_DATA:
            self.rewards += LARGE_REWARD
        elif n >= FAIR_DATA or not stream.has_bytes():
            self.rewards += FAIR_REWARD
        return self.note_put(stream, n)

    cdef int put_views(self, OutboundStream stream, Py_ssize_t most) except -1:
        """Put frames of a large piece without copying it. Returns how many bytes they have."""
        cdef bytes piece = stream.piece
        cdef Py_ssize_t at = stream.piece_at
        cdef Py_ssize_t left = min(most, PyBytes_GET_SIZE(piece) - at, <Py_ssize_t>VIEWS_SIZE)
        cdef Py_ssize_t total = left
        cdef Py_ssize_t n
        cdef list parts = []
        cdef bytes head
        cdef bint is_last = total == stream.waiting_size and stream.file_left == 0
        view = memoryview(piece)
        while left:
            n = min(left, <Py_ssize_t>DATA_SIZE)
            left -= n
            head = PyBytes_FromStringAndSize(NULL, FRAME_HEAD)
            put_frame_head(
                PyBytes_AS_STRING(head), <uint32_t>n, DATA,
                END_STREAM if left == 0 and is_last and stream.ends_with_bytes() else 0, stream.id)
            parts.append(head)
            parts.append(view[at:at + n])
            at += n
        if not stream.waits or self.sink is None:
            return 0                    # a finalizer has run meanwhile, and the stream has ended
        stream.skip_piece(total)
        self.rewards += LARGE_REWARD * <int>(len(parts) // 2)
        self.sink.put_parts(parts)
        return self.note_put(stream, total)

    cdef int note_put(self, OutboundStream stream, Py_ssize_t n) except -1:
        """What follows when n bytes of a stream's DATA are with the sink. Returns n and a frame's head."""
        cdef bint is_last = not stream.has_bytes()
        self.send_window -= n
        stream.send_window -= n
        stream.moved_size += n
        if stream.moved_size >= PROGRESS or is_last:
            stream.moved_size = 0
            stream.moved_at = self.worker.now
        if is_last:
            self.leave_waiting(stream)
        elif stream.incremental and len(self.waiting) > 1:
            self.waiting.remove(stream)
            self.waiting.append(stream)
        self.sink.push(False)
        if is_last and stream.end_is_due:
            if stream.last_fields is not None:
                self.put_end(stream)
            else:
                stream.end_is_put = True
                stream.sent_all()
        if is_last or (stream.backlog() <= QUEUE_LOW and stream.file_left == 0):
            stream.relieve()
        return <int>n + FRAME_HEAD

    cdef Py_ssize_t read_file(self, OutboundStream stream, char* p, Py_ssize_t n) except -1:
        """Read up to n bytes of a stream's file to p. Returns how many; 0: the rest can't be had, which it is told."""
        cdef Py_ssize_t done
        while True:
            done = pread(stream.file, p, n, stream.file_at)
            if done > 0:
                stream.file_at += done
                stream.file_left -= done
                return done
            if done == 0 or errno != EINTR:
                break
        stream.file_error = -1 if done == 0 else errno
        stream.file_left = 0
        stream.end_is_due = False
        self.leave_waiting(stream)
        stream.relieve()
        return 0

    cdef int put_end(self, OutboundStream stream) except -1:
        """Put the trailers, or else an empty DATA frame, with END_STREAM."""
        cdef ByteSink sink = self.sink
        cdef list fields = stream.last_fields
        cdef Py_ssize_t size
        cdef char* p
        if not stream.end_is_due or stream.end_is_put:
            return 0
        stream.last_fields = None
        stream.end_is_put = True
        if fields:
            size = fields_size(fields)
            p = self.encoder.put_fields(self.begin_block(size, len(fields)), fields)
            self.end_block(stream.id, p, True)
        else:
            sink.commit(put_frame_head(sink.reserve(FRAME_HEAD), 0, DATA, END_STREAM, stream.id))
        return stream.sent_all()

    cdef int push(self) except -1:
        cdef ByteSink sink = self.sink
        return 0 if sink is None else sink.push(self.streams.count <= 1)

    # --- What a stream tells its connection ---

    cdef int settle(self, OutboundStream stream) except -1:
        raise NotImplementedError

    cdef int return_credit(self, OutboundStream stream) except -1:
        raise NotImplementedError

    cdef int cancel(self, OutboundStream stream, uint32_t code) except -1:
        raise NotImplementedError

    cdef int promise(self, OutboundStream stream, str path, list headers) except -1:
        raise NotImplementedError
