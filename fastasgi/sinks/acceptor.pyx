"""See acceptor.pxd for the contracts."""

import contextlib
import os
import resource
import socket as sockets

from libc.errno cimport errno

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.contracts cimport Connection
from fastasgi.core.overload cimport LoadShedder
from fastasgi.core.shares cimport Shares
from fastasgi.sinks.addresses cimport endpoint_of, socket_address
from fastasgi.sinks.tlssink cimport TLSSink

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "sinks/poll.h" nogil:
    int timer_open()
    void timer_start(int timer, long ns)

cdef extern from "sinks/accept.h" nogil:
    enum:
        NOTHING_WAITS
        TRY_AGAIN
        NO_MEMORY
        NO_DESCRIPTORS
        NO_LISTENER
    int accept_one(int listener, socket_address* peer)
    int accept_failure(int error)
    int is_anyone_waiting(int listener)
    int waiting_at(int listener)
    int next_descriptor(int any)

cdef enum:
    NONE = -1

    # Nanoseconds. A batch may take as long as all else in a turn, so that standing connections wait twice as long while
    # a burst is taken in; a quarter more with each turn of a long burst, up to GROWTH_MOST quarters; but not less than
    # LEAST, nor more than MOST
    BATCH_LEAST_NS = 2000000
    BATCH_MOST_NS = 50000000
    # Where requests are refused for overload: a batch that is cut makes the loop late by so many targets or more
    LATE_TARGETS = 2
    CROWD_NS = 400000000
    GROWTH_MOST = 6

    # A turn of the event loop that takes longer is slow. After SLOW_NS of slow turns batches have one connection each:
    # whoever is served already is then served in time, instead of nobody
    SLOW_TURN_NS = 100000000
    SLOW_NS = 500000000

    YIELD_NS = 500000                   # that others have to go first; a connection waits so much longer at the most
    IN_VAIN_MOST = 6                    # see is_its_turn()

    RETRY_NS = 50000000                 # between looks whether there are descriptors again
    WARN_NS = 10000000000               # between warnings that there are none
    RESERVE = 16                        # descriptors that are left for logs, reloads and the application, if possible

    # Where connections come so quickly, or no longer do, see defer()
    DEFER_COUNT = 64
    DEFER_NS = 128000000
    DEFER_LEAST = 100                   # a second
    DEFER_S = 1
    SECOND_NS = 1000000000

    IDLE_COUNT = 64                     # idle connections that are looked up at once

TCP_DEFER_ACCEPT = getattr(sockets, "TCP_DEFER_ACCEPT", None)    # Linux has it


