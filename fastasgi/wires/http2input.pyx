"""See http2input.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcmp, memcpy

from fastasgi.codecs.hpack cimport TOO_MUCH
from fastasgi.codecs.http2frames cimport (
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FRAME_HEAD, GOAWAY, HEADERS,
    MAX_FRAME_SIZE, PADDED, PING, PREFACE, PREFACE_BYTES, PRIORITY, PRIORITY_UPDATE, PROTOCOL_ERROR, PUSH_PROMISE,
    REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, Content, FrameHead, check_head, find_content,
    read_frame_head,
)
from fastasgi.codecs.http2head cimport MALFORMED, NO_FAULT, HTTP2RequestHead, unlent_head
from fastasgi.core.contracts cimport ByteSink
from fastasgi.wires.http2bodies cimport (
    READ_DATA, READ_FRAMES, READ_NOTHING, READ_PREFACE, READ_SETTINGS, HTTP2Bodies,
)
from fastasgi.wires.http2stream cimport HTTP2Stream
from fastasgi.wires.http2streams cimport CONTROLS_MOST, CONTROLS_RENEWAL

cdef enum:
    REQUESTS_A_TURN = 64                # requests that begin before other connections have their turn
    HELD_USUAL = 16393                  # bytes of the largest frame
    REFUSED_COST = 3                    # control frames that a refused request costs, 2 of which it has brought
    BLOCK_FRAMES = 8                    # frames of a header block, at most, unless its limit needs more
    HEADS_MOST = 1048576                # bytes of the heads of all open streams, at most


cdef class HTTP2Input(HTTP2Bodies):

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    # --- Bytes ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytes joined
        if self.state == READ_NOTHING:
            return 0
        if self.beginning:
            return self.hold_bytes(p, n, HELD_USUAL)
        if self.at < self.end:
            joined = self.rest_and(p, n)
            return self.receive(PyBytes_AS_STRING(joined), len(joined))
        if self.held_length == 0:
            return self.process(p, n)
        self.hold_bytes(p, n, HELD_USUAL)
        if self.held_length < self.needed or self.resume_is_scheduled or self.is_flooded():
            return 0
        return self.process_held()

    cdef int process(self, char* p, Py_ssize_t n) except -1:
        """Understand what can be understood, hold the rest, and write all answers at once."""
        cdef ByteSink sink = self.sink
        cdef bint was_receiving = self.receiving
        cdef bint was_corked = sink.corked
        self.receiving = True
        self.turn_left = REQUESTS_A_TURN
        sink.corked = True
        self.at = p
        self.end = p + n
        try:
            self.advance()
            self.settle_read()
        finally:
            self.at = self.end = NULL
            self.receiving = was_receiving
            sink.corked = was_corked
        if sink.out_length:
            sink.flush()
        return self.watch_time() if self.sink is not None else 0

    cdef int advance(self) except -1:
        """Understand the bytes from `at` to `end`. `at` is behind each frame before the application sees anything."""
        while self.at < self.end and self.sink is not None:
            if self.state == READ_NOTHING:
                self.at = self.end
            elif self.state == READ_DATA:
                self.read_data()
            elif self.state == READ_PREFACE:
                if not self.read_preface():
                    return 0
            elif not self.read_frame():
                return 0
        return 0

    cdef int settle_read(self) except -1:
        """Give the application what the read has brought."""
        self.feed_gathered(False)
        self.start_due()
        if self.sink is None or self.state == READ_NOTHING:
            return 0
        if 2 * self.window_left < self.window:
            self.collect_credit()
        return self.pause_reading() if self.is_flooded() else 0

    cdef int hold(self, Py_ssize_t needed) except -1:
        """Put aside what has not been understood, until there are so many bytes."""
        cdef char* p = self.at
        self.at = self.end
        self.needed = needed
        return self.hold_bytes(p, self.end - p, HELD_USUAL)

    cdef int put_off_rest(self) except -1:
        self.hold(0)
        return self.schedule_resume()

    cdef int resume_held(self) except -1:
        if self.sink is None or self.state == READ_NOTHING or self.held_length == 0 or self.beginning:
            return 0
        return 0 if self.is_flooded() else self.process_held()

    cdef bint read_preface(self) except -1:
        cdef Py_ssize_t n = self.end - self.at
        if memcmp(self.at, PREFACE, min(n, <Py_ssize_t>PREFACE_BYTES)) != 0:
            self.fail(PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")
        elif n < PREFACE_BYTES:
            self.hold(PREFACE_BYTES)
            return False
        else:
            self.at += PREFACE_BYTES
            self.state = READ_SETTINGS
        return True

    cdef bint read_frame(self) except -1:
        """Read a frame, of DATA its head only. False if that has to wait."""
        cdef Py_ssize_t n = self.end - self.at
        cdef Py_ssize_t needed = FRAME_HEAD
        cdef const uint8_t* p = <const uint8_t*>self.at
        cdef FrameHead head
        cdef uint32_t code
        if n < FRAME_HEAD:
            self.hold(FRAME_HEAD)
            return False
        read_frame_head(p, &head)
        if self.gathered_stream is not None and not (
                head.type == DATA and head.stream_id == self.gathered_stream.id):
            self.feed_gathered(False)
            return True                 # the application may have read on meanwhile
        if self.due is not None and head.type == HEADERS:
            self.start_due()
            return True
        code = check_head(&head)
        if code:
            self.fail(code, "a malformed frame head")
            return True
        if head.type != DATA:
            needed += head.length
        elif head.flags & PADDED and head.length:
            needed += 1
        if n < needed:
            self.hold(needed)
            return False
        if self.state == READ_SETTINGS and (head.type != SETTINGS or head.flags & ACK):
            self.fail(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            return True
        if self.block_id and (head.type != CONTINUATION or head.stream_id != self.block_id):
            self.fail(PROTOCOL_ERROR, "another frame within a header block")
            return True
        if head.type == HEADERS and self.turn_left == 0:
            self.hold(0)
            self.schedule_resume()
            return False
        if head.type != DATA and self.is_flooded():
            self.hold(0)
            return False
        if head.type == DATA:
            self.begin_data(&head, p + FRAME_HEAD)
        else:
            self.at += needed
            self.take_frame(&head, p + FRAME_HEAD)
        return True

    cdef int take_frame(self, const FrameHead* head, const uint8_t* p) except -1:
        """Handle a whole frame that is no DATA."""
        if head.type == HEADERS:
            return self.take_headers(head, p)
        if head.type == CONTINUATION:
            return self.take_continuation(head, p)
        if head.type == PUSH_PROMISE:
            return self.fail(PROTOCOL_ERROR, "a client pushes nothing")
        if head.type == WINDOW_UPDATE:
            return self.take_window_update(head, p)
        if head.type == RST_STREAM:
            return self.take_rst_stream(head, p)
        if not self.spend(&self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL):
            return 0
        if head.type == SETTINGS:
            self.take_settings(head, p)
            return self.begin_frames() if self.state == READ_SETTINGS else 0
        if head.type == PING:
            return self.take_ping(head, p)
        if head.type == PRIORITY:
            return self.take_priority(head, p)
        if head.type == PRIORITY_UPDATE:
            return self.take_priority_update(head, p)
        if head.type == GOAWAY:
            return self.heard_goaway()
        return 0                        # RFC 9113 section 5.5: of a type that is not known

    cdef int begin_frames(self) except -1:
        """The client's first SETTINGS have come."""
        self.state = READ_FRAMES
        return self.drain_and_close(0) if self.worker.draining else 0

    # --- Header blocks ---

    cdef int take_headers(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef Content content
        cdef uint32_t code = find_content(head, p, &content)
        if code:
            return self.fail(code, "HEADERS with too much padding")
        self.block_flags = head.flags
        self.block_id = head.stream_id
        self.block_frames = 1
        self.block_dependency = content.dependency
        if head.flags & END_HEADERS:
            return self.read_block(p + content.offset, content.length)
        return self.gather_block(p + content.offset, content.length)

    cdef int take_continuation(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef char* block = self.block
        cdef Py_ssize_t n
        if self.block_id == 0:
            return self.fail(PROTOCOL_ERROR, "CONTINUATION without a header block")
        self.block_frames += 1
        if self.block_length + head.length > self.block_limit or (
                self.block_frames > max(<Py_ssize_t>BLOCK_FRAMES, self.block_limit // MAX_FRAME_SIZE + 1)):
            return self.fail(ENHANCE_YOUR_CALM, "a header block in too many frames, or too large")
        self.gather_block(p, head.length)
        if not head.flags & END_HEADERS:
            return 0
        block = self.block
        n = self.block_length
        self.block = NULL
        self.block_length = 0
        try:
            return self.read_block(<const uint8_t*>block, n)
        finally:
            PyMem_RawFree(block)

    cdef int gather_block(self, const uint8_t* p, Py_ssize_t n) except -1:
        cdef char* block = <char*>PyMem_RawRealloc(self.block, self.block_length + n + 1)
        if block is NULL:
            raise MemoryError()
        memcpy(block + self.block_length, p, n)
        self.block = block
        self.block_length += n
        return 0

    cdef int read_block(self, const uint8_t* p, Py_ssize_t n) except -1:
        """Understand a whole header block: a request, or its trailers."""
        cdef HTTP2RequestHead head = unlent_head(self.head)
        cdef uint32_t stream_id = self.block_id
        cdef bint ends = self.block_flags & END_STREAM != 0
        cdef HTTP2Stream started = None
        self.block_id = 0
        head.lent = self.beginning = True
        try:
            if self.decode_block(head, p, n):
                started = self.take_block(head, stream_id, ends)
        finally:
            head.lent = self.beginning = False
        if self.held_length:
            self.hold_first()
        if self.ended_by_trailers is not None:
            return self.end_by_trailers()
        if started is None or not started.is_open:
            return 0
        if ends:
            return started.start()
        self.due = started
        return 0

    cdef int hold_first(self) except -1:
        """Hold the rest of the read under way, before the bytes that have come since."""
        cdef bytes later = PyBytes_FromStringAndSize(self.held, self.held_length)
        self.held_length = 0
        self.hold(0)
        self.hold_bytes(PyBytes_AS_STRING(later), len(later), HELD_USUAL)
        return self.schedule_resume()

    cdef int end_by_trailers(self) except -1:
        cdef HTTP2Stream stream = self.ended_by_trailers
        self.ended_by_trailers = None
        self.feed(stream, None, True)
        return self.start_due() if self.due is stream else 0

    cdef bint decode_block(self, HTTP2RequestHead head, const uint8_t* p, Py_ssize_t n) except -1:
        cdef int failed = self.decoder.decode(p, n, head.fields)
        if failed == 0:
            return True
        if failed == TOO_MUCH:
            self.fail(ENHANCE_YOUR_CALM, "a header block with too many fields")
        else:
            self.fail(COMPRESSION_ERROR, self.decoder.reason.decode("ascii"))
        return False

    cdef HTTP2Stream take_block(self, HTTP2RequestHead head, uint32_t stream_id, bint ends):
        """What a header block means for its stream. Returns a stream that is to be started, or None."""
        cdef HTTP2Stream stream = self.find(stream_id)
        if stream is not None:
            self.take_trailers(stream, head, ends)
            return None
        if stream_id & 1 == 0:
            self.fail(PROTOCOL_ERROR, "HEADERS on a stream that is not the client's")
            return None
        if stream_id <= self.last_id:
            self.spend(&self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL)
            if not self.was_reset(stream_id):
                self.fail(
                    STREAM_CLOSED if stream_id == self.last_id else PROTOCOL_ERROR,
                    "HEADERS on a stream that is closed")
            return None
        self.last_id = stream_id
        if stream_id > self.last_served:
            # The client knows that it is not served
            self.spend(&self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL)
            return None
        self.turn_left -= 1
        self.spend(&self.controls, -2, CONTROLS_MOST, CONTROLS_RENEWAL)
        if self.block_dependency == stream_id:
            self.fail_stream(stream_id, PROTOCOL_ERROR)
            return None
        head.read(self.decoder)
        if head.fault == MALFORMED:
            self.fail_stream(stream_id, PROTOCOL_ERROR)
            return None
        return self.begin_stream(head, stream_id, ends)

    cdef HTTP2Stream begin_stream(self, HTTP2RequestHead head, uint32_t stream_id, bint ends):
        cdef HTTP2Stream stream
        cdef int most = <int>self.worker.limits.http2_max_concurrent_streams
        if self.streams.count - self.pushed_count >= most:
            self.fail_stream(stream_id, REFUSED_STREAM)
            return None
        if self.streams.count - self.pushed_count + self.outliving_count >= most:
            # The client can't know of calls that go on: this is no fault of its own
            if self.spend(&self.controls, REFUSED_COST, CONTROLS_MOST, CONTROLS_RENEWAL):
                self.put_reset(stream_id, REFUSED_STREAM)
                self.remember_reset(stream_id)
            return None
        if self.heads_size and self.heads_size + head.fields.size > HEADS_MOST:
            self.fail_stream(stream_id, REFUSED_STREAM)
            return None
        if head.content_length > 0 and ends:
            self.fail_stream(stream_id, PROTOCOL_ERROR)
            return None
        stream = self.new_stream(stream_id)
        stream.body_length = head.content_length
        stream.head_size = head.fields.size
        stream.body_complete = ends
        self.set_priority(stream, head.priority, head.via_proxy)
        if not self.begin(stream, head) or self.sink is None or self.state == READ_NOTHING:
            return None
        self.open(stream)
        if self.wide_window and not ends:
            self.widen_to(stream, self.wide_window)
        return stream

    cdef int take_trailers(self, HTTP2Stream stream, HTTP2RequestHead head, bint ends) except -1:
        """The trailers of a request are checked and dropped: ASGI has no message for them."""
        if stream.body_complete:
            return self.fail_stream(stream.id, STREAM_CLOSED)
        head.read_trailers()
        if not ends or head.fault != NO_FAULT or stream.tunnel is not None or (
                stream.body_length >= 0 and stream.body_read != stream.body_length):
            return self.fail_stream(stream.id, PROTOCOL_ERROR)
        self.ended_by_trailers = stream
        return 0

    # --- What is made of it ---

    cdef bint begin(self, HTTP2Stream stream, HTTP2RequestHead head) except -1:
        raise NotImplementedError

    cdef int heard_goaway(self) except -1:
        raise NotImplementedError
