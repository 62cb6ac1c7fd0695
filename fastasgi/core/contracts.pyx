"""See contracts.pxd for the contracts."""

import asyncio
import contextvars
import functools
import inspect
import logging
import sys
import threading
import time
import traceback
import urllib.parse
import weakref
from email.utils import formatdate

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

from fastasgi.trust.forwarded cimport Forwarding
from fastasgi._parser cimport HeadParser, LlhttpHeadParser
from fastasgi.trust.peers cimport TrustedPeers

cdef extern from *:
    """
    #if defined(__GNUC__)
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    #endif
    /* Makes the first n bytes of `block`, which must have had room for them when it was made, all of it. */
    static inline void set_bytes_size(PyObject *block, Py_ssize_t n)
    {
        Py_SET_SIZE(block, n);
        PyBytes_AS_STRING(block)[n] = 0;
        ((PyBytesObject *)block)->ob_shash = -1;
    }
    #if defined(__GNUC__)
    #pragma GCC diagnostic pop
    #endif
    """
    void set_bytes_size(PyObject* block, Py_ssize_t n) noexcept

# Not Cython's own declarations: these count no reference of their own
cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object items, Py_ssize_t i) noexcept
    Py_ssize_t Py_REFCNT(PyObject* o) noexcept


# Of the base classes: they run no code of the application's
GROUP_MEMBERS = BaseExceptionGroup.exceptions
TRACEBACK = BaseException.__traceback__
TYPE_NAME = type.__dict__["__qualname__"]
CAUSE = BaseException.__cause__
CONTEXT = BaseException.__context__

cdef double DRAINING_TICK_S = 0.05       # between looks at deadlines while connections are to end
cdef double FIRST_REQUEST_S = 0.4       # how long a draining connection waits for the request it was made for
cdef double SPREAD_S = 2.0              # over which many WebSockets are ended

cdef enum:
    SPREAD_MIN = 100                    # connections that are many
    MOST_TRACEBACKS = 1000              # that are written of one error
    MOST_REFUSALS = 5                   # of which the error log has a line each, from one second to the next


