"""See task.pxd for the contracts."""

import asyncio
import contextvars
import sys
import weakref

from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject, PyObject_Call
from cpython.weakref cimport PyWeakref_NewRef

cdef extern from *:
    """
    /* The context that is entered, or None; a new reference. contextvars itself gives a copy only. */
    static inline PyObject *entered_context(void)
    {
        PyObject *context = PyThreadState_Get()->context;
        return Py_NewRef(context ? context : Py_None);
    }
    """
    object entered_context()

cdef extern from "Python.h":
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept
    ctypedef struct TaskType "PyTypeObject":
        object (*tp_new)(TaskType* kind, tuple arguments, PyObject* keywords)
        int (*tp_init)(object task, tuple arguments, dict keywords) except -1

Task = asyncio.Task
CancelledError = asyncio.CancelledError

cdef bint TASK_STARTS_EAGERLY = sys.version_info >= (3, 12)
cdef object REGISTER_TASK = None
cdef set REGISTRY                       # the weak references that CPython 3.11's asyncio.all_tasks() goes through
cdef dict REGISTRY_ATTRIBUTES
if not TASK_STARTS_EAGERLY:
    REGISTRY = asyncio.tasks._all_tasks.data
    REGISTRY_ATTRIBUTES = asyncio.tasks._all_tasks.__dict__
    REGISTER_TASK = asyncio.tasks._all_tasks.add

cdef enum:
    PENDING
    WOKEN
    CANCELLED


cdef class TaskStarter:

    def __init__(self, loop):
        self.loop = loop
        self.loop_is_asyncio = isinstance(loop, asyncio.BaseEventLoop)
        self.call_soon = loop.call_soon
        self.catch_step = self.keep_step
        self.pass_task = self.keep_task
        self.loop_attributes = loop.__dict__
        self.task_arguments = {"loop": loop, "context": None}
        if TASK_STARTS_EAGERLY:
            self.task_arguments["eager_start"] = True
        else:
            # Without a name, each task would format one at once
            self.task_arguments["name"] = "fastasgi"

    def keep_step(self, step, *arguments, context=None):
        """Take the place of loop.call_soon while a Task is made on CPython 3.11."""
        if self.step is not None or arguments:
            return self.call_soon(step, *arguments, context=context)
        self.step = step

    def keep_task(self, task):
        """Take the place of add() of asyncio's set of tasks while a Task is made on CPython 3.11.

        Another thread may be making a task for its own loop, which is added as usual.
        """
        if task.get_loop() is not self.loop:
            weakref.WeakSet.add(asyncio.tasks._all_tasks, task)

    cdef object run_in_place(self, object context, object step, object argument):
        """Run a step of a task now, as the event loop would: in its context, with no task around it."""
        cdef object outer = self.leave_context()
        PyContext_Enter(context)
        self.in_callback = False
        try:
            return step(argument) if argument is not None else step()
        finally:
            self.in_callback = not self.nests
            PyContext_Exit(context)
            if outer is not None:
                PyContext_Enter(outer)

    cdef object leave_context(self):
        """Leave the context of the event loop's callback that we are in. Returns it, to be entered again, or None.

        A context can be entered once only. So a turn of the loop inside a task's step could not run that callback, and
        the loop would never call a reader again. uvloop makes no such turns.
        """
        cdef object context
        if not self.loop_is_asyncio:
            return None
        context = entered_context()
        if context is not None:
            PyContext_Exit(context)
        return context

    cdef object start(self, object coroutine, object context):
        cdef object task, outer
        if not self.in_callback:
            return self.start_soon(coroutine, context)
        self.task_arguments["context"] = context
        if not TASK_STARTS_EAGERLY:
            return self.start_by_hand(coroutine, context)
        # The constructor in its two steps, since it raises what the task keeps too: in one step the task would be lost
        task = (<TaskType*>Task).tp_new(<TaskType*>Task, (), NULL)
        outer = self.leave_context()
        self.in_callback = False
        try:
            (<TaskType*>Task).tp_init(task, (coroutine,), self.task_arguments)
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            self.in_callback = not self.nests
            if outer is not None:
                PyContext_Enter(outer)
        return task

    cdef object start_soon(self, object coroutine, object context):
        """A task as everybody else makes them: it begins in the next turn of the event loop."""
        cdef dict arguments = self.task_arguments.copy()
        arguments["context"] = context
        arguments.pop("eager_start", None)
        return Task(coroutine, **arguments)

    cdef object start_by_hand(self, object coroutine, object context):
        """A task that has run up to its first suspension, on CPython 3.11, which has no eager_start.

        The constructor schedules the first step by loop.call_soon, and adds the task to the WeakSet behind
        asyncio.all_tasks(), which costs more than all the rest. Both methods are shadowed on their instances while it
        runs. Then the step is run here, and the task is listed as long as it runs, at a fraction of the cost. The
        collector rests while the methods are shadowed, since a finalizer may call the loop.
        """
        cdef object task, step, reference
        cdef int collects = PyGC_Disable()
        self.loop_attributes["call_soon"] = self.catch_step
        REGISTRY_ATTRIBUTES["add"] = self.pass_task
        try:
            task = PyObject_Call(Task, (coroutine,), self.task_arguments)
        finally:
            self.loop_attributes["call_soon"] = self.call_soon
            REGISTRY_ATTRIBUTES["add"] = REGISTER_TASK
            if collects:
                PyGC_Enable()
        step = self.step
        self.step = None
        reference = PyWeakref_NewRef(task, None)
        REGISTRY.add(reference)
        try:
            self.run_in_place(context, step, None)
        except (KeyboardInterrupt, SystemExit):
            pass                            # a Task raises these out of its step, but keeps them too
        finally:
            REGISTRY.discard(reference)
        return task


