"""Tasks that start and go on inside the event which brings what they need.

A task started here has run up to its first suspension when its maker goes on, and a task that waits for a Waiter is
resumed there and then: most requests are answered in the read event of their head. They are genuine asyncio.Tasks,
since timeouts, task groups and anyio rely on that. Must not know: what runs in them.
"""

from fastasgi.core.contracts cimport WorkerContext


cdef class Waiter:
    """The future-like object that a Task waits for; wakes it in place where that is allowed."""

    cdef:
        WorkerContext worker
        public bint _asyncio_future_blocking    # the contract between a Task and what it waits for
        object wakeup                   # the Task's callback; None once called or not yet given
        object context                  # contextvars.Context in which to call it
        list waiters                    # where this waiter is listed until it is woken or cancelled
        int state                       # PENDING, WOKEN, CANCELLED
        object cancel_message

    cdef int call_soon(self) except -1


cdef Waiter new_waiter(WorkerContext worker, list waiters)
# Wakes whoever waits: in place inside our own callbacks, where no task is current; soon otherwise.
cdef int wake_all(list waiters) except -1
# A Task that has run up to its first suspension, in `context`, or, where it can't be run in place, has still to start.
# It holds any exception of that step: an application that calls sys.exit() has failed in this request, no more.
cdef object start_task(WorkerContext worker, object coroutine, object context)
# To be called for a task that is suspended: from then on it is in asyncio.all_tasks().
cdef int register_task(object task) except -1
