"""See http2.pxd for the contracts."""

from urllib.parse import quote

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcmp

from fastasgi.asgi.httpconnection cimport TOO_LARGE
from fastasgi.codecs.heads cimport fields_size, reason_phrase
from fastasgi.codecs.hpack cimport HPACKDecoder, HPACKEncoder
from fastasgi.codecs.http2frames cimport (
    CANCEL, DATA, DEFAULT_WINDOW, END_STREAM, ENHANCE_YOUR_CALM, FRAME_HEAD, GOAWAY_ROOM, MAX_WINDOW,
    NO_ERROR, PING_BYTES, PROTOCOL_ERROR, PUSH_PROMISE, SETTINGS, SETTINGS_ENABLE_CONNECT_PROTOCOL,
    SETTINGS_INITIAL_WINDOW_SIZE, SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_HEADER_LIST_SIZE,
    SETTINGS_NO_RFC7540_PRIORITIES, SETTING_BYTES, WINDOW_UPDATE_ROOM, put_frame_head, put_goaway, put_setting,
    put_u32, put_window_update, settings_init, error_name,
)
from fastasgi.codecs.http2head cimport HTTP2RequestHead
from fastasgi.codecs.target cimport split_target
from fastasgi.core.contracts cimport ByteSink, Connection, Wire, WorkerContext
from fastasgi.core.counters cimport (
    BAD_REQUEST, BODY_TIMEOUT, FLOOD, HEAD_TIMEOUT, HTTP2_PING_TIMEOUT, HTTP_2, KEEP_ALIVE_TIMEOUT, WIRE_HTTP2,
    WRITE_TIMEOUT,
)
from fastasgi.wires.handshake cimport Handshake, read_connect
from fastasgi.wires.http2bodies cimport READ_FRAMES, READ_NOTHING, READ_PREFACE, READ_SETTINGS
from fastasgi.wires.http2input cimport HTTP2Input
from fastasgi.wires.http2output cimport OutboundStream
from fastasgi.wires.http2stream cimport HTTP2Stream
from fastasgi.wires.http2streams cimport CONTROLS_MOST

from fastasgi.asgi.httpconnection import head_limits

cdef enum:
    PUSHES_MOST = 16                    # open streams that the server has begun, at most
    LAST_STREAM = 1073741824            # from this one on the client is to open another connection

cdef double GOAWAY_S = 1.0              # for the peer to answer the PING behind the first GOAWAY
cdef double DISCARD_S = 2.0             # for a client that was answered to end its request
# What is left as it is in a path that is pushed: applications give paths with queries, and encoded ones
cdef str URL_CHARACTERS = "/?%:@!$&'()*+,;=~"
cdef bytes DRAIN = b"draining"
cdef bytes KEEP_ALIVE = b"alive?\0\0"

cdef dict EXTENSIONS = {
    "http.response.early_hint": {},
    "http.response.trailers": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}
cdef dict EXTENSIONS_AND_PUSH = EXTENSIONS | {"http.response.push": {}}