cdef class Acceptor:

    def __init__(self, WorkerContext worker, tls_source):
        self.worker = worker
        self.poller = Poller(worker)
        self.tls_worker = None if tls_source is None else TLSWorker(tls_source)
        self.listeners = []
        self.idle = []
        self.timer = NONE
        self.descriptors_end = descriptors_end()
        self.scarce_from = PY_SSIZE_T_MAX
        worker.registry.on_room = self.resume

    def __dealloc__(self):
        if self.timer >= 0:
            close(self.timer)

    def listen(self, sock) -> Listener:
        """Accept on a listening socket from now on.

        TCP_NODELAY is set here, since connections inherit it: what an event produces is written at once, so that
        waiting for more would only delay it.
        """
        cdef Listener listener = Listener.__new__(Listener)
        listener.acceptor = self
        listener.socket = sock
        listener.copy = sock.dup()      # whoever has made the socket may close it, and its number be given to another
        listener.sockname = sock.getsockname()
        listener.descriptor = listener.copy.fileno()
        listener.copy.setblocking(False)
        if sock.family in (sockets.AF_INET, sockets.AF_INET6):
            with contextlib.suppress(OSError):      # another protocol than TCP, which has no such option
                sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
                listener.is_tcp = TCP_DEFER_ACCEPT is not None
            if listener.sockname[0] in ("0.0.0.0", "::"):
                listener.sockname = None
        self.poller.watch(listener.descriptor, listener, on_listener, False)
        self.listeners.append(listener)
        if self.worker.registry.shares is not None:
            self.worker.registry.shares.set_accepts(True)
        return listener

    def accept_waiting(self) -> None:
        """Accept all that wait now: nobody else will, once this worker does not listen any more.

        All are accepted before any of them is served, so that a client which comes again does not prolong this.
        """
        cdef Listener listener
        cdef socket_address peer
        cdef list accepted = []
        cdef int fd
        self.rests = False
        for listener in self.listeners:
            while True:
                fd = accept_one(listener.descriptor, &peer)
                if fd >= 0:
                    accepted.append((listener, fd, endpoint_of(&peer)))
                elif accept_failure(errno) != TRY_AGAIN:
                    break
        for listener, fd, peername in accepted:
            self.open(listener, fd, peername)

    def stop(self) -> None:
        """Accept no more."""
        for listener in list(self.listeners):
            listener.close()

    def close(self) -> None:
        """Accept no more, and watch no connection any more."""
        self.stop()
        self.worker.registry.on_room = None
        if self.retry is not None:
            self.retry.cancel()
        self.poller.close()

    def resume(self):
        """Look again for connections that wait: one that is open was closed, or may be."""
        self.call_soon()

    def retry_soon(self):
        """The callback of pause()."""
        self.retry = None
        self.call_soon()

    cdef int call_soon(self) except -1:
        if not self.is_called:
            self.is_called = True
            self.poller.call_soon(self, on_acceptor)
        return 0

    cdef Listener next_listener(self):
        """A listener at which connections may wait. They take turns, a batch each."""
        cdef Listener listener
        for i in range(len(self.listeners)):
            listener = self.listeners[i]
            if listener.has_more:
                self.listeners.append(self.listeners.pop(i))
                return listener
        return None

    cdef int accept_batch(self) except -1:
        """Accept what waits, as much as the rules allow."""
        cdef Listener listener = self.next_listener()
        cdef socket_address peer
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t now_ns = began_ns
        cdef int64_t budget_ns
        cdef int fd, failure
        if listener is None or self.rests or not self.is_its_turn(began_ns):
            return 0                    # the timer follows, if there is a listener
        budget_ns = self.budget_ns(began_ns)
        self.was_cut = True
        try:
            while listener is not None:
                if listener.descriptor < 0:     # the application has closed it meanwhile
                    listener = self.next_listener()
                    continue
                if self.lacks_descriptors() or not self.has_room():
                    if is_anyone_waiting(listener.descriptor):
                        return self.make_room(now_ns)
                    listener = self.leave(listener, NOTHING_WAITS, 0)
                    continue
                if self.insists == 0 and self.others_go_first(listener, now_ns):
                    return 0            # the timer follows
                fd = accept_one(listener.descriptor, &peer)
                if fd >= 0:
                    self.open(listener, fd, endpoint_of(&peer))
                    now_ns = monotonic_ns()
                    self.count(fd, now_ns)
                else:
                    failure = accept_failure(errno)
                    if failure == NO_DESCRIPTORS or failure == NO_MEMORY:
                        return self.pause(now_ns, os.strerror(errno))
                    if failure != TRY_AGAIN:
                        listener = self.leave(listener, failure, errno)
                    now_ns = monotonic_ns()
                if now_ns - began_ns >= budget_ns or self.rests:
                    break
            if listener is not None:
                self.call_soon()
            else:
                self.was_cut = self.says_full = False
                self.insists = 0
        except BaseException:
            self.call_soon()
            raise
        finally:
            self.batch_ended_ns = monotonic_ns()
        return 0

    cdef Listener leave(self, Listener listener, int failure, int error):
        """The next listener, since nothing waits at this one, or since it has failed."""
        if failure == NO_LISTENER:
            self.worker.logger.error("Can't accept connections any more: %s", os.strerror(error))
            listener.close()
        listener.has_more = False
        return self.next_listener()

    # --- TCP_DEFER_ACCEPT ---

    cdef int count(self, int fd, int64_t now_ns) except -1:
        """Count an accepted connection. If DEFER_COUNT come within DEFER_NS, the next ones are deferred."""
        cdef Shares shares = self.worker.registry.shares
        if shares is not None:
            shares.count_accepted(now_ns)
        if self.insists:
            self.insists -= 1
        self.accept_count += 1
        if self.accept_count % DEFER_COUNT == 0 and not self.defers:
            if now_ns - self.counted_since_ns < DEFER_NS:
                self.defer(DEFER_S)
            self.counted_since_ns = now_ns
        if fd + 1 >= self.descriptors_end:
            self.note_scarcity()
        return 0

    def tick(self) -> None:
        """To be called each second or more often: no longer defer connections, if few come."""
        cdef int64_t now_ns = monotonic_ns()
        if self.defers and now_ns - self.counted_since_ns > SECOND_NS:
            # Set again, too: the option is the socket's, and another worker may have taken it back
            self.defer(DEFER_S if self.accept_count >= DEFER_LEAST else 0)
            self.accept_count = 0
            self.counted_since_ns = now_ns

    def stop_deferring(self) -> bool:
        """Have connections accepted without their first bytes. Whether others may be under way that are not."""
        cdef bint did = self.defers
        self.defer(0)
        return did

    cdef int defer(self, int seconds) except -1:
        """Have connections accepted when their first bytes have come, or after some seconds; 0: at once.

        It makes one event of two, which saves a third of a connection's cost if many come. At other times clients that
        send nothing at first are to be noticed, and told of the end: the system closes a connection that it defers
        without a word.
        """
        cdef Listener listener
        self.defers = False
        for listener in self.listeners:
            if listener.is_tcp:
                self.defers = seconds > 0
                with contextlib.suppress(OSError):
                    listener.copy.setsockopt(sockets.IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds)
        return 0

    cdef int64_t budget_ns(self, int64_t now_ns) noexcept:
        """How long a batch may take. 0 is one connection."""
        cdef int64_t others_ns
        cdef LoadShedder shedder = self.worker.shedder
        if shedder is not None:
            # Connections that wait in the system's queue make no event loop late: so they are not left there. A crowd
            # that can be served in CROWD_NS is taken in at once, so that none of it counts as newly arrived
            self.cuts = 0
            self.slow_since_ns = 0
            return BATCH_MOST_NS if shedder.rule.is_shedding else max(
                LATE_TARGETS * shedder.rule.target_ns, min(shedder.rule.interval_ns, CROWD_NS))
        if self.was_cut:
            others_ns = now_ns - self.batch_ended_ns
            self.cuts += 1
        else:
            others_ns = now_ns - self.worker.turn_began_ns      # the loop may have rested before
            self.cuts = 0
        if not self.was_cut or others_ns < SLOW_TURN_NS:
            self.slow_since_ns = 0
        elif self.slow_since_ns == 0:
            self.slow_since_ns = now_ns
        elif now_ns - self.slow_since_ns > SLOW_NS:
            return 0
        others_ns += others_ns * min(self.cuts, GROWTH_MOST) // 4
        return min(max(others_ns, BATCH_LEAST_NS), BATCH_MOST_NS)

    cdef bint others_go_first(self, Listener listener, int64_t now_ns) except -1:
        """Whether others are to have YIELD_NS to accept what waits, since this worker has more than its share.

        If there are more connections than workers, this one is to take its share of them at once.
        """
        cdef Shares shares = self.worker.registry.shares
        if shares is None or not shares.is_ahead(now_ns, 0):
            return False
        if listener.is_tcp and now_ns - self.shared_at_ns > YIELD_NS:
            self.shared_at_ns = now_ns
            self.insists = waiting_at(listener.descriptor) // shares.accepting(now_ns)
            if self.insists:
                return False
        self.yields_until_ns = now_ns + YIELD_NS
        if not self.has_timer:
            self.has_timer = True
            self.timer = timer_open()
            if self.timer >= 0:
                self.poller.watch(self.timer, self, on_acceptor, False)
        if self.timer >= 0:
            timer_start(self.timer, YIELD_NS)
        else:
            self.worker.loop.call_later(YIELD_NS / 1e9, self.resume)
        return True

    cdef bint is_its_turn(self, int64_t now_ns) noexcept:
        """Whether others have had their YIELD_NS, if they go first.

        Then connections are accepted that others have left: more, the more often nobody has even woken for whom this
        worker has waited.
        """
        cdef Shares shares = self.worker.registry.shares
        cdef int64_t yielded_ns = self.yields_until_ns - YIELD_NS
        if shares is None:
            return True
        shares.own.seen_ns = now_ns
        if now_ns < self.yields_until_ns:
            return False
        if self.yields_until_ns != 0:
            if shares.is_ahead(now_ns, 0) and not shares.is_ahead(now_ns, yielded_ns):
                self.in_vain = min(self.in_vain + 1, IN_VAIN_MOST)
            else:
                self.in_vain = 0
            self.insists = 1 << self.in_vain
            self.yields_until_ns = 0
        return True

    # --- Limits ---

    cdef bint has_room(self) noexcept:
        """Whether limit_connections allows another connection."""
        cdef Py_ssize_t limit = self.worker.limits.limit_connections
        return limit == 0 or self.worker.registry.socket_count() < limit

    cdef int make_room(self, int64_t now_ns) except -1:
        """At the limit close the connection that has been idle for longest. resume() is called once there is room, or
        may be."""
        cdef WorkerContext worker = self.worker
        cdef Connection connection
        if self.has_room():
            return self.pause(now_ns, "no file descriptors are left but a reserve")
        worker.registry.wants_room = True
        connection = self.longest_idle()
        if connection is not None:
            connection.sink.end()
        elif not self.says_full:
            self.says_full = True
            worker.logger.warning(
                "New connections wait: %d are open, which is limit_connections, and none of them is idle",
                worker.limits.limit_connections)
        return 0

    cdef Connection longest_idle(self):
        """The connection that has waited longest for its next request; None if none does."""
        cdef Connection connection = self.next_idle()
        if connection is None:
            self.idle = [c for c in self.worker.registry.connections if (<Connection>c).gives_way()]
            self.idle.sort(key=wait_number, reverse=True)
            del self.idle[:-IDLE_COUNT]
            self.idle = [(c, wait_number(c)) for c in self.idle]
            connection = self.next_idle()
        return connection

    cdef Connection next_idle(self):
        """The longest idle connection of those that were looked up, if it is idle still; None if none of them is."""
        cdef Connection connection
        while self.idle:
            connection, number = self.idle.pop()
            if connection.sink is not None and connection.wait_number == number and connection.gives_way():
                return connection
        return None

    cdef int note_scarcity(self) except -1:
        """From now on look whether there is a descriptor for each connection, until half of those now open are closed.

        The number of the last one does not tell it: that one may have filled a gap.
        """
        self.scarce_from = max(1, self.worker.registry.socket_count() // 2)
        return 0

    cdef bint lacks_descriptors(self) except -1:
        """Whether the next connection would take a descriptor of the reserve."""
        cdef int fd
        if self.worker.registry.socket_count() < self.scarce_from:
            self.scarce_from = PY_SSIZE_T_MAX
            return False
        fd = next_descriptor(self.poller.descriptor)
        self.descriptors_end = descriptors_end()        # the application may have changed the limit
        return not 0 <= fd < self.descriptors_end

    cdef int pause(self, int64_t now_ns, str reason) except -1:
        """Accept nothing until there are descriptors, or memory, again."""
        self.worker.registry.wants_room = True
        if now_ns - self.warned_at_ns > WARN_NS:
            self.warned_at_ns = now_ns
            self.worker.logger.warning("New connections wait: %s (%d are open)" % (
                reason, self.worker.registry.socket_count()))
        if self.retry is None:
            self.retry = self.worker.loop.call_later(RETRY_NS / 1e9, self.retry_soon)
        return 0

    cdef int open(self, Listener listener, int socket, object peername) except -1:
        cdef SocketSink sink = self.new_sink()
        self.worker.counts.accepted[self.tls_worker is not None] += 1
        if self.poller.loop_nests:
            self.call_soon()            # whoever turns the loop inside the first read may wait for the next connection
        try:
            return sink.begin(self.worker, self.poller, socket, peername, listener.sockname)
        except Exception as error:
            self.worker.logger.log_error("A connection could not be opened", error)
            return sink.abort()

    cdef SocketSink new_sink(self):
        cdef TLSSink sink
        if self.tls_worker is None:
            return SocketSink.__new__(SocketSink)
        sink = TLSSink.__new__(TLSSink)
        sink.tls_worker = self.tls_worker
        return sink


cdef class Listener:

    @property
    def sockets(self) -> tuple:
        """The listening socket, as of an asyncio.Server; none once it accepts no more."""
        return () if self.descriptor < 0 else (self.socket,)

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        return self.descriptor >= 0

    def close(self) -> None:
        """Accept no more, and close the socket. Other processes that have it go on accepting."""
        cdef Acceptor acceptor = self.acceptor
        if self.descriptor >= 0:
            acceptor.poller.remove(self.descriptor)
            self.descriptor = NONE
            self.has_more = False
            acceptor.listeners.remove(self)
            self.copy.close()
            self.socket.close()
            if not acceptor.listeners and acceptor.worker.registry.shares is not None:
                acceptor.worker.registry.shares.set_accepts(False)


def descriptors_end() -> int:
    """The number from which on descriptors are the reserve."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 - 1 if limit == resource.RLIM_INFINITY else limit - min(RESERVE, limit // 8)


def wait_number(Connection connection):
    """The key by which connections are sorted that wait for their next request: how long, longest first."""
    return connection.wait_number


cdef int on_listener(object owner, unsigned what) except -1:
    cdef Listener listener = owner
    listener.has_more = True
    if listener.acceptor.sheds_load():
        return listener.acceptor.accept_batch()     # at the end of the turn it would be too late for all of them
    return listener.acceptor.call_soon()


cdef int on_acceptor(object owner, unsigned what) except -1:
    cdef Acceptor acceptor = owner
    acceptor.is_called = False
    return acceptor.accept_batch()
