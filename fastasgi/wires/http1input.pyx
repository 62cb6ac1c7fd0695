"""See http1input.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport int64_t
from libc.string cimport memchr

from fastasgi._parser cimport HeadParser, RequestHead, is_of_head, skip_blank_lines, unlent_parser
from fastasgi.asgi.http cimport DISCARD_LIMIT, HTTPExchange
from fastasgi.asgi.httpconnection cimport TOO_LARGE, HTTPConnection
from fastasgi.codecs.chunked cimport chunked_decode, chunked_reset
from fastasgi.core.contracts cimport ByteSink, Wire, WorkerContext

cdef enum:
    REQUESTS_A_TURN = 64                # pipelined requests answered before other connections have their turn
    DIRECT_MIN = 65536                  # if as many bytes are still to come, the next read gets an object of its own


cdef class HTTP1Input(HTTPConnection):

    cdef int receive(self, char* p, Py_ssize_t n) except -1:
        cdef bytes joined
        if self.state == READ_NOTHING:
            return 0
        if self.may_be_other:
            return self.receive_first(p, n)
        if self.beginning:
            return self.hold(p, n)
        if self.at < self.end:
            joined = self.rest_and(p, n)
            return self.receive(PyBytes_AS_STRING(joined), len(joined))
        if self.held_length == 0:
            return self.process(p, n)
        if not self.is_worth_parsing(p, n):
            return self.hold(p, n)
        self.hold(p, n)
        return self.process_held()

    cdef int receive_first(self, char* p, Py_ssize_t n) except -1:
        """Let another wire have the connection if the first bytes ask for it."""
        cdef Wire wire
        cdef char* block = NULL
        if self.held_length:
            self.hold(p, n)
            p = block = self.detach_held(&n)
        try:
            wire = self.worker.opener.asked_wire(self.sink, p, n)
            if wire is not None and n < len(wire.preface):
                return self.hold(p, n)
            self.may_be_other = False
            return self.receive(p, n) if wire is None else self.give_to(wire, p, n)
        finally:
            PyMem_RawFree(block)

    cdef int give_to(self, Wire wire, char* p, Py_ssize_t n) except -1:
        cdef WorkerContext worker = self.worker
        cdef ByteSink sink = self.sink
        cdef double deadline = self.deadline
        self.state = READ_NOTHING
        self.leave_sink()
        return wire.open(worker, sink).inherit(deadline, p, n)

    cdef bint is_worth_parsing(self, const char* p, Py_ssize_t n) noexcept:
        """Whether more bytes behind the held ones can change anything: a head is parsed again only if it has grown by a
        line or past a limit. So bytes that come one by one cost no more than a parse a line."""
        cdef Py_ssize_t line_limit = self.parser.max_request_line_bytes
        cdef Py_ssize_t length = self.held_length + n
        if self.resume_is_scheduled or not self.may_begin():
            return False
        if memchr(p, 10, n) is not NULL or self.blank_bytes + length > self.parser.max_head_bytes:
            return True
        return self.held_length <= line_limit < length

    cdef int process(self, char* p, Py_ssize_t n) except -1:
        """Understand what can be understood, hold the rest, and write all answers at once."""
        cdef ByteSink sink = self.sink
        cdef bint was_receiving = self.receiving
        cdef bint was_corked = sink.corked
        self.receiving = True
        sink.corked = True
        self.at = p
        self.end = p + n
        try:
            self.advance()
            if self.at < self.end and self.state != READ_NOTHING:
                self.hold(self.at, self.end - self.at)
        finally:
            self.at = self.end = NULL
            self.receiving = was_receiving
            sink.corked = was_corked
        if sink.out_length:
            sink.flush()
        if self.peer_is_done and self.sink is not None:
            self.settle_eof()
        return 0

    cdef int advance(self) except -1:
        """Understand the bytes from `at` to `end`. `at` is behind each piece before the application sees it."""
        cdef int requests = 0
        cdef HTTPExchange exchange      # keeps it alive: its response may be complete while it starts
        while self.at < self.end:
            if self.state == READ_HEAD:
                if not self.may_begin():
                    return 0
                requests += 1
                if requests > REQUESTS_A_TURN:
                    return self.schedule_resume()
                if not self.read_head():
                    return 0
            elif self.state == READ_LENGTH:
                self.read_body()
            elif self.state == READ_CHUNKS:
                self.read_chunks()
            else:
                self.at = self.end
            # All of the body that this read has brought is there before the application asks for it
            if self.start_is_due and (self.at == self.end or self.state == READ_HEAD):
                self.start_is_due = False
                exchange = self.exchange
                if exchange is not None:
                    exchange.start()
        return 0

    cdef int hold(self, char* p, Py_ssize_t n) except -1:
        self.hold_bytes(p, n, self.parser.max_head_bytes)
        if self.may_begin() and not self.resume_is_scheduled:
            # If a CR comes first, it may become an empty line, which is no part of a head
            if not self.reading_head and self.held[0] != c"\r":
                self.reading_head = True
                if self.scope_template is not None:
                    self.waits_since = self.worker.now
                    self.set_deadline(self.worker.limits.timeout_request_head)
                # The time of a first head runs since the connection was made
        elif self.holds_much():
            self.pause_reading()
            self.watches_peer = self.exchange is not None
        return 0

    cdef int put_off_rest(self) except -1:
        cdef char* p = self.at
        self.at = self.end
        self.schedule_resume()
        return self.hold(p, self.end - p)

    cdef int resume_reading(self) except -1:
        if self.paused:
            self.watches_peer = self.peer_is_done
        return HTTPConnection.resume_reading(self)

    cdef int resume_held(self) except -1:
        if self.sink is None or self.state == READ_NOTHING or not self.may_begin():
            return 0
        if self.held_length == 0 or self.beginning:
            return 0
        self.process_held()
        self.watches_peer = self.exchange is not None and (self.peer_is_done or (self.paused and self.held_length > 0))
        if not self.holds_much() and (self.exchange is None or not self.exchange.wants_call):
            self.resume_reading()
        return 0

    cdef bint read_head(self) except -1:
        cdef HeadParser parser = unlent_parser(self.parser)
        cdef char* at = self.at
        cdef Py_ssize_t n = 0
        parser.lent = self.beginning = True
        try:
            if at[0] != c"\r" or self.find_request_line():
                at = self.at
                n = parser.parse(at, self.end, self.blank_bytes)
                if self.at != at:
                    return False        # put_off_rest() was called meanwhile
                if n > 0:
                    self.at += n
                    self.begin(parser)
                elif n < 0:
                    self.refuse_head(parser, is_of_head(at, self.end - at))
        finally:
            parser.lent = self.beginning = False
        if self.held_length and self.at < self.end:
            self.hold_first()
        return n > 0

    cdef bint find_request_line(self) except -1:
        """Skip the empty lines that may stand before a request line (RFC 9112 section 2.2). The connection stays idle
        meanwhile, and keeps its deadline."""
        cdef bint begun
        cdef Py_ssize_t n = skip_blank_lines(self.at, self.end, &begun)
        self.at += n
        self.blank_bytes += n
        if self.blank_bytes > self.parser.max_head_bytes:
            self.refuse_early(431, "too many empty lines before the request line")
            return False
        return begun

    cdef int hold_first(self) except -1:
        """Hold the rest of the read under way, before the bytes that have come since."""
        cdef bytes later = PyBytes_FromStringAndSize(self.held, self.held_length)
        cdef char* p = self.at
        self.at = self.end
        self.held_length = 0
        self.hold(p, self.end - p)
        return self.hold(PyBytes_AS_STRING(later), len(later))

    cdef bint expect_body(self, const RequestHead* head) noexcept:
        self.body_read = 0
        if head.content_length > 0:
            self.state = READ_LENGTH
            self.body_left = head.content_length
        elif head.chunked:
            self.state = READ_CHUNKS
            chunked_reset(&self.chunks)
        else:
            return False
        return True

    cdef int begin_body(self, HTTPExchange exchange, const RequestHead* head) except -1:
        if self.expect_body(head):
            exchange.expects_continue = exchange.wants_call = head.expect_continue
        else:
            exchange.body_complete = True
        return 0

    cdef int read_body(self) except -1:
        cdef char* p = self.at
        cdef Py_ssize_t n = min(<int64_t>(self.end - p), self.body_left)
        cdef bint is_last = n == self.body_left
        self.at = p + n
        self.body_left -= n
        self.body_read += n
        if self.exchange is None:
            self.discard(is_last)
        elif self.at == self.end:
            self.feed(self.worker.memory.object_of(p, n), is_last)
        else:
            self.feed(PyBytes_FromStringAndSize(p, n), is_last)
        if self.state == READ_LENGTH:
            self.direct_bytes = self.body_left if self.exchange is not None and self.body_left >= DIRECT_MIN else 0
            self.watch_client()
        return 0

    cdef int read_chunks(self) except -1:
        cdef char* p = self.at
        cdef Py_ssize_t body
        cdef Py_ssize_t n = chunked_decode(&self.chunks, p, self.end - p, &body)
        if n < 0:
            self.at = self.end
            return self.refuse_body(400, "malformed chunked body")
        self.at = p + n
        self.body_read += body
        if self.exchange is None:
            self.discard(self.chunks.done)
        elif self.exceeds_body_limit(self.body_read):
            self.at = self.end
            return self.refuse_body(413, TOO_LARGE)
        else:
            self.feed(PyBytes_FromStringAndSize(p, body) if body else None, self.chunks.done)
        if self.state == READ_CHUNKS:
            self.watch_client()
        return 0

    cdef int feed(self, bytes piece, bint is_last) except -1:
        """Give a piece of the body, or None, to the exchange, which may be over afterwards."""
        cdef HTTPExchange exchange = self.exchange
        exchange.expect_piece(is_last)
        if is_last:
            self.end_body()
        if piece is not None:
            exchange.feed_body(piece)
            if self.exchange is exchange and exchange.is_full():
                self.pause_reading()
        elif is_last:
            exchange.feed_end()
        return 0

    cdef int discard(self, bint is_last) except -1:
        """Count a piece of a body that nobody wants any more; close the connection if there is too much of it."""
        if is_last:
            return self.end_body()
        if self.body_read > DISCARD_LIMIT:
            self.at = self.end
            return self.close()
        return 0

    cdef int end_body(self) except -1:
        self.state = READ_HEAD
        self.direct_bytes = 0
        self.resume_reading()
        return self.watch_client()

    # --- What is made of it ---

    cdef int begin(self, HeadParser parser) except -1:
        raise NotImplementedError

    cdef int refuse_head(self, HeadParser parser, bint is_head) except -1:
        raise NotImplementedError

    cdef int refuse_early(self, int status, str reason) except -1:
        raise NotImplementedError

    cdef int refuse_body(self, int status, str reason) except -1:
        raise NotImplementedError

    cdef bint gives_way(self) noexcept:
        cdef bint is_idle = self.scope_template is not None and self.held_length == 0
        return self.state == READ_HEAD and self.may_begin() and (is_idle or self.is_slow())

    cdef int watch_client(self) except -1:
        raise NotImplementedError

    cdef int settle_eof(self) except -1:
        raise NotImplementedError

    cdef int close(self) except -1:
        raise NotImplementedError
