"""See _exchange.pxd for the contracts.

`receive` and `send` are plain functions that return awaitables, which cost less than coroutines and may be given to
create_task, gather and wait_for all the same. An application is started, and resumed, inside the event that brings
what it needs, so that most requests finish in the read event of their head (DESIGN: "Start the application in place").
"""

import asyncio
import contextvars
import os
import sys
import time
from urllib.parse import quote

from cpython.contextvars cimport PyContext_Copy, PyContext_Enter, PyContext_Exit
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject, PyObject_Call
from cpython.ref cimport Py_INCREF
from cpython.weakref cimport PyWeakref_NewRef

from fastasgi._core cimport OUT_FLUSH, WorkerContext
from fastasgi._encoder import FieldError

from fastasgi._encoder cimport check_name, check_value

cdef extern from "Python.h":
    void PyErr_SetObject(PyObject* kind, PyObject* value) noexcept
    PyObject* PyErr_Occurred() noexcept
    object PyMethod_New(object function, object instance)
    PyObject* PyDict_GetItemWithError(object mapping, object key) noexcept
    PyObject* PyExc_StopIteration
    ctypedef struct IteratorType "PyTypeObject":
        PyObject* (*tp_iternext)(PyObject*) except? NULL

Task = asyncio.Task
CancelledError = asyncio.CancelledError
cdef bint TASK_STARTS_EAGERLY = sys.version_info >= (3, 12)
cdef object REGISTER_TASK = asyncio.tasks._register_task
cdef set REGISTRY                       # of weak references: what CPython 3.11's asyncio.all_tasks() goes through
cdef dict REGISTRY_ATTRIBUTES
if not TASK_STARTS_EAGERLY:
    REGISTRY = asyncio.tasks._all_tasks.data
    REGISTRY_ATTRIBUTES = asyncio.tasks._all_tasks.__dict__
    REGISTER_TASK = asyncio.tasks._all_tasks.add

cdef enum:
    PENDING
    WOKEN
    CANCELLED

cdef str HTTP_REQUEST = "http.request"
cdef str HTTP_DISCONNECT = "http.disconnect"
cdef str HTTP_START = "http.response.start"
cdef str HTTP_BODY = "http.response.body"
cdef str HTTP_TRAILERS = "http.response.trailers"
cdef str HTTP_EARLY_HINT = "http.response.early_hint"
cdef str HTTP_PATHSEND = "http.response.pathsend"
cdef str HTTP_ZEROCOPYSEND = "http.response.zerocopysend"
cdef str HTTP_DEBUG = "http.response.debug"


cdef enum:
    TYPE
    STATUS
    HEADERS
    BODY
    MORE_BODY
    TRAILERS
    FIELD_COUNT

# The keys of the messages that every response consists of; interned, as an application's own constants are.
cdef tuple FIELD_NAMES = tuple([sys.intern(name) for name in (
    "type", "status", "headers", "body", "more_body", "trailers")])
cdef PyObject* FIELDS[FIELD_COUNT]
for field_index, field_name in enumerate(FIELD_NAMES):
    FIELDS[field_index] = <PyObject*>field_name


class ClientDisconnected(ConnectionError):
    """The client has gone: raised by `send` (ASGI HTTP specification 2.4, "Disconnected Client")."""


# --- Awaitables ---