cdef class WorkerContext:
    """What all connections of one worker share: the application, settings, clock, counters and buffers.

    Made inside the running loop, in the contextvars context that every request is to start from.
    """

    def __init__(
        self,
        loop,
        app,
        *,
        dict state,
        str root_path="",
        str http="auto",
        list headers,
        bint date_header,
        double keep_alive_timeout_s,
        double head_timeout_s,
        double body_timeout_s=60.0,
        double write_timeout_s=60.0,
        Py_ssize_t max_request_line_bytes,
        Py_ssize_t max_head_bytes,
        Py_ssize_t max_header_count,
        Py_ssize_t max_body_bytes,
        Py_ssize_t max_concurrency,
        Py_ssize_t max_requests,
        str header_underscores,
        logger,
        AccessLog access_log,
        str asgi_version="3.0",
        bint ws=True,
        Py_ssize_t ws_max_size=16777216,
        Py_ssize_t ws_max_queue=32,
        double ws_ping_interval_s=20.0,
        double ws_ping_timeout_s=20.0,
        bint ws_per_message_deflate=True,
        double tls_handshake_timeout_s=0,
        passes_limits=None,
        Forwarding forwarding=None,
        TrustedPeers proxy_peers=None,
    ):
        self.loop = loop
        self.thread_ident = threading.get_ident()
        self.app = app
        self.app_is_coroutine_function = is_coroutine_function(app)
        self.loop_is_asyncio = isinstance(loop, asyncio.BaseEventLoop)
        self.context = contextvars.copy_context()
        self.logger = GuardedLogger(logger, loop)
        self.access = access_log
        parser = LlhttpHeadParser if http == "httptools" else HeadParser
        self.parser = parser(
            max_request_line_bytes=max_request_line_bytes,
            max_head_bytes=max_head_bytes,
            max_header_count=max_header_count,
            underscores=header_underscores,
        )
        self.keep_alive_timeout_s = keep_alive_timeout_s
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.write_timeout_s = write_timeout_s
        self.max_head_bytes = max_head_bytes
        self.max_body_bytes = max_body_bytes
        self.ws = ws
        self.ws_max_size = ws_max_size
        self.ws_max_queue = ws_max_queue
        self.ws_ping_interval_s = ws_ping_interval_s
        self.ws_ping_timeout_s = ws_ping_timeout_s
        self.ws_per_message_deflate = ws_per_message_deflate
        self.tls_handshake_timeout_s = tls_handshake_timeout_s
        self.forwarding = forwarding
        self.proxy_peers = proxy_peers
        self.max_concurrency = max_concurrency
        self.passes_limits = passes_limits
        self.max_requests = max_requests
        self.state = state
        # With 2.4 and later Starlette and others watch for a disconnect by send() alone, so that what waits for its
        # next item is never told; all that is newer is offered by extensions
        self.asgi = {"version": asgi_version, "spec_version": "2.3"}
        self.call_soon = loop.call_soon
        self.catch_step = self.keep_step
        self.pass_task = self.keep_task
        self.loop_attributes = loop.__dict__
        self.task_arguments = {"loop": loop, "context": None}
        if sys.version_info >= (3, 12):
            self.task_arguments["eager_start"] = True
        else:
            # A name of its own would be formatted at once for every task
            self.task_arguments["name"] = "fastasgi"
        self.root_path = root_path
        self.raw_root_path = urllib.parse.quote(root_path, safe="/%:@!$&'()*+,;=~").encode("ascii")
        self.has_date = date_header
        lines = [(name, b"%b: %b\r\n" % (name, value)) for name, value in headers]
        self.server_line = b"".join([line for name, line in lines if name.lower() == b"server"])
        self.lines_without_server = b"".join([line for name, line in lines if name.lower() != b"server"])
        self.connections = set()
        self.suspended = set()
        self.read_buffer = ReadBuffer()
        self.blocks = []
        # A quarter of the shortest timeout, so that short ones are kept too, but rarely more than once a second.
        shortest = min([t for t in (
            keep_alive_timeout_s, head_timeout_s, body_timeout_s, write_timeout_s, ws_ping_interval_s,
            ws_ping_timeout_s, tls_handshake_timeout_s, 4.0) if t > 0])
        self.tick_interval_s = min(1.0, max(0.02, shortest / 4))
        self.tick()

    def __dealloc__(self):
        PyMem_RawFree(self.spare_out)

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self.connections)

    def open_connections(self) -> set:
        """A copy of the set of open connections."""
        return set(self.connections)

    def running_tasks(self) -> set:
        """The tasks of the application calls that have not returned."""
        return {exchange.task for exchange in self.suspended} - {None}

    def tick(self) -> None:
        """Move the clock: expire deadlines, renew the date, write logs, give unused blocks back.

        To be called each tick_interval_s from an event-loop callback, not from a task."""
        cdef Connection connection
        self.now = self.loop.time()
        cdef long second = int(time.time())
        cdef bint is_new_second = second != self.date_second
        if is_new_second:
            self.date_second = second
            self.date_line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode() if self.has_date else b""
            self.default_lines = self.server_line + self.date_line + self.lines_without_server
        cdef bint was = self.enter()
        try:
            for connection in [c for c in self.connections if (<Connection>c).is_due()]:
                try:
                    if connection.watches_peer:
                        connection.watch()
                    if 0 < connection.deadline <= self.now:
                        connection.deadline = 0
                        connection.expire()
                except Exception as error:
                    self.log_error("A connection's deadline could not be handled", error)
        finally:
            self.leave(was)
        self.block = NULL
        self.blocks.clear()
        if is_new_second:
            self.count_refusals()
        if self.access is not None:
            self.access.flush()
            self.access_log = self.access if self.access.look() else None

    def finish_logs(self) -> None:
        """Write what logs still lack, once nothing is served any more."""
        self.count_refusals()
        if self.access is not None:
            self.access.close()

    cdef bint tells_refusal(self) noexcept:
        self.refusals_told += 1
        if self.refusals_told > MOST_REFUSALS:
            self.refusals_untold += 1
            return False
        return True

    cdef int count_refusals(self) except -1:
        """Tell how many refusals there were of which nothing else tells."""
        cdef Py_ssize_t count = self.refusals_untold
        self.refusals_told = 0
        self.refusals_untold = 0
        if count:
            self.logger.warning("%d more refused in the same second", count)
        return 0

    def drain(self, *, bint lingers=False, bint accepts=False) -> None:
        """Shutdown, first phase: idle connections close, the others after the exchange that runs.

        With lingers idle connections have their keep-alive time for one more request: a client that sends one
        just now loses it otherwise, and not every client sends it again. With accepts new connections still come;
        WebSockets end once they don't, and where they are many one after the other, since their clients come back.
        """
        cdef Connection connection
        cdef list connections = list(self.connections)
        cdef double delay_s = 0
        cdef double step_s = SPREAD_S / len(connections) if len(connections) >= SPREAD_MIN else 0
        self.draining = True
        self.lingers = lingers
        self.ends_websockets = not accepts
        self.now = self.loop.time()
        self.tick_interval_s = min(self.tick_interval_s, DRAINING_TICK_S)
        for connection in connections:
            connection.drain_and_close(delay_s)
            delay_s += step_s

    def disconnect(self) -> None:
        """Shutdown, second phase: every running exchange is told that its client has gone."""
        for exchange in list(self.suspended):
            exchange.disconnect()

    def cancel(self) -> None:
        """Shutdown, third phase: every running application task is cancelled."""
        for exchange in list(self.suspended):
            exchange.cancel()

    def abort(self) -> None:
        """Shutdown, last phase: every transport is closed without waiting for its peer."""
        cdef Connection connection
        for connection in list(self.connections):
            if connection.sink is not None:
                connection.sink.abort()

    async def wait_idle(self) -> None:
        """Return once no connection is open and no application call runs."""
        while self.connections or self.suspended:
            if self.idle_waiter is None or self.idle_waiter.done():
                self.idle_waiter = self.loop.create_future()
            await self.idle_waiter

    cdef int note_idle(self) except -1:
        waiter = self.idle_waiter
        if waiter is not None and not self.connections and not self.suspended:
            self.idle_waiter = None
            if not waiter.done():
                waiter.set_result(None)
        return 0

    cdef int note_nesting(self) except -1:
        """Tasks run outside our callbacks from now on, so that no read memory is lent while they do. What runs inside
        one at this moment may wait for what its client has sent already, or for the answer to what is held back."""
        cdef Connection connection
        cdef ByteSink sink
        if self.nests:
            return 0
        self.nests = True
        self.logger.warning(
            "The application turns the event loop inside a request (as nest_asyncio does): "
            "from now on requests start one turn later, which costs some speed.")
        for connection in list(self.connections):
            sink = connection.sink
            if connection.at < connection.end:
                connection.put_off_rest()
            if sink is not None and sink.corked:
                sink.corked = False
                sink.flush()
        return 0

    cdef int note_old_handshake(self) except -1:
        if not self.has_seen_old_handshake:
            self.has_seen_old_handshake = True
            self.logger.warning(
                "A WebSocket handshake came in HTTP/1.0, which has none: it is a plain request to the application. "
                "Behind nginx, set proxy_http_version 1.1.")
        return 0

    cdef int log_error(self, str message, object error) except -1:
        cdef GuardedLogger logger = self.logger
        cdef object fault = "it holds too many exceptions"
        cdef object frames = TRACEBACK.__get__(error)
        try:
            if not has_many_tracebacks(error):
                logger.logger.error(message, exc_info=(type(error), error, frames))
                return 0
        except Exception as failure:
            fault = f"{type_name(failure)} while it was logged"
        logger.error(
            "%sNot with all that it grew out of: %s.\nTraceback (most recent call last):\n%s%s",
            message, fault, "".join(traceback.format_tb(frames)), type_name(error))
        return 0

    def keep_step(self, step, *arguments, context=None):
        """Takes the place of loop.call_soon while a Task is made on CPython 3.11."""
        if self.step is not None or arguments:
            return self.call_soon(step, *arguments, context=context)
        self.step = step

    def keep_task(self, task):
        """Takes the place of the WeakSet's add() meanwhile; another thread may be making a task for its own loop."""
        if task.get_loop() is not self.loop:
            weakref.WeakSet.add(asyncio.tasks._all_tasks, task)

    cdef ReadBuffer read_buffer_for(self, Py_ssize_t direct_bytes):
        cdef ReadBuffer buffer = unlent(self.read_buffer)
        self.read_buffer = buffer
        buffer.lent = True
        if direct_bytes == 0:
            buffer.p = buffer.scratch
        else:
            buffer.p = self.free_block()
            buffer.block = <object>self.block
        return buffer

    cdef bytes take_read(self, const char* p, Py_ssize_t n):
        cdef char* room
        if n < BLOCK_MIN:
            return PyBytes_FromStringAndSize(p, n)
        if self.block is NULL or p != PyBytes_AS_STRING(<object>self.block):
            room = self.free_block()
            memcpy(room, p, n)
        set_bytes_size(self.block, n)
        return <bytes>self.block

    cdef char* free_block(self) except NULL:
        """READ_SIZE bytes of memory in self.block, which nothing but self.blocks refers to."""
        cdef Py_ssize_t count = len(self.blocks)
        for _ in range(count):
            self.block_index = (self.block_index + 1) % count
            self.block = PyList_GET_ITEM(self.blocks, self.block_index)
            if Py_REFCNT(self.block) == 1:
                set_bytes_size(self.block, READ_SIZE)
                return PyBytes_AS_STRING(<object>self.block)
        made = PyBytes_FromStringAndSize(NULL, READ_SIZE)
        if count < BLOCK_COUNT:
            self.blocks.append(made)
        else:
            self.blocks[self.block_index] = made
        self.block = <PyObject*>made
        return PyBytes_AS_STRING(made)


