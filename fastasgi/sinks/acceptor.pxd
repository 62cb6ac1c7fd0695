"""How connections are accepted: how many at once, when others go first, and when nobody is let in.

The sockets are shared by all workers of a server, so that a connection waits for nobody in particular: whoever is free
takes it, and it outlives any worker that is blocked or dies. Must not know: what connections are for.
"""

from libc.stdint cimport int64_t

from fastasgi.core.contracts cimport Connection, WorkerContext
from fastasgi.sinks.poller cimport Poller
from fastasgi.sinks.socketsink cimport SocketSink
from fastasgi.sinks.tlssink cimport TLSWorker


cdef class Acceptor:
    """Acceptor(worker, tls_source): all connections of one worker are accepted here, a batch a turn of the event loop.

    A batch is over when nothing waits any more, or when the time is that it may take, see budget_ns().
    """

    cdef:
        WorkerContext worker
        Poller poller
        TLSWorker tls_worker            # None without TLS
        list listeners                  # of Listener, those that accept
        bint is_called                  # accept_batch() follows in this turn or the next one
        public bint rests               # nothing is accepted until accept_waiting() is called
        int64_t batch_ended_ns          # when the last batch was over, of the monotonic clock
        bint was_cut                    # it was over before nothing waited any more
        int cuts                        # batches in a row that were cut

        # Overload: turns of the event loop that take long, while connections wait
        int64_t slow_since_ns           # when the first turn of a row of slow ones ended; 0 if the last was not slow

        # Whether connections are accepted only with their first bytes
        bint defers
        int accept_count                # connections since `counted_since_ns`
        int64_t counted_since_ns

        # Other workers go first
        int64_t yields_until_ns         # 0 if they do not
        int insists                     # how many that wait are accepted before others may go first again
        int64_t shared_at_ns            # when this worker last took its share of what waited
        int in_vain                     # how often in a row those have not even woken that were let go first
        int timer                       # descriptor of a timer of the system's; NONE if there is none
        bint has_timer                  # `timer` was made, or can't be

        # Limits
        list idle                       # connections that may give way, the one that has waited longest last
        bint says_full                  # the log has said that connections wait because of limit_connections
        int descriptors_end             # connections get no descriptors from this number on
        Py_ssize_t scarce_from          # with so many open, descriptors may lack for more; PY_SSIZE_T_MAX: with none
        int64_t warned_at_ns            # when the log last said that descriptors or memory lack
        object retry                    # asyncio.TimerHandle, or None

    cdef SocketSink new_sink(self)
    cdef int call_soon(self) except -1
    cdef int accept_batch(self) except -1
    cdef Listener leave(self, Listener listener, int failure, int error)
    cdef int count(self, int fd, int64_t now_ns) except -1
    cdef int defer(self, int seconds) except -1
    cdef inline bint sheds_load(self) noexcept:
        return self.worker.shedder is not None and self.worker.shedder.rule.is_shedding
    cdef int64_t budget_ns(self, int64_t now_ns) noexcept
    cdef bint is_its_turn(self, int64_t now_ns) noexcept
    cdef bint others_go_first(self, Listener listener, int64_t now_ns) except -1
    cdef bint has_room(self) noexcept
    cdef int make_room(self, int64_t now_ns) except -1
    cdef Connection longest_idle(self)
    cdef Connection next_idle(self)
    cdef int note_scarcity(self) except -1
    cdef bint lacks_descriptors(self) except -1
    cdef int pause(self, int64_t now_ns, str reason) except -1
    cdef int open(self, Listener listener, int socket, object peername) except -1
    cdef Listener next_listener(self)


cdef class Listener:
    """One listening socket, as an asyncio.Server shows it."""

    cdef:
        Acceptor acceptor
        object socket                   # socket.socket
        object copy                     # socket.socket, of the same socket: what is accepted on
        object sockname                 # the address of all its connections; None if each has its own
        int descriptor                  # NONE once it accepts no more
        bint is_tcp                     # it can defer connections
        bint has_more                   # connections may wait that no event will tell of