cdef class HTTP2Wire(Wire):

    def __init__(self, config):
        Wire.__init__(self, preface=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", alpn="h2")
        self.head = HTTP2RequestHead(**head_limits(config))
        self.greeting = greeting(config)

    cdef Connection open(self, WorkerContext worker, ByteSink sink):
        cdef HTTP2Connection connection = HTTP2Connection.__new__(HTTP2Connection)
        connection.worker = worker
        connection.wire = WIRE_HTTP2
        connection.head = self.head
        connection.decoder = HPACKDecoder()
        connection.encoder = HPACKEncoder()
        settings_init(&connection.peer)
        connection.send_window = DEFAULT_WINDOW
        connection.window = connection.window_left = max(
            DEFAULT_WINDOW, worker.limits.http2_initial_connection_window_size)
        connection.stream_window = worker.limits.http2_initial_stream_window_size
        connection.block_limit = 2 * self.head.fields.max_size
        connection.last_served = MAX_WINDOW
        connection.resets.left = connection.most_resets()
        connection.controls.left = CONTROLS_MOST
        connection.resets.renewed_at = connection.controls.renewed_at = connection.heard_at = worker.now
        sink.put(PyBytes_AS_STRING(self.greeting), len(self.greeting))
        connection.begin_on(worker, sink, worker.limits.timeout_request_head)
        connection.watch_time()
        sink.push(False)
        return connection


cdef bytes greeting(config):
    """What the server sends first on a connection (RFC 9113 section 3.4)."""
    cdef list settings = [
        (SETTINGS_MAX_CONCURRENT_STREAMS, config.http2_max_concurrent_streams),
        (SETTINGS_INITIAL_WINDOW_SIZE, config.http2_initial_stream_window_size),
        (SETTINGS_MAX_HEADER_LIST_SIZE, head_limits(config)["max_head_bytes"]),
        (SETTINGS_NO_RFC7540_PRIORITIES, 1),
    ]
    cdef bytes data
    cdef char* p
    cdef Py_ssize_t more = config.http2_initial_connection_window_size - DEFAULT_WINDOW
    if config.serves_websockets:
        settings.append((SETTINGS_ENABLE_CONNECT_PROTOCOL, 1))
    data = PyBytes_FromStringAndSize(NULL, FRAME_HEAD + SETTING_BYTES * len(settings) + WINDOW_UPDATE_ROOM)
    p = put_frame_head(PyBytes_AS_STRING(data), SETTING_BYTES * <uint32_t>len(settings), SETTINGS, 0, 0)
    for name, value in settings:
        p = put_setting(p, name, value)
    if more > 0:
        p = put_window_update(p, 0, <uint32_t>more)
    return data[:p - PyBytes_AS_STRING(data)]


cdef class HTTP2Connection(HTTP2Input):

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        self.heard_at = self.worker.now
        return HTTP2Input.receive(self, p, n)

    # --- Requests ---

    cdef bint begin(self, HTTP2Stream stream, HTTP2RequestHead head) except -1:
        cdef dict scope = self.scope_of(head)
        cdef str reason
        head.headers = None             # the application's, which may change it
        stream.is_head = head.method == "HEAD"
        stream.scheme, stream.authority = head.scheme, head.authority
        if self.sink is None or self.state == READ_NOTHING:
            return False                # the connection has ended while its addresses were asked for
        stream.started_ns = self.worker.turn_began_ns
        if head.fault:
            return self.refuse(stream, head.status, head.reason.decode("ascii"), scope)
        if self.exceeds_body_limit(head.content_length):
            return self.refuse(stream, 413, TOO_LARGE, scope)
        reason = self.unavailable(scope, head.protocol is not None)
        if reason is not None:
            return self.refuse(stream, 503, reason, scope)
        if head.protocol is not None:
            if not self.begin_websocket_of(stream, head, scope):
                return False
        else:
            self.begin_request(stream, scope)
            stream.expects_continue = stream.wants_call = head.expect_continue and not stream.body_complete
        self.idle_by = 0
        self.count_request(stream, head.method, HTTP_2)
        return True

    cdef dict scope_of(self, HTTP2RequestHead head):
        return self.new_scope(
            "2", head.method, head.path, head.raw_path, head.query, head.headers, head.tells_client,
            EXTENSIONS_AND_PUSH if self.peer.enable_push and not self.peer_leaves else EXTENSIONS,
            head.scheme.decode("ascii"))

    cdef bint begin_websocket_of(self, HTTP2Stream stream, HTTP2RequestHead head, dict scope) except -1:
        cdef Handshake handshake
        if not self.worker.limits.serves_websockets:
            return self.refuse(stream, 501, "WebSockets are not served", scope)
        if stream.body_complete:
            return self.refuse(stream, 400, "a WebSocket ends with its handshake", scope)
        handshake = read_connect(scope["headers"])
        if handshake.status:
            return self.refuse(stream, handshake.status, handshake.reason, scope)
        self.begin_websocket(stream, scope, handshake.deflate)
        return True

    cdef bint refuse(self, HTTP2Stream stream, int status, str reason, dict scope) except -1:
        """Answer in the application's place, and want nothing more of the request."""
        cdef bytes text = reason_phrase(status).encode()
        if self.sink is None:
            return False
        self.log_refusal(scope, status, reason, 0 if stream.is_head else len(text), stream.started_ns)
        self.put_answer(stream, status, text)
        return False

    cdef int put_answer(self, HTTP2Stream stream, int status, bytes text) except -1:
        """A whole response, and NO_ERROR (RFC 9113 section 8.1) to a client that has not sent all of its request."""
        cdef list fields = [(b"content-type", b"text/plain; charset=utf-8")]
        cdef char* p
        cdef bint is_bodiless = stream.is_head or self.waiting or self.sink.blocked or (
            len(text) > min(self.send_window, stream.send_window))
        if status == 503:
            fields.append((b"retry-after", self.retry_after()))
        elif status == 426:
            fields.append((b"sec-websocket-version", b"13"))
        p = self.encoder.put_status(self.begin_block(fields_size(fields), len(fields)), status)
        p = self.encoder.put_defaults(p, self.worker.fields, False, False)
        p = self.encoder.put_fields(p, fields)
        if stream.is_head or not is_bodiless:
            p = self.encoder.put_content_length(p, len(text))
        self.end_block(stream.id, p, is_bodiless)
        if not is_bodiless:
            p = put_frame_head(self.sink.reserve(FRAME_HEAD), <uint32_t>len(text), DATA, END_STREAM, stream.id)
            self.sink.commit(p)
            self.sink.put(PyBytes_AS_STRING(text), len(text))
            self.send_window -= len(text)
        if not stream.body_complete:
            self.put_reset(stream.id, NO_ERROR)
            self.remember_reset(stream.id)
        return 0

    cdef int refuse_body(self, HTTP2Stream stream, int status, str reason) except -1:
        """Refuse the body of a request whose application may be running. If its response has begun, reset it."""
        cdef bint nothing_sent = not stream.has_begun() and stream.websocket is None
        cdef bint is_due = self.due is stream
        cdef dict scope = stream.scope
        if not nothing_sent:
            self.cancel(stream, CANCEL)
            return stream.feed_disconnect()
        self.refuse(stream, status, reason, scope)
        self.remove(stream)
        stream.scope = None
        if not is_due:
            stream.cut_off(0)
        return 0

    # --- Server push (RFC 9113 section 8.4) ---

    cdef int promise(self, OutboundStream outbound, str path, list headers) except -1:
        cdef HTTP2Stream parent = <HTTP2Stream>outbound
        cdef HTTP2Stream stream
        cdef bytes target = quote(path, safe=URL_CHARACTERS).encode("ascii")
        cdef tuple parts = split_target(target)
        cdef uint32_t most = min(self.peer.max_concurrent_streams, <uint32_t>PUSHES_MOST)
        cdef list fields = [
            (b":method", b"GET"), (b":scheme", parent.scheme), (b":authority", parent.authority), (b":path", target),
            *[(name.lower(), value) for name, value in headers]]
        cdef char* p
        if parts is None:
            raise ValueError(f"http.response.push: {path!r} is not a path")
        if parent.is_pushed or parent.authority is None or not self.peer.enable_push or self.peer_leaves or (
                self.goaway_is_put or <uint32_t>self.pushed_count >= most or self.last_pushed >= LAST_STREAM):
            return 0
        stream = self.new_stream(self.last_pushed + 2)
        stream.is_pushed = stream.body_complete = True
        stream.scheme, stream.authority = parent.scheme, parent.authority
        self.last_pushed = stream.id
        p = put_u32(self.frame_room(4 + fields_size(fields), len(fields)), stream.id)
        p = self.encoder.put_fields(self.encoder.begin_block(p), fields)
        self.end_frames(PUSH_PROMISE, parent.id, p, 0)
        self.begin_pushed(stream, self.new_scope(
            "2", "GET", parts[0], parts[1], parts[2],
            [(b"host", stream.authority)] + [pair for pair in fields[4:] if pair[0] != b"host"], False, EXTENSIONS,
            stream.scheme.decode("ascii")))
        return self.push()

    cdef int begin_pushed(self, HTTP2Stream stream, dict scope) except -1:
        if self.sink is None:
            return 0
        self.pushed_count += 1
        self.open(stream)
        self.begin_request(stream, scope)
        self.count_request(stream, "GET", HTTP_2)
        # Not within the application's own call, which promises
        self.worker.loop.call_soon(stream.start_pushed, context=PyContext_Copy(self.worker.context))
        return 0

    # --- The end ---

    cdef int fail(self, uint32_t code, str reason) except -1:
        if self.sink is None or self.state == READ_NOTHING:
            return 0
        if self.count_refusal(FLOOD if code == ENHANCE_YOUR_CALM else BAD_REQUEST, reason):
            self.worker.logger.warning(
                "Connection of %s closed with %s: %s", self.peer_text(), error_name(code), reason)
        if self.sink is None:
            return 0
        self.put_goaway_frame(min(self.last_id, self.last_served), code)
        return self.close()

    cdef int put_goaway_frame(self, uint32_t last_id, uint32_t code) except -1:
        self.sink.commit(put_goaway(self.sink.reserve(GOAWAY_ROOM), last_id, code, NULL, 0))
        return 0

    cdef int close(self) except -1:
        """End our half, and read on until the peer closes: a reset could take the GOAWAY away from it."""
        self.state = READ_NOTHING
        self.direct_bytes = 0
        if self.sink is not None:
            self.unsent = 0
            self.expect_close()
            self.resume_reading()
            self.sink.end_gently()
        return self.disconnect_all()

    cdef int disconnect_all(self) except -1:
        cdef HTTP2Stream stream
        self.state = READ_NOTHING
        for stream in self.streams.all():
            self.lose_stream(stream)
        return 0

    cdef int settle_idle(self) except -1:
        """The last stream is closed."""
        if self.sink is None or self.state == READ_NOTHING:
            return 0
        if self.last_served < MAX_WINDOW or self.peer_leaves or self.last_id >= LAST_STREAM:
            return self.close_idle()
        if self.worker.limits.timeout_keep_alive <= 0:
            return self.close_idle()
        self.idle_by = self.worker.now + self.worker.limits.timeout_keep_alive + self.worker.tick_interval_s
        self.note_wait()
        self.worker.registry.offer_room()
        return 0 if self.receiving else self.watch_time()

    cdef int close_idle(self) except -1:
        if self.last_served == MAX_WINDOW:
            self.put_goaway_frame(self.last_id, NO_ERROR)
        return self.close()

    cdef int eof(self) except -1:
        self.disconnect_all()
        if self.sink is not None:
            self.sink.end()
        return 0

    cdef int on_lost(self) except -1:
        return self.disconnect_all()

    cdef int begin_frames(self) except -1:
        HTTP2Input.begin_frames(self)
        if self.worker.limits.timeout_request_head > 0:
            self.idle_by = self.worker.now + self.worker.limits.timeout_request_head + self.worker.tick_interval_s
        return 0

    cdef int heard_goaway(self) except -1:
        self.peer_leaves = True
        return self.settle_idle() if self.streams.count == 0 else 0

    cdef int heard_ping(self, const uint8_t* opaque) except -1:
        self.pinged_at = 0
        if self.final_by and memcmp(opaque, <const char*>DRAIN, PING_BYTES) == 0:
            return self.put_last_goaway()
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        """Two GOAWAYs (RFC 9113 section 6.8): with the first the client learns not to begin anything new, the second
        names the last stream that is served. So no request is lost that is under way."""
        cdef HTTP2Stream stream
        if self.state == READ_NOTHING:
            return 0
        if self.state == READ_PREFACE or self.state == READ_SETTINGS:
            self.expect_first_request()
            self.partial_by = self.deadline
            return 0
        if not self.goaway_is_put:
            self.goaway_is_put = True
            self.put_goaway_frame(MAX_WINDOW, NO_ERROR)
            self.put_ping_frame(DRAIN)
            self.final_by = self.worker.now + GOAWAY_S
            self.push()
        for stream in self.streams.all():
            if not stream.is_over:
                stream.begin_shutdown()
        return self.watch_time()

    cdef int put_last_goaway(self) except -1:
        self.final_by = 0
        self.last_served = self.last_id
        self.put_goaway_frame(self.last_id, NO_ERROR)
        if self.streams.count == 0:
            return self.close()
        return 0 if self.receiving else self.push()

    cdef bint gives_way(self) noexcept:
        if self.streams.count or self.state == READ_NOTHING:
            return False
        return (self.scope_template is not None and self.held_length == 0) or self.is_slow()

    # --- Time ---

    cdef int stalled(self) except -1:
        if self.state != READ_NOTHING and self.sink is not None:
            self.unsent = self.sink.unsent()
            self.watch_progress()
        return 0

    cdef int writable(self) except -1:
        self.unsent = 0
        self.control_size = 0
        if self.state == READ_NOTHING:
            return 0
        self.resume_reading()
        if self.held_length:
            self.schedule_resume()
        self.pump()
        if self.sink is not None:
            self.push()
        return self.watch_time()

    cdef int watch_time(self) except -1:
        if self.sink is None or self.state == READ_NOTHING:
            return 0
        if self.held_length or self.block_id or self.state == READ_PREFACE or self.state == READ_SETTINGS:
            if self.partial_by == 0 and self.worker.limits.timeout_request_head > 0:
                self.partial_by = (
                    self.worker.now + self.worker.limits.timeout_request_head + self.worker.tick_interval_s)
        else:
            self.partial_by = 0
        self.deadline = self.next_time()
        return 0

    cdef double next_time(self) noexcept:
        """The worker.now at which expire() has something to look at; 0 if there is nothing."""
        cdef double interval_s = self.worker.limits.http2_keep_alive_interval
        cdef double at = self.worker.now
        if self.waiting or self.uploads or self.sink.blocked:
            return at
        at = sooner(sooner(self.partial_by, self.final_by), self.idle_by)
        if interval_s > 0 and self.streams.count:
            if not self.pinged_at:
                return sooner(at, self.heard_at + interval_s)
            if self.worker.limits.http2_keep_alive_timeout > 0:
                return sooner(at, self.pinged_at + self.worker.limits.http2_keep_alive_timeout)
        return at

    cdef int expire(self) except -1:
        cdef Py_ssize_t unsent
        if self.sink is None:
            return 0
        unsent = self.sink.unsent()
        if self.sink is None:
            return 0
        if unsent or self.sink.blocked:
            if self.worker.limits.timeout_write > 0 and not self.may_take_longer(unsent):
                self.worker.counts.timeouts[WRITE_TIMEOUT] += 1
                return self.sink.abort() if self.state == READ_NOTHING else self.sink.reset()
        elif self.unsent and self.state == READ_NOTHING:
            # Only now has it read all that it has to read before it closes too
            self.unsent = 0
            self.expect_close()
        elif self.state == READ_NOTHING:
            return self.sink.abort()
        if self.state == READ_NOTHING:
            return 0
        self.expire_waits()
        return self.watch_time()

    cdef int expire_waits(self) except -1:
        cdef double now = self.worker.now
        if 0 < self.partial_by <= now:
            self.worker.counts.timeouts[HEAD_TIMEOUT] += 1
            if self.state < READ_FRAMES and not self.held_length:
                self.state = READ_NOTHING
                return self.sink.end()
            return self.fail(PROTOCOL_ERROR, "the rest of a frame did not arrive within timeout_request_head")
        if 0 < self.final_by <= now:
            self.put_last_goaway()
        if 0 < self.idle_by <= now and self.streams.count == 0:
            self.worker.counts.timeouts[KEEP_ALIVE_TIMEOUT] += 1
            return self.close_idle()
        self.idle_by = 0 if self.streams.count else self.idle_by
        self.expire_pings()
        return self.expire_streams()

    cdef int expire_pings(self) except -1:
        cdef double interval_s = self.worker.limits.http2_keep_alive_interval
        cdef double now = self.worker.now
        if interval_s <= 0 or self.streams.count == 0 or self.state == READ_NOTHING:
            return 0
        if self.pinged_at:
            if 0 < self.worker.limits.http2_keep_alive_timeout <= now - self.pinged_at:
                self.worker.counts.timeouts[HTTP2_PING_TIMEOUT] += 1
                return self.sink.abort()
        elif now - self.heard_at >= interval_s:
            self.pinged_at = now
            self.put_ping_frame(KEEP_ALIVE)
            self.sink.push(True)
        return 0

    cdef int expire_streams(self) except -1:
        cdef HTTP2Stream stream
        if not (self.waiting or self.uploads):
            return 0
        for stream in self.streams.all():
            if self.sink is None or self.state == READ_NOTHING:
                return 0
            if stream.is_open:
                self.expire_stream(stream)
        return 0

    cdef int expire_stream(self, HTTP2Stream stream) except -1:
        """End a stream whose client does not do its part."""
        cdef double now = self.worker.now
        cdef double write_s = self.worker.limits.timeout_write
        cdef double body_s = self.worker.limits.timeout_request_body
        if stream.waits:
            if write_s > 0 and now - stream.moved_at > write_s:
                self.worker.counts.timeouts[WRITE_TIMEOUT] += 1
                self.cancel(stream, CANCEL)
                return stream.feed_disconnect() if not stream.is_over else 0
        elif stream.body_complete or (stream.tunnel is not None and not stream.end_is_put):
            return 0
        elif stream.is_over:
            return self.cancel(stream, NO_ERROR) if now - stream.heard_at > DISCARD_S else 0
        elif stream.has_begun() or stream.expects_continue or stream.body_size:
            stream.heard_at = now
        elif body_s > 0 and now - stream.heard_at > body_s:
            self.worker.counts.timeouts[BODY_TIMEOUT] += 1
            self.refuse_body(stream, 408, "it did not arrive within timeout_request_body")
            return 0 if self.sink is None else self.sink.push(True)
        return 0


cdef inline double sooner(double a, double b) noexcept:
    """The earlier of two times, of which 0 means none."""
    return b if a == 0 or 0 < b < a else a
