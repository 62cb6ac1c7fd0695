"""The contracts between a worker's parts: what connections share, and where bytes go.

A WorkerContext holds what every connection of one worker shares. A ByteSink carries ordered bytes to one peer; a
Connection speaks one wire protocol on one sink; an Opener says which one. Must not know: HTTP, WebSocket, TLS, the kind
of transport.
"""

from fastasgi.codecs.heads cimport DefaultFields
from fastasgi.core.errorlog cimport ErrorLog
from fastasgi.core.limits cimport Limits
from fastasgi.core.memory cimport EventMemory
from fastasgi.core.registry cimport Registry
from fastasgi.core.task cimport TaskStarter
from fastasgi.logs.accesslog cimport AccessLog
from fastasgi.trust.forwarded cimport Forwarding


cdef class Opener


cdef class WorkerContext:
    cdef:
        readonly object loop
        unsigned long thread_ident      # the loop's thread, the only one that may touch what is here
        readonly object app             # ASGI 3 callable
        bint app_is_coroutine_function  # calling it runs none of its code
        object context                  # contextvars.Context in which the server was started
        public Opener opener            # who speaks first on a new sink; to be set before there is one

        readonly Registry registry      # what is open and runs
        Limits limits
        DefaultFields fields            # that the server itself puts into each response
        EventMemory memory
        TaskStarter tasks
        ErrorLog logger
        AccessLog access                # None: there is none
        AccessLog access_log            # the same while something would be written, else None; as of the last tick

        # For scopes
        dict state                      # lifespan state; each scope gets a shallow copy
        dict asgi                       # scope["asgi"]; each scope gets a copy
        str root_path
        bytes raw_root_path             # percent-encoded
        Forwarding forwarding           # None: nothing that proxies say is looked at
        public object passes_limits     # called with an HTTP scope: whether limit_concurrency lets it pass; None: none

        double now                      # loop.time() of the last tick, seconds
        readonly double tick_interval_s     # shorter while it drains
        readonly bint draining
        bint keeps_idle                 # idle connections may have one more request while this worker drains
        bint ends_websockets            # it drains, and takes no new connections
        bint entered                    # between enter() and leave(): an event-loop callback of ours is under way

    # Each event-loop callback that may feed an exchange begins with enter() and gives what that returns to leave().
    cdef inline int enter(self) except -1:
        cdef bint was = self.entered
        if was:
            self.note_nesting()
        self.entered = True
        self.tasks.in_callback = not self.tasks.nests
        return was
    cdef inline void leave(self, bint was) noexcept:
        self.entered = was
        self.tasks.in_callback = False
    cdef int note_nesting(self) except -1
    # A line of the access log, which is on. Body bytes on the wire, and the time since the head came; -1: not known
    cdef int record_access(self, dict scope, int status, long long body_bytes, double duration_s) except -1


cdef enum:
    OUT_FLUSH = 131072                  # a sink that holds more writes at once
    OUT_BLOCK = 16384                   # first size of an output block
    JOIN_LIMIT = 16384                  # bodies up to this size are copied behind their head; bytes


cdef class Connection


cdef enum:
    PEER_STAYS                          # as far as one can see
    PEER_HAS_ENDED                      # its sending side, or all of the connection
    PEER_IS_GONE                        # nothing can reach it


cdef enum:                              # of ByteSink.ending
    NOT_ENDING
    END
    END_GENTLY


cdef class ByteSink:
    """Ordered bytes to one peer. What one event produces is collected here and leaves in one write.

    A write calls Python code of the event loop, in which the collector may run, and so a finalizer that sends to the
    same peer. A block is no longer `out` when it is written, and what is put meanwhile waits for the end of the write.
    """

    cdef:
        WorkerContext worker
        char* out                       # owned; NULL where nothing is held back
        Py_ssize_t out_length           # bytes
        Py_ssize_t out_capacity         # bytes
        bint corked                     # the event under way flushes at its end
        bint flush_is_scheduled
        bint writing                    # a write is under way further up the stack
        bint blocked                    # the peer reads too slowly: whoever sends should wait for writable()
        bint closing                    # nothing more is accepted
        int ending                      # what is to follow when the write under way is done
        dict proxied_info               # what a PROXY header says instead of the transport, for extra_info(); or None
        bint hides_client               # a proxy's, which does not tell for whom

    cdef char* reserve(self, Py_ssize_t n) except NULL   # room for n bytes; commit() what was written there
    cdef inline void commit(self, char* end) noexcept:
        self.out_length = end - self.out
    cdef int put(self, const char* p, Py_ssize_t n) except -1           # copies
    cdef int put_object(self, bytes data, bytes tail) except -1  # keeps both until written; tail may be None
    cdef int push(self, bint final) except -1   # after a put: write now, at the end of the event, or soon
    cdef int flush(self) except -1
    cdef int write_out(self) except -1
    cdef int drop_out(self) except -1
    cdef int after_write(self) except -1        # what has been asked for while it was under way
    cdef inline bint puts_off(self, int ending) noexcept:   # to the end of a write, if one is under way
        if self.writing:
            self.closing = True
            self.ending = ending
        return self.writing

    # What a kind of transport does.
    cdef int write(self, const char* p, Py_ssize_t n) except -1  # copies what it can't write at once; n > 0
    cdef int writelines(self, list parts) except -1      # of bytes
    cdef int end(self) except -1                # after what was put: no more bytes, then close
    cdef int end_gently(self) except -1         # as end(), but half-closed until the peer has closed too
    cdef int abort(self) except -1              # without waiting for the peer
    cdef int reset(self) except -1              # as abort(), so that the peer knows something is missing
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int peer_state(self) except -1         # PEER_STAYS and on, though bytes of it may be unread
    # Bytes written that the peer's system has not taken, and 1 for an end that is put off; 0 once the kernel has all.
    # It changes as the peer reads.
    cdef Py_ssize_t unsent(self) except -1
    # asyncio.BaseTransport.get_extra_info; of "tls" a dict for the scope's extensions, or None
    cdef object extra_info(self, str name)
    cdef int carry(self, Connection connection) except -1       # from now on, instead of the one before
    # Begins TLS, if this sink has it: returns who has the sink until Opener.open_wire() is called for it. None: plain
    cdef Connection secure(self)


