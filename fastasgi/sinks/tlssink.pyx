"""See tlssink.pxd for the contracts."""

import ssl
from collections import deque

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from fastasgi.codecs.clienthello cimport ClientHello, is_retry_request
from fastasgi.codecs.tlsrecords cimport follow_record
from fastasgi.core.contracts cimport END, END_GENTLY, ByteSink, Connection, WorkerContext
from fastasgi.core.counters cimport BAD_TLS, TLS_TIMEOUT
from fastasgi.core.memory cimport READ_SIZE, ReadBuffer, unlent
from fastasgi.sinks.socketsink cimport SocketSink

cdef enum:
    MOST_PLAIN = 16384                  # bytes of plain text in a record (RFC 8446 section 5.1)
    PUMP_SIZE = 262144                  # bytes that are encrypted before one looks whether the kernel accepts more
    CONTROL_LIMIT = 65536               # bytes of OpenSSL's own answers that may wait for a peer which reads nothing

WantRead = ssl.SSLWantReadError
MemoryBIO = ssl.MemoryBIO


cdef class BorrowedMemory:

    def __len__(self):
        return self.n

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.p, self.n, 0, flags)


cdef BorrowedMemory borrowed(const char* p, Py_ssize_t n):
    cdef BorrowedMemory memory = BorrowedMemory.__new__(BorrowedMemory)
    memory.p = <char*>p
    memory.n = n
    return memory


cdef class TLSWorker:

    def __init__(self, source):
        self.source = source
        self.records = ReadBuffer()


cdef class TLSHandshake(Connection):

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef TLSSink sink = self.sink
        return sink.feed(p, n)              # bytes that followed a PROXY header

    cdef int eof(self) except -1:
        return self.sink.abort()

    cdef int drain_and_close(self, double delay_s) except -1:
        if self.expect_first_request():
            self.is_draining = True
        return 0

    cdef bint gives_way(self) noexcept:
        return self.is_slow()

    cdef int expire(self) except -1:
        cdef ByteSink sink = self.sink
        if sink is None:
            return 0
        if not sink.closing:
            self.worker.counts.timeouts[TLS_TIMEOUT] += 1
            self.worker.logger.info(
                "TLS handshake of %s failed: %s", self.peer_text(),
                "the server is stopping" if self.is_draining else "not done within ssl_handshake_timeout")
        return sink.abort()


