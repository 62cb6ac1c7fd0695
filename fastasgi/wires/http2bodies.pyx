"""See http2bodies.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcpy

from fastasgi.asgi.http cimport DISCARD_LIMIT
from fastasgi.asgi.httpconnection cimport TOO_LARGE
from fastasgi.codecs.http2frames cimport (
    END_STREAM, FLOW_CONTROL_ERROR, FRAME_HEAD, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, Content, FrameHead,
    find_content,
)
from fastasgi.core.memory cimport BLOCK_MIN, EventMemory
from fastasgi.wires.http2control cimport HTTP2Control
from fastasgi.wires.http2output cimport LARGE_DATA, LARGE_REWARD
from fastasgi.wires.http2stream cimport HTTP2Stream
from fastasgi.wires.http2streams cimport CONTROLS_MOST, CONTROLS_RENEWAL

cdef enum:
    SMALL_DATA = 64                     # bytes; a smaller piece costs more than it brings


cdef class HTTP2Bodies(HTTP2Control):

    cdef int begin_data(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef HTTP2Stream stream
        cdef Content content
        cdef uint32_t code = find_content(head, p, &content)
        if code:
            return self.fail(code, "DATA with too much padding")
        if self.is_idle(head.stream_id):
            return self.fail(PROTOCOL_ERROR, "DATA on a stream that has not begun")
        if head.length > self.window_left:
            return self.fail(FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
        self.at += FRAME_HEAD + content.offset
        self.state = READ_DATA
        self.window_left -= head.length
        self.data_flags = head.flags
        self.data_left = content.length
        self.padding_left = head.length - content.offset - content.length
        if head.stream_id == self.probed_stream:
            self.probed_size += head.length
        stream = self.find(head.stream_id)
        if stream is not None:
            stream = self.checked_data(stream, head, content.length)
        elif not self.was_reset(head.stream_id):
            self.put_reset(head.stream_id, STREAM_CLOSED)
        if self.state != READ_DATA:
            return 0
        self.data_stream = stream
        if stream is not None and content.length >= LARGE_DATA:
            self.rewards += LARGE_REWARD
        elif stream is None or content.length == 0 or (content.length < SMALL_DATA and stream.body_size):
            if not head.flags & END_STREAM and not self.spend(
                    &self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL):
                return 0
        self.add_credit(head.length - content.length)
        if stream is not None:
            stream.window_left -= head.length
            stream.credit += head.length - content.length
        return self.end_data_frame() if head.length == content.offset else 0

    cdef HTTP2Stream checked_data(self, HTTP2Stream stream, const FrameHead* head, Py_ssize_t n):
        """The stream, if it takes the n bytes of this DATA; None if they are to be thrown away."""
        if stream.body_complete:
            self.fail_stream(stream.id, STREAM_CLOSED)
        elif head.length > stream.window_left:
            self.fail_stream(stream.id, FLOW_CONTROL_ERROR)
        elif stream.body_length >= 0 and (
                stream.body_read + n > stream.body_length
                or (head.flags & END_STREAM and stream.body_read + n < stream.body_length)):
            self.fail_stream(stream.id, PROTOCOL_ERROR)
        elif not stream.is_over and stream.tunnel is None and self.exceeds_body_limit(stream.body_read + n):
            self.refuse_body(stream, 413, TOO_LARGE)
        else:
            stream.body_read += n
            return stream
        return None

    cdef int read_data(self) except -1:
        cdef HTTP2Stream stream = self.data_stream
        cdef Py_ssize_t n = min(self.end - self.at, self.data_left)
        cdef char* p = self.at
        cdef bint is_whole
        self.at += n
        self.data_left -= n
        if n == 0:
            n = min(self.end - self.at, self.padding_left)
            self.at += n
            self.padding_left -= n
        elif stream is None:
            self.add_credit(n)
        else:
            if self.gathered_stream is not stream:
                is_whole = self.data_left == 0 and self.data_flags & END_STREAM
                self.begin_gathering(stream, n if is_whole else n + self.end - self.at)
            memcpy(PyBytes_AS_STRING(self.gathered) + self.gathered_size, p, n)
            self.gathered_size += n
        return self.end_data_frame() if self.data_left == 0 and self.padding_left == 0 else 0

    cdef int end_data_frame(self) except -1:
        cdef HTTP2Stream stream = self.data_stream
        self.data_stream = None
        self.state = READ_FRAMES
        if stream is None or not self.data_flags & END_STREAM:
            return 0
        if self.gathered_stream is stream:
            self.feed_gathered(True)
        else:
            self.feed(stream, None, True)
        if self.due is stream:
            self.start_due()
        return 0

    cdef int begin_gathering(self, HTTP2Stream stream, Py_ssize_t room) except -1:
        """Make an object for the DATA of this stream that the rest of the read may have."""
        cdef EventMemory memory = self.worker.memory
        if room < BLOCK_MIN:
            self.gathered = PyBytes_FromStringAndSize(NULL, room)
        else:
            memory.free_block()
            self.gathered = <bytes>memory.block
        self.gathered_stream = stream
        self.gathered_size = 0
        return 0

    cdef int feed_gathered(self, bint is_last) except -1:
        cdef HTTP2Stream stream = self.gathered_stream
        cdef bytes piece = self.gathered
        if stream is None:
            return 0
        self.gathered_stream = self.gathered = None
        if self.gathered_size < PyBytes_GET_SIZE(piece):
            piece = self.worker.memory.object_of(PyBytes_AS_STRING(piece), self.gathered_size)
        return self.feed(stream, piece, is_last)

    cdef int feed(self, HTTP2Stream stream, bytes piece, bint is_last) except -1:
        """Give a piece of a stream's body, or None, to its exchange, or to the WebSocket inside."""
        cdef Py_ssize_t n = 0 if piece is None else PyBytes_GET_SIZE(piece)
        if not stream.is_open:
            return self.add_credit(n)
        if not stream.is_over:
            stream.heard_at = self.worker.now
        stream.fed += n
        if is_last:
            self.uploads -= 1
        if stream.tunnel is not None:
            stream.body_complete = is_last
            if n:
                stream.tunnel.feed(PyBytes_AS_STRING(piece), n)
            if is_last:
                stream.tunnel.feed_end()
        elif stream.is_over:
            return self.discard(stream, n, is_last)
        else:
            stream.expect_piece(is_last)
            if piece is not None:
                stream.feed_body(piece)
            elif is_last:
                stream.feed_end()
        if not stream.is_open or self.sink is None:
            return 0
        self.return_credit(stream)
        return self.settle(stream) if is_last else 0

    cdef int discard(self, HTTP2Stream stream, Py_ssize_t n, bint is_last) except -1:
        """Throw away bytes behind whose stream's response nobody wants any; end the stream if they are many."""
        stream.body_complete = is_last
        stream.discarded += n
        if is_last:
            return self.settle(stream)
        if stream.discarded > DISCARD_LIMIT:
            return self.cancel(stream, NO_ERROR)        # RFC 9113 section 8.1
        return self.return_credit(stream)

    cdef int start_due(self) except -1:
        cdef HTTP2Stream stream = self.due
        self.due = None
        return stream.start() if stream is not None and stream.is_open else 0

    # --- What is made of it ---

    cdef int refuse_body(self, HTTP2Stream stream, int status, str reason) except -1:
        raise NotImplementedError