cdef class ReadBuffer:

    def __cinit__(self):
        self.p = self.scratch = <char*>PyMem_RawMalloc(READ_SIZE)
        if self.scratch is NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.scratch)

    def __len__(self):
        return READ_SIZE

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.p, READ_SIZE, 0, flags)


cdef ReadBuffer unlent(ReadBuffer buffer):
    if buffer.lent:
        return ReadBuffer()
    unpoison(buffer.scratch, READ_SIZE)
    return buffer


cdef class GuardedLogger:
    """A logger for code that others rely on: what a handler or a filter of the user's raises goes to the event loop's
    exception handler, and no further."""

    def __init__(self, logger, loop):
        self.logger = logger
        self.loop = loop

    def error(self, *arguments):
        self.log(logging.ERROR, arguments)

    def warning(self, *arguments):
        self.log(logging.WARNING, arguments)

    def info(self, *arguments):
        self.log(logging.INFO, arguments)

    def debug(self, *arguments):
        self.log(logging.DEBUG, arguments)

    cdef int log(self, int level, tuple arguments) except -1:
        try:
            self.logger.log(level, *arguments)
        except Exception as failure:
            message = arguments[0] % arguments[1:] if len(arguments) > 1 else arguments[0]
            self.loop.call_exception_handler({"message": f"{message} (logging fails: {type_name(failure)})"})
        return 0