cdef class TLSSink(SocketSink):

    def __cinit__(self):
        self.takes_views = False

    cdef Connection secure(self):
        cdef TLSHandshake handshake = TLSHandshake.__new__(TLSHandshake)
        self.is_open = self.is_secure = True
        handshake.begin_on(self.worker, self, self.worker.limits.ssl_handshake_timeout)
        return handshake

    cdef ReadBuffer free_buffer(self):
        cdef ReadBuffer records = unlent(self.tls_worker.records)
        self.tls_worker.records = records
        records.lent = True
        return records

    cdef int take(self, ReadBuffer buffer, Py_ssize_t n) except -1:
        try:
            return self.feed(buffer.p, n)
        finally:
            buffer.give_back()

    cdef bint take_end(self) except -1:
        if not self.peer_is_done:
            self.peer_has_ended()
        return self.keeps_half or self.backlog is not None

    cdef int lost(self) except -1:
        self.tls = self.incoming = self.outgoing = self.backlog = self.hello = None
        self.backlog_size = 0
        return SocketSink.lost(self)

    cdef int resume_writing(self) except -1:
        self.blocked = False
        if not self.writing:            # otherwise whoever writes goes on
            self.send_records()
            self.after_write()
        return 0 if self.blocked else SocketSink.resume_writing(self)

    # --- Bytes in ---

    cdef int feed(self, char* p, Py_ssize_t n) except -1:
        cdef Connection before
        cdef bytes joined
        if self.closing or self.peer_is_done:
            return 0
        if not self.is_open:
            before = self.connection
            return before.receive(p, n)     # a PROXY header, which is due before TLS
        if self.records_at < self.records_end:
            # This is inside another feed() of this connection, see ReadBuffer: the rest of that one comes first
            joined = self.records_at[:self.records_end - self.records_at] + p[:n]
            self.records_at = self.records_end
            return self.feed(PyBytes_AS_STRING(joined), len(joined))
        if not self.established and self.hello is None:
            if self.record.header_length == 0 and b"A"[0] <= p[0] <= b"Z"[0]:
                return self.refuse_plain(p, n)
            if self.tls is None:
                if self.tls_worker.source.needs_name:
                    self.hello = ClientHello()
                else:
                    self.wrap(None)
        self.records_at = p
        self.records_end = p + n
        try:
            self.feed_records()
        finally:
            self.records_at = self.records_end = NULL
        if self.closing:
            return 0
        if self.tls is not None and self.outgoing.pending:
            # OpenSSL's answers to key updates and the like
            if not self.blocked:
                self.send_records()
            elif self.outgoing.pending > CONTROL_LIMIT:
                return self.break_off("the peer asks for answers and does not read them")
        if self.peer_is_done and not self.closing:
            return self.peer_has_ended()
        return 0

    cdef int feed_records(self) except -1:
        cdef WorkerContext worker = self.worker
        cdef Py_ssize_t total = 0           # bytes of plain text that have not been delivered
        cdef Py_ssize_t got, n
        cdef ReadBuffer plain = None
        cdef ClientHello hello
        cdef bytearray records              # keeps the memory alive that records_at points to
        while self.records_at < self.records_end:
            if self.hello is not None:
                hello = self.hello
                if not hello.feed(self.records_at, self.records_end - self.records_at):
                    return 0
                self.hello = None
                if hello.fault is not None:
                    return self.refuse_hello(hello)
                if self.tls is None:
                    self.wrap(hello.name)
                records = hello.records
                self.records_at = PyByteArray_AS_STRING(records)
                self.records_end = self.records_at + len(records)
            n = follow_record(&self.record, self.records_at, self.records_end - self.records_at)
            self.records_at += n
            self.incoming.write(borrowed(self.records_at - n, n))
            if self.record.header_length:
                break                   # the record goes on in the next read
            if not self.established:
                if not self.shake():
                    return 0
                continue
            if total == 0:
                if plain is not None:
                    plain.give_back()
                plain = worker.memory.buffer_for(self.connection.direct_bytes)
            got = self.decrypt(plain.p + total, READ_SIZE - total)
            if got < 0:
                break
            total += got
            if READ_SIZE - total < MOST_PLAIN:
                self.deliver(plain, total)
                total = 0
                if self.closing or self.tls is None:
                    return 0
        if total:
            self.deliver(plain, total)
        elif plain is not None:
            plain.give_back()
        return 0

    cdef int wrap(self, str name) except -1:
        context = self.tls_worker.source.context_for(name)
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, True)
        self.calls_back = context.sni_callback is not None
        return 0

    cdef int refuse_hello(self, ClientHello hello) except -1:
        cdef bytes alert = b"\x15\3\3\0\2\2%c" % hello.alert     # fatal (RFC 8446 section 6)
        SocketSink.write(self, alert, len(alert))
        return self.give_up(hello.fault)

    cdef bint shake(self) except -1:
        """Go on with the handshake. Returns whether to go on reading."""
        cdef Connection handshake
        try:
            self.tls.do_handshake()
        except WantRead:
            self.send_records()
            return True
        except OSError as error:
            self.send_records()
            self.give_up(getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error))
            return False
        self.send_records()
        handshake = self.connection
        if handshake is None:
            return False                # the connection was lost meanwhile
        if self.tls.session_reused:
            fault = self.tls_worker.source.fault_of_resumed(self.tls)
            if fault is not None:
                self.give_up(fault)
                return False
        self.established = True
        handshake.leave_sink()
        self.worker.opener.open_wire(self, self.tls.selected_alpn_protocol())
        return True

    cdef Py_ssize_t decrypt(self, char* p, Py_ssize_t room) except -2:
        """Decrypt the record that has come. Returns the bytes of its plain text; -1 if nothing more is to be read."""
        try:
            got = self.tls.read(room, borrowed(p, room))
        except WantRead:
            return 0                    # the record was one of TLS itself
        except OSError as error:
            self.send_records()
            self.break_off(error)
            return -1
        if got == 0:
            self.peer_is_done = True    # close_notify
            return -1
        return got

    cdef int deliver(self, ReadBuffer plain, Py_ssize_t n) except -1:
        cdef Connection connection = self.connection    # keeps it alive: another may get its place meanwhile
        try:
            return 0 if connection is None else connection.receive(plain.p, n)
        finally:
            plain.give_back()

    cdef int peer_has_ended(self) except -1:
        cdef Connection connection = self.connection
        self.peer_is_done = True
        self.keeps_half = connection.eof() == 1
        if not self.keeps_half:
            self.end()
        return 0

    cdef int refuse_plain(self, const char* p, Py_ssize_t n) except -1:
        """Answer a client that speaks without TLS, and end the connection."""
        cdef Connection connection = self.connection
        cdef bytes answer = self.worker.opener.refuse_plain(connection, p, n)
        SocketSink.write(self, answer, len(answer))
        connection.expect_close()
        return SocketSink.end_gently(self)

    cdef int give_up(self, str reason) except -1:
        """End a connection whose handshake has failed. The peer may still be sending, and is to get OpenSSL's alert.

        OpenSSL's object goes at once: its session had no orderly end, and is never resumed.
        """
        cdef Connection connection = self.connection
        if connection is None:
            return 0                    # the connection was lost meanwhile
        connection.count_refusal(BAD_TLS, reason)
        self.worker.logger.info(
            "TLS handshake of %s failed: %s", connection.peer_text(), reason.lower().replace("_", " "))
        self.tls = self.incoming = self.outgoing = None
        connection.expect_close()
        return SocketSink.end_gently(self)

    cdef int break_off(self, object error) except -1:
        """Abort a connection whose peer breaks the protocol, or says that we do."""
        if not self.closing:
            self.worker.logger.debug("TLS connection of %s broken off: %s", self.connection.peer_text(), error)
        return self.abort()

    # --- Bytes out ---

    cdef bytes encrypt(self, const char* p, Py_ssize_t n):
        """Encrypt at most MOST_PLAIN bytes as a record. Returns it, behind whatever else OpenSSL has to send."""
        self.tls.write(borrowed(p, n))
        return self.outgoing.read()

    cdef int send_records(self) except -1:
        """Send what OpenSSL has to send by itself. If a write is under way, that sends it too."""
        cdef bytes records
        if self.tls is None or self.writing:
            return 0
        records = self.outgoing.read()
        if not records:
            return 0
        # The ssl module decodes the name in C, and a name that isn't ASCII ends up in sys.unraisablehook
        if self.calls_back and not self.established and is_retry_request(records, len(records)):
            self.hello = ClientHello(True)
        self.writing = True
        try:
            SocketSink.write(self, PyBytes_AS_STRING(records), len(records))
        finally:
            self.writing = False
        return self.after_write()

    cdef int after_write(self) except -1:
        if self.backlog is not None and not self.blocked:
            self.writing = True
            try:
                self.pump()
            finally:
                self.writing = False
        if self.backlog is not None and self.out_length == 0:
            return 0                    # resume_writing() will call this again
        return SocketSink.after_write(self)

    cdef int write(self, const char* p, Py_ssize_t n) except -1:
        cdef bytes records
        cdef list parts
        cdef Py_ssize_t at = 0
        if self.tls is None:
            return 0
        if self.backlog is not None:
            self.backlog.append(PyBytes_FromStringAndSize(p, n))
            self.backlog_size += n
            return 0
        try:
            if n <= MOST_PLAIN:
                records = self.encrypt(p, n)
                return SocketSink.write(self, PyBytes_AS_STRING(records), len(records)) if records else 0
            parts = []
            while at < n:
                parts.append(self.encrypt(p + at, min(n - at, MOST_PLAIN)))
                at += MOST_PLAIN
        except OSError as error:
            return self.break_off(error)
        return SocketSink.writelines(self, parts)

    cdef int writelines(self, list parts) except -1:
        if self.tls is None:
            return 0
        if self.backlog is None:
            self.backlog = deque()
        for part in parts:
            if part:
                self.backlog.append(part)
                self.backlog_size += len(<bytes>part)
        if not self.blocked:
            self.pump()
        elif self.backlog_size == 0:
            self.backlog = None
        return 0

    cdef int pump(self) except -1:
        """Encrypt and write the backlog as long as the kernel accepts more."""
        cdef list parts
        cdef bytes first
        cdef Py_ssize_t n, size
        while self.backlog_size and not self.blocked:
            if self.socket < 0 or self.is_ending:
                self.backlog_size = 0
                break
            parts = []
            size = 0
            while self.backlog_size and size < PUMP_SIZE:
                first = self.backlog[0]
                n = min(len(first) - self.backlog_at, MOST_PLAIN)
                try:
                    parts.append(self.encrypt(PyBytes_AS_STRING(first) + self.backlog_at, n))
                except OSError as error:
                    self.backlog = None
                    self.backlog_size = self.backlog_at = 0
                    return self.break_off(error)
                if self.backlog is None:
                    return 0            # the connection was aborted meanwhile
                size += n
                self.backlog_size -= n
                self.backlog_at += n
                if self.backlog_at == len(first):
                    self.backlog_at = 0
                    self.backlog.popleft()
            SocketSink.writelines(self, parts)
        if self.backlog_size == 0:
            self.backlog = None
            self.backlog_at = 0
        return 0

    cdef Py_ssize_t unsent(self) except -1:
        return SocketSink.unsent(self) + self.backlog_size

    # --- The end ---

    cdef int end(self) except -1:
        if self.puts_off(END):
            return 0
        self.flush()
        self.closing = True
        if self.backlog is not None:
            self.ending = END
            return 0
        self.say_end()
        return SocketSink.end(self)

    cdef int end_gently(self) except -1:
        if self.puts_off(END_GENTLY) or self.ending == END_GENTLY:
            return 0
        if self.closing:
            return self.end()
        self.flush()
        self.closing = True
        if self.backlog is not None:
            self.ending = END_GENTLY
            return 0
        self.say_end()
        self.closing = False            # SocketSink's own condition
        return SocketSink.end_gently(self)

    cdef int say_end(self) except -1:
        """Send close_notify (RFC 8446 section 6.1). The peer's is not waited for."""
        if self.tls is None or not self.established or self.socket < 0 or self.is_ending:
            return 0
        try:
            self.tls.unwrap()
        except OSError:
            pass                        # the peer's has not come yet, or the protocol has failed
        return self.send_records()

    cdef int abort(self) except -1:
        self.backlog = None
        self.backlog_size = self.backlog_at = 0
        return SocketSink.abort(self)

    cdef object extra_info(self, str name):
        if name == "tls":
            return self.tls_worker.source.extension(self.tls)
        return SocketSink.extra_info(self, name)

    async def send_file(self, file, offset, count):
        """The kernel can't encrypt: 0."""
        return 0
