"""See http2streams.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint32_t, uint8_t

from fastasgi.codecs.http2frames cimport ENHANCE_YOUR_CALM, NO_ERROR, PING_ROOM, put_ping
from fastasgi.codecs.priority cimport DEFAULT_URGENCY
from fastasgi.wires.http2output cimport HTTP2Output, OutboundStream

cdef enum:
    LARGEST_WINDOW = 4194304            # bytes that the window of a stream grows to, at most
    LARGEST_WINDOWS = 8388608           # bytes that the connection's grows to

cdef bytes PROBE = b"roundtrp"


cdef class HTTP2Streams(HTTP2Output):

    # --- Which there are ---

    cdef HTTP2Stream find(self, uint32_t stream_id):
        cdef void* found = self.streams.find(stream_id)
        return None if found is NULL else <HTTP2Stream>found

    cdef bint is_idle(self, uint32_t stream_id) noexcept:
        return stream_id > (self.last_id if stream_id & 1 else self.last_pushed)

    cdef bint was_reset(self, uint32_t stream_id) noexcept:
        cdef int i
        if stream_id > self.last_served:
            return True
        for i in range(RESET_IDS):
            if self.reset_ids[i] == stream_id:
                return True
        return False

    cdef int remember_reset(self, uint32_t stream_id) noexcept:
        self.reset_ids[self.reset_count % RESET_IDS] = stream_id
        self.reset_count = (self.reset_count + 1) % RESET_IDS
        return 0

    cdef HTTP2Stream new_stream(self, uint32_t stream_id):
        cdef HTTP2Stream stream = HTTP2Stream.__new__(HTTP2Stream)
        stream.worker = self.worker
        stream.connection = self
        stream.id = stream_id
        stream.takes_push = True
        stream.urgency = DEFAULT_URGENCY
        stream.send_window = self.peer.initial_window_size
        stream.window = stream.window_left = self.stream_window
        stream.began_at = stream.heard_at = self.worker.now
        return stream

    cdef int open(self, HTTP2Stream stream) except -1:
        self.streams.add(stream.id, stream)
        stream.is_open = True
        self.heads_size += stream.head_size
        if not stream.body_complete:
            self.uploads += 1
        return 0

    # --- Their ends ---

    cdef int settle(self, OutboundStream outbound) except -1:
        cdef HTTP2Stream stream = <HTTP2Stream>outbound
        if not (stream.is_open and stream.is_over):
            return 0
        if stream.body_complete and stream.end_is_put:
            self.spend(&self.resets, -1, self.most_resets(), RESETS_RENEWAL)
            return self.remove(stream)
        if stream.tunnel is None:
            stream.body = stream.more_body = None       # nobody receives it any more
            stream.body_size = 0
        if stream.end_is_put and stream.websocket is not None and stream.tunnel is None:
            return self.cancel(stream, NO_ERROR)        # a handshake that was denied: no body follows a CONNECT
        stream.heard_at = self.worker.now
        self.return_credit(stream)
        return 0 if self.receiving else self.watch_time()

    cdef int remove(self, HTTP2Stream stream) except -1:
        if not stream.is_open:
            return 0
        stream.is_open = False
        if not stream.is_over or (stream.tunnel is not None and not stream.end_is_put):
            stream.outlive()
        self.streams.remove(stream.id)
        self.leave_waiting(stream)
        stream.drop_waiting()
        self.heads_size -= stream.head_size
        if stream.is_pushed:
            self.pushed_count -= 1
        if not stream.body_complete:
            self.uploads -= 1
        if self.data_stream is stream:
            self.data_stream = None
        if self.gathered_stream is stream:
            self.gathered_stream = None
            self.gathered = None
            stream.fed += self.gathered_size
        if self.due is stream:
            self.due = None
        self.add_credit(stream.fed)
        stream.fed = 0
        if stream.tunnel is not None:
            stream.tunnel.feed_loss()
        return self.settle_idle() if self.streams.count == 0 else 0

    cdef int cancel(self, OutboundStream outbound, uint32_t code) except -1:
        if not (<HTTP2Stream>outbound).is_open or self.sink is None:
            return 0
        self.put_reset(outbound.id, code)
        self.remember_reset(outbound.id)
        self.remove(<HTTP2Stream>outbound)
        return 0 if self.receiving else self.push()

    cdef int lose_stream(self, HTTP2Stream stream) except -1:
        cdef bint is_over = stream.is_over
        self.remove(stream)
        return stream.feed_disconnect() if not is_over else 0

    # --- What the peer may cost ---

    cdef int fail_stream(self, uint32_t stream_id, uint32_t code) except -1:
        cdef HTTP2Stream stream = self.find(stream_id)
        if not self.spend(&self.resets, 1, self.most_resets(), RESETS_RENEWAL):
            return 0
        self.put_reset(stream_id, code)
        self.remember_reset(stream_id)
        return 0 if stream is None else self.lose_stream(stream)

    cdef double most_resets(self) noexcept:
        return 2 * self.worker.limits.http2_max_concurrent_streams

    cdef bint spend(self, Budget* budget, double cost, double most, double renewal) except -1:
        cdef double now = self.worker.now
        if budget == &self.controls and 0 < cost <= self.rewards:
            self.rewards = min(self.rewards, <int>REWARDS_MOST) - <int>cost
            return True
        budget.left = min(most, budget.left + renewal * (now - budget.renewed_at) - cost)
        budget.renewed_at = now
        if budget.left >= 0:
            return True
        self.fail(ENHANCE_YOUR_CALM, "too many frames that cost much and bring little")
        return False

    # --- Credit (RFC 9113 section 5.2) ---

    cdef int add_credit(self, int64_t n) except -1:
        self.credit += n
        # What applications leave may be more than half of the window: then half of what is left counts
        if self.credit and (2 * self.credit >= self.window or self.credit >= self.window_left) and (
                self.sink is not None):
            self.put_credit(0, <uint32_t>self.credit)
            self.window_left += self.credit
            self.credit = 0
        return 0

    cdef int return_credit(self, OutboundStream outbound) except -1:
        """Return credit for what the application has received of a stream, and let it call if more is to follow."""
        cdef HTTP2Stream stream = <HTTP2Stream>outbound
        cdef Py_ssize_t kept = stream.body_size
        cdef Py_ssize_t n
        if stream.tunnel is not None:
            kept = 0 if stream.tunnel.reads else stream.fed
        elif stream.is_over:
            kept = 0
        n = stream.fed - kept
        stream.fed = kept
        if self.sink is None or not stream.is_open:
            return 0
        self.add_credit(n)
        if not stream.body_complete:
            stream.credit += n
            if 2 * stream.credit >= stream.window:
                if kept == 0 and stream.window < LARGEST_WINDOW and not self.probing:
                    self.probe(stream)
                self.put_credit(stream.id, <uint32_t>stream.credit)
                stream.window_left += stream.credit
                stream.credit = 0
            stream.wants_call = stream.expects_continue or (kept > 0 and (
                2 * (stream.credit + kept) >= stream.window or 2 * self.window_left < self.window))
        else:
            stream.wants_call = kept > 0 and 2 * self.window_left < self.window
        return 0 if self.receiving else self.push()

    cdef int collect_credit(self) except -1:
        """Return all credit that may be returned, and have each stream call when its application receives the rest."""
        cdef HTTP2Stream stream
        for stream in self.streams.all():
            self.return_credit(stream)
        return 0

    cdef int probe(self, HTTP2Stream stream) except -1:
        """Find out by a PING whether the client uses up the stream's window before it can have more."""
        self.probing = True
        self.probed_stream = stream.id
        self.probed_size = 0
        self.probed_room = stream.window_left
        return self.put_ping_frame(PROBE)

    cdef int widen(self) except -1:
        """Double the window of the stream that was probed, if it was this window that held the upload up."""
        cdef HTTP2Stream stream = self.find(self.probed_stream)
        cdef int64_t more
        self.probing = False
        if stream is None or stream.body_complete or self.probed_size < self.probed_room:
            return 0
        self.wide_window = min(2 * stream.window, <int64_t>LARGEST_WINDOW)
        more = min(2 * self.wide_window, <int64_t>LARGEST_WINDOWS) - self.window
        if more > 0:
            self.window += more
            self.add_credit(more)
        return self.widen_to(stream, self.wide_window)

    cdef int widen_to(self, HTTP2Stream stream, int64_t window) except -1:
        cdef int64_t more = window - stream.window
        if more > 0:
            stream.window = window
            stream.window_left += more
            self.put_credit(stream.id, <uint32_t>more)
        return 0

    cdef int put_ping_frame(self, bytes opaque) except -1:
        self.sink.commit(put_ping(self.sink.reserve(PING_ROOM), 0, <const uint8_t*>PyBytes_AS_STRING(opaque)))
        return 0

    # --- What is made of it ---

    cdef int fail(self, uint32_t code, str reason) except -1:
        raise NotImplementedError

    cdef int settle_idle(self) except -1:
        raise NotImplementedError

    cdef int watch_time(self) except -1:
        raise NotImplementedError