cdef class Ready:
    """Awaiting it gives None at once. It has no state, so one serves every call."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        raise_thrown(kind, value, traceback)

    def close(self):
        pass


cdef Ready READY = Ready()


cdef int raise_thrown(kind, value, traceback) except -1:
    """What throw() of a coroutine that stands at an await raises; the arguments are those of generator.throw."""
    if value is None:
        value = kind() if isinstance(kind, type) else kind
    elif not isinstance(value, BaseException):
        value = kind(value)
    raise value if traceback is None else value.with_traceback(traceback)


cdef class Waiter:

    def get_loop(self):
        return self.worker.loop

    def add_done_callback(self, callback, *, context=None):
        self.wakeup = callback
        self.context = contextvars.copy_context() if context is None else context
        if self.state != PENDING:
            self.call_soon()

    def remove_done_callback(self, callback):
        if self.wakeup != callback:
            return 0
        self.wakeup = None
        return 1

    def done(self):
        return self.state != PENDING

    def cancelled(self):
        return self.state == CANCELLED

    def cancel(self, msg=None):
        if self.state != PENDING:
            return False
        self.state = CANCELLED
        self.cancel_message = msg
        self.waiters.remove(self)
        self.call_soon()
        return True

    def result(self):
        if self.state == CANCELLED:
            raise self.make_cancelled_error()
        if self.state == PENDING:
            raise asyncio.InvalidStateError("Result is not ready.")

    def exception(self):
        return self.result()

    def _make_cancelled_error(self):
        return self.make_cancelled_error()

    cdef object make_cancelled_error(self):
        return CancelledError() if self.cancel_message is None else CancelledError(self.cancel_message)

    cdef int call_soon(self) except -1:
        wakeup, self.wakeup = self.wakeup, None
        if wakeup is not None:
            self.worker.loop.call_soon(wakeup, self, context=self.context)
        return 0


cdef Waiter new_waiter(WorkerContext worker, list waiters):
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.worker = worker
    waiter._asyncio_future_blocking = True
    waiter.waiters = waiters
    waiters.append(waiter)
    return waiter


cdef int wake_all(list waiters) except -1:
    """Wake whoever waits: in place inside our own callbacks, where no task is current; soon otherwise."""
    cdef Waiter waiter
    cdef list woken = waiters[:]
    waiters.clear()
    for waiter in woken:
        if waiter.state != PENDING:
            continue
        waiter.state = WOKEN
        if waiter.worker.in_callback and waiter.wakeup is not None:
            wakeup, waiter.wakeup = waiter.wakeup, None
            try:
                run_in_place(waiter.worker, waiter.context, wakeup, waiter)
            except (KeyboardInterrupt, SystemExit) as stop:
                waiter.worker.loop.call_soon(raise_again, stop)
        else:
            waiter.call_soon()
    return 0


cdef object run_in_place(WorkerContext worker, object context, object step, object argument):
    """Run a step of a task now, as the event loop would: in its context, with no task around it."""
    PyContext_Enter(context)
    worker.in_callback = False
    try:
        return step(argument) if argument is not None else step()
    finally:
        worker.in_callback = True
        PyContext_Exit(context)


cdef class ReceiveCall:
    """What receive() returns. The message is taken when it is awaited, so that a call cancelled before loses none."""

    cdef Exchange exchange
    cdef bint done

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Replaced by receive_call_next, which does the same; here so that the type has the slot."""
        raise StopIteration

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        self.done = True
        raise_thrown(kind, value, traceback)

    def close(self):
        self.done = True


cdef PyObject* receive_call_next(PyObject* self) except? NULL:
    """tp_iternext of ReceiveCall: the message as StopIteration's value, or a Waiter.

    A Cython __next__ that raises with a value builds the exception and a traceback entry for it, which costs more than
    all the rest of receive(). The slot's contract is only that the exception is set.
    """
    cdef ReceiveCall call = <ReceiveCall>self
    if call.done:
        raise RuntimeError("cannot reuse already awaited receive()")
    cdef Exchange exchange = call.exchange
    cdef object message = exchange.next_message()
    if message is None:
        if exchange.receivers is None:
            exchange.receivers = []
        message = new_waiter(exchange.worker, exchange.receivers)
        Py_INCREF(message)
        return <PyObject*>message
    call.done = True
    PyErr_SetObject(PyExc_StopIteration, <PyObject*>message)
    return NULL


(<IteratorType*>ReceiveCall).tp_iternext = receive_call_next


cdef class SendCall:
    """What send() returns while the client reads too slowly: its message is with the wire, but the next must wait."""

    cdef Exchange exchange

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.exchange.disconnected:
            raise ClientDisconnected("the client has disconnected")
        if not self.exchange.blocked:
            raise StopIteration
        if self.exchange.senders is None:
            self.exchange.senders = []
        return new_waiter(self.exchange.worker, self.exchange.senders)

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        raise_thrown(kind, value, traceback)

    def close(self):
        pass


