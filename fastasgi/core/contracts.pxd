"""The contracts between a worker's parts: what connections share, and where bytes go.

WorkerContext holds what every connection of one worker shares. A ByteSink carries ordered bytes to one peer; a
Connection speaks one wire protocol on one sink. Must not know: HTTP versions, WebSocket, the kind of transport.
"""

from cpython.object cimport PyObject

cdef extern from "core/poison.h" nogil:
    void poison(void* p, size_t n)
    void unpoison(void* p, size_t n)

from fastasgi._parser cimport HeadParser
from fastasgi.logs.accesslog cimport AccessLog
from fastasgi.trust.forwarded cimport Forwarding
from fastasgi.trust.peers cimport TrustedPeers


cdef class GuardedLogger:
    cdef:
        object logger
        object loop

    cdef int log(self, int level, tuple arguments) except -1


cdef class WorkerContext:
    cdef:
        readonly object loop
        unsigned long thread_ident      # the loop's thread, the only one that may touch what is here
        readonly object app             # ASGI 3 callable
        bint app_is_coroutine_function  # calling it runs none of its code
        bint loop_is_asyncio            # or derived from it, in contrast to uvloop's
        object context                  # contextvars.Context in which the server was started
        GuardedLogger logger
        AccessLog access                # None: there is none
        AccessLog access_log            # the same while something would be written, else None; as of the last tick
        HeadParser parser

        # Settings
        double keep_alive_timeout_s     # 0: no connection is kept
        bint ws                         # WebSockets are served
        Py_ssize_t ws_max_size          # bytes of a message, inflated
        Py_ssize_t ws_max_queue         # messages that the application has not received
        double ws_ping_interval_s       # 0: no pings
        double ws_ping_timeout_s        # 0: any
        bint ws_per_message_deflate
        double tls_handshake_timeout_s  # 0, of this and the next three: any
        double head_timeout_s
        double body_timeout_s           # between two pieces of a body
        double write_timeout_s          # in which a client takes nothing
        Py_ssize_t max_head_bytes
        Py_ssize_t max_body_bytes       # 0: no limit
        Py_ssize_t max_concurrency      # that unfinished_count reaches; 0: no limit
        object passes_limits            # called with an HTTP scope: whether it is served beyond that; None: none is
        Py_ssize_t max_requests         # 0: no limit
        dict state                      # lifespan state; each scope gets a shallow copy
        dict asgi                       # scope["asgi"]; each scope gets a copy
        str root_path
        bytes raw_root_path             # percent-encoded
        TrustedPeers proxy_peers        # whose connections begin with a PROXY header; None: nobody's
        Forwarding forwarding           # None: nothing that proxies say is looked at

        # Header lines that every response starts with, encoded as "name: value\r\n"
        bytes default_lines             # the settings' fields, and the date of this second
        bytes lines_without_server      # the settings' fields except server, and no date
        bytes server_line               # empty where the server field is off
        bytes date_line                 # of this second; empty where the date field is off
        bint has_date
        long date_second                # the second that date_line names

        # Clock
        double now                      # loop.time() of the last tick, seconds
        readonly double tick_interval_s     # shorter while it drains

        # What is open and running
        set connections                 # of Connection
        set suspended                   # of Exchange whose application call has not returned
        readonly Py_ssize_t exchange_count      # running application calls, suspended or not
        # Of these, those whose response is not complete and those whose WebSocket the application has not closed
        Py_ssize_t unfinished_count
        readonly Py_ssize_t request_count       # requests begun since the start
        public object on_max_requests   # called once, without arguments, when max_requests have begun
        readonly bint draining
        bint lingers                    # idle connections may have one more request while this worker drains
        bint ends_websockets            # it drains, and takes no new connections
        object idle_waiter              # asyncio.Future of wait_idle(), or None

        # For the start of tasks, see task
        dict task_arguments             # of asyncio.Task; the context is put in before each
        object call_soon                # the rest for CPython 3.11: loop.call_soon,
        object catch_step               # and what stands in for it and for the registry's add()
        object pass_task                # while a task is made: methods of this object;
        object step                     # the first step of that task, kept by catch_step;
        dict loop_attributes            # loop.__dict__

        # Refusals that the error log has been told of since the last tick, or was not, because they are many
        int refusals_told
        Py_ssize_t refusals_untold

        # Memory that one event at a time uses
        ReadBuffer read_buffer          # where the next read goes; another one while it is lent
        # Blocks: bytes objects with room for READ_SIZE. The kernel writes into one, and the application gets that one.
        # What it has let go of is used again, until the next tick: memory fresh from the system costs a page fault
        # for each 4 KiB, half of all that a large upload takes.
        list blocks
        Py_ssize_t block_index          # of the one used last
        PyObject* block                 # the one used last, of the list; or NULL
        char* spare_out                 # an output block that no sink uses now, or NULL
        Py_ssize_t spare_out_capacity   # bytes

        # Between enter() and leave(), in other words while an event-loop callback of ours is under way
        bint entered
        # True inside such a callback while no task is current: an application may be started there, and one that waits
        # resumed there and then. False while application code runs.
        bint in_callback
        bint nests                      # an application has turned the event loop inside such a callback
        bint has_seen_old_handshake     # of a WebSocket, in HTTP/1.0

    # Each event-loop callback that may feed an exchange begins with enter() and gives what that returns to leave().
    cdef inline int enter(self) except -1:
        cdef bint was = self.entered
        if was:
            self.note_nesting()
        self.entered = True
        self.in_callback = not self.nests
        return was
    cdef inline void leave(self, bint was) noexcept:
        self.entered = was
        self.in_callback = False
    cdef int note_nesting(self) except -1
    cdef int note_old_handshake(self) except -1         # a client asks for a WebSocket in HTTP/1.0
    cdef int count_refusals(self) except -1
    cdef bint tells_refusal(self) noexcept      # whether the error log is to be told of one more; counts it
    cdef int note_idle(self) except -1          # after a connection or an exchange has ended
    # With its traceback, or, where a handler of the user's or the traceback's own depth prevents that, without
    cdef int log_error(self, str message, object error) except -1
    cdef ReadBuffer read_buffer_for(self, Py_ssize_t direct_bytes)     # lent, until it is given back
    # All n bytes that a read has put at p. Where they fill most of the block, the block itself, in which the kernel may
    # have written them; then nothing at p may be used any more.
    cdef bytes take_read(self, const char* p, Py_ssize_t n)
    cdef char* free_block(self) except NULL


