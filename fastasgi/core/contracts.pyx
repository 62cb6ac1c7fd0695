"""See contracts.pxd for the contracts."""

import contextvars
import functools
import inspect
import threading
import time
import urllib.parse

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memcpy, memset

from fastasgi.codecs.address cimport endpoint_text
from fastasgi.codecs.heads cimport DefaultFields
from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.counters cimport (
    HTTP_1_0, HTTP_1_1, HTTP_2, WIRE_HTTP2, WIRE_WEBSOCKET, Counters, Gauges, method_of, refusal_of,
)
from fastasgi.core.errorlog cimport ErrorLog
from fastasgi.core.limits cimport Limits
from fastasgi.core.memory cimport EventMemory, unpoison
from fastasgi.core.overload cimport LoadShedder
from fastasgi.core.registry cimport Registry
from fastasgi.core.task cimport TaskStarter
from fastasgi.logs.accesslog cimport AccessLog

from fastasgi.core.counters import IS_OVERLOADED, new_counters
from fastasgi.logs.accesslog import escape

cdef double DRAINING_TICK_S = 0.05      # between looks at deadlines while connections are to end
cdef double FIRST_REQUEST_S = 0.4       # how long a draining connection waits for the request it was made for
cdef double SLOW_S = 1.0                # for a new peer to ask for something, before it has to make room for others
cdef double LINGER_S = 2.0              # for a peer to close its connection when all is said
cdef double SPREAD_S = 2.0              # the time in which many WebSockets are ended, one after the other

cdef enum:
    SPREAD_MIN = 100                    # as many connections, or more, are spread over that time