cdef class PauseCall:
    """What send() returns to an application that has sent much without a pause: others run before it goes on."""

    cdef bint paused

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.paused:
            raise StopIteration
        self.paused = True
        return None

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        self.paused = True
        raise_thrown(kind, value, traceback)

    def close(self):
        self.paused = True


# --- Starting a task in place ---

def pass_over(task):
    """Stands in for _all_tasks.add meanwhile: registering a task costs more than all the rest of its constructor."""


cdef object start_task(WorkerContext worker, object coroutine, object context):
    """Make a Task and run it up to its first suspension. Raises only what asyncio lets end the event loop."""
    worker.task_arguments["context"] = context
    if TASK_STARTS_EAGERLY:
        worker.in_callback = False
        try:
            return PyObject_Call(Task, (coroutine,), worker.task_arguments)
        finally:
            worker.in_callback = True
    return start_task_by_hand(worker, coroutine, context)


cdef object start_task_by_hand(WorkerContext worker, object coroutine, object context):
    """CPython 3.11 has no eager_start.

    There the constructor schedules the first step by loop.call_soon, and adds the task to the WeakSet behind
    asyncio.all_tasks(). Both are shadowed on their instances for its length: the step is run here, and the task is
    listed for the length of the step at a fraction of the cost (see register_task for what comes after). No other
    thread can come between, since the constructor runs no bytecode.
    """
    cdef object task, step, reference
    worker.loop_attributes["call_soon"] = worker.catch_step
    REGISTRY_ATTRIBUTES["add"] = pass_over
    try:
        task = PyObject_Call(Task, (coroutine,), worker.task_arguments)
    finally:
        worker.loop_attributes["call_soon"] = worker.call_soon
        REGISTRY_ATTRIBUTES["add"] = REGISTER_TASK
    step = worker.step
    worker.step = None
    reference = PyWeakref_NewRef(task, None)
    REGISTRY.add(reference)
    try:
        run_in_place(worker, context, step, None)
    finally:
        REGISTRY.discard(reference)
    return task


async def call_app(app, scope, receive, send):
    """Run all of `app` inside the task, where calling it may run code of its own before there is a coroutine."""
    await app(scope, receive, send)


def raise_again(exception):
    """A callback for the event loop."""
    raise exception


# --- Exchange ---

cdef class Exchange:

    cdef int call(self, object send) except -1:
        cdef WorkerContext worker = self.worker
        cdef object context = PyContext_Copy(worker.context)
        if worker.app_is_coroutine_function:
            try:
                coroutine = worker.app(self.scope, PyMethod_New(RECEIVE, self), PyMethod_New(send, self))
            except Exception as error:
                return self.returned(error)
        else:
            coroutine = call_app(worker.app, self.scope, PyMethod_New(RECEIVE, self), PyMethod_New(send, self))
        worker.exchange_count += 1
        # The application may do with its scope what it likes
        self.scope = None if worker.access_log is None else (<dict>self.scope).copy()
        try:
            task = start_task(worker, coroutine, context)
        except (KeyboardInterrupt, SystemExit) as stop:
            # As from any other task, it ends the event loop; but first this request gets its answer
            worker.loop.call_soon(raise_again, stop)
            worker.exchange_count -= 1
            return self.returned(stop)
        if task.done():
            return self.finish(task)
        if not TASK_STARTS_EAGERLY:
            REGISTER_TASK(task)
        self.task = task
        worker.suspended.add(self)
        task.add_done_callback(self.on_task_done, context=worker.context)
        return 0

    def on_task_done(self, task):
        self.task = None
        self.worker.suspended.discard(self)
        self.finish(task)
        self.worker.note_idle()

    cdef int finish(self, object task) except -1:
        cdef object exception
        self.worker.exchange_count -= 1
        try:
            exception = task.exception()
        except CancelledError as cancelled:
            exception = cancelled
        return self.returned(exception)

    cdef int start(self) except -1:
        raise NotImplementedError

    cdef int returned(self, object exception) except -1:
        raise NotImplementedError

    cdef object next_message(self):
        raise NotImplementedError

    def receive(self):
        """The ASGI receive callable."""
        cdef ReceiveCall call = ReceiveCall.__new__(ReceiveCall)
        call.exchange = self
        return call

    cdef int wake_receivers(self) except -1:
        if self.receivers:
            wake_all(self.receivers)
        return 0

    cdef int wake_senders(self) except -1:
        if self.senders:
            wake_all(self.senders)
        return 0

    cdef int feed_disconnect(self) except -1:
        self.disconnected = True
        self.wake_receivers()
        self.wake_senders()
        return 0

    cdef object sent(self):
        cdef SendCall call
        if self.blocked:
            call = SendCall.__new__(SendCall)
            call.exchange = self
            return call
        return READY

    def sent_awaitable(self):
        """To await between pieces that the wire has taken, so that a slow client is waited for."""
        return self.sent()

    def disconnect(self):
        """Tell the application that its client has gone, whether or not it has."""
        self.feed_disconnect()

    def cancel(self):
        """Cancel the application's task."""
        if self.task is not None:
            self.task.cancel()


