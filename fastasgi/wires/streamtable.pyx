"""See streamtable.pxd for the contracts."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t


cdef class StreamTable:

    def __cinit__(self):
        self.slots = self.near
        self.mask = FIRST_SLOTS - 1

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.mask + 1):
            Py_XDECREF(self.slots[i].stream)
        if self.slots != self.near:
            PyMem_RawFree(self.slots)

    cdef int add(self, uint32_t id, object stream) except -1:
        if 2 * <uint32_t>(self.count + 1) > self.mask + 1:
            self.grow()
        Py_INCREF(stream)
        self.place(id, <PyObject*>stream)
        self.count += 1
        return 0

    cdef int place(self, uint32_t id, PyObject* stream) noexcept:
        cdef uint32_t i = id >> 1 & self.mask
        while self.slots[i].stream is not NULL:
            i = (i + 1) & self.mask
        self.slots[i].stream = stream
        self.slots[i].id = id
        return 0

    cdef int grow(self) except -1:
        cdef Slot* former = self.slots
        cdef uint32_t size = self.mask + 1
        cdef uint32_t i
        cdef Slot* slots = <Slot*>PyMem_RawCalloc(2 * size, sizeof(Slot))
        if slots is NULL:
            raise MemoryError()
        self.slots = slots
        self.mask = 2 * size - 1
        for i in range(size):
            if former[i].stream is not NULL:
                self.place(former[i].id, former[i].stream)
                former[i].stream = NULL
        if former != self.near:
            PyMem_RawFree(former)
        return 0

    cdef int remove(self, uint32_t id) except -1:
        cdef uint32_t i = id >> 1 & self.mask
        cdef PyObject* stream
        while True:
            stream = self.slots[i].stream
            if stream is NULL:
                return 0
            if self.slots[i].id == id:
                break
            i = (i + 1) & self.mask
        self.count -= 1
        self.close_gap(i)
        if self.count == 0 and self.slots != self.near:
            PyMem_RawFree(self.slots)
            self.slots = self.near
            self.mask = FIRST_SLOTS - 1
        Py_XDECREF(stream)
        return 0

    cdef int close_gap(self, uint32_t gap) noexcept:
        """Move those back that had to go past this slot, so that a search ends at the first free slot."""
        cdef uint32_t i = gap
        cdef uint32_t home
        while True:
            i = (i + 1) & self.mask
            if self.slots[i].stream is NULL:
                self.slots[gap].stream = NULL
                return 0
            home = self.slots[i].id >> 1 & self.mask
            if ((i - home) & self.mask) >= ((i - gap) & self.mask):
                self.slots[gap] = self.slots[i]
                gap = i

    cdef list all(self):
        cdef list streams = []
        cdef uint32_t i
        for i in range(self.mask + 1):
            if self.slots[i].stream is not NULL:
                streams.append(<object>self.slots[i].stream)
        return streams


# --- For Python: tests ---

def _drive(list steps not None):
    """Add (id, stream), remove ~id, find id: the results of the finds, and all streams at the end."""
    cdef StreamTable table = StreamTable()
    cdef PyObject* found
    cdef list results = []
    for step in steps:
        if isinstance(step, tuple):
            table.add(step[0], step[1])
        elif step < 0:
            table.remove(<uint32_t>~step)
        else:
            found = table.find(step)
            results.append(None if found is NULL else <object>found)
    return results, table.all()
