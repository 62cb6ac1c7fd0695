"""The contracts between a worker's parts: what connections share, and where bytes go.

A WorkerContext has what all connections of one worker share. A ByteSink carries ordered bytes to one peer. A Connection
speaks one wire on one sink, and an Opener decides which wire that is. Must not know: how HTTP, WebSockets or TLS work,
where a sink's bytes go.
"""

from libc.stdint cimport int64_t

from fastasgi.codecs.heads cimport DefaultFields
from fastasgi.core.counters cimport Counters, Counts
from fastasgi.core.errorlog cimport ErrorLog
from fastasgi.core.limits cimport Limits
from fastasgi.core.memory cimport EventMemory
from fastasgi.core.overload cimport LoadShedder
from fastasgi.core.registry cimport Registry
from fastasgi.core.task cimport TaskStarter
from fastasgi.logs.accesslog cimport AccessLog
from fastasgi.trust.forwarded cimport Forwarding


cdef class Opener
cdef class Wire


cdef class WorkerContext:
    cdef:
        readonly object loop
        unsigned long thread_ident      # the loop's thread, the only one that may touch what is here
        readonly object app             # ASGI 3 callable
        bint app_is_coroutine_function  # calling the application runs none of its code
        object context                  # contextvars.Context in which the server was started
        public Opener opener            # decides who speaks on a new sink; to be set before there is one

        readonly Registry registry      # what is open and runs
        Limits limits                   # the settings that connections read
        DefaultFields fields            # the server's own fields in each response
        EventMemory memory              # buffers that all connections use in turn
        TaskStarter tasks               # starts and wakes the application's tasks
        LoadShedder shedder             # refuses requests while more come than can be answered; None if that is off
        ErrorLog logger
        AccessLog access                # None if there is no access log
        AccessLog access_log            # `access` if, at the last tick, something would have been written; else None
        readonly Counters counters      # what this worker has done
        Counts* counts                  # borrows from `counters`
        readonly bint measures          # also what costs with each request is counted
        bint observes                   # a response is counted, or has a line in a log
        bint keeps_scopes               # for the access log, or for that of slow requests

        # For scopes
        dict state                      # lifespan state; each scope gets a shallow copy
        dict asgi                       # scope["asgi"]; each scope gets a copy
        str root_path
        bytes raw_root_path             # root_path, percent-encoded
        Forwarding forwarding           # None if nothing that proxies say is looked at
        # Called with an HTTP scope: whether limit_concurrency does not apply to it. None if it applies to all
        public object passes_limits

        double now                      # loop.time() of the last tick, seconds
        int64_t turn_began_ns           # when the sockets that are ready were last asked for, of the monotonic clock
        readonly double tick_interval_s     # the time between two ticks; shorter while this worker drains
        readonly bint draining          # running exchanges end, and nothing new begins
        bint keeps_idle                 # idle connections may have one more request while this worker drains
        bint ends_websockets            # this worker drains, and accepts no new connections
        bint entered                    # a callback of ours is under way: enter() was called, leave() not yet

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
    # Writes a line of the access log, which has to be on. body_bytes: those on the wire; duration_s: since the head
    # came, -1 if that is not known
    cdef int record_access(self, dict scope, int status, long long body_bytes, double duration_s) except -1
    cdef int look_at_log(self) except -1        # sets access_log and observes


cdef enum:
    OUT_FLUSH = 131072                  # bytes; a sink that has more to write does so at once
    OUT_BLOCK = 16384                   # bytes; the first size of an output block
    JOIN_LIMIT = 16384                  # bodies up to this size are copied behind their head; bytes


cdef class Connection


cdef enum:
    PEER_STAYS                          # it has ended nothing, as far as one can see
    PEER_HAS_ENDED                      # it has ended its sending side, or all of the connection
    PEER_IS_GONE                        # nothing can reach it


cdef enum:                              # of ByteSink.ending
    NOT_ENDING
    END
    END_GENTLY


