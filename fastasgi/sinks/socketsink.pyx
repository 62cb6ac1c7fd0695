"""See socketsink.pxd for the contracts."""

import asyncio
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from fastasgi.core.contracts cimport (
    END, END_GENTLY, NOT_ENDING, PEER_IS_GONE, ByteSink, Connection, WorkerContext,
)
from fastasgi.core.memory cimport READ_SIZE, ReadBuffer
from fastasgi.sinks.addresses cimport own_endpoint
from fastasgi.sinks.poller cimport CALLED, ENDED, READABLE, WRITABLE, Poller

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object view) noexcept

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_WR
    int shutdown(int socket, int how)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "sinks/send.h" nogil:
    enum:
        WOULD_BLOCK
        BROKEN
    ptrdiff_t receive_now(int socket, char* p, size_t n)
    ptrdiff_t send_now(int socket, const char* p, size_t n)
    ptrdiff_t send_pieces(int socket, iovec* pieces, int count)
    void reset_on_close(int socket)
    int peer_end(int socket)
    int has_bytes(int socket)
    int queued(int socket)

cdef enum:
    HIGH_WATER = 65536                  # bytes; a sink that holds more is blocked
    LOW_WATER = 16384                   # bytes; until it holds no more than these
    SEND_SIZE = 1048576                 # bytes that are sent of one sink before others have their turn, about
    PIECES_MOST = 64                    # of one call of sendmsg
    NONE = -1