cdef str type_name(object value):
    return TYPE_NAME.__get__(type(value))


cdef bint has_many_tracebacks(object error) except -1:
    """Whether a traceback would be endless: the traceback module writes a member of several groups once for each way
    that leads to it."""
    cdef list pending = [error]
    cdef set seen = set()               # ids; what an error grew out of is written once, however many ways lead there
    cdef int members = 0
    while pending and members <= MOST_TRACEBACKS:
        error = pending.pop()
        if id(error) not in seen:
            seen.add(id(error))
            pending.extend([origin for origin in (CAUSE.__get__(error), CONTEXT.__get__(error)) if origin is not None
                            and id(origin) not in seen])
        if issubclass(type(error), BaseExceptionGroup):
            if type(error).exceptions is not GROUP_MEMBERS:
                return True             # code of the application's makes them, and may make more each time
            pending.extend(GROUP_MEMBERS.__get__(error))
            members += len(GROUP_MEMBERS.__get__(error))
    return members > MOST_TRACEBACKS


def is_coroutine_function(app) -> bool:
    """Whether calling `app` only makes a coroutine, so that none of its code runs outside its task."""
    if not (inspect.isroutine(app) or inspect.isclass(app) or isinstance(app, functools.partial)):
        app = getattr(type(app), "__call__", None)
    while True:                         # not what is only marked as one (inspect.markcoroutinefunction)
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
        if self.out is NULL and self.worker.spare_out is not NULL:
            self.out = self.worker.spare_out
            self.out_capacity = self.worker.spare_out_capacity
            self.worker.spare_out = NULL
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
        cdef list parts
        if self.closing:
            return 0
        if self.writing:
            self.put(PyBytes_AS_STRING(data), len(data))
            return 0 if tail is None else self.put(PyBytes_AS_STRING(tail), len(tail))
        parts = [data] if tail is None else [data, tail]
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
            keep_block(self.worker, block, capacity)

    cdef int drop_out(self) except -1:
        keep_block(self.worker, self.out, self.out_capacity)
        self.out = NULL
        self.out_length = self.out_capacity = 0
        return 0

    cdef int after_write(self) except -1:
        if self.out_length:
            return self.flush()
        if self.ending:
            # asyncio's transports don't bear a close() in the resume_writing() that this may be
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
        """Send bytes of an open file without reading them; returns how many. This kind of sink can't."""
        return 0

    cdef object extra_info(self, str name):
        raise NotImplementedError

    cdef int carry(self, Connection connection) except -1:
        raise NotImplementedError

    cdef Connection open_wire(self):
        raise NotImplementedError


