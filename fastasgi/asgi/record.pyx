"""See record.pxd for the contracts."""

from libc.stdint cimport int64_t

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.contracts cimport WorkerContext
from fastasgi.core.counters cimport WEBSOCKET, Counters, add_time
from fastasgi.core.registry cimport Registry

cdef enum:
    SLOW_MOST = 1000                    # slow requests that are kept until they are logged


cdef class RecordedExchange(Exchange):

    cdef int record(self, int status, bint is_aborted, long long body_bytes) except -1:
        cdef WorkerContext worker = self.worker
        cdef dict scope = <dict>self.scope
        cdef int64_t duration_ns
        self.scope = None
        if self.started_ns == 0:
            return 0
        duration_ns = monotonic_ns() - self.started_ns
        self.started_ns = 0
        if worker.limits.log_slow > 0 and duration_ns > worker.limits.log_slow * 1e9 and scope is not None:
            self.note_slow(scope, duration_ns)
        if worker.measures:
            self.count_response(status, is_aborted, duration_ns)
        if scope is not None and worker.access_log is not None:
            worker.record_access(scope, status, body_bytes, duration_ns / 1e9)
        return 0

    cdef int count_response(self, int status, bint is_aborted, int64_t duration_ns) except -1:
        cdef Counters counters = self.worker.counters
        counters.count_response(self.protocol, self.method, 0 if is_aborted else status)
        if self.protocol != WEBSOCKET and not is_aborted:
            add_time(&counters.counts.first_byte, self.first_byte_ns or duration_ns)
            add_time(&counters.counts.duration, duration_ns)
        return 0

    cdef int note_slow(self, dict scope, int64_t duration_ns) except -1:
        cdef Registry registry = self.worker.registry
        if self.was_slow and not self.has_line:
            return 0                    # it is counted among those without a line already
        if len(registry.slow_ended) < SLOW_MOST:
            registry.slow_ended.append((scope["method"], scope["path"], duration_ns / 1e9, self.has_line))
        else:
            registry.slow_more += 1
        return 0

    cdef void note_first_byte(self) noexcept:
        if self.worker.measures:
            self.first_byte_ns = monotonic_ns() - self.started_ns

    def progress(self) -> tuple:
        """Method, path, seconds since the request came, bytes of its body that have come and of its response that were
        sent, and whether its client is waited for."""
        cdef dict scope = <dict>self.scope
        cdef bint waits_for_client = self.blocked or (not self.body_complete and bool(self.receivers))
        cdef double seconds = (monotonic_ns() - self.started_ns) / 1e9
        return scope["method"], scope["path"], seconds, self.body_fed, self.body_sent, waits_for_client


def slow_requests(Registry registry not None, double limit_s) -> list:
    """The requests that have run for longer than this, and were not among those that this has returned before."""
    cdef RecordedExchange exchange
    cdef int64_t before_ns = monotonic_ns() - <int64_t>(limit_s * 1e9)
    cdef list found = []
    for running in registry.suspended:
        if isinstance(running, RecordedExchange):
            exchange = <RecordedExchange>running
            if 0 < exchange.started_ns < before_ns and not exchange.was_slow and exchange.scope is not None:
                exchange.was_slow = True
                found.append(exchange)
    return found


def slow_ended(Registry registry not None) -> tuple:
    """The requests that are over and took longer than log_slow, each once: method, path, seconds, and whether it has
    had a line while it ran; and how many more there are.

    Those without a line kept the event loop to themselves, so that slow_requests() has not seen them.
    """
    ended, registry.slow_ended = registry.slow_ended, []
    more, registry.slow_more = registry.slow_more, 0
    return ended, more
