"""The event loop's side of a connection: buffers, and bytes to and from one asyncio transport.

Must not know: what the bytes mean.
"""

from fastasgi.core.contracts cimport ByteSink, Connection
from fastasgi.core.memory cimport ReadBuffer


cdef class SocketSink(ByteSink):
    """A sink on an asyncio transport, and the methods of the transport's asyncio.BufferedProtocol."""

    cdef:
        object transport                # asyncio.Transport; None before and after the connection
        Connection connection
        int socket                      # descriptor to write to while the transport has nothing to write; NONE, UNKNOWN
        bint has_written                # something was written on this connection
        bint transport_holds            # the transport may have bytes that the kernel did not accept
        ReadBuffer reading              # the buffer that asyncio's loop has borrowed for the next read; or None
        object drained                  # asyncio.Future of send_file(): the transport is empty, or lost; or None

    cdef inline void give_back(self) noexcept:
        if self.reading is not None:
            self.reading.give_back()
            self.reading = None
    cdef ReadBuffer lend(self, ReadBuffer buffer)
    cdef int find_socket(self) except -1