cdef bint caused_by_disconnect(object exception) except -1:
    """Whether `exception`, one it grew out of, or all of a group's members, are our ClientDisconnected."""
    cdef int steps = 0
    while exception is not None and steps < 100:
        if isinstance(exception, ClientDisconnected):
            return True
        if isinstance(exception, BaseExceptionGroup):
            return all([caused_by_disconnect(member) for member in exception.exceptions])
        exception = exception.__cause__ or exception.__context__
        steps += 1
    return False


# --- HTTPExchange ---

cdef class HTTPExchange(Exchange):

    def __cinit__(self):
        self.content_length = -1

    cdef int start(self) except -1:
        return self.call(SEND)

    # Inbound

    cdef int feed_more_body(self, bytes piece) except -1:
        if self.more_body is None:
            self.more_body = []
        self.more_body.append(piece)
        return 0

    cdef object next_message(self):
        cdef object body
        if self.disconnected or self.state == COMPLETE:
            return {"type": HTTP_DISCONNECT}
        if self.body is None and (not self.body_complete or self.body_received):
            if self.wants_call and not self.body_complete:
                self.want_body()
            return None
        body = self.body if self.body is not None else b""
        if self.more_body is not None:
            self.more_body.insert(0, body)
            body = b"".join(self.more_body)
            self.more_body = None
        self.body = None
        self.body_size = 0
        self.body_received = self.body_complete
        if self.wants_call and not self.body_complete:
            self.want_body()
        return {"type": HTTP_REQUEST, "body": body, "more_body": not self.body_received}

    # Outbound

    def send(self, object message):
        """The ASGI send callable. The message is checked and with the wire when it returns."""
        cdef PyObject* values[FIELD_COUNT]
        cdef object kind
        if type(message) is not dict:
            message = dict(message)
        read_message(message, values)
        if values[TYPE] is NULL:
            raise KeyError("type")
        kind = <object>values[TYPE]
        if self.state == COMPLETE:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        if self.disconnected:
            raise ClientDisconnected("the client has disconnected")
        if self.state == EXPECT_START:
            if kind == HTTP_START:
                self.take_start(values)
                return READY
            if kind == HTTP_EARLY_HINT:
                self.take_early_hint(message)
                return self.sent()
            expected = HTTP_START
        elif self.state == EXPECT_BODY:
            if kind == HTTP_BODY:
                return self.take_body(values)
            if kind == HTTP_PATHSEND or kind == HTTP_ZEROCOPYSEND:
                return self.take_file(kind, message)
            expected = HTTP_BODY
        elif self.state == EXPECT_TRAILERS:
            if kind == HTTP_TRAILERS:
                self.take_trailers(message)
                return self.sent()
            expected = HTTP_TRAILERS
        else:
            raise RuntimeError(f"ASGI message '{kind}' sent while a file is being sent.")
        if kind == HTTP_DEBUG:
            # ASGI extension "Debug": for test clients, servers pass over it
            return READY
        raise RuntimeError(f"Expected ASGI message '{expected}', but got '{kind}'.")

    cdef int take_start(self, PyObject** values) except -1:
        if values[STATUS] is NULL:
            raise KeyError("status")
        self.begin_response(
            <object>values[STATUS], <object>values[HEADERS] if values[HEADERS] is not NULL else ())
        self.wants_trailers = values[TRAILERS] is not NULL and <object>values[TRAILERS]
        return 0

    cdef int begin_response(self, int status, object headers) except -1:
        """Check and hold what starts the response."""
        cdef bytes name, value
        cdef Py_ssize_t length
        cdef bint has_coding = False
        if not 200 <= status <= 999:
            raise ValueError(f"http.response.start: status {status} is not a final status code, 200 to 999")
        self.headers = checked_headers(headers)
        self.headers_size = 0
        self.content_length = -1
        self.has_date = self.has_server = self.wants_close = self.has_connection = False
        for pair in self.headers:
            name = <bytes>(<tuple>pair)[0]
            value = <bytes>(<tuple>pair)[1]
            length = len(name)
            if length == 4:
                self.has_date = self.has_date or is_named(name, b"date")
            elif length == 6:
                self.has_server = self.has_server or is_named(name, b"server")
            elif length == 10 and is_named(name, b"connection"):
                self.has_connection = True
                if b"close" in [token.strip() for token in value.lower().split(b",")]:
                    self.wants_close = True
            elif length == 14 and is_named(name, b"content-length"):
                if self.content_length >= 0:
                    raise ValueError("http.response.start: content-length is given twice")
                self.content_length = read_decimal(value, len(value))
                if self.content_length < 0:
                    raise ValueError(f"http.response.start: content-length {value!r} is not a number of bytes")
            elif length == 17 and is_named(name, b"transfer-encoding"):
                has_coding = True
            self.headers_size += length + len(value)
        if has_coding:
            # The server's business (ASGI HTTP specification, "Response Start")
            self.headers = [pair for pair in self.headers if not is_named((<tuple>pair)[0], b"transfer-encoding")]
        self.status = status
        self.bodiless = self.is_head or status == 204 or status == 304
        self.state = EXPECT_BODY
        return 0

    cdef object take_body(self, PyObject** values):
        cdef object value = <object>values[BODY] if values[BODY] is not NULL else b""
        cdef bytes body = value if type(value) is bytes else as_bytes(value)
        cdef bint more = values[MORE_BODY] is not NULL and <object>values[MORE_BODY]
        self.put_body(body, more)
        if not more:
            return self.body_sent_whole()
        if self.blocked:
            return self.sent()
        self.unyielded += len(body)
        if self.unyielded > 2 * OUT_FLUSH:
            self.unyielded = 0
            return PauseCall.__new__(PauseCall)
        return READY

    cdef int put_body(self, bytes body, bint more) except -1:
        self.count_body(len(body), more)
        if self.headers is None:
            return self.put_data(body, more)
        self.put_response(body, more)
        self.headers = None
        return 0

    cdef object body_sent_whole(self):
        if self.wants_trailers:
            self.state = EXPECT_TRAILERS
        else:
            self.complete()
        return READY

    cdef int count_body(self, long long n, bint more) except -1:
        """Hold the application to the content-length it declared (RFC 9110 section 8.6)."""
        self.body_sent += n
        if self.content_length < 0 or self.bodiless:
            return 0
        if self.body_sent > self.content_length:
            self.body_sent -= n
            raise RuntimeError("Response content longer than Content-Length")
        if not more and self.body_sent < self.content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        return 0

    cdef object take_file(self, str kind, dict message):
        """http.response.pathsend and http.response.zerocopysend: a file's bytes as a piece of the body."""
        cdef object file, given
        cdef long long offset = 0
        cdef long long count
        cdef bint more = False
        if kind == HTTP_PATHSEND:
            file = open(message["path"], "rb", buffering=0)
        else:
            given = message["file"]
            # A descriptor of our own: the application may close its own once send() has returned
            file = os.fdopen(os.dup(given.fileno() if hasattr(given, "fileno") else given), "rb", buffering=0)
            more = message.get("more_body", False)
            offset = file.tell() if message.get("offset") is None else message["offset"]
        count = max(0, os.fstat(file.fileno()).st_size - offset)
        if kind == HTTP_ZEROCOPYSEND:
            if message.get("count") is not None:
                count = min(count, <long long>message["count"])
            if message.get("offset") is None:
                # As sendfile() does where it is given no offset
                file.seek(offset + count)
        self.count_body(count, more)
        return self.put_file(file, offset, count, more)

    cdef int file_sent(self, bint more) except -1:
        self.state = EXPECT_BODY
        if not more:
            self.body_sent_whole()
        return 0

    cdef int take_trailers(self, dict message) except -1:
        cdef list trailers = checked_headers(message.get("headers", ()))
        self.trailers = trailers if self.trailers is None else self.trailers + trailers
        if not message.get("more_trailers", False):
            self.put_trailers()
            self.complete()
        return 0

    cdef int take_early_hint(self, dict message) except -1:
        links = checked_headers([(b"link", link) for link in message.get("links", ())])
        return self.put_informational(103, links)

    cdef int complete(self) except -1:
        self.state = COMPLETE
        if self.worker.access_log is not None:
            self.log_access()
        self.ended()
        return self.release()

    cdef int release(self) except -1:
        """Nothing will come or go any more: let go whoever waits for it."""
        if self.receivers:
            self.wake_receivers()
        if self.blocked:
            self.unblock()
        return 0

    cdef int log_access(self) except -1:
        cdef dict scope = <dict>self.scope
        self.scope = None
        return self.worker.access_log.record(
            scope, self.status, 0 if self.bodiless else self.body_sent, time.perf_counter() - self.started_at)

    cdef int feed_disconnect(self) except -1:
        if self.state != COMPLETE and self.state != EXPECT_START and not self.disconnected:
            if self.worker.access_log is not None:
                self.log_access()
        self.body = self.more_body = None
        self.body_size = 0
        return Exchange.feed_disconnect(self)

    # The end of the call

    cdef int returned(self, object exception) except -1:
        if exception is not None:
            self.log_exception(exception)
        if self.state == COMPLETE:
            return 0
        if self.disconnected:
            self.give_up()
        elif self.state == EXPECT_START or self.headers is not None:
            if exception is None:
                self.worker.logger.error("ASGI callable returned without starting response."
                                         if self.state == EXPECT_START
                                         else "ASGI callable returned without completing response.")
            self.put_error(500, b"Internal Server Error")
        else:
            if exception is None:
                self.worker.logger.error("ASGI callable returned without completing response.")
            self.give_up()
        return 0

    cdef int give_up(self) except -1:
        self.state = COMPLETE
        self.reset()
        return self.release()

    cdef int log_exception(self, object exception) except -1:
        if isinstance(exception, CancelledError) and (self.disconnected or self.worker.draining):
            return 0
        if caused_by_disconnect(exception):
            return 0
        self.worker.logger.error("Exception in ASGI application\n", exc_info=exception)
        return 0

    cdef int put_error(self, int status, bytes body) except -1:
        self.state = EXPECT_START
        self.body_sent = 0
        self.begin_response(
            status, [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")])
        self.wants_trailers = False
        self.put_body(body, False)
        return self.complete()

    cdef int put_response(self, bytes body, bint more) except -1:
        raise NotImplementedError

    cdef int put_data(self, bytes body, bint more) except -1:
        raise NotImplementedError

    cdef int want_body(self) except -1:
        raise NotImplementedError

    cdef int put_informational(self, int status, list headers) except -1:
        raise NotImplementedError

    cdef int put_trailers(self) except -1:
        raise NotImplementedError

    cdef object put_file(self, object file, long long offset, long long count, bint more):
        raise NotImplementedError

    cdef int reset(self) except -1:
        raise NotImplementedError

    cdef int ended(self) except -1:
        raise NotImplementedError


cdef int read_message(dict message, PyObject** values) except -1:
    """The values of the usual keys, or NULL; borrowed from `message`. One pass compares interned keys by identity."""
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t position = 0
    cdef bint has_others = False
    cdef int i
    for i in range(FIELD_COUNT):
        values[i] = NULL
    while PyDict_Next(message, &position, &key, &value):
        for i in range(FIELD_COUNT):
            if key is FIELDS[i]:
                values[i] = value
                break
        else:
            has_others = True
    if has_others:
        for i in range(FIELD_COUNT):
            if values[i] is NULL:
                values[i] = PyDict_GetItemWithError(message, <object>FIELDS[i])
                if values[i] is NULL and PyErr_Occurred() is not NULL:
                    return -1
    return 0


cdef bytes as_bytes(object value):
    """A copy, so that what the application does with its buffer later changes nothing that was sent."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"http.response.body: body is {type(value).__name__}, bytes expected")


cdef bint is_named(bytes name, bytes lower_name) noexcept:
    """Whether two field names of one length are the same; `lower_name` has letters and "-" only."""
    cdef Py_ssize_t i
    cdef const char* p = name
    cdef const char* q = lower_name
    for i in range(len(lower_name)):
        if (p[i] | 0x20) != q[i]:
            return False
    return True


cdef long long read_decimal(const char* p, Py_ssize_t n) noexcept nogil:
    """The number that n digits stand for; -1 where they are none, or too many."""
    cdef long long number = 0
    cdef Py_ssize_t i
    if not 0 < n <= 18:
        return -1
    for i in range(n):
        if not 48 <= p[i] <= 57:
            return -1
        number = number * 10 + p[i] - 48
    return number


cdef list checked_headers(object headers):
    cdef list checked = list(headers)
    cdef bytes name, value
    cdef object pair
    cdef Py_ssize_t i
    for i in range(len(checked)):
        pair = checked[i]
        if type(pair) is not tuple or len(<tuple>pair) != 2 or type((<tuple>pair)[0]) is not bytes \
                or type((<tuple>pair)[1]) is not bytes:
            pair = checked[i] = as_field(pair)
        name = <bytes>(<tuple>pair)[0]
        value = <bytes>(<tuple>pair)[1]
        if not check_name(<char*>name, len(name)):
            raise FieldError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
        if not check_value(<char*>value, len(value)):
            raise FieldError(f"header {name!r}: the value {value!r} has a CR, LF or NUL (RFC 9110 section 5.5)")
    return checked


cdef tuple as_field(object pair):
    name, value = pair
    for part in (name, value):
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(f"header {name!r}: {part!r} is {type(part).__name__}, bytes expected")
    return bytes(name), bytes(value)


cdef dict scope_template(WorkerContext worker, str scheme, object client, object server):
    """The keys of a connection's HTTP scopes in their order, with what is the same in all of them."""
    return {
        "type": "http",
        "asgi": worker.asgi,
        "http_version": "1.1",
        "server": server,
        "client": client,
        "scheme": scheme,
        "method": None,
        "root_path": worker.root_path,
        "path": None,
        "raw_path": None,
        "query_string": None,
        "headers": None,
        "state": None,
        "extensions": None,
    }


cdef dict build_scope(
    WorkerContext worker, dict template, str http_version, str method, str path, bytes raw_path, bytes query,
    list headers, dict extensions,
):
    """The HTTP connection scope (ASGI HTTP specification 2.5). Every container but "asgi" is the request's own."""
    cdef dict scope = template.copy()
    if http_version != "1.1":
        scope["http_version"] = http_version
    scope["method"] = method
    scope["path"] = path if not worker.root_path else worker.root_path + path
    scope["raw_path"] = raw_path if not worker.raw_root_path else worker.raw_root_path + raw_path
    scope["query_string"] = query
    scope["headers"] = headers
    scope["state"] = worker.state.copy() if worker.state else {}
    scope["extensions"] = extensions.copy()
    return scope


# Bound by PyMethod_New, which saves the search through the type for every exchange.
cdef object RECEIVE = Exchange.receive
cdef object SEND = HTTPExchange.send