cdef class WorkerContext:
    """What all connections of one worker share: the application, settings, clock, counters and buffers.

    Made inside the running loop, in the contextvars context that every request is to start from.
    """

    def __init__(self, loop, app, config, *, dict state, logger, AccessLog access_log, Counters counters=None,
                 bint measures=False):
        self.loop = loop
        self.thread_ident = threading.get_ident()
        self.app = app
        self.app_is_coroutine_function = is_coroutine_function(app)
        self.context = contextvars.copy_context()
        self.registry = Registry(loop)
        self.limits = Limits(config)
        self.fields = DefaultFields(config.encoded_headers, dated=config.date_header)
        self.memory = EventMemory()
        self.tasks = TaskStarter(loop)
        self.logger = ErrorLog(logger, loop)
        self.access = access_log
        self.counters = new_counters() if counters is None else counters
        self.counts = self.counters.counts
        self.measures = measures
        if config.overload_delay:
            self.shedder = LoadShedder(
                loop, config.overload_delay, self.registry, self.counters, self.logger)
        self.turn_began_ns = monotonic_ns()
        self.state = state
        # With 2.4 and later Starlette and others watch for a disconnect by send() alone, so that a stream that waits
        # for its next item is never told of one. Extensions offer all that is newer.
        self.asgi = {"version": config.asgi_version, "spec_version": "2.3"}
        self.root_path = config.root_path
        self.raw_root_path = urllib.parse.quote(self.root_path, safe="/%:@!$&'()*+,;=~").encode("ascii")
        self.forwarding = config.forwarding
        # A quarter of the shortest timeout, so that short ones are kept too, but a second at most
        self.tick_interval_s = min(1.0, max(0.02, self.limits.shortest_time_s() / 4))
        self.tick()

    def tick(self) -> None:
        """Move the clock: expire deadlines, renew the date, write logs, give unused blocks back.

        To be called each tick_interval_s from an event-loop callback, not from a task."""
        cdef Connection connection
        self.now = self.loop.time()
        cdef bint is_new_second = self.fields.renew(int(time.time()))
        cdef bint was = self.enter()
        try:
            for connection in [c for c in self.registry.connections if (<Connection>c).is_due()]:
                try:
                    if connection.watches_peer:
                        connection.watch()
                    if 0 < connection.deadline <= self.now:
                        connection.deadline = 0
                        connection.expire()
                except Exception as error:
                    self.logger.log_error("A connection's deadline could not be handled", error)
        finally:
            self.leave(was)
        self.memory.drop_blocks()
        self.registry.offer_room()          # the rest of a head may have been waited for too long by now
        if self.registry.shares is not None:
            self.registry.shares.beat()
        if self.measures:
            self.tell_gauges()
            self.counters.beat()
        if is_new_second:
            self.logger.count_refusals()
        if self.shedder is not None:
            self.shedder.tick()
        if self.access is not None:
            self.access.flush()
        self.look_at_log()

    cdef int look_at_log(self) except -1:
        self.access_log = self.access if self.access is not None and self.access.look() else None
        self.keeps_scopes = self.access_log is not None or self.limits.log_slow > 0
        self.observes = self.measures or self.keeps_scopes
        return 0

    def tell_gauges(self) -> None:
        """Count what is open and runs now. From any thread."""
        cdef Gauges* now = &self.counts.now
        cdef Connection connection
        cdef Gauges found
        memset(&found, 0, sizeof(Gauges))
        for connection in list(self.registry.connections):
            if connection.sink is not None:
                found.open[connection.wire][connection.sink.is_secure] += 1
                found.websockets += connection.wire == WIRE_WEBSOCKET
        found.running = max(0, self.registry.unfinished_count - found.websockets)
        now.running = found.running
        now.websockets = found.websockets
        memcpy(now.open, found.open, sizeof(now.open))

    def finish_logs(self) -> None:
        """Write what logs still lack, once nothing is served any more."""
        self.logger.count_refusals()
        if self.shedder is not None:
            self.shedder.end()
        if self.access is not None:
            self.access.close()

    def drain(self, *, bint keeps_idle=False, bint accepts=False) -> None:
        """Shutdown, first phase: close idle connections, and the others after the exchange that runs.

        With keeps_idle, idle connections have their keep-alive time for one more request: otherwise a client that sends
        one just now loses it, and not every client sends it again. With accepts, new connections still come, and
        WebSockets go on. Otherwise these end; if there are many, one after the other, since their clients come back.
        """
        cdef Connection connection
        cdef list connections = list(self.registry.connections)
        cdef double delay_s = 0
        cdef double step_s = SPREAD_S / len(connections) if len(connections) >= SPREAD_MIN else 0
        self.draining = True
        self.keeps_idle = keeps_idle
        self.ends_websockets = not accepts
        self.now = self.loop.time()
        self.tick_interval_s = min(self.tick_interval_s, DRAINING_TICK_S)
        for connection in connections:
            connection.drain_and_close(delay_s)
            delay_s += step_s

    def disconnect(self) -> None:
        """Shutdown, second phase: tell every running exchange that its client has gone."""
        for exchange in list(self.registry.suspended):
            exchange.disconnect()

    def cancel(self) -> None:
        """Shutdown, third phase: cancel the task of every application call that runs."""
        for exchange in list(self.registry.suspended):
            exchange.cancel()

    def abort(self) -> None:
        """Shutdown, last phase: close every sink without waiting for its peer."""
        cdef Connection connection
        for connection in list(self.registry.connections):
            if connection.sink is not None:
                connection.sink.abort()

    cdef int record_access(self, dict scope, int status, long long body_bytes, double duration_s) except -1:
        try:
            return self.access_log.record(scope, status, body_bytes, duration_s)
        except Exception as error:
            # A formatter or handler of the user's may raise, which is no business of the request's
            return self.logger.log_error("Exception in the access log", error)

    cdef int note_nesting(self) except -1:
        """Have tasks run outside our callbacks from now on, so that no memory is lent while they run. The task that
        runs inside a callback now may wait for bytes that have been read already, or for an answer to bytes in a sink:
        so read these later, and write those."""
        cdef Connection connection
        cdef ByteSink sink
        if self.tasks.nests:
            return 0
        self.tasks.nests = True
        self.logger.warning(
            "The application turns the event loop inside a request (as nest_asyncio does): "
            "from now on requests start one turn later, which costs some speed.")
        for connection in list(self.registry.connections):
            sink = connection.sink
            if connection.at < connection.end:
                connection.put_off_rest()
            if sink is not None and sink.corked:
                sink.corked = False
                sink.flush()
        return 0


def is_coroutine_function(app) -> bool:
    """Whether calling `app` only makes a coroutine, so that none of its code runs outside its task."""
    if not (inspect.isroutine(app) or inspect.isclass(app) or isinstance(app, functools.partial)):
        app = getattr(type(app), "__call__", None)
    while True:                         # a function that is only marked as one (inspect.markcoroutinefunction) is none
        if isinstance(app, functools.partial):
            app = app.func
        elif inspect.ismethod(app):
            app = app.__func__
        else:
            return inspect.isfunction(app) and bool(app.__code__.co_flags & inspect.CO_COROUTINE)