cdef class Opener:
    """Who speaks on a new sink. Each of these returns a new Connection, which has the sink."""

    cdef Connection open_first(self, ByteSink sink)                 # the peer has just connected
    cdef Connection open_behind_proxy(self, ByteSink sink)          # the PROXY header, if one is due, has come
    # TLS, if there is any, is established; alpn: the protocol agreed on (RFC 7301), or None
    cdef Connection open_wire(self, ByteSink sink, str alpn)
    # The answer, in the peer's own protocol, to n bytes without TLS on a sink that has TLS
    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n)


cdef class Connection:
    """One wire protocol on one sink."""

    cdef:
        WorkerContext worker
        ByteSink sink                   # None once the connection is lost, or another one has the sink
        double deadline                 # of worker.now, seconds; 0: none
        Py_ssize_t unsent               # bytes of the sink when the peer was last found to have taken something
        Py_ssize_t direct_bytes         # body bytes that the next read may put into an object of their own
        bint watches_peer               # nothing is read, and yet the peer's leaving is to be noticed, by the tick
        bint paused                     # the sink reads nothing for now
        bint resume_is_scheduled
        char* at                        # of the read under way, what has not been understood: up to
        char* end                       # here; both NULL between two reads
        char* held                      # owned: bytes read and put aside, or NULL
        Py_ssize_t held_length          # bytes
        Py_ssize_t held_capacity        # bytes

    # --- Its life ---

    # The connection has the sink from now on, and this time for the first thing that is due. 0: any time
    cdef int begin_on(self, WorkerContext worker, ByteSink sink, double timeout_s) except -1
    # Another connection has the sink from now on. To be called before that begins
    cdef int leave_sink(self) except -1
    # The one before has left the sink: its deadline, if that is sooner (0: there is none), and n bytes that it has read
    cdef int inherit(self, double deadline, char* p, Py_ssize_t n) except -1
    cdef int lost(self) except -1               # the transport is gone

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1    # borrows p for the call
    # For a receive() inside another one of this connection, see ReadBuffer: the rest of that one, and the n bytes
    # behind it. The outer one has nothing left.
    cdef bytes rest_and(self, const char* p, Py_ssize_t n)
    cdef int put_off_rest(self) except -1       # the receive() under way may take long: go on in a turn of its own
    # Puts n bytes aside, behind those that are. Room grows by doubling, but beyond `usual` only as it must
    cdef int hold_bytes(self, const char* p, Py_ssize_t n, Py_ssize_t usual) except -1
    cdef char* detach_held(self, Py_ssize_t* n) noexcept        # the caller's, to be freed by PyMem_RawFree
    cdef int drop_held(self) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int schedule_resume(self) except -1    # resume_held() in a turn of the event loop of its own

    # --- What a wire protocol does ---

    cdef int resume_held(self) except -1        # go on with held bytes
    cdef int eof(self) except -1                # the peer sends nothing more; 1: the connection goes on sending
    cdef int watch(self) except -1              # each tick of a connection that watches_peer
    cdef int on_lost(self) except -1            # the last part of lost(); the sink is None already
    cdef int stalled(self) except -1            # the sink is blocked
    cdef int writable(self) except -1           # the sink is no longer blocked
    # Finish what runs, begin nothing. A peer that is cut off, and will come back at once, is so after delay_s.
    cdef int drain_and_close(self, double delay_s) except -1
    cdef int expire(self) except -1             # the deadline has passed

    # --- Time ---

    cdef inline bint is_due(self) noexcept:     # for the tick to look at
        return self.watches_peer or 0 < self.deadline <= self.worker.now
    cdef inline void set_deadline(self, double timeout_s) noexcept:
        # 0: none. worker.now is up to one tick old, so that it is never early, and at most two ticks late
        self.deadline = 0 if timeout_s <= 0 else self.worker.now + timeout_s + self.worker.tick_interval_s
    cdef bint expect_first_request(self) noexcept       # of a worker that drains: whether that shortens the deadline
    cdef void expect_close(self) noexcept       # all is said: the peer has LINGER_S to close, and no more
    # Whether a slow peer has taken something since it was last asked, and so has its time again. unsent: the sink's
    cdef inline bint has_taken(self, Py_ssize_t unsent) noexcept:
        cdef bint has = unsent != self.unsent
        self.unsent = unsent
        return has

    # --- Logs ---

    cdef str peer_text(self)                    # the client's address for the error log
    # A line of the access log for an answer of the server's own. scope None: nothing is known of the request
    cdef int log_refusal(self, dict scope, int status, Py_ssize_t body_bytes, double duration_s) except -1


cdef class Wire:
    """A protocol that peers may speak, and how they ask for it."""

    cdef:
        readonly bytes preface          # what a connection begins with; b"": it is asked for by ALPN alone
        readonly str alpn               # its name in TLS (RFC 7301), or None

    cdef Connection open(self, WorkerContext worker, ByteSink sink)     # a new one, which has the sink


cdef dict unknown_scope(ByteSink sink)          # what the access log reads, if only the client of a request is known
