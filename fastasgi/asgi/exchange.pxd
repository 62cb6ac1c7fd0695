"""One call of the application: its task, its `receive` and `send`, and who waits for what.

`receive` and `send` are plain functions that return awaitables, which cost less than coroutines and may be given to
create_task, gather and wait_for all the same. Must not know: protocols, sinks, transports.
"""

from fastasgi.core.contracts cimport WorkerContext


cdef class Exchange:
    """One call of the application, from its first step until it returns."""

    cdef:
        WorkerContext worker
        object scope                    # until the call; then, where the access log is on, a copy of it
        readonly object task            # asyncio.Task while the call is suspended
        list receivers                  # of Waiter: calls of receive() without a message; None: none yet
        list senders                    # of Waiter: calls of send() held back; None: none yet
        bint disconnected               # receive() says that the client has gone
        bint gone                       # it has: nothing of the response reaches it
        bint is_unfinished              # counted in worker.unfinished_count
        bint blocked                    # the client reads too slowly: send() waits
        Py_ssize_t unyielded            # bytes sent since the application last let others run
        bint taking                     # take() runs, and may run code of the application that calls send()

    cdef int start(self) except -1      # call the application, and run it up to its first suspension
    cdef int finish(self, object task) except -1     # the call has returned or raised
    cdef inline void count_finished(self) noexcept:
        if self.is_unfinished:
            self.is_unfinished = False
            self.worker.registry.unfinished_count -= 1
    cdef int wake_receivers(self) except -1
    cdef int wake_senders(self) except -1
    cdef inline int unblock(self) except -1:
        self.blocked = False
        return self.wake_senders()
    cdef int feed_disconnect(self) except -1        # the client has gone
    cdef int tell_disconnect(self) except -1        # receive() is to say so, while what is sent is still written
    cdef int send_to_nobody(self) except -1         # send() after the client has gone; may raise ClientDisconnected
    # What send() does in the event loop's thread, one at a time; errors are raised.
    cdef object take(self, object message)
    # What take() returns after its message is with the wire; the second one for a message of so many bytes, so that an
    # application which sends without end to a client that reads lets others run.
    cdef object sent(self)
    cdef object sent_bytes(self, Py_ssize_t size)
    cdef object next_message(self)      # what receive() gives now; None: it has to wait
    cdef int returned(self, object exception) except -1      # after the call; exception: what it raised, or None
    cdef bint is_fault(self, object exception) except -1        # the application's: no client's leaving is behind it
    # For the error log: the exception of an application at fault, or else what a call has left out that returned early
    cdef int tell_end(self, object exception, bint is_fault, str left_out) except -1
    # For a shutdown: end what would not end by itself within the grace time
    cdef int begin_shutdown(self) except -1


cdef class Ready:
    """Awaiting it gives None at once. It has no state, so that READY serves every call."""


cdef Ready READY


cdef class FailedCall:
    """What send() returns for a message that it refuses: raises when it is awaited, as a coroutine would."""

    cdef Exception error


cdef class PauseCall:
    """What send() returns to an application that has sent much without a pause: others run before it goes on."""

    cdef bint paused


# Of an application's message; a copy, so that what it does with its buffer later changes nothing that was sent.
cdef bytes as_bytes(str kind, str key, object value)