cdef class ByteSink:

    def __dealloc__(self):
        PyMem_RawFree(self.out)

    cdef char* reserve(self, Py_ssize_t n) except NULL:
        cdef Py_ssize_t capacity
        cdef char* block
        cdef EventMemory memory = self.worker.memory
        if self.out is NULL and memory.spare_out is not NULL:
            self.out = memory.spare_out
            self.out_capacity = memory.spare_out_capacity
            memory.spare_out = NULL
            unpoison(self.out, self.out_capacity)
        if self.out_length + n > self.out_capacity:
            capacity = max(self.out_capacity * 2, self.out_length + n, OUT_BLOCK)
            block = <char*>PyMem_RawRealloc(self.out, capacity)
            if block is NULL:
                raise MemoryError()
            self.out = block
            self.out_capacity = capacity
        return self.out + self.out_length

    cdef int put(self, const char* p, Py_ssize_t n) except -1:
        cdef char* room = self.reserve(n)
        memcpy(room, p, n)
        self.commit(room + n)
        return 0

    cdef int put_object(self, bytes data, bytes tail) except -1:
        return self.put_parts([data] if tail is None else [data, tail])

    cdef int put_parts(self, list parts) except -1:
        if self.closing:
            return 0
        if self.writing:
            for part in parts:
                part = bytes(part)
                self.put(PyBytes_AS_STRING(part), len(<bytes>part))
            return 0
        if self.out_length:
            parts.insert(0, PyBytes_FromStringAndSize(self.out, self.out_length))
            self.drop_out()
        self.writing = True
        try:
            self.writelines(parts)
        finally:
            self.writing = False
        return self.after_write()

    cdef int push(self, bint final) except -1:
        if self.corked and self.out_length <= OUT_FLUSH:
            return 0
        if final or self.out_length > OUT_FLUSH:
            return self.flush()
        if self.out_length and not self.flush_is_scheduled:
            self.flush_is_scheduled = True
            self.worker.loop.call_soon(self.flush_soon, context=PyContext_Copy(self.worker.context))
        return 0

    def flush_soon(self):
        """The callback of push()."""
        self.flush_is_scheduled = False
        self.flush()

    cdef int flush(self) except -1:
        if self.out_length == 0 or self.writing:
            return 0
        self.writing = True
        try:
            while self.out_length and (not self.closing or self.ending):
                self.write_out()
        finally:
            self.writing = False
        if self.out is not NULL:
            self.drop_out()
        return self.after_write()

    cdef int write_out(self) except -1:
        cdef char* block = self.out
        cdef Py_ssize_t n = self.out_length
        cdef Py_ssize_t capacity = self.out_capacity
        self.out = NULL
        self.out_length = self.out_capacity = 0
        try:
            return self.write(block, n)
        finally:
            self.worker.memory.keep_out(block, capacity)

    cdef int drop_out(self) except -1:
        self.worker.memory.keep_out(self.out, self.out_capacity)
        self.out = NULL
        self.out_length = self.out_capacity = 0
        return 0

    cdef int after_write(self) except -1:
        if self.out_length:
            return self.flush()
        if self.ending:
            # Whoever has put bytes need not expect that the connection ends inside its call
            self.worker.loop.call_soon(self.end_soon, context=PyContext_Copy(self.worker.context))
        return 0

    def end_soon(self):
        """The callback of after_write()."""
        cdef int ending = self.ending
        self.ending = NOT_ENDING
        if ending == END:
            self.end()
        elif ending == END_GENTLY:
            self.closing = False        # set when it was put off
            self.end_gently()

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        raise NotImplementedError

    cdef int writelines(self, list parts) except -1:
        raise NotImplementedError

    cdef int end(self) except -1:
        raise NotImplementedError

    cdef int end_gently(self) except -1:
        raise NotImplementedError

    cdef int abort(self) except -1:
        raise NotImplementedError

    cdef int reset(self) except -1:
        raise NotImplementedError

    cdef int pause_reading(self) except -1:
        raise NotImplementedError

    cdef int resume_reading(self) except -1:
        raise NotImplementedError

    cdef int peer_state(self) except -1:
        raise NotImplementedError

    cdef Py_ssize_t unsent(self) except -1:
        raise NotImplementedError

    async def send_file(self, file, offset, count):
        """Send bytes of an open file without reading them, and return how many. This kind of sink can't: 0."""
        return 0

    cdef object extra_info(self, str name):
        raise NotImplementedError

    cdef int carry(self, Connection connection) except -1:
        raise NotImplementedError

    cdef Connection secure(self):
        return None