cdef int keep_block(WorkerContext worker, char* block, Py_ssize_t capacity) noexcept:
    """Free an output block, but for one that waits for the worker's next sink."""
    if worker.spare_out is NULL and capacity <= 4 * OUT_FLUSH:
        worker.spare_out = block
        worker.spare_out_capacity = capacity
        poison(block, capacity)
    else:
        PyMem_RawFree(block)
    return 0


cdef class Connection:

    cdef bytes rest_and(self, const char* p, Py_ssize_t n):
        cdef Py_ssize_t rest = self.end - self.at
        cdef bytes joined = PyBytes_FromStringAndSize(NULL, rest + n)
        memcpy(PyBytes_AS_STRING(joined), self.at, rest)
        memcpy(PyBytes_AS_STRING(joined) + rest, p, n)
        self.at = self.end
        return joined

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        raise NotImplementedError

    cdef int put_off_rest(self) except -1:
        raise NotImplementedError

    cdef int eof(self) except -1:
        raise NotImplementedError

    cdef int watch(self) except -1:
        return 0

    cdef int lost(self) except -1:
        raise NotImplementedError

    cdef int stalled(self) except -1:
        return 0

    cdef int writable(self) except -1:
        raise NotImplementedError

    cdef int drain_and_close(self, double delay_s) except -1:
        raise NotImplementedError

    cdef bint expect_first_request(self) noexcept:
        cdef double patience_s = self.worker.keep_alive_timeout_s if self.worker.lingers else FIRST_REQUEST_S
        if 0 < self.deadline <= self.worker.now + patience_s:
            return False
        self.set_deadline(patience_s)
        return True

    cdef int expire(self) except -1:
        raise NotImplementedError

    cdef str peer(self):
        peer = self.sink.extra_info("peername")
        if peer is None:
            return "a client that has gone"
        return "%s:%d" % tuple(peer[:2]) if isinstance(peer, (tuple, list)) else "a unix socket"

    cdef int log_refusal(self, dict scope, int status, Py_ssize_t body_bytes, double duration_s) except -1:
        cdef WorkerContext worker = self.worker
        if worker.access_log is None or self.sink is None:
            return 0
        try:
            worker.access_log.record(
                unknown_scope(self.sink) if scope is None else scope, status, body_bytes, duration_s)
        except Exception as error:
            worker.log_error("Exception in the access log", error)
        return 0


cdef dict unknown_scope(ByteSink sink):
    """What the access log reads of a scope, for a request of which only the client is known."""
    peer = sink.extra_info("peername")
    return {
        "client": (peer[0], peer[1]) if isinstance(peer, (tuple, list)) else None,
        "method": "-",
        "raw_path": b"-",
        "query_string": b"",
        "http_version": "-",
        "headers": [],
    }
