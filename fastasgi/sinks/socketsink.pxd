"""A connection's bytes on a socket: reads when it is ready, writes at once, keeps what the kernel does not take.

Must not know: what the bytes mean, how the socket was accepted.
"""

from fastasgi.core.contracts cimport ByteSink, Connection, WorkerContext
from fastasgi.core.memory cimport ReadBuffer
from fastasgi.sinks.poller cimport Poller


cdef class SocketSink(ByteSink):
    """A sink on a connected stream socket, which it owns."""

    cdef:
        Poller poller
        Connection connection
        object peername                 # the peer's address, as socket.getpeername() says it
        object sockname                 # our own, as socket.getsockname() says it; None until it is asked for
        int socket                      # descriptor; NONE once it is closed
        bint is_watched                 # the poller has the socket
        bint watches_writes             # and tells when the kernel takes bytes again
        bint reads                      # reading is not paused
        bint readable                   # the socket may have bytes that no event will tell of
        bint stops_short                # a read may leave bytes: a Unix socket's ends between those of two processes
        bint has_fin                    # the peer sends nothing more: what is readable ends with an end or an error
        bint at_end                     # the end was read
        bint ends_half                  # our half is to be ended once nothing is held
        bint is_ending                  # the socket is to be closed then; nothing more is read
        list pieces                     # bytes objects that the kernel has not taken; None if it has all
        Py_ssize_t pieces_at            # bytes of the first one that it has taken
        Py_ssize_t pieces_size          # bytes that are held: all that it has not taken
        object drained                  # asyncio.Future of send_file(), that it may go on or has failed; or None

    # Begins with an accepted socket: opens its connection, and reads what has come already. sockname may be None
    cdef int begin(self, WorkerContext worker, Poller poller, int socket, object peername, object sockname) except -1
    cdef int watch(self) except -1              # on_ready() follows whenever the socket is ready
    cdef int on_ready(self, unsigned what) except -1
    cdef int read(self) except -1
    cdef ReadBuffer free_buffer(self)           # where the next read goes; it is lent
    cdef int take(self, ReadBuffer buffer, Py_ssize_t n) except -1      # n bytes have been read; gives the buffer back
    cdef bint take_end(self) except -1          # the peer sends nothing more. Whether the socket is to stay open
    cdef int send_held(self) except -1
    cdef int await_room(self) except -1         # on_ready(WRITABLE) is to follow
    cdef int look_at_held(self) except -1       # blocks the sink if it holds much
    cdef int all_is_sent(self) except -1
    cdef int resume_writing(self) except -1     # the kernel has taken most of what was held
    cdef int settle_drained(self) except -1
    cdef int end_half(self) except -1
    cdef int close_when_sent(self) except -1
    cdef int lose(self) except -1               # closes the socket; lost() follows in an event of its own
    cdef int lost(self) except -1
