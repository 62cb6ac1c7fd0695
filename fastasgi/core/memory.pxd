"""Memory that all connections of a worker use in turn, each for the length of one event.

Knows bytes. Must not know: what they mean, connections.
"""

cimport cython
from cpython.object cimport PyObject

cdef extern from "core/poison.h" nogil:
    void poison(void* p, size_t n)
    void unpoison(void* p, size_t n)

cdef enum:
    READ_SIZE = 262144                  # bytes of one read, at most
    BLOCK_COUNT = 32                    # blocks that may be used again, at most
    BLOCK_MIN = 196608                  # a read of fewer bytes is copied: in a block too much memory would lie idle
    SPARE_MOST = 524288                 # bytes of an output block that is kept for the next sink, at most


cdef class ReadBuffer:
    """READ_SIZE bytes that the kernel reads into, and `receive` understands in place.

    All connections use them in turn. If an application turns the event loop inside `receive`, that turn finds the
    buffer lent, and gets another one: so bytes of one client are never overwritten by those of another.
    """

    cdef:
        char* scratch                   # owned
        char* p                         # where the next read goes: scratch, or a block
        object block                    # the block that p points to, so that it is not used again; or None
        bint lent                       # the bytes that a read has put here are being understood

    cdef inline void give_back(self) noexcept:
        self.lent = False
        self.block = None
        poison(self.scratch, READ_SIZE)


cdef ReadBuffer unlent(ReadBuffer buffer)       # this buffer, to be read into; if it is lent, a new one


@cython.final
cdef class EventMemory:
    cdef:
        ReadBuffer read_buffer          # where the next read goes; a new one replaces it if it is lent
        # Blocks: bytes objects with room for READ_SIZE. The kernel writes into one, and the application gets that very
        # object. A block that the application has let go of is used again, until the next tick: fresh memory costs a
        # page fault for each 4 KiB, which is half of the time that a large upload takes.
        list blocks
        Py_ssize_t block_index          # of the block used last
        PyObject* block                 # the block used last, which `blocks` holds; or NULL
        char* spare_out                 # owned: an output block that no sink uses now, or NULL
        Py_ssize_t spare_out_capacity   # bytes

    # A buffer for the next read, lent until it is given back. direct_bytes is the connection's; above 0, it is a block
    cdef ReadBuffer buffer_for(self, Py_ssize_t direct_bytes)
    # All n bytes that a read has put at p, as an object. If they fill most of a block, this is a block, perhaps the one
    # at p; so nothing at p may be used any more.
    cdef bytes object_of(self, const char* p, Py_ssize_t n)
    cdef char* free_block(self) except NULL
    cdef int drop_blocks(self) except -1        # forgets all; those that an application has live on with it
    cdef int keep_out(self, char* block, Py_ssize_t capacity) noexcept      # frees an output block, or makes it a spare
