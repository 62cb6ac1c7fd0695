"""See exchange.pxd for the contracts."""

import asyncio
import functools
import inspect
import sys

from cpython.contextvars cimport PyContext_Copy
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from fastasgi.core.contracts cimport WorkerContext
from fastasgi.core.registry cimport Registry
from fastasgi.core.task cimport new_waiter, register_task, wake_all

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept
    void PyErr_SetObject(PyObject* kind, PyObject* value) noexcept
    object PyMethod_New(object function, object instance)
    PyObject* PyExc_StopIteration
    ctypedef struct IteratorType "PyTypeObject":
        PyObject* (*tp_iternext)(PyObject*) except? NULL

CancelledError = asyncio.CancelledError
CAUSE = BaseException.__cause__
CONTEXT = BaseException.__context__
MEMBERS = BaseExceptionGroup.exceptions

cdef enum:
    MOST_EXCEPTIONS = 10000             # exceptions that are looked at for one failure; one with more is a fault
    YIELD_SIZE = 262144                 # bytes that an application may send without a wait before others run


class ClientDisconnected(ConnectionError):
    """The client has gone: raised by `send` of a WebSocket (ASGI specification 2.4, "Disconnected Client"), and of a
    request that goes on sending for long."""


cdef class Ready:
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


cdef int raise_thrown(kind, value, traceback) except -1:
    """Raise what throw() of a coroutine raises that stands at an await. The arguments are those of generator.throw."""
    if value is None:
        value = kind() if isinstance(kind, type) else kind
    elif not isinstance(value, BaseException):
        value = kind(value)
    raise value if traceback is None else value.with_traceback(traceback)


cdef class ReceiveCall:
    """What receive() returns. It gets the message when it is awaited, so that a call that is cancelled before loses
    none."""

    cdef Exchange exchange
    cdef bint done

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        # For calls by Python code; an await calls the slot, see receive_call_next
        item = <object>receive_call_next(<PyObject*>self)
        Py_DECREF(item)
        return item

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        self.done = True
        raise_thrown(kind, value, traceback)

    def close(self):
        self.done = True


cdef PyObject* receive_call_next(PyObject* self) except? NULL:
    """tp_iternext of ReceiveCall: the message as StopIteration's value, or a Waiter.

    If a Cython __next__ raises StopIteration with a value, it makes the exception and a traceback entry for it, which
    costs more than all the rest of receive(). The slot only has to set the exception.
    """
    cdef ReceiveCall call = <ReceiveCall>self
    cdef Exchange exchange = call.exchange
    if call.done:
        raise RuntimeError("cannot reuse already awaited receive()")
    if PyThread_get_thread_ident() != exchange.worker.thread_ident:
        raise RuntimeError("receive() was called in the event loop's thread and is awaited in another")
    cdef object message = exchange.next_message()
    if message is None:
        if exchange.receivers is None:
            exchange.receivers = []
        message = new_waiter(exchange.worker.tasks, exchange.receivers)
        Py_INCREF(message)
        return <PyObject*>message
    call.done = True
    PyErr_SetObject(PyExc_StopIteration, <PyObject*>message)
    return NULL


(<IteratorType*>ReceiveCall).tp_iternext = receive_call_next


cdef class SendCall:
    """What send() returns while the client reads too slowly: the message is with the wire, but the next has to wait."""

    cdef Exchange exchange

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.exchange.gone:
            self.exchange.send_to_nobody()
            raise StopIteration
        if not self.exchange.blocked:
            raise StopIteration
        if self.exchange.senders is None:
            self.exchange.senders = []
        return new_waiter(self.exchange.worker.tasks, self.exchange.senders)

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        raise_thrown(kind, value, traceback)

    def close(self):
        pass


cdef class FailedCall:

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise self.error

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        raise_thrown(kind, value, traceback)

    def close(self):
        pass


cdef FailedCall failed_call(Exception error):
    cdef FailedCall call = FailedCall.__new__(FailedCall)
    call.error = error
    return call


cdef class PauseCall:
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


async def call_app(app, scope, receive, send):
    """Run all of `app` inside the task: if it is no coroutine function, calling it may run code of its own."""
    await app(scope, receive, send)


async def in_loop_thread(WorkerContext worker, call):
    """What receive() and send() return in another thread, in which nothing of the connection may be touched.

    Either our event loop awaits it, as with asgiref's async_to_sync(), or another loop in that thread.
    """
    if PyThread_get_thread_ident() == worker.thread_ident:
        return await call()
    asyncio.get_running_loop()          # raises if there is no loop that could wait
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_loop_thread(worker, call), worker.loop))


