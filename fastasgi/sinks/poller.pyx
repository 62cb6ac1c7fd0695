"""See poller.pxd for the contracts."""

import os

from cpython.contextvars cimport PyContext_Copy, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.errno cimport EINTR, errno
from libc.string cimport memset

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.contracts cimport WorkerContext

# Unlike Cython's own declaration, this takes a pointer
cdef extern from "Python.h":
    void Py_XDECREF(PyObject* o)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "sinks/poll.h" nogil:
    uint64_t ready_key(const ready_event* event)
    unsigned ready_what(const ready_event* event)
    int poll_open()
    int poll_add(int poller, int fd, uint64_t key, int writes)
    int poll_writes(int poller, int fd, uint64_t key)
    void poll_remove(int poller, int fd)
    int poll_events(int poller, ready_event* events, int most)


cdef class Poller:

    def __cinit__(self):
        self.descriptor = -1

    def __init__(self, WorkerContext worker):
        self.worker = worker
        self.loop = worker.loop
        self.tasks = worker.tasks
        self.logger = worker.logger
        self.loop_nests = worker.tasks.loop_is_asyncio
        self.context = PyContext_CopyCurrent()
        self.descriptor = poll_open()
        if self.descriptor < 0:
            raise OSError(errno, os.strerror(errno))
        self.loop.add_reader(self.descriptor, self.on_readable)

    def __dealloc__(self):
        for fd in range(self.watch_count):
            Py_XDECREF(self.watches[fd].owner)
        for i in range(self.call_at, self.call_end):
            Py_XDECREF(self.calls[i].owner)
        PyMem_RawFree(self.watches)
        PyMem_RawFree(self.calls)
        if self.descriptor >= 0:
            close(self.descriptor)

    def close(self) -> None:
        """Watch nothing any more. No socket is closed."""
        if self.descriptor >= 0:
            if not self.loop.is_closed():
                self.loop.remove_reader(self.descriptor)
            close(self.descriptor)
            self.descriptor = -1
        for fd in range(self.watch_count):
            self.forget(fd)

    cdef int watch(self, int fd, object owner, OnReady on_ready, bint writes) except -1:
        cdef Watch* watch
        cdef Watch* block
        cdef int count = self.watch_count
        if fd >= count:
            count = max(fd + 1, 2 * count, 64)
            block = <Watch*>PyMem_RawRealloc(self.watches, count * sizeof(Watch))
            if block is NULL:
                raise MemoryError()
            memset(block + self.watch_count, 0, (count - self.watch_count) * sizeof(Watch))
            self.watches = block
            self.watch_count = count
        self.forget(fd)
        watch = self.watches + fd
        if poll_add(self.descriptor, fd, key_of(watch, fd), writes) < 0:
            raise OSError(errno, os.strerror(errno))
        Py_INCREF(owner)
        watch.owner = <PyObject*>owner
        watch.on_ready = on_ready
        return 0

    cdef int watch_writes(self, int fd) except -1:
        if poll_writes(self.descriptor, fd, key_of(self.watches + fd, fd)) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    cdef int forget(self, int fd) except -1:
        cdef PyObject* owner
        if fd < self.watch_count:
            owner = self.watches[fd].owner
            self.watches[fd].owner = NULL
            self.watches[fd].generation += 1
            Py_XDECREF(owner)
        return 0

    cdef int remove(self, int fd) except -1:
        if self.descriptor >= 0:
            poll_remove(self.descriptor, fd)
        return self.forget(fd)

    cdef int call_soon(self, object owner, OnReady on_ready) except -1:
        cdef Call* block
        cdef int capacity
        if self.call_at == self.call_end:
            self.call_at = self.call_end = 0
        if self.call_end == self.call_capacity:
            capacity = max(16, 2 * self.call_capacity)
            block = <Call*>PyMem_RawRealloc(self.calls, capacity * sizeof(Call))
            if block is NULL:
                raise MemoryError()
            self.calls = block
            self.call_capacity = capacity
        Py_INCREF(owner)
        self.calls[self.call_end] = Call(<PyObject*>owner, on_ready)
        self.call_end += 1
        return 0 if self.is_turning and not self.loop_nests else self.schedule()

    def on_readable(self):
        """Tell what is ready. The event loop calls this when anything is."""
        cdef object outer, inner
        if not self.loop_nests:
            self.turn()
            return
        # Whoever turns the loop inside this turn has asyncio call here again, in the context that it always calls in
        outer = self.tasks.leave_context()
        inner = PyContext_Copy(self.context)
        PyContext_Enter(inner)
        try:
            self.turn()
        finally:
            PyContext_Exit(inner)
            if outer is not None:
                PyContext_Enter(outer)

    cdef int turn(self) except -1:
        cdef bint was = self.is_turning
        cdef int count
        self.is_turning = True
        self.worker.turn_began_ns = monotonic_ns()
        try:
            if self.event_at == self.event_end and self.descriptor >= 0:
                count = poll_events(self.descriptor, self.events, EVENTS_MOST)
                if count < 0 and errno != EINTR:
                    raise OSError(errno, os.strerror(errno))
                self.event_at = 0
                self.event_end = max(0, count)
                if self.loop_nests and count > 1:
                    self.schedule()     # whoever turns the loop inside one of the calls is to find the others
            self.tell()
            self.make_calls()
        finally:
            # An application that raises SystemExit ends this turn, and what is not told yet is told in the next one
            self.is_turning = was
            if self.call_at < self.call_end or self.event_at < self.event_end:
                self.schedule()
            elif self.next_turn is not None:
                self.next_turn.cancel()
                self.next_turn = None

    def turn_soon(self):
        """The callback of schedule()."""
        self.next_turn = None
        self.turn()

    cdef int tell(self) except -1:
        cdef ready_event* event
        cdef Watch* watch
        cdef uint64_t key
        while self.event_at < self.event_end:
            event = self.events + self.event_at
            self.event_at += 1
            key = ready_key(event)
            watch = self.watches + <uint32_t>key
            if watch.owner is NULL or watch.generation != key >> 32:
                continue
            owner = <object>watch.owner     # which the call may end
            try:
                watch.on_ready(owner, ready_what(event))
            except Exception as error:
                self.logger.log_error("Exception in a connection's event", error)
        return 0

    cdef int make_calls(self) except -1:
        """Make the calls that have been asked for by now."""
        cdef int left = self.call_end - self.call_at
        cdef Call call
        while left and self.call_at < self.call_end:
            left -= 1
            call = self.calls[self.call_at]
            self.call_at += 1
            owner = <object>call.owner
            Py_DECREF(owner)
            try:
                call.on_ready(owner, CALLED)
            except Exception as error:
                self.logger.log_error("Exception in a connection's event", error)
        return 0

    cdef int schedule(self) except -1:
        if self.next_turn is None and self.descriptor >= 0:
            self.next_turn = self.loop.call_soon(self.turn_soon, context=PyContext_Copy(self.context))
        return 0


cdef inline uint64_t key_of(Watch* watch, int fd) noexcept:
    return <uint64_t>watch.generation << 32 | <uint64_t>fd