cdef class Opener:

    cdef Connection open_first(self, ByteSink sink):
        raise NotImplementedError

    cdef Connection open_behind_proxy(self, ByteSink sink):
        raise NotImplementedError

    cdef Connection open_wire(self, ByteSink sink, str alpn):
        raise NotImplementedError

    cdef Wire asked_wire(self, ByteSink sink, const char* p, Py_ssize_t n):
        raise NotImplementedError

    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n):
        raise NotImplementedError


cdef class Connection:

    def __dealloc__(self):
        PyMem_RawFree(self.held)

    # --- Its life ---

    cdef int begin_on(self, WorkerContext worker, ByteSink sink, double timeout_s) except -1:
        self.worker = worker
        self.sink = sink
        self.note_wait()
        self.set_deadline(timeout_s)
        worker.registry.connections.add(self)
        worker.registry.tell_others()
        sink.carry(self)
        return self.drain_and_close(0) if worker.draining else 0

    cdef int leave_sink(self) except -1:
        self.worker.registry.connections.discard(self)
        self.sink = None
        self.deadline = 0               # the tick that is under way may have this connection in its list
        self.watches_peer = False
        return 0

    cdef int inherit(self, double deadline, char* p, Py_ssize_t n) except -1:
        if 0 < deadline < self.deadline:
            self.deadline = deadline
        return self.receive(p, n) if n and self.sink is not None else 0

    cdef int lost(self) except -1:
        self.leave_sink()
        self.drop_held()
        self.on_lost()
        self.worker.registry.tell_others()
        self.worker.registry.offer_room()
        return self.worker.registry.check_idle()

    # --- Bytes in ---

    cdef bytes rest_and(self, const char* p, Py_ssize_t n):
        cdef Py_ssize_t rest = self.end - self.at
        cdef bytes joined = PyBytes_FromStringAndSize(NULL, rest + n)
        memcpy(PyBytes_AS_STRING(joined), self.at, rest)
        memcpy(PyBytes_AS_STRING(joined) + rest, p, n)
        self.at = self.end
        return joined

    cdef int hold_bytes(self, const char* p, Py_ssize_t n, Py_ssize_t usual) except -1:
        cdef Py_ssize_t capacity
        cdef char* block
        if self.held_length + n > self.held_capacity:
            capacity = max(self.held_length + n, min(2 * self.held_capacity, usual))
            block = <char*>PyMem_RawRealloc(self.held, capacity)
            if block is NULL:
                raise MemoryError()
            self.held = block
            self.held_capacity = capacity
        memcpy(self.held + self.held_length, p, n)
        self.held_length += n
        return 0

    cdef char* detach_held(self, Py_ssize_t* n) noexcept:
        cdef char* block = self.held
        n[0] = self.held_length
        self.held = NULL
        self.held_length = self.held_capacity = 0
        return block

    cdef int drop_held(self) except -1:
        cdef Py_ssize_t n
        PyMem_RawFree(self.detach_held(&n))
        return 0

    cdef int process_held(self) except -1:
        cdef Py_ssize_t n = 0
        cdef char* block = self.detach_held(&n)
        try:
            return self.process(block, n)
        finally:
            PyMem_RawFree(block)

    cdef int pause_reading(self) except -1:
        if not self.paused:
            self.paused = True
            self.sink.pause_reading()
        return 0

    cdef int resume_reading(self) except -1:
        if self.paused and self.sink is not None:
            self.paused = False
            self.sink.resume_reading()
        return 0

    cdef int schedule_resume(self) except -1:
        if not self.resume_is_scheduled:
            self.resume_is_scheduled = True
            self.worker.loop.call_soon(self.resume, context=PyContext_Copy(self.worker.context))
        return 0

    def resume(self):
        """The callback of schedule_resume()."""
        cdef WorkerContext worker = self.worker
        cdef bint was = worker.enter()
        self.resume_is_scheduled = False
        try:
            self.resume_held()
        finally:
            worker.leave(was)

    # --- What a wire protocol does ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        raise NotImplementedError

    cdef int process(self, char* p, Py_ssize_t n) except -1:
        raise NotImplementedError

    cdef int put_off_rest(self) except -1:
        raise NotImplementedError

    cdef int resume_held(self) except -1:
        return 0

    cdef int eof(self) except -1:
        raise NotImplementedError

    cdef int watch(self) except -1:
        return 0

    cdef bint gives_way(self) noexcept:
        return False

    cdef int on_lost(self) except -1:
        return 0

    cdef int stalled(self) except -1:
        return 0

    cdef int writable(self) except -1:
        return 0

    cdef int drain_and_close(self, double delay_s) except -1:
        raise NotImplementedError

    cdef int expire(self) except -1:
        raise NotImplementedError

    # --- Time ---

    cdef bint expect_first_request(self) noexcept:
        cdef WorkerContext worker = self.worker
        cdef double patience_s = max(FIRST_REQUEST_S, worker.limits.timeout_keep_alive if worker.keeps_idle else 0)
        if 0 < self.deadline <= worker.now + patience_s:
            return False
        self.set_deadline(patience_s)
        return True

    cdef bint is_slow(self) noexcept:
        return self.worker.now - self.waits_since > SLOW_S

    cdef void expect_close(self) noexcept:
        self.set_deadline(LINGER_S)

    # --- Logs ---

    cdef str peer_text(self):
        peer = self.sink.extra_info("peername")
        if peer is None:
            return "a client that has gone"
        return endpoint_text(peer) if isinstance(peer, (tuple, list)) else "a unix socket"

    cdef int log_refusal(
        self, dict scope, int status, str reason, Py_ssize_t body_bytes, int64_t started_ns,
    ) except -1:
        cdef WorkerContext worker = self.worker
        cdef bint tells
        if self.sink is None:
            return 0
        if scope is None:
            scope = unknown_scope(self.sink)
        # Of an overload the log tells as a whole
        tells = reason is not IS_OVERLOADED and worker.logger.tells_refusal()
        if worker.measures:
            worker.counters.count_response(self.protocol_of(scope), method_of(scope["method"]), status)
        worker.counters.note_refusal(
            refusal_of(status, reason), refusal_record(scope, status, reason) if tells else None)
        if worker.access_log is not None:
            worker.record_access(
                scope, status, body_bytes, (monotonic_ns() - started_ns) / 1e9 if started_ns else -1)
        if tells:
            worker.logger.warning("Request of %s refused with %d: %s", self.peer_text(), status, reason)
        return 0

    cdef int protocol_of(self, dict scope) except -1:
        if self.wire == WIRE_HTTP2:
            return HTTP_2
        return HTTP_1_0 if scope["http_version"] == "1.0" else HTTP_1_1

    cdef bint count_refusal(self, int kind, str reason) except -1:
        cdef bint tells = self.worker.logger.tells_refusal()
        cdef dict record = refusal_record(unknown_scope(self.sink), 0, reason) if tells else None
        self.worker.counters.note_refusal(kind, record)
        return tells


cdef class Wire:

    def __init__(self, *, bytes preface=b"", str alpn=None):
        self.preface = preface
        self.alpn = alpn

    cdef Connection open(self, WorkerContext worker, ByteSink sink):
        raise NotImplementedError


cdef dict refusal_record(dict scope, int status, str reason):
    """What the ring of refusals says of one. Of the client's own words there are the first characters."""
    return {
        "at": time.time(),
        "status": status,
        "reason": reason[:80],
        "client": scope["client"][0][:48].encode("ascii", "replace").decode() if scope["client"] else "",
        "method": escape(scope["method"][:8]),
        "path": escape(scope["raw_path"][:40].decode("latin-1")),
    }


cdef dict unknown_scope(ByteSink sink):
    """The keys of a scope that the access log reads, with "-" for all that is not known."""
    peer = sink.extra_info("peername")
    return {
        "client": (peer[0], peer[1]) if isinstance(peer, (tuple, list)) else None,
        "method": "-",
        "raw_path": b"-",
        "query_string": b"",
        "http_version": "-",
        "headers": [],
    }