cdef class ByteSink:
    """Ordered bytes to one peer. What one event produces is collected here and leaves in one write.

    A write may run Python code, such as the ssl module's or a finalizer that the collector runs, and that may send to
    the same peer. So a block is no longer `out` when it is written, and what is put meanwhile waits for the end of the
    write.
    """

    cdef:
        WorkerContext worker
        char* out                       # owned: the output block, what is still to be written; NULL if there is none
        Py_ssize_t out_length           # bytes to be written
        Py_ssize_t out_capacity         # bytes of the block
        bint corked                     # the event under way flushes at its end
        bint flush_is_scheduled         # for the end of this turn of the event loop
        bint writing                    # a write is under way further up the stack
        bint blocked                    # the peer reads too slowly: whoever sends should wait for writable()
        bint closing                    # nothing more is accepted
        bint takes_views                # see writelines(); the same for all of a kind
        bint is_secure                  # it has TLS
        int ending                      # the end that is to follow the write under way
        dict proxied_info               # what extra_info() says by a PROXY header, instead of the socket; or None
        bint hides_client               # the peer is a proxy, which does not say for whom it has connected

    cdef char* reserve(self, Py_ssize_t n) except NULL   # room for n bytes; commit() says how far it was used
    cdef inline void commit(self, char* end) noexcept:
        self.out_length = end - self.out
    cdef int put(self, const char* p, Py_ssize_t n) except -1           # copies
    cdef int put_object(self, bytes data, bytes tail) except -1  # keeps both until they are written; tail may be None
    cdef int put_parts(self, list parts) except -1      # keeps them; they are those of writelines(), and the sink's
    # To be called after a put: writes now, at the end of the event, or, unless final, at the end of the loop's turn
    cdef int push(self, bint final) except -1
    cdef int flush(self) except -1
    cdef int write_out(self) except -1
    cdef int drop_out(self) except -1
    cdef int after_write(self) except -1        # does what has been asked for while the write was under way
    # Whether a write is under way: then this end follows it
    cdef inline bint puts_off(self, int ending) noexcept:
        if self.writing:
            self.closing = True
            self.ending = ending
        return self.writing

    # --- What a kind of sink does ---

    cdef int write(self, const char* p, Py_ssize_t n) except -1  # copies what it can't write at once; n > 0
    # parts: bytes objects, and memoryviews of bytes objects if takes_views is set
    cdef int writelines(self, list parts) except -1
    cdef int end(self) except -1                # closes the connection after what was put
    cdef int end_gently(self) except -1         # ends our half after what was put; closes once the peer has closed
    cdef int abort(self) except -1              # closes the connection without waiting for the peer
    cdef int reset(self) except -1              # aborts so that the peer knows something is missing
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    # PEER_STAYS and on. The peer's bytes may not all have been read
    cdef int peer_state(self) except -1
    # Bytes written that the peer's system has not acknowledged, and 1 if an end has still to follow a write; 0 once the
    # kernel has all. It changes as the peer reads.
    cdef Py_ssize_t unsent(self) except -1
    # "peername" and "sockname": as asyncio.BaseTransport.get_extra_info() says them. "tls": a dict for the scope's
    # extensions. None if it has no such thing
    cdef object extra_info(self, str name)
    cdef int carry(self, Connection connection) except -1       # this connection has the sink's events from now on
    # Begins TLS, if this sink has it: returns who has the sink until Opener.open_wire() is called for it. None if not
    cdef Connection secure(self)


cdef class Opener:
    """Who speaks on a new sink. Each of these returns a new Connection, which has the sink."""

    # To be called when the peer has just connected
    cdef Connection open_first(self, ByteSink sink)
    # To be called when the PROXY header, if one is due, has come
    cdef Connection open_behind_proxy(self, ByteSink sink)
    # To be called when TLS, if the sink has it, is established. alpn: the protocol agreed on (RFC 7301), or None
    cdef Connection open_wire(self, ByteSink sink, str alpn)
    # The wire whose preface the first n bytes on a sink are, or may become; None if there is none
    cdef Wire asked_wire(self, ByteSink sink, const char* p, Py_ssize_t n)
    # The answer, in the peer's own protocol, to n bytes without TLS on a sink that has TLS
    cdef bytes refuse_plain(self, Connection connection, const char* p, Py_ssize_t n)


