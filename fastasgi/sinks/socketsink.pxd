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
        int socket                      # descriptor to write to while the transport holds nothing; NONE, UNKNOWN
        bint has_written
        bint transport_holds            # perhaps: bytes that the kernel did not take
        ReadBuffer reading              # what asyncio's loop has borrowed for the next read; or None
        object drained                  # asyncio.Future of send_file(): the transport holds nothing, or is lost

    cdef inline void give_back(self) noexcept:
        if self.reading is not None:
            self.reading.give_back()
            self.reading = None
    cdef ReadBuffer lend(self, ReadBuffer buffer)
    cdef int find_socket(self) except -1
