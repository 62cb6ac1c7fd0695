"""See overload.pxd for the contracts."""

from libc.stdint cimport int64_t

from fastasgi.core.clock cimport monotonic_ns

cdef enum:
    INTERVAL_TARGETS = 20               # an interval, in targets
    FEW = 4                             # shedding ends once less than one in so many requests is refused
    ALL_TARGETS = 4                     # all are refused while the loop is as late, in targets
    ALONE_NS = 300000                   # between two requests that do not come at once

# By itself: in C23 a value that no int holds gives its enum, with all that is in it, a type without a sign
cdef enum:
    QUIET_NS = 5000000000               # without shedding, until a period of it is over

cdef double LATE_SHARE = 0.75           # of the rate, while the loop is late
# Of the rate, in the first interval in which the loop is not late; it doubles in the second, and so on
cdef double GROWTH = 0.25
cdef double SPREAD = 0.75               # 1: as many are let in as before; less leaves room for more
cdef double BURST_TARGETS = 2           # so long, in targets, tokens are kept


cdef class SheddingRule:

    def __init__(self, double target_s):
        self.target_ns = <int64_t>(target_s * 1e9)
        self.interval_ns = INTERVAL_TARGETS * self.target_ns
        self.seed = 1

    def start_probe(self, int64_t now_ns) -> int:
        """When the probe is due that is started now."""
        self.due_ns = now_ns + self.target_ns // 2
        return self.due_ns

    cpdef bint note_probe(self, int64_t now_ns, Py_ssize_t completed) noexcept:
        """The probe has gone off. Whether another one is needed though nobody asks."""
        cdef bint is_late = self.is_late(now_ns)
        if self.is_shedding:
            self.learn_rate(now_ns, completed, is_late)
            self.is_drawn = False
            if now_ns - self.interval_began_ns >= self.interval_ns:
                if (self.refused - self.refused_before) * FEW <= self.asked:
                    self.is_shedding = is_late = False
                self.begin_interval(now_ns)
        elif is_late and self.late_since_ns and now_ns - self.late_since_ns >= self.interval_ns:
            self.begin(now_ns, completed)
        if not is_late and not self.is_shedding:
            self.late_since_ns = 0
        elif self.late_since_ns == 0:
            self.late_since_ns = now_ns
            self.completed_before = completed
        self.probed_ns = now_ns
        self.completed = completed
        self.was_late = is_late
        return self.is_shedding

    cpdef bint refuses(self, int64_t now_ns, Py_ssize_t completed, Py_ssize_t running) noexcept:
        """Whether a request is refused that has just come, while so many others run."""
        cdef bint is_late = self.is_late(now_ns)
        if not self.is_shedding:
            if not is_late or self.late_since_ns == 0 or now_ns - self.late_since_ns < self.interval_ns:
                return False
            self.begin(now_ns, completed)
        self.asked += 1
        # Where nothing runs, nothing else can make the loop late
        if not self.skips(now_ns) and (self.takes_token(now_ns, is_late) or (running == 0 and not is_late)):
            self.let_in += 1
            self.skip += self.stride
            return False
        self.refused += 1
        return True

    cdef void begin(self, int64_t now_ns, Py_ssize_t completed) noexcept:
        self.is_shedding = True
        # The loop had no rest since then
        self.rate = max(1, completed - self.completed_before) / <double>(now_ns - self.late_since_ns)
        self.late_at_ns = now_ns
        self.tokens = 0
        self.filled_ns = now_ns
        self.skip = self.stride = 0
        self.is_drawn = True
        self.refused_then = self.refused
        self.let_in_then = self.let_in
        self.begin_interval(now_ns)

    cdef void begin_interval(self, int64_t now_ns) noexcept:
        self.interval_began_ns = now_ns
        self.refused_before = self.refused
        self.asked = 0

    cdef void learn_rate(self, int64_t now_ns, Py_ssize_t completed, bint is_late) noexcept:
        """Requests are let in as fast as they are completed while the loop has no rest; faster while it has."""
        cdef double span_ns = now_ns - self.probed_ns
        cdef double weight = min(1.0, span_ns / self.interval_ns)
        cdef double rested = 1 + (now_ns - self.late_at_ns) / <double>self.interval_ns
        if is_late and self.was_late and span_ns > 0:
            self.rate += weight * ((completed - self.completed) / span_ns - self.rate)
        elif not is_late and not self.was_late:
            self.rate *= 1 + weight * min(1.0, GROWTH * rested)
        if is_late:
            self.late_at_ns = now_ns
        self.rate = max(self.rate, 1.0 / self.interval_ns)

    cdef bint skips(self, int64_t now_ns) noexcept:
        """Whether a request is refused for others that come right behind it."""
        if not self.is_drawn:
            self.draw()
        elif now_ns - self.skipped_ns > ALONE_NS and self.skipped_ns:
            self.skip = 0
        if self.skip < 1:
            self.skipped_ns = 0
            return False
        self.skip -= 1
        self.skipped_ns = now_ns
        return True

    cdef void draw(self) noexcept:
        """Those that are let in are to be spread over all that come at once, as it was since the last draw, and begin
        with any: clients that come again at once come in the same order each time."""
        cdef double refused = self.refused - self.refused_then
        cdef double let_in = self.let_in - self.let_in_then
        self.is_drawn = True
        self.refused_then = self.refused
        self.let_in_then = self.let_in
        self.stride = SPREAD * refused / max(let_in, 1)
        self.seed ^= self.seed << 13            # Marsaglia's xorshift generator
        self.seed ^= self.seed >> 7
        self.seed ^= self.seed << 17
        self.skip = self.stride * <double>(self.seed % 1024) / 1024

    cdef bint takes_token(self, int64_t now_ns, bint is_late) noexcept:
        cdef double most = max(1.0, self.rate * BURST_TARGETS * self.target_ns)
        cdef double rate = self.rate * LATE_SHARE if is_late else self.rate
        self.tokens = min(most, self.tokens + rate * (now_ns - self.filled_ns))
        self.filled_ns = now_ns
        if self.tokens < 1 or now_ns - self.due_ns > ALL_TARGETS * self.target_ns:
            return False
        self.tokens -= 1
        return True


