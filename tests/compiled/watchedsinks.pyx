# cython: language_level=3
"""Sinks that tell a test what happens on their sockets, and an Acceptor that makes them.

What they tell goes to a callable `watch(event, n)`:
- "ready" when the poller calls; n says why (READABLE and on);
- "read begins" and "read ends" around what is made of n bytes that came in one read;
- "end" when the peer has sent all it will, "lost" once the connection is over; n is 0.

A plain sink fails where it reads though that is paused, and where the connection writes behind its end. What was read
is overwritten when its event is over, so that one sees who still looks at it.
"""

from fastasgi.core.contracts cimport NOT_ENDING
from fastasgi.core.memory cimport ReadBuffer, poison
from fastasgi.sinks.acceptor cimport Acceptor
from fastasgi.sinks.socketsink cimport SocketSink
from fastasgi.sinks.tlssink cimport TLSSink


cdef int overwrite(ReadBuffer buffer, Py_ssize_t n) except -1:
    """Overwrite n bytes of a read that is over, and up to 7 more."""
    if not buffer.lent:
        poison(buffer.scratch, (n + 7) & ~7)
    return 0


cdef class WatchedSocketSink(SocketSink):
    cdef object watch

    cdef int on_ready(self, unsigned what) except -1:
        self.watch("ready", what)
        return SocketSink.on_ready(self, what)

    cdef int take(self, ReadBuffer buffer, Py_ssize_t n) except -1:
        assert self.reads, "a read while reading is paused"
        self.watch("read begins", n)
        SocketSink.take(self, buffer, n)
        overwrite(buffer, n)
        self.watch("read ends", n)
        return 0

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        self.check_write()
        return SocketSink.write(self, p, n)

    cdef int writelines(self, list parts) except -1:
        self.check_write()
        return SocketSink.writelines(self, parts)

    cdef int check_write(self) except -1:
        assert self.socket < 0 or not self.closing or self.ending != NOT_ENDING, "a write behind the end"
        return 0

    @property
    def held_bytes(self):
        """The bytes that the kernel has not taken."""
        return self.pieces_size

    @property
    def is_blocked(self):
        """Whether whoever sends should wait."""
        return self.blocked

    def break_off(self):
        """Close the connection without waiting for the peer."""
        self.abort()

    cdef bint take_end(self) except -1:
        self.watch("end", 0)
        return SocketSink.take_end(self)

    cdef int lost(self) except -1:
        SocketSink.lost(self)
        self.watch("lost", 0)
        return 0


cdef class WatchedTLSSink(TLSSink):
    cdef object watch

    cdef int on_ready(self, unsigned what) except -1:
        self.watch("ready", what)
        return TLSSink.on_ready(self, what)

    cdef int take(self, ReadBuffer buffer, Py_ssize_t n) except -1:
        self.watch("read begins", n)
        TLSSink.take(self, buffer, n)
        overwrite(buffer, n)
        self.watch("read ends", n)
        return 0

    cdef bint take_end(self) except -1:
        self.watch("end", 0)
        return TLSSink.take_end(self)

    cdef int lost(self) except -1:
        TLSSink.lost(self)
        self.watch("lost", 0)
        return 0


cdef class WatchedAcceptor(Acceptor):
    """WatchedAcceptor(worker, tls_source): to be used once `watch` is set."""

    cdef public object watch            # of the connections that are accepted from now on

    cdef SocketSink new_sink(self):
        cdef WatchedSocketSink plain
        cdef WatchedTLSSink secure
        if self.tls_worker is None:
            plain = WatchedSocketSink.__new__(WatchedSocketSink)
            plain.watch = self.watch
            return plain
        secure = WatchedTLSSink.__new__(WatchedTLSSink)
        secure.tls_worker = self.tls_worker
        secure.watch = self.watch
        return secure

    def open_on(self, sock, peername):
        """Open a connection on a connected socket, which it owns from now on. peername: its peer's address.

        Returns the sink.
        """
        cdef SocketSink sink = self.new_sink()
        sock.setblocking(False)
        sink.begin(self.worker, self.poller, sock.detach(), peername, None)
        return sink
