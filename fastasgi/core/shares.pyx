"""See shares.pxd for the contracts."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport exp2
from libc.string cimport memset

from fastasgi.core.clock cimport monotonic_ns

cdef extern from * nogil:
    """
    #define add_one(place) __sync_add_and_fetch((place), 1)
    #define take_one(place) __sync_sub_and_fetch((place), 1)
    """
    uint32_t add_one(uint32_t* place)
    uint32_t take_one(uint32_t* place)

# Of one row: two workers never write to the same line of a processor's cache
ROW_SIZE = 64

cdef enum:
    SIZE = 64                           # ROW_SIZE
    HALF_NS = 1000000000                # after which a connection counts half among those that were accepted

    # A worker is ahead of another one if it has a few open connections more, or as many and has got more than MUCH
    # times as many of late, and a few. The first spreads connections that stay, the second those that do not
    FEW_OPEN = 2
    FEW_ACCEPTED = 4

cdef enum:                              # by itself, as no int holds it
    SILENT_NS = 3000000000              # a worker whose loop has not turned for so long is not counted on

cdef double MUCH = 1.1


cdef struct Header:                     # has the place of row 0
    uint32_t last                       # no row after this one was ever given to a worker


cdef inline double accepted_by(const Row* row, int64_t now_ns) noexcept:
    return row.accepted * exp2(<double>(row.accepted_ns - now_ns) / HALF_NS)


cdef char* row_at(Py_buffer* memory, int row) except NULL:
    if not 0 < row < memory.len // SIZE:
        raise ValueError(f"there is no row {row} in {memory.len} bytes")
    return <char*>memory.buf + row * SIZE


def new_row(memory, int rows) -> int:
    """The next row, of so many, that no worker has had; 0 if there is none. Several processes may ask at once.

    `memory` is a writable buffer, of zeros at first.
    """
    cdef Py_buffer view
    cdef uint32_t row
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    try:
        row = add_one(&(<Header*>view.buf).last)
        if row >= <uint32_t>rows:
            take_one(&(<Header*>view.buf).last)
            return 0
        return row
    finally:
        PyBuffer_Release(&view)


def last_row(memory) -> int:
    """The last row that any worker has had; 0 if none had one."""
    cdef Py_buffer view
    PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
    try:
        return (<Header*>view.buf).last
    finally:
        PyBuffer_Release(&view)


def clear_row(memory, int row) -> None:
    """Clear the row of a worker that has ended. Raises ValueError if there is no such row."""
    cdef Py_buffer view
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    try:
        memset(row_at(&view, row), 0, SIZE)
    finally:
        PyBuffer_Release(&view)


cdef class Shares:

    def __cinit__(self, memory, int row):
        PyObject_GetBuffer(memory, &self.memory, PyBUF_WRITABLE)
        self.rows = <char*>self.memory.buf
        self.own = <Row*>row_at(&self.memory, row)

    def __dealloc__(self):
        PyBuffer_Release(&self.memory)

    cdef void set_accepts(self, bint accepts) noexcept:
        self.beat()
        self.own.accepts = accepts

    cdef void beat(self) noexcept:
        self.own.seen_ns = monotonic_ns()

    cdef void count_accepted(self, int64_t now_ns) noexcept:
        self.own.accepted = accepted_by(self.own, now_ns) + 1
        self.own.accepted_ns = now_ns

    cdef bint is_ahead(self, int64_t now_ns, int64_t since_ns) noexcept:
        cdef int64_t connections = self.own.connections
        cdef double accepted = (accepted_by(self.own, now_ns) - FEW_ACCEPTED) / MUCH
        cdef int end = (<Header*>self.rows).last + 1
        cdef int i
        cdef Row* row
        since_ns = max(since_ns, now_ns - SILENT_NS)
        for i in range(1, end):
            row = <Row*>(self.rows + i * SIZE)
            if row is self.own or not row.accepts or row.seen_ns < since_ns:
                continue
            if row.connections + FEW_OPEN < connections:
                return True
            if row.connections <= connections + FEW_OPEN and accepted_by(row, now_ns) < accepted:
                return True
        return False

    cdef int accepting(self, int64_t now_ns) noexcept:
        cdef int count = 0
        cdef int end = (<Header*>self.rows).last + 1
        cdef int i
        cdef Row* row
        for i in range(1, end):
            row = <Row*>(self.rows + i * SIZE)
            count += row is self.own or (row.accepts and row.seen_ns > now_ns - SILENT_NS)
        return count
