"""See record.pxd for the contracts."""

from libc.stdint cimport int64_t

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.contracts cimport WorkerContext
from fastasgi.core.counters cimport WEBSOCKET, Counters, add_time
from fastasgi.core.registry cimport Registry

from fastasgi.logs.accesslog import escape

cdef enum:
    LONGEST_PATH = 200                  # characters of a path in a line about a slow request
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
        if self.tells_end:
            self.tells_end = False
            self.worker.logger.warning("%s took %.1f s", request_text(scope), duration_ns / 1e9)
        elif worker.limits.log_slow > 0 and duration_ns > worker.limits.log_slow * 1e9 and not self.was_slow:
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
        cdef list ended = self.worker.registry.slow_ended
        if scope is not None and len(ended) < SLOW_MOST:
            ended.append((scope["method"], scope["path"], duration_ns / 1e9))
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


cdef str request_text(dict scope):
    return f"{scope['method']} {escape(scope['path'])[:LONGEST_PATH]}" if scope is not None else "A request"


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


def slow_ended(Registry registry not None) -> list:
    """Method, path and seconds of the requests that are over and took longer than log_slow, and that slow_requests()
    has not seen, since they kept the event loop to themselves. Each once."""
    ended, registry.slow_ended = registry.slow_ended, []
    return ended
