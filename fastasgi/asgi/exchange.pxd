"""One call of the application: its task, its `receive` and `send`, and who waits for what.

`receive` and `send` are plain functions that return awaitables. These cost less than coroutines, and create_task,
gather and wait_for accept them too. Must not know: protocols, sinks, sockets.
"""

from fastasgi.core.contracts cimport WorkerContext


cdef class Exchange:
    """One call of the application, from its first step until it returns."""

    cdef:
        WorkerContext worker
        object scope                    # until the call; then a copy of it if the access log is on, else None
        readonly object task            # asyncio.Task while the call is suspended
        list receivers                  # of Waiter: calls of receive() that wait for a message; None before the first
        list senders                    # of Waiter: calls of send() that wait for the client; None before the first
        bint disconnected               # receive() says that the client has gone
        bint gone                       # the client has gone: nothing of the response reaches it
        bint is_unfinished              # this exchange is counted in registry.unfinished_count
        bint blocked                    # the client reads too slowly: send() waits
        Py_ssize_t unyielded            # bytes sent since the application last let others run
        bint taking                     # take() runs, and may run code of the application that calls send()

    cdef int start(self) except -1      # calls the application, and runs it up to its first suspension
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
    # receive() says from now on that the client has gone, while send() still writes
    cdef int tell_disconnect(self) except -1
    # Does what send() does after the client has gone; may raise ClientDisconnected
    cdef int send_to_nobody(self) except -1
    # Does what send() does with one message, in the event loop's thread. Returns an awaitable, or raises
    cdef object take(self, object message)
    # The awaitable that take() returns when its message is with the wire
    cdef object sent(self)
    # As sent(), after a message of this size: an application that sends much without a wait lets others run
    cdef object sent_bytes(self, Py_ssize_t size)
    cdef object next_message(self)      # the message that receive() gives now; None if it has to wait
    # What the exchange does when the call has ended. exception: what the call has raised, or None
    cdef int returned(self, object exception) except -1
    # Whether an exception is the application's fault, and not due to a client that has left
    cdef bint is_fault(self, object exception) except -1
    # Writes to the error log: the exception, if it is a fault, else what a call that returned early has left out
    cdef int tell_end(self, object exception, bint is_fault, str left_out) except -1
    # For a shutdown: ends what would not end by itself within the grace time
    cdef int begin_shutdown(self) except -1


cdef class Ready:
    """What send() returns if nobody has to wait: awaiting it gives None at once. It has no state: READY serves every
    call."""


cdef Ready READY


cdef class FailedCall:
    """What send() returns for a message that is wrong: it raises when it is awaited, as a coroutine would."""

    cdef Exception error


cdef class PauseCall:
    """What send() returns to an application that has sent much without a pause: others run before it goes on."""

    cdef bint paused                    # the pause has been made


# The bytes in an application's message; a copy if they are in a buffer, which the application may change later. Raises
# TypeError, which names kind and key of the message
cdef bytes as_bytes(str kind, str key, object value)