cdef class LoadShedder:

    def __init__(self, loop, double target_s, Registry registry, Counters counters, ErrorLog logger):
        self.rule = SheddingRule(target_s)
        self.loop = loop
        self.registry = registry
        self.counters = counters
        self.logger = logger

    def tick(self) -> None:
        """Tell the log of the end of a period. To be called each second or more often."""
        if self.period_began_ns and not self.was_shedding and monotonic_ns() - self.shed_until_ns >= <int64_t>QUIET_NS:
            self.end_period()

    def end(self) -> None:
        """Look no more, since nothing is served any more."""
        if self.probe is not None:
            self.probe.cancel()
            self.probe = None
        self.rule.is_shedding = False
        self.tell(monotonic_ns())
        self.end_period()

    cdef int start_probe(self, int64_t now_ns) except -1:
        due_ns = self.rule.start_probe(now_ns)
        self.probe = self.loop.call_later((due_ns - now_ns) / 1e9, self.on_probe)
        return 0

    def on_probe(self):
        """The callback of start_probe()."""
        cdef int64_t now_ns = monotonic_ns()
        self.probe = None
        if self.rule.note_probe(now_ns, self.completed()) or self.is_asked:
            self.start_probe(now_ns)
        self.is_asked = False
        self.tell(now_ns)

    cdef bint refuses_late(self) noexcept:
        # The next probe tells of a begin: a handler of the user's for logs is not to run inside a request
        return self.rule.refuses(monotonic_ns(), self.completed(), self.registry.unfinished_count)

    cdef int tell(self, int64_t now_ns) except -1:
        """Tell of a begin, or note an end, if there was one."""
        cdef bint is_shedding = self.rule.is_shedding
        if is_shedding == self.was_shedding:
            return 0
        self.was_shedding = is_shedding
        self.counters.counts.now.is_shedding = is_shedding
        self.shed_until_ns = now_ns
        if is_shedding and self.period_began_ns == 0:
            self.period_began_ns = now_ns
            self.counters.counts.sheds += 1
            self.logger.warning(
                "Overload: for %g s requests have waited for longer than %g s (overload_delay). More come than can be "
                "answered: some are refused with 503", self.rule.interval_ns / 1e9, self.rule.target_ns / 1e9)
        return 0

    cdef int end_period(self) except -1:
        if self.period_began_ns:
            self.logger.warning(
                "The overload is over after %.1f s: %d requests were refused",
                (self.shed_until_ns - self.period_began_ns) / 1e9, self.rule.refused - self.refused_before)
        self.period_began_ns = 0
        self.refused_before = self.rule.refused
        return 0
