"""Memory that all connections of a worker use in turn: what one event needs, and no longer.

Knows bytes. Must not know: what they mean, connections.
"""

cimport cython
from cpython.object cimport PyObject

cdef extern from "core/poison.h" nogil:
    void poison(void* p, size_t n)
    void unpoison(void* p, size_t n)

cdef enum:
    READ_SIZE = 262144                  # bytes of one read, at most
    BLOCK_COUNT = 32                    # blocks that may be used again
    BLOCK_MIN = 196608                  # a read of fewer bytes is copied: a block is not worth what would lie idle
    SPARE_MOST = 524288                 # bytes of an output block that is kept for the next sink


cdef class ReadBuffer:
    """READ_SIZE bytes that the event loop reads into, by the buffer protocol, and `receive` understands in place.

    They are all connections'. A turn of the event loop that an application causes inside `receive` finds them lent,
    and gets others: what one client has sent is never overwritten by what another sends.
    """

    cdef:
        char* scratch                   # owned
        char* p                         # where the next read goes: scratch, or a block of the worker's
        object block                    # the bytes object that p points into, kept from being used again; or None
        bint lent                       # what a read has put here is being understood

    cdef inline void give_back(self) noexcept:
        self.lent = False
        self.block = None
        poison(self.scratch, READ_SIZE)


cdef ReadBuffer unlent(ReadBuffer buffer)       # itself or one more, to be read into


@cython.final
cdef class EventMemory:
    cdef:
        ReadBuffer read_buffer          # where the next read goes; another one while it is lent
        # Blocks: bytes objects with room for READ_SIZE. The kernel writes into one, and the application gets that one.
        # A block that the application has let go of is used again, until the next tick: memory fresh from the system
        # costs a page fault for each 4 KiB, half of all that a large upload takes.
        list blocks
        Py_ssize_t block_index          # of the block used last
        PyObject* block                 # the block used last, which `blocks` holds; or NULL
        char* spare_out                 # owned: an output block that no sink uses now, or NULL
        Py_ssize_t spare_out_capacity   # bytes

    cdef ReadBuffer buffer_for(self, Py_ssize_t direct_bytes)       # lent, until it is given back
    # All n bytes that a read has put at p, as an object. If they fill most of the block, it is the block itself, in
    # which the kernel may have written them; then nothing at p may be used any more.
    cdef bytes object_of(self, const char* p, Py_ssize_t n)
    cdef char* free_block(self) except NULL
    cdef int drop_blocks(self) except -1        # those that an application holds live on with it
    cdef int keep_out(self, char* block, Py_ssize_t capacity) noexcept      # frees an output block, or makes it a spare
