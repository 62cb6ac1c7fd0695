"""See tunnel.pxd for the contracts."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy

from fastasgi.codecs.http2frames cimport CANCEL
from fastasgi.core.contracts cimport (
    END, END_GENTLY, NOT_ENDING, PEER_IS_GONE, PEER_STAYS, ByteSink, Connection,
)
from fastasgi.wires.http2output cimport QUEUE_HIGH, OutboundStream


cdef class TunnelSink(ByteSink):

    cdef int begin(self, OutboundStream stream) except -1:
        self.worker = stream.worker
        self.stream = stream
        self.carrier = stream.connection.sink
        self.is_secure = self.carrier.is_secure
        self.reads = True
        self.worker.registry.inner_count += 1
        return 0

    # --- What comes on the stream ---

    cdef bint feed(self, char* p, Py_ssize_t n) except -1:
        cdef Connection connection = self.connection
        if connection is not None and not self.is_lost:
            connection.receive(p, n)
        return self.reads

    cdef int feed_end(self) except -1:
        cdef Connection connection = self.connection
        self.peer_is_done = True
        if connection is None or self.is_lost:
            return 0
        if self.closing:
            return self.close(False)
        return 0 if connection.eof() else self.end()

    cdef int feed_loss(self) except -1:
        self.stream = None
        self.closing = True
        self.ending = NOT_ENDING
        return 0 if self.loss_is_scheduled else self.tell_loss()

    cdef int tell_loss(self) except -1:
        cdef Connection connection = self.connection
        self.connection = None
        if self.is_lost or connection is None:
            return 0
        self.is_lost = True
        self.worker.registry.inner_count -= 1
        return connection.lost()

    cdef int relieve(self) except -1:
        cdef Connection connection = self.connection
        if not self.blocked:
            return 0
        self.blocked = False
        return 0 if connection is None else connection.writable()

    # --- ByteSink ---

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        return self.put_data(PyBytes_FromStringAndSize(p, n))

    cdef int writelines(self, list parts) except -1:
        for part in parts:
            self.put_data(<bytes>part)
        return 0

    cdef int put_data(self, bytes data) except -1:
        cdef OutboundStream stream = self.stream
        if stream is None or stream.end_is_due or stream.end_is_put:
            return 0
        stream.connection.put_data(stream, data, False)
        stream.connection.push()
        if stream.backlog() > QUEUE_HIGH and not self.blocked:
            self.blocked = True
            if self.connection is not None:
                self.connection.stalled()
        return 0

    cdef int end(self) except -1:
        if self.puts_off(END):
            return 0
        self.flush()
        self.put_end()
        return self.close(False)

    cdef int end_gently(self) except -1:
        if self.puts_off(END_GENTLY):
            return 0
        self.flush()
        self.put_end()
        return self.close(False) if self.peer_is_done else 0

    cdef int put_end(self) except -1:
        cdef OutboundStream stream = self.stream
        self.closing = True
        if stream is not None and not (stream.end_is_due or stream.end_is_put):
            stream.connection.put_data(stream, b"", True)
            stream.connection.push()
        return 0

    cdef int close(self, bint resets) except -1:
        """Let the stream go, which ends once all that was put has left, and tell the connection so in an event of its
        own: whoever has put bytes need not expect that it ends inside its call."""
        cdef OutboundStream stream = self.stream
        self.closing = True
        self.stream = None
        if stream is None:
            return 0
        self.loss_is_scheduled = True
        self.worker.loop.call_soon(self.lost_soon, context=PyContext_Copy(self.worker.context))
        if resets:
            return stream.connection.cancel(stream, CANCEL)
        stream.connection.settle(stream)
        return 0

    def lost_soon(self):
        """The callback of close()."""
        cdef bint was = self.worker.enter()
        try:
            self.tell_loss()
        finally:
            self.worker.leave(was)

    cdef int abort(self) except -1:
        self.ending = NOT_ENDING
        return self.close(True)

    cdef int reset(self) except -1:
        return self.abort()

    cdef int pause_reading(self) except -1:
        self.reads = False
        return 0

    cdef int resume_reading(self) except -1:
        self.reads = True
        return 0 if self.stream is None else self.stream.connection.return_credit(self.stream)

    cdef int peer_state(self) except -1:
        return PEER_IS_GONE if self.stream is None else PEER_STAYS

    cdef Py_ssize_t unsent(self) except -1:
        return 0 if self.stream is None else self.stream.waiting_size + (self.ending != NOT_ENDING)

    cdef object extra_info(self, str name):
        return self.carrier.extra_info(name)

    cdef int carry(self, Connection connection) except -1:
        self.connection = connection
        return 0
