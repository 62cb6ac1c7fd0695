"""See http2control.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.string cimport memcmp

from fastasgi.codecs.http2frames cimport (
    ACK, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, MAX_WINDOW, PING_BYTES, PING_ROOM, PRIORITY_BYTES, PROTOCOL_ERROR,
    SETTINGS_ACK_ROOM, FrameHead, put_ping, put_settings_ack, read_settings, read_u31,
)
from fastasgi.codecs.priority cimport Priority, read_priority
from fastasgi.wires.http2output cimport OutboundStream
from fastasgi.wires.http2stream cimport HTTP2Stream
from fastasgi.wires.http2streams cimport CONTROLS_MOST, CONTROLS_RENEWAL, PROBE, RESETS_RENEWAL, HTTP2Streams

cdef double YOUNG_S = 1.0               # a stream that the peer resets later than this is not charged


cdef class HTTP2Control(HTTP2Streams):

    cdef int take_settings(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef int64_t window = self.peer.initial_window_size
        cdef uint32_t code
        cdef OutboundStream stream
        if head.flags & ACK:
            return 0
        code = read_settings(&self.peer, p, head.length)
        if code:
            return self.fail(code, "malformed SETTINGS")
        self.encoder.set_max_size(self.peer.least_header_table_size)
        self.encoder.set_max_size(self.peer.header_table_size)
        self.sink.commit(put_settings_ack(self.sink.reserve(SETTINGS_ACK_ROOM)))
        self.note_control(SETTINGS_ACK_ROOM)
        window = self.peer.initial_window_size - window
        if window:
            for stream in self.streams.all():
                stream.send_window += window
                if stream.send_window > MAX_WINDOW:
                    return self.fail(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE makes a window too large")
        return self.pump() if window > 0 else 0

    cdef int take_window_update(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef HTTP2Stream stream
        cdef uint32_t increment = read_u31(p)
        if not self.spend(&self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL):
            return 0
        if head.stream_id == 0:
            if increment == 0:
                return self.fail(PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.send_window += increment
            if self.send_window > MAX_WINDOW:
                return self.fail(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return self.pump()
        if self.is_idle(head.stream_id):
            return self.fail(PROTOCOL_ERROR, "WINDOW_UPDATE for a stream that has not begun")
        stream = self.find(head.stream_id)
        if stream is None:
            return 0                    # it may have been under way when the stream was closed
        if increment == 0:
            return self.fail_stream(stream.id, PROTOCOL_ERROR)
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            return self.fail_stream(stream.id, FLOW_CONTROL_ERROR)
        return self.pump()

    cdef int take_rst_stream(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef HTTP2Stream stream = self.find(head.stream_id)
        if self.is_idle(head.stream_id):
            return self.fail(PROTOCOL_ERROR, "RST_STREAM for a stream that has not begun")
        if stream is None:
            self.spend(&self.controls, 1, CONTROLS_MOST, CONTROLS_RENEWAL)
            return 0
        if (stream.end_is_put and stream.tunnel is None) or self.worker.now - stream.began_at >= YOUNG_S:
            return self.lose_stream(stream)
        if not self.spend(&self.resets, 1, self.most_resets(), RESETS_RENEWAL):
            return 0
        return self.lose_stream(stream)

    cdef int take_ping(self, const FrameHead* head, const uint8_t* p) except -1:
        if head.flags & ACK:
            if self.probing and memcmp(p, <const char*>PROBE, PING_BYTES) == 0:
                return self.widen()
            return self.heard_ping(p)
        self.sink.commit(put_ping(self.sink.reserve(PING_ROOM), ACK, p))
        self.note_control(PING_ROOM)
        return 0

    # --- Priorities (RFC 9218) ---

    cdef int set_priority(self, HTTP2Stream stream, bytes field, bint via_proxy) except -1:
        cdef Priority priority
        cdef bint is_told = field is not None
        cdef bytes value = b"" if field is None else field
        is_told = read_priority(&priority, PyBytes_AS_STRING(value), len(value)) and is_told
        if self.early_id == stream.id and not is_told:
            is_told = True
            priority = self.early_priority
        self.tells_priority = self.tells_priority or is_told
        stream.urgency = priority.urgency
        stream.incremental = priority.incremental or not self.tells_priority or via_proxy or (
            self.believes_forwarded)
        return 0

    cdef int take_priority(self, const FrameHead* head, const uint8_t* p) except -1:
        """RFC 7540's priorities are checked, and mean nothing (RFC 9113 section 5.3.2)."""
        cdef uint32_t code = 0
        if head.length != PRIORITY_BYTES:
            code = FRAME_SIZE_ERROR
        elif read_u31(p) == head.stream_id:
            code = PROTOCOL_ERROR
        if code == 0:
            return 0
        if self.is_idle(head.stream_id):
            return self.fail(code, "a malformed PRIORITY")     # RFC 9113 section 6.4: an idle stream can't be reset
        return self.fail_stream(head.stream_id, code)

    cdef int take_priority_update(self, const FrameHead* head, const uint8_t* p) except -1:
        cdef HTTP2Stream stream
        cdef Priority priority
        cdef uint32_t stream_id
        if head.length < 4 or read_u31(p) == 0:
            return self.fail(PROTOCOL_ERROR, "a malformed PRIORITY_UPDATE")
        stream_id = read_u31(p)
        stream = self.find(stream_id)
        read_priority(&priority, <const char*>p + 4, head.length - 4)
        self.tells_priority = True
        if stream is not None:
            stream.urgency = priority.urgency
            stream.incremental = priority.incremental
        elif stream_id & 1 and stream_id > self.last_id:
            # Of those that come before their streams the last one is kept
            self.early_id = stream_id
            self.early_priority = priority
        return 0

    # --- What is made of it ---

    cdef int heard_ping(self, const uint8_t* opaque) except -1:
        raise NotImplementedError
