"""See memory.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(__GNUC__)
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    #endif
    /* Makes `block` n bytes long; it must have had room for them when it was made. */
    static inline void set_bytes_size(PyObject *block, Py_ssize_t n)
    {
        Py_SET_SIZE(block, n);
        PyBytes_AS_STRING(block)[n] = 0;
        ((PyBytesObject *)block)->ob_shash = -1;
    }
    #if defined(__GNUC__)
    #pragma GCC diagnostic pop
    #endif
    """
    void set_bytes_size(PyObject* block, Py_ssize_t n) noexcept

# Unlike Cython's own declarations, these count no reference of their own
cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object items, Py_ssize_t i) noexcept
    Py_ssize_t Py_REFCNT(PyObject* o) noexcept


cdef class ReadBuffer:

    def __cinit__(self):
        self.p = self.scratch = <char*>PyMem_RawMalloc(READ_SIZE)
        if self.scratch is NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.scratch)


cdef ReadBuffer unlent(ReadBuffer buffer):
    if buffer.lent:
        return ReadBuffer()
    unpoison(buffer.scratch, READ_SIZE)
    return buffer


cdef class EventMemory:

    def __cinit__(self):
        self.read_buffer = ReadBuffer()
        self.blocks = []

    def __dealloc__(self):
        PyMem_RawFree(self.spare_out)

    cdef ReadBuffer buffer_for(self, Py_ssize_t direct_bytes):
        cdef ReadBuffer buffer = unlent(self.read_buffer)
        self.read_buffer = buffer
        buffer.lent = True
        if direct_bytes == 0:
            buffer.p = buffer.scratch
        else:
            buffer.p = self.free_block()
            buffer.block = <object>self.block
        return buffer

    cdef bytes object_of(self, const char* p, Py_ssize_t n):
        cdef char* room
        if n < BLOCK_MIN:
            return PyBytes_FromStringAndSize(p, n)
        if self.block is NULL or p != PyBytes_AS_STRING(<object>self.block):
            room = self.free_block()
            memcpy(room, p, n)
        set_bytes_size(self.block, n)
        return <bytes>self.block

    cdef char* free_block(self) except NULL:
        """Put a block that only self.blocks refers to into self.block. Returns its READ_SIZE bytes of memory."""
        cdef Py_ssize_t count = len(self.blocks)
        for _ in range(count):
            self.block_index = (self.block_index + 1) % count
            self.block = PyList_GET_ITEM(self.blocks, self.block_index)
            if Py_REFCNT(self.block) == 1:
                set_bytes_size(self.block, READ_SIZE)
                return PyBytes_AS_STRING(<object>self.block)
        made = PyBytes_FromStringAndSize(NULL, READ_SIZE)
        if count < BLOCK_COUNT:
            self.blocks.append(made)
        else:
            self.blocks[self.block_index] = made
        self.block = <PyObject*>made
        return PyBytes_AS_STRING(made)

    cdef int drop_blocks(self) except -1:
        self.block = NULL
        self.blocks.clear()
        return 0

    cdef int keep_out(self, char* block, Py_ssize_t capacity) noexcept:
        if self.spare_out is NULL and capacity <= SPARE_MOST:
            self.spare_out = block
            self.spare_out_capacity = capacity
            poison(block, capacity)
        else:
            PyMem_RawFree(block)
        return 0