cdef class Connection:
    """One wire on one sink."""

    cdef:
        WorkerContext worker
        ByteSink sink                   # None once the connection is lost, or another one has the sink
        double deadline                 # the worker.now at which expire() is due, seconds; 0 if there is none
        double waits_since              # the worker.now since when the next request, or its rest, is waited for
        int wire                        # what it speaks: NO_WIRE and on
        long long wait_number           # counts these waits of all connections: the lower, the longer
        Py_ssize_t unsent               # the sink's unsent() when the peer was last found to have read something
        Py_ssize_t direct_bytes         # body bytes that the next read may put into an object of their own
        bint watches_peer               # nothing is read, but the tick is to notice that the peer leaves
        bint paused                     # the sink reads nothing for now
        bint resume_is_scheduled        # resume_held() follows in a turn of the event loop of its own
        char* at                        # from here to `end` the read under way has not been understood
        char* end                       # both are NULL between two reads
        char* held                      # owned: bytes that were read and put aside, or NULL
        Py_ssize_t held_length          # bytes that are held
        Py_ssize_t held_capacity        # bytes of the memory for them

    # --- Its life ---

    # Gives the connection the sink, and timeout_s for the first bytes that are due; 0: any time
    cdef int begin_on(self, WorkerContext worker, ByteSink sink, double timeout_s) except -1
    # Parts the connection from its sink. To be called before another one begins on that
    cdef int leave_sink(self) except -1
    # Gets what the connection before has left: its deadline, which counts if it is sooner (0: none), and n bytes
    cdef int inherit(self, double deadline, char* p, Py_ssize_t n) except -1
    cdef int lost(self) except -1               # to be called when the socket is closed

    # --- Bytes in ---

    cdef int receive(self, char* p, Py_ssize_t n) except -1    # borrows p for the call
    # For a receive() inside another one of this connection, see ReadBuffer. Returns what the outer one has not
    # understood, with the n bytes behind it; nothing is left for the outer one.
    cdef bytes rest_and(self, const char* p, Py_ssize_t n)
    cdef int put_off_rest(self) except -1       # the rest of the read under way is held, for a turn of its own
    # Puts n bytes aside, behind those that are held. Their memory doubles up to `usual` bytes, then grows as it must
    cdef int hold_bytes(self, const char* p, Py_ssize_t n, Py_ssize_t usual) except -1
    # The held bytes, of which there are n, are the caller's, to be freed by PyMem_RawFree
    cdef char* detach_held(self, Py_ssize_t* n) noexcept
    cdef int drop_held(self) except -1
    cdef int process_held(self) except -1       # understands what is held
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int schedule_resume(self) except -1    # resume_held() in a turn of the event loop of its own

    # --- What a wire protocol does ---

    # Understands n bytes, which it borrows, and holds those that it can't understand yet
    cdef int process(self, char* p, Py_ssize_t n) except -1
    cdef int resume_held(self) except -1        # goes on with held bytes
    # The peer sends nothing more. Returns 1 if the connection goes on sending
    cdef int eof(self) except -1
    cdef int watch(self) except -1              # called at each tick if watches_peer is set
    # Whether only the next request is waited for, so that the sink may be ended to make room for others. A peer whose
    # first one, or the rest of one, may be on its way has some time: otherwise nobody is served where many come at once
    cdef bint gives_way(self) noexcept
    cdef int on_lost(self) except -1            # the last part of lost(); the sink is None already
    cdef int stalled(self) except -1            # the sink is blocked
    cdef int writable(self) except -1           # the sink is no longer blocked
    # Finishes what runs, begins nothing new, and closes. A peer that is likely to come back at once is cut off after
    # delay_s only.
    cdef int drain_and_close(self, double delay_s) except -1
    cdef int expire(self) except -1             # the deadline has passed

    # --- Time ---

    # To be called when nothing but the next request is waited for
    cdef inline void note_wait(self) noexcept:
        self.waits_since = self.worker.now
        self.worker.registry.wait_count += 1
        self.wait_number = self.worker.registry.wait_count
    cdef inline bint is_due(self) noexcept:     # whether the tick has to look at this connection
        return self.watches_peer or 0 < self.deadline <= self.worker.now
    cdef inline void set_deadline(self, double timeout_s) noexcept:
        # 0: none. worker.now is up to one tick old, so a deadline is never early, and at most two ticks late
        self.deadline = 0 if timeout_s <= 0 else self.worker.now + timeout_s + self.worker.tick_interval_s
    # Gives the first request on this connection little time, since the worker drains. Whether it had more before
    cdef bint expect_first_request(self) noexcept
    # Whether a peer has been waited for so long, for its first request or the rest of one, that others go first
    cdef bint is_slow(self) noexcept
    cdef void expect_close(self) noexcept       # all is said: gives the peer LINGER_S to close
    # Whether a slow peer has read something since this was last asked, and so has its time again. unsent: the sink's
    cdef inline bint has_taken(self, Py_ssize_t unsent) noexcept:
        cdef bint has = unsent != self.unsent
        self.unsent = unsent
        return has

    # --- Logs ---

    cdef str peer_text(self)                    # the peer's address, for the error log
    # Counts an answer of the server's own, and writes its lines in both logs. scope is None if the request is not
    # known; started_ns is the turn_began_ns of its arrival, 0 if it has not come whole
    cdef int log_refusal(
        self, dict scope, int status, str reason, Py_ssize_t body_bytes, int64_t started_ns) except -1
    cdef int protocol_of(self, dict scope) except -1    # HTTP_1_0 and on
    # Counts a connection that is ended without an answer, and says whether the error log is to tell of it
    cdef bint count_refusal(self, int kind, str reason) except -1


cdef class Wire:
    """A protocol that peers may speak, and how a connection asks for it."""

    cdef:
        readonly bytes preface          # the first bytes of a connection; b"" if it is asked for by ALPN alone
        readonly str alpn               # the protocol's name in TLS (RFC 7301), or None

    cdef Connection open(self, WorkerContext worker, ByteSink sink)     # a new connection, which has the sink


cdef dict unknown_scope(ByteSink sink)          # a scope for the access log, of a request whose client alone is known
