"""See socketsink.pxd for the contracts."""

import asyncio
import os

from cpython.bytes cimport PyBytes_FromStringAndSize

from fastasgi.core.contracts cimport (
    END, END_GENTLY, NOT_ENDING, PEER_IS_GONE, PEER_STAYS, ByteSink, Connection, WorkerContext,
)
from fastasgi.core.memory cimport ReadBuffer

cdef extern from "sinks/send.h" nogil:
    ptrdiff_t send_now(int socket, const char* p, size_t n)
    void reset_on_close(int socket)
    int peer_end(int socket)
    int queued(int socket)

cdef enum:
    SENDFILE_SIZE = 1048576             # bytes of one call of sendfile; other connections have their turn between two
    UNKNOWN = -2                        # of SocketSink.socket
    NONE = -1


cdef class SocketSink(ByteSink):

    def __cinit__(self, WorkerContext worker, *_):    # further arguments are a subclass's
        self.worker = worker
        self.socket = UNKNOWN

    # --- asyncio.BufferedProtocol ---

    def connection_made(self, transport):
        self.transport = transport
        self.worker.opener.open_first(self)

    def get_buffer(self, Py_ssize_t sizehint):
        self.give_back()                # the buffer of a read that brought nothing
        return self.lend(self.worker.memory.buffer_for(self.connection.direct_bytes))

    cdef ReadBuffer lend(self, ReadBuffer buffer):
        """Lend a buffer to the event loop. asyncio's may be turned, by a signal handler or a finalizer, before it calls
        back. uvloop's can't be, and often reads nothing, so that the buffers of its idle connections would add up."""
        buffer.lent = self.worker.tasks.loop_is_asyncio
        if buffer.lent:
            self.reading = buffer
        return buffer

    def buffer_updated(self, Py_ssize_t n):
        cdef WorkerContext worker = self.worker
        # Locals keep both alive: others may get their places meanwhile
        cdef Connection connection = self.connection
        cdef ReadBuffer buffer = worker.memory.read_buffer if self.reading is None else self.reading
        cdef bint was = worker.enter()
        self.reading = None
        buffer.lent = True
        try:
            connection.receive(buffer.p, n)
        finally:
            buffer.give_back()
            worker.leave(was)

    def eof_received(self):
        cdef WorkerContext worker = self.worker
        cdef Connection connection = self.connection
        self.give_back()
        cdef bint was = worker.enter()
        try:
            return connection.eof() == 1
        finally:
            worker.leave(was)

    def connection_lost(self, exception):
        cdef WorkerContext worker = self.worker
        cdef Connection connection = self.connection
        self.closing = True
        self.ending = NOT_ENDING
        self.socket = NONE              # it is closed when this returns, and its number may be given to another
        self.give_back()
        self.transport = self.connection = None
        self.settle_drained()
        cdef bint was = worker.enter()
        try:
            connection.lost()
        finally:
            worker.leave(was)

    def pause_writing(self):
        self.blocked = True
        if self.connection is not None:
            self.connection.stalled()

    def resume_writing(self):
        # transport.write() may call this, while a task is current: nobody is resumed in place from here
        self.blocked = False
        self.settle_drained()
        if self.connection is not None:
            self.connection.writable()

    # --- ByteSink ---

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        """Write past the transport from the second write on, which saves a third of the cost. Finding the descriptor
        costs about as much as a write, so that a connection with one request is better off without."""
        cdef Py_ssize_t sent = 0
        if self.transport_holds:
            self.transport_holds = self.transport.get_write_buffer_size() > 0
        if self.has_written and not self.transport_holds:
            if self.socket == UNKNOWN and self.transport is not None:
                self.find_socket()
            if self.socket >= 0:
                sent = send_now(self.socket, p, n)
                if sent == n:
                    return 0
        self.has_written = True
        self.transport_holds = True
        if self.transport is None or self.transport.is_closing():
            return 0                    # the transport has failed, and asyncio's would log each further write
        self.transport.write(PyBytes_FromStringAndSize(p + sent, n - sent))
        return 0

    cdef int find_socket(self) except -1:
        cdef int descriptor = NONE
        socket = self.transport.get_extra_info("socket")
        if socket is not None and self.transport.get_extra_info("sslcontext") is None:
            descriptor = socket.fileno()
        if self.socket == UNKNOWN:      # otherwise it has been closed meanwhile
            self.socket = descriptor
        return 0

    cdef int writelines(self, list parts) except -1:
        self.transport_holds = True
        if self.transport.is_closing():
            return 0
        if not self.worker.tasks.loop_is_asyncio:
            self.transport.writelines(parts)
            return 0
        # asyncio's own writelines() never pauses the protocol on CPython 3.12.0 to 3.12.8 (CVE-2024-12254)
        for part in parts:
            self.transport.write(part)
        return 0

    cdef int end(self) except -1:
        if self.puts_off(END):
            return 0
        self.flush()
        self.closing = True
        if self.transport is not None:
            self.transport.close()
        return 0

    cdef int end_gently(self) except -1:
        if self.puts_off(END_GENTLY):
            return 0
        if self.closing or not self.transport.can_write_eof():
            return self.end()
        self.flush()
        self.closing = True
        try:
            self.transport.write_eof()
        except OSError:
            # asyncio's transport shuts the socket down at once, and the peer may have reset it
            self.transport.abort()
        return 0

    cdef int abort(self) except -1:
        self.closing = True
        self.ending = NOT_ENDING
        self.socket = NONE              # the transport may close it at once
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int reset(self) except -1:
        if self.transport is not None:
            if self.socket == UNKNOWN:
                self.find_socket()
            if self.socket >= 0:
                reset_on_close(self.socket)
        return self.abort()

    cdef int peer_state(self) except -1:
        if self.transport is None:
            return PEER_IS_GONE
        if self.socket == UNKNOWN:
            self.find_socket()
        return peer_end(self.socket) if self.socket >= 0 else PEER_STAYS

    cdef Py_ssize_t unsent(self) except -1:
        cdef Py_ssize_t n
        if self.transport is None:
            return 0
        n = self.transport.get_write_buffer_size()
        if n or self.blocked:
            # The kernel accepts more only when the peer has acknowledged a good part of its megabytes: count these too
            if self.socket == UNKNOWN:
                self.find_socket()
            if self.socket >= 0:
                n += queued(self.socket)
        return n + (self.ending != NOT_ENDING)

    cdef int pause_reading(self) except -1:
        if self.transport is not None:
            self.transport.pause_reading()
        return 0

    cdef int resume_reading(self) except -1:
        if self.transport is not None:
            self.transport.resume_reading()
        return 0

    cdef object extra_info(self, str name):
        if self.proxied_info is not None and name in self.proxied_info:
            return self.proxied_info[name]
        return self.transport.get_extra_info(name)

    cdef int carry(self, Connection connection) except -1:
        self.connection = connection
        return 0

    # --- Files ---

    async def send_file(self, file, offset, count):
        """Send bytes of an open file by the kernel's sendfile, and return how many; 0 if the transport can't.

        The transport has to be empty first. It keeps the socket to itself, so a copy of the descriptor is waited on.
        """
        self.flush()
        if count == 0 or self.closing or not hasattr(os, "sendfile"):
            return 0
        if self.extra_info("sslcontext") is not None or self.extra_info("socket") is None:
            return 0
        await self.drain()
        if self.closing:
            return 0
        cdef long long sent = 0
        socket = os.dup(self.extra_info("socket").fileno())
        try:
            while sent < count and not self.closing:
                try:
                    n = os.sendfile(socket, file.fileno(), offset + sent, min(count - sent, SENDFILE_SIZE))
                except BlockingIOError:
                    await self.until_writable(socket)
                except ConnectionError:
                    self.abort()
                except OSError:
                    if sent == 0:
                        return 0            # sendfile can't send this kind of file
                    raise
                else:
                    if n == 0:
                        break
                    sent += n
                    await asyncio.sleep(0)
        finally:
            os.close(socket)
        return sent

    async def drain(self):
        """Wait until the transport has nothing to write, or is lost."""
        self.transport.set_write_buffer_limits(0)
        try:
            while self.transport is not None and self.transport.get_write_buffer_size():
                self.drained = self.worker.loop.create_future()
                await self.drained
        finally:
            self.drained = None
            if self.transport is not None:
                self.transport.set_write_buffer_limits()

    async def until_writable(self, int socket):
        """Wait until the socket accepts bytes, or is lost."""
        loop = self.worker.loop
        self.drained = loop.create_future()
        loop.add_writer(socket, self.settle_drained)
        self.pause_writing()
        try:
            await self.drained
        finally:
            loop.remove_writer(socket)
            self.resume_writing()
            self.drained = None

    def settle_drained(self):
        """End the wait of drain() and until_writable()."""
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)


class ServerProtocol(SocketSink, asyncio.BufferedProtocol):
    """What the event loop makes for each connection: ServerProtocol(worker).

    asyncio's own loop tells a buffered protocol by this base class.
    """

    __slots__ = ()
