"""Tasks that start and go on inside the event that brings what they need.

A task started here has run up to its first suspension when its maker goes on, and a task that waits for a Waiter is
resumed there and then: most requests are answered in the read event of their head. They are genuine asyncio.Tasks,
since timeouts, task groups and anyio rely on that. Must not know: what runs in them.
"""

cimport cython


@cython.final
cdef class TaskStarter:
    """Starts and resumes the tasks of one event loop."""

    cdef:
        readonly object loop
        bint loop_is_asyncio            # the loop is asyncio's own, or derived from it, and not uvloop's
        # True inside an event-loop callback of ours while no task is current. Only then may an application be started,
        # or one that waits be resumed, in place. False while application code runs.
        bint in_callback
        bint nests                      # an application has turned the event loop inside such a callback
        dict task_arguments             # keyword arguments of asyncio.Task; the context is set before each call
        # For CPython 3.11, see start_by_hand
        object call_soon                # loop.call_soon
        object catch_step               # keep_step, which stands in for call_soon while a task is made
        object pass_task                # keep_task, which stands in for add() of asyncio's set of tasks meanwhile
        object step                     # the first step of that task, which catch_step has kept; or None
        dict loop_attributes            # loop.__dict__

    # A Task that has run up to its first suspension, in `context`; if it can't be run in place, it has still to start.
    # It keeps any exception of its first step: if an application calls sys.exit(), only this request has failed.
    cdef object start(self, object coroutine, object context)
    cdef object start_soon(self, object coroutine, object context)
    cdef object start_by_hand(self, object coroutine, object context)
    cdef object run_in_place(self, object context, object step, object argument)
    cdef object leave_context(self)


cdef class Waiter:
    """The future-like object that a Task waits for. It wakes the task in place, if that is allowed."""

    cdef:
        TaskStarter tasks
        public bint _asyncio_future_blocking    # the contract between a Task and what it waits for
        object wakeup                   # the Task's callback; None before it is given, and once it is called
        object context                  # contextvars.Context in which to call it
        list waiters                    # where this waiter is listed until it is woken or cancelled
        int state                       # PENDING, WOKEN, CANCELLED
        object cancel_message           # what cancel() was given, for the CancelledError

    cdef int call_soon(self) except -1


cdef Waiter new_waiter(TaskStarter tasks, list waiters)
# Wakes whoever waits: in place if in_callback is set, otherwise soon
cdef int wake_all(list waiters) except -1
# To be called for a task that is suspended: from then on it is in asyncio.all_tasks()
cdef int register_task(object task) except -1