cdef class ReadBuffer:
    """READ_SIZE bytes that the event loop reads into, by the buffer protocol, and `receive` understands in place.

    They are all connections'. A turn of the event loop that an application causes inside `receive` finds them lent,
    and gets others: what one client has sent is never overwritten by what another sends.
    """

    cdef:
        char* scratch                   # owned
        char* p                         # where the next read goes: scratch, or a block of the worker's
        object block                    # the bytes object that p points into, kept from being used again; or None
        bint lent                       # what a read has put here is being understood

    cdef inline void give_back(self) noexcept:
        self.lent = False
        self.block = None
        poison(self.scratch, READ_SIZE)


cdef str type_name(object value)                # qualified; runs no code of a metaclass
cdef ReadBuffer unlent(ReadBuffer buffer)       # itself or one more, to be read into


cdef enum:
    READ_SIZE = 262144                  # bytes of one read, at most
    BLOCK_COUNT = 32                    # blocks that may be used again
    BLOCK_MIN = 196608                  # a read of fewer bytes is copied: a block is not worth what would lie idle
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
        dict told                       # by a PROXY header: extra_info() that goes before the transport's; or None
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
    cdef inline bint puts_off(self, int ending) noexcept:   # where a write is under way, to its end
        if self.writing:
            self.closing = True
            self.ending = ending
        return self.writing

    # What a kind of transport does.
    cdef int write(self, const char* p, Py_ssize_t n) except -1  # copies what it can't write at once; n > 0
    cdef int writelines(self, list parts) except -1      # of bytes
    cdef int end(self) except -1                # after what was put: no more bytes, then close
    cdef int end_gently(self) except -1         # the same, but half-closed until the peer has closed too
    cdef int abort(self) except -1              # without waiting for the peer
    cdef int reset(self) except -1              # the same, so that the peer knows something is missing
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int peer_state(self) except -1         # PEER_STAYS and on, though bytes of it may be unread
    # Bytes written that the peer's system has not taken, and 1 for an end that is put off; 0 once the kernel has all.
    # It changes as the peer reads.
    cdef Py_ssize_t unsent(self) except -1
    # asyncio.BaseTransport.get_extra_info; of "tls" a dict for the scope's extensions, or None
    cdef object extra_info(self, str name)
    cdef int carry(self, Connection connection) except -1       # from now on, instead of the one before
    cdef Connection open_wire(self)             # carry who speaks first, but for the PROXY protocol


cdef class Connection:
    """One wire protocol on one sink."""

    cdef:
        WorkerContext worker
        ByteSink sink                   # None once the connection is lost
        double deadline                 # of worker.now, seconds; 0: none
        Py_ssize_t direct_bytes         # body bytes that the next read may put into an object of their own
        bint watches_peer               # nothing is read, and yet the peer's leaving is to be noticed, by the tick
        char* at                        # of the read under way, what has not been understood: up to
        char* end                       # here; both NULL between two reads

    cdef int receive(self, char* p, Py_ssize_t n) except -1    # borrows p for the call
    # For a receive() inside another one of this connection, see ReadBuffer: the rest of that one, and the n bytes
    # behind it. The outer one has nothing left.
    cdef bytes rest_and(self, const char* p, Py_ssize_t n)
    cdef int put_off_rest(self) except -1       # the receive() under way may take long: go on in a turn of its own
    cdef int eof(self) except -1                # the peer sends nothing more; 1: the connection goes on sending
    cdef int watch(self) except -1              # each tick of a connection that watches_peer
    cdef int lost(self) except -1               # the transport is gone
    cdef int stalled(self) except -1            # the sink is blocked
    cdef int writable(self) except -1           # the sink is no longer blocked
    # Finish what runs, begin nothing. A peer that is cut off, and will come back at once, is so after delay_s.
    cdef int drain_and_close(self, double delay_s) except -1
    cdef bint expect_first_request(self) noexcept       # of a worker that drains: whether that shortens the deadline
    cdef int expire(self) except -1             # the deadline has passed
    cdef str peer(self)                         # the client's address for the error log
    # A line of the access log for an answer of the server's own. scope None: nothing is known of the request
    cdef int log_refusal(self, dict scope, int status, Py_ssize_t body_bytes, double duration_s) except -1
    cdef inline bint is_due(self) noexcept:     # for the tick to look at
        return self.watches_peer or 0 < self.deadline <= self.worker.now
    cdef inline void set_deadline(self, double timeout_s) noexcept:
        # 0: none. worker.now is up to one tick old, so that it is never early, and at most two ticks late
        self.deadline = 0 if timeout_s <= 0 else self.worker.now + timeout_s + self.worker.tick_interval_s


cdef dict unknown_scope(ByteSink sink)
