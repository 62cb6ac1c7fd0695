"""The open streams of an HTTP/2 connection by their identifiers: a hash table with open addressing.

Must not know: what a stream is.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t


cdef enum:
    FIRST_SLOTS = 8                     # slots of a table that has never had more than half as many streams


cdef struct Slot:
    PyObject* stream                    # owned; NULL: the slot is free
    uint32_t id


cdef class StreamTable:
    """Streams by identifier. Most lookups find theirs in the first slot, since identifiers ascend."""

    cdef:
        Slot near[FIRST_SLOTS]          # the slots of a small table
        Slot* slots
        uint32_t mask                   # the number of slots, a power of two, less 1
        readonly int count              # streams

    cdef int add(self, uint32_t id, object stream) except -1    # the identifier has to be new
    cdef int remove(self, uint32_t id) except -1                # does nothing if there is none
    cdef int place(self, uint32_t id, PyObject* stream) noexcept
    cdef int grow(self) except -1
    cdef int close_gap(self, uint32_t gap) noexcept
    cdef list all(self)                                         # the streams, in no order
    cdef inline PyObject* find(self, uint32_t id) noexcept:     # borrowed; NULL if there is none
        cdef uint32_t i = id >> 1 & self.mask
        while self.slots[i].stream is not NULL:
            if self.slots[i].id == id:
                return self.slots[i].stream
            i = (i + 1) & self.mask
        return NULL