cdef class Waiter:

    def get_loop(self):
        return self.tasks.loop

    def add_done_callback(self, callback, *, context=None):
        self.wakeup = callback
        self.context = contextvars.copy_context() if context is None else context
        if self.state != PENDING:
            self.call_soon()

    def done(self):
        return self.state != PENDING

    def cancel(self, msg=None):
        if self.state != PENDING:
            return False
        self.state = CANCELLED
        self.cancel_message = msg
        if self in self.waiters:
            self.waiters.remove(self)   # while wake_all() runs, it is in no list
        self.call_soon()
        return True

    def result(self):
        if self.state == CANCELLED:
            raise CancelledError() if self.cancel_message is None else CancelledError(self.cancel_message)
        if self.state == PENDING:
            raise asyncio.InvalidStateError("Result is not ready.")

    cdef int call_soon(self) except -1:
        wakeup, self.wakeup = self.wakeup, None
        if wakeup is not None:
            self.tasks.loop.call_soon(wakeup, self, context=self.context)
        return 0


cdef Waiter new_waiter(TaskStarter tasks, list waiters):
    cdef Waiter waiter = Waiter.__new__(Waiter)
    waiter.tasks = tasks
    waiter._asyncio_future_blocking = True
    waiter.waiters = waiters
    waiters.append(waiter)
    return waiter


cdef int wake_all(list waiters) except -1:
    cdef Waiter waiter
    cdef list woken = waiters[:]
    waiters.clear()
    for waiter in woken:
        if waiter.state != PENDING:
            continue
        waiter.state = WOKEN
        if waiter.tasks.in_callback and waiter.wakeup is not None:
            wakeup, waiter.wakeup = waiter.wakeup, None
            try:
                waiter.tasks.run_in_place(waiter.context, wakeup, waiter)
            except (KeyboardInterrupt, SystemExit):
                pass                    # a Task raises these out of its step, but keeps them too
        else:
            waiter.call_soon()
    return 0


cdef int register_task(object task) except -1:
    if not TASK_STARTS_EAGERLY:
        REGISTER_TASK(task)
    return 0