cdef class SocketSink(ByteSink):

    def __cinit__(self):
        self.socket = NONE
        self.reads = self.takes_views = True

    def __dealloc__(self):
        if self.socket >= 0:
            close(self.socket)

    cdef int begin(self, WorkerContext worker, Poller poller, int socket, object peername, object sockname) except -1:
        self.worker = worker
        self.poller = poller
        self.socket = socket
        self.peername = peername
        self.stops_short = not isinstance(peername, tuple)
        self.sockname = sockname
        worker.opener.open_first(self)
        try:
            if self.socket >= 0 and poller.loop_nests:
                self.watch()            # whoever turns the loop inside the first read may wait for more
            if self.socket >= 0:
                self.read()             # most clients have sent their request by now
        finally:
            if self.socket >= 0 and not self.is_watched:
                self.watch()
        return 0

    cdef int watch(self) except -1:
        self.is_watched = True
        return self.poller.watch(self.socket, self, on_ready, self.watches_writes)

    # --- Events ---

    cdef int on_ready(self, unsigned what) except -1:
        if self.socket < 0:
            return 0
        if what & READABLE:
            self.readable = True
            self.has_fin = self.has_fin or (what & ENDED) != 0
        if what & (WRITABLE | CALLED) and self.pieces is not None:
            self.send_held()
            if self.blocked and self.pieces_size <= LOW_WATER and self.socket >= 0:
                self.resume_writing()
        elif what & WRITABLE:
            self.settle_drained()
        if self.readable and self.reads and self.socket >= 0:
            self.read()
        return 0

    cdef int read(self) except -1:
        cdef WorkerContext worker = self.worker
        cdef ReadBuffer buffer
        cdef Py_ssize_t n
        cdef bint was
        if self.at_end or self.is_ending:
            self.readable = False
            return 0
        buffer = self.free_buffer()
        n = receive_now(self.socket, buffer.p, READ_SIZE)
        # A socket that had less than was asked for is empty, and more is an event; but not if its end was told already
        self.readable = n == READ_SIZE or (n > 0 and (self.has_fin or (self.stops_short and has_bytes(self.socket))))
        if n == WOULD_BLOCK:
            buffer.give_back()
            return 0
        if self.readable:
            # Asked for before the application runs: that may raise SystemExit, or turn the loop and wait for the rest
            self.poller.call_soon(self, on_ready)
        was = worker.enter()
        try:
            if n > 0:
                worker.counts.bytes_received += n
                self.take(buffer, n)
            else:
                buffer.give_back()
                if n < 0:
                    self.lose()
                else:
                    self.at_end = True
                    if not self.take_end():
                        self.close_when_sent()
        except Exception as error:
            worker.logger.log_error("Exception in a connection", error)
            self.abort()
        finally:
            worker.leave(was)
        return 0

    cdef ReadBuffer free_buffer(self):
        return self.worker.memory.buffer_for(self.connection.direct_bytes)

    cdef int take(self, ReadBuffer buffer, Py_ssize_t n) except -1:
        cdef Connection connection = self.connection    # keeps it alive: another may get its place meanwhile
        try:
            return connection.receive(buffer.p, n)
        finally:
            buffer.give_back()

    cdef bint take_end(self) except -1:
        cdef Connection connection = self.connection
        return connection.eof() == 1

    cdef int lose(self) except -1:
        cdef int socket = self.socket
        self.closing = True
        if socket < 0:
            return 0
        self.socket = NONE
        self.pieces = None
        self.pieces_size = 0
        self.poller.forget(socket)
        close(socket)
        return self.poller.call_soon(self, on_lost)

    cdef int lost(self) except -1:
        cdef WorkerContext worker = self.worker
        cdef Connection connection = self.connection
        cdef bint was
        self.ending = NOT_ENDING
        self.connection = None
        self.settle_drained()
        if connection is None:
            return 0
        was = worker.enter()
        try:
            return connection.lost()
        finally:
            worker.leave(was)

    # --- ByteSink ---

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t sent
        if self.socket < 0 or self.is_ending:
            return 0
        if self.pieces is None:
            sent = send_now(self.socket, p, n)
            if sent == n:
                self.worker.counts.bytes_sent += n
                return 0
            if sent == BROKEN:
                return self.lose()
            sent = max(sent, 0)
            self.worker.counts.bytes_sent += sent
            p += sent
            n -= sent
            self.pieces = []
            self.pieces_at = 0
            self.await_room()
        self.pieces.append(PyBytes_FromStringAndSize(p, n))
        self.pieces_size += n
        return self.look_at_held()

    cdef int writelines(self, list parts) except -1:
        cdef bint holds = self.pieces is not None
        if self.socket < 0 or self.is_ending:
            return 0
        if not holds:
            self.pieces = []
            self.pieces_at = 0
        for part in parts:
            if part:
                self.pieces.append(part)
                self.pieces_size += piece_size(part)
        if not holds:
            self.send_held()
        return self.look_at_held()

    cdef int send_held(self) except -1:
        cdef iovec[PIECES_MOST] vector
        cdef Py_ssize_t left = SEND_SIZE
        cdef Py_ssize_t n
        cdef int count
        while self.pieces_size:
            count = 0
            for piece in self.pieces:
                vector[count].iov_base = piece_start(piece)
                vector[count].iov_len = piece_size(piece)
                count += 1
                if count == PIECES_MOST:
                    break
            vector[0].iov_base = <char*>vector[0].iov_base + self.pieces_at
            vector[0].iov_len -= self.pieces_at
            n = send_pieces(self.socket, vector, count)
            if n == BROKEN:
                return self.lose()
            if n == WOULD_BLOCK:
                return self.await_room()
            self.worker.counts.bytes_sent += n
            self.pieces_size -= n
            left -= n
            n += self.pieces_at
            count = 0
            while n and n >= piece_size(self.pieces[count]):
                n -= piece_size(self.pieces[count])
                count += 1
            self.pieces_at = n
            del self.pieces[:count]
            if left <= 0 and self.pieces_size:
                return self.poller.call_soon(self, on_ready)
        self.pieces = None
        return self.all_is_sent()

    cdef int await_room(self) except -1:
        if not self.watches_writes:
            self.watches_writes = True
            if self.is_watched:
                self.poller.watch_writes(self.socket)
        return 0

    cdef int look_at_held(self) except -1:
        if self.pieces_size > HIGH_WATER and not self.blocked:
            self.blocked = True
            if self.connection is not None:
                self.connection.stalled()
        return 0

    cdef int resume_writing(self) except -1:
        # A task may be current: nobody is resumed in place from here
        self.blocked = False
        return 0 if self.connection is None else self.connection.writable()

    cdef int all_is_sent(self) except -1:
        self.settle_drained()
        if self.is_ending:
            return self.lose()
        return self.end_half() if self.ends_half else 0

    cdef int end(self) except -1:
        if self.puts_off(END):
            return 0
        self.flush()
        return self.close_when_sent()

    cdef int end_gently(self) except -1:
        if self.puts_off(END_GENTLY):
            return 0
        if self.closing:
            return self.end()
        self.flush()
        self.closing = True
        if self.pieces is None:
            return self.end_half()
        self.ends_half = True
        return 0

    cdef int end_half(self) except -1:
        self.ends_half = False
        if self.socket >= 0 and shutdown(self.socket, SHUT_WR) < 0:
            return self.abort()         # the peer has reset the connection
        return 0

    cdef int close_when_sent(self) except -1:
        self.closing = self.is_ending = True
        return self.lose() if self.pieces is None else 0

    cdef int abort(self) except -1:
        self.ending = NOT_ENDING
        return self.lose()

    cdef int reset(self) except -1:
        if self.socket >= 0:
            reset_on_close(self.socket)
        return self.abort()

    cdef int peer_state(self) except -1:
        return PEER_IS_GONE if self.socket < 0 else peer_end(self.socket)

    cdef Py_ssize_t unsent(self) except -1:
        cdef Py_ssize_t n = self.pieces_size
        if self.socket < 0:
            return 0
        if n or self.blocked:
            # The kernel accepts more only when the peer has acknowledged a good part of its megabytes: count these too
            n += queued(self.socket)
        return n + (self.ending != NOT_ENDING)

    cdef int pause_reading(self) except -1:
        self.reads = False
        return 0

    cdef int resume_reading(self) except -1:
        self.reads = True
        return self.poller.call_soon(self, on_ready) if self.readable else 0

    cdef object extra_info(self, str name):
        if self.proxied_info is not None and name in self.proxied_info:
            return self.proxied_info[name]
        if name == "peername":
            return self.peername
        if name == "sockname":
            if self.sockname is None:
                self.sockname = own_endpoint(self.socket)
            return self.sockname
        return None

    cdef int carry(self, Connection connection) except -1:
        self.connection = connection
        return 0

    # --- Files ---

    async def send_file(self, file, offset, count):
        """Send bytes of an open file by the kernel's sendfile, and return how many; 0 if it can't send this kind."""
        cdef long long sent = 0
        self.flush()
        if count == 0 or not hasattr(os, "sendfile"):
            return 0
        while self.pieces is not None and not self.closing:
            await self.until_writable()
        while sent < count and not self.closing:
            try:
                n = os.sendfile(self.socket, file.fileno(), offset + sent, min(count - sent, SEND_SIZE))
            except BlockingIOError:
                self.await_room()
                self.blocked = True
                self.connection.stalled()
                try:
                    await self.until_writable()
                finally:
                    self.resume_writing()
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
                self.worker.counts.bytes_sent += <long long>n
                await asyncio.sleep(0)
        return sent

    async def until_writable(self):
        """Wait until the kernel takes bytes, and has all that are held, or until the socket is closed."""
        self.drained = self.worker.loop.create_future()
        try:
            await self.drained
        finally:
            self.drained = None

    cdef int settle_drained(self) except -1:
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)
        return 0


cdef inline char* piece_start(object piece) noexcept:
    if type(piece) is bytes:
        return PyBytes_AS_STRING(piece)
    return <char*>PyMemoryView_GET_BUFFER(piece).buf


cdef inline Py_ssize_t piece_size(object piece) noexcept:
    return PyBytes_GET_SIZE(piece) if type(piece) is bytes else PyMemoryView_GET_BUFFER(piece).len


cdef int on_ready(object owner, unsigned what) except -1:
    return (<SocketSink>owner).on_ready(what)


cdef int on_lost(object owner, unsigned what) except -1:
    return (<SocketSink>owner).lost()
