"""Tasks that start and go on inside the event which brings what they need.

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
        bint loop_is_asyncio            # or derived from it, in contrast to uvloop's
        # True inside an event-loop callback of ours while no task is current: an application may be started there, and
        # one that waits resumed there and then. False while application code runs.
        bint in_callback
        bint nests                      # an application has turned the event loop inside such a callback
        dict task_arguments             # of asyncio.Task; the context is put in before each
        # For CPython 3.11, see start_by_hand
        object call_soon                # loop.call_soon
        object catch_step               # keep_step, which stands in for it while a task is made
        object pass_task                # keep_task, which stands in for the add() of the registry of tasks
        object step                     # the first step of that task, kept by catch_step
        dict loop_attributes            # loop.__dict__

    # A Task that has run up to its first suspension, in `context`; or, if it can't be run in place, has still to start.
    # It holds any exception of that step: an application that calls sys.exit() has failed in this request, no more.
    cdef object start(self, object coroutine, object context)
    cdef object start_soon(self, object coroutine, object context)
    cdef object start_by_hand(self, object coroutine, object context)
    cdef object run_in_place(self, object context, object step, object argument)
    cdef object leave_context(self)


cdef class Waiter:
    """The future-like object that a Task waits for; wakes it in place where that is allowed."""

    cdef:
        TaskStarter tasks
        public bint _asyncio_future_blocking    # the contract between a Task and what it waits for
        object wakeup                   # the Task's callback; None once called or not yet given
        object context                  # contextvars.Context in which to call it
        list waiters                    # where this waiter is listed until it is woken or cancelled
        int state                       # PENDING, WOKEN, CANCELLED
        object cancel_message

    cdef int call_soon(self) except -1


cdef Waiter new_waiter(TaskStarter tasks, list waiters)
# Wakes whoever waits: in place inside our own callbacks, where no task is current; soon otherwise.
cdef int wake_all(list waiters) except -1
# To be called for a task that is suspended: from then on it is in asyncio.all_tasks().
cdef int register_task(object task) except -1