cdef class Exchange:

    cdef int start(self) except -1:
        cdef WorkerContext worker = self.worker
        cdef Registry registry = worker.registry
        cdef object context = PyContext_Copy(worker.context)
        cdef dict scope = self.scope
        # Copied before the call, since the application may do with its scope what it likes
        self.scope = private_copy(scope) if worker.keeps_scopes else None
        if worker.app_is_coroutine_function:
            try:
                coroutine = worker.app(scope, PyMethod_New(RECEIVE, self), PyMethod_New(SEND, self))
            except Exception as error:
                return self.returned(error)
        else:
            coroutine = call_app(worker.app, scope, PyMethod_New(RECEIVE, self), PyMethod_New(SEND, self))
        registry.exchange_count += 1
        registry.unfinished_count += 1
        self.is_unfinished = True
        task = worker.tasks.start(coroutine, context)
        if task.done():
            return self.finish(task)
        register_task(task)
        self.task = task
        registry.suspended.add(self)
        task.add_done_callback(self.on_task_done, context=PyContext_Copy(worker.context))
        return 0

    def on_task_done(self, task):
        self.task = None
        self.worker.registry.suspended.discard(self)
        self.finish(task)
        self.worker.registry.check_idle()

    cdef int finish(self, object task) except -1:
        cdef object exception
        self.worker.registry.exchange_count -= 1
        self.count_finished()
        try:
            exception = task.exception()
        except CancelledError as cancelled:
            exception = cancelled
        return self.returned(exception)

    cdef int returned(self, object exception) except -1:
        raise NotImplementedError

    cdef bint is_fault(self, object exception) except -1:
        if exception is None:
            return False
        if issubclass(type(exception), CancelledError) and (self.disconnected or self.worker.draining):
            return False
        return not caused_by_disconnect(exception)

    cdef int tell_end(self, object exception, bint is_fault, str left_out) except -1:
        if is_fault:
            self.worker.counts.exceptions += 1
            return self.worker.logger.log_error("Exception in ASGI application\n", exception)
        if left_out is not None:
            self.worker.logger.error(f"ASGI callable returned without {left_out}.")
        return 0

    cdef int begin_shutdown(self) except -1:
        return 0

    cdef object next_message(self):
        raise NotImplementedError

    def receive(self):
        """The ASGI receive callable."""
        if PyThread_get_thread_ident() != self.worker.thread_ident:
            return in_loop_thread(self.worker, self.receive)
        cdef ReceiveCall call = ReceiveCall.__new__(ReceiveCall)
        call.exchange = self
        return call

    def send(self, object message):
        """The ASGI send callable. When it returns, the message is with the wire; an error is raised by the await."""
        cdef object call
        if PyThread_get_thread_ident() != self.worker.thread_ident:
            return in_loop_thread(self.worker, functools.partial(self.send, message))
        if self.taking:
            return failed_call(RuntimeError("send() was called by what another message of this request holds"))
        self.taking = True
        try:
            call = self.take(message)
        except BaseException as error:
            self.taking = False
            if not isinstance(error, Exception):
                raise
            return failed_call(error)
        self.taking = False
        return call

    cdef object take(self, object message):
        raise NotImplementedError

    cdef int wake_receivers(self) except -1:
        if self.receivers:
            wake_all(self.receivers)
        return 0

    cdef int wake_senders(self) except -1:
        if self.senders:
            wake_all(self.senders)
        return 0

    cdef int feed_disconnect(self) except -1:
        self.disconnected = self.gone = True
        self.wake_receivers()
        self.wake_senders()
        return 0

    cdef int tell_disconnect(self) except -1:
        self.disconnected = True
        return self.wake_receivers()

    cdef int send_to_nobody(self) except -1:
        raise ClientDisconnected("the client has disconnected")

    cdef object sent(self):
        cdef SendCall call
        if self.blocked:
            call = SendCall.__new__(SendCall)
            call.exchange = self
            return call
        return READY

    cdef object sent_bytes(self, Py_ssize_t size):
        if self.blocked:
            return self.sent()
        self.unyielded += size
        if self.unyielded > YIELD_SIZE:
            self.unyielded = 0
            return PauseCall.__new__(PauseCall)
        return READY

    def disconnect(self):
        """Tell the application that its client has gone, whether or not it has."""
        self.feed_disconnect()

    def cancel(self):
        """Cancel the application's task."""
        if self.task is not None:
            self.task.cancel()


cdef bytes as_bytes(str kind, str key, object value):
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{kind}: {key} is {type(value).__name__}, bytes expected")


cdef dict private_copy(dict scope):
    """A copy of a scope for the access log, whose parts the application can't change."""
    cdef dict copied = scope.copy()
    copied["headers"] = list(copied["headers"])
    return copied


cdef bint caused_by_disconnect(object exception) except -1:
    """Whether an exception has no other origin than clients that have left.

    From an exception a way leads back to its cause or context, from a group to each member: each way has to end at a
    ClientDisconnected. The application decides how many exceptions there are, whether groups share members, and whether
    a member leads back to its own group, as those of anyio's task groups do. So this uses a list instead of recursion,
    visits each once, and says no to a circle. The descriptors are those of the base classes, which run no code of the
    application's.
    """
    cdef list pending = [exception]     # exceptions, and the id of each below those that it leads back to
    cdef set seen = set()               # ids
    cdef set above = set()              # ids of those whose ways back are being followed
    while pending:
        item = pending.pop()
        if type(item) is int:
            above.discard(item)
            continue
        if item is None or id(item) in above:
            return False
        if id(item) in seen or issubclass(type(item), ClientDisconnected):
            continue
        seen.add(id(item))
        if len(seen) > MOST_EXCEPTIONS:
            return False
        above.add(id(item))
        pending.append(id(item))
        if issubclass(type(item), BaseExceptionGroup):
            pending.extend(MEMBERS.__get__(item))
        else:
            cause = CAUSE.__get__(item)
            pending.append(CONTEXT.__get__(item) if cause is None else cause)
    return True


cdef object marked_as_coroutine_function(function):
    """The function, which inspect.iscoroutinefunction() and asyncio's now take for a coroutine function.

    Libraries ask these before they call receive() and send().
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine
    return function


# PyMethod_New binds these, which saves a search through the type for every exchange
cdef object RECEIVE = marked_as_coroutine_function(Exchange.receive)
cdef object SEND = marked_as_coroutine_function(Exchange.send)

READY = Ready()
