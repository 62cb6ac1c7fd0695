"""Calls whoever has a socket when that is ready.

One descriptor for all of a worker's sockets stands in the event loop, so that the loop makes one call for all that are
ready, and none of its objects for each. What is ready is told once: whoever is called reads until nothing is left, or
asks to be called again. Must not know: what the sockets are for.
"""

from libc.stdint cimport uint32_t, uint64_t
from cpython.object cimport PyObject

from fastasgi.core.contracts cimport WorkerContext
from fastasgi.core.errorlog cimport ErrorLog
from fastasgi.core.task cimport TaskStarter

cdef extern from "sinks/poll.h" nogil:
    ctypedef struct ready_event:
        pass
    enum:
        READABLE
        WRITABLE
        ENDED

cdef enum:
    CALLED = 8                          # it has asked for this call by call_soon()
    EVENTS_MOST = 512                   # events of one turn

# what: READABLE, WRITABLE, ENDED or CALLED, or several of them
ctypedef int (*OnReady)(object owner, unsigned what) except -1


cdef struct Watch:
    PyObject* owner                     # owned; NULL if the descriptor is not watched
    OnReady on_ready
    uint32_t generation                 # of this descriptor: events for its earlier sockets are no longer told


cdef struct Call:
    PyObject* owner                     # owned
    OnReady on_ready


cdef class Poller:
    """Poller(worker): the sockets of one worker."""

    cdef:
        WorkerContext worker            # whose turn_began_ns it sets
        object loop                     # asyncio.AbstractEventLoop
        TaskStarter tasks               # of that loop
        ErrorLog logger
        object context                  # contextvars.Context in which it was made, and all is told
        bint loop_nests                 # the loop may be turned inside a callback
        int descriptor                  # of the set of sockets; -1 once closed
        Watch* watches                  # owned: by descriptor
        int watch_count
        ready_event[EVENTS_MOST] events
        int event_at                    # the next one that is to be told
        int event_end
        Call* calls                     # owned
        int call_at                     # the next one that is to be made
        int call_end
        int call_capacity
        bint is_turning
        object next_turn                # asyncio.Handle of the turn that follows in the loop's next one; or None

    # Has on_ready called with owner whenever fd is ready, also if it is now. Raises OSError
    cdef int watch(self, int fd, object owner, OnReady on_ready, bint writes) except -1
    cdef int watch_writes(self, int fd) except -1       # has it called when fd is writable, too. Raises OSError
    cdef int forget(self, int fd) except -1     # to be called when fd is closed, or just before
    cdef int remove(self, int fd) except -1     # forgets a descriptor that others go on using
    # Has on_ready called with CALLED once all that is ready in this turn has been told
    cdef int call_soon(self, object owner, OnReady on_ready) except -1
    cdef int turn(self) except -1               # tells what is ready, and makes the calls that have been asked for
    cdef int tell(self) except -1
    cdef int make_calls(self) except -1
    cdef int schedule(self) except -1
