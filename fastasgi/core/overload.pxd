"""Which requests are refused while more come than can be answered.

What tells is how late the event loop is with a timer, the probe. Must not know: what requests are, how one is refused.
"""

from libc.stdint cimport int64_t, uint64_t

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.counters cimport Counters
from fastasgi.core.errorlog cimport ErrorLog
from fastasgi.core.registry cimport Registry


cdef class SheddingRule:
    """SheddingRule(target_s): when requests are refused, and which. It has no clock: times are nanoseconds of any.

    When is CoDel's rule (RFC 8289): once the probe has been late by more than the target, each time, for an interval of
    20 targets. From then on a request is refused if the loop is as late when it comes; or if it comes faster than
    requests are completed, since those that wait for something else than the loop make it late only later on. This ends
    after an interval in which few were refused.

    `completed` is always how many requests have been completed so far.
    """

    cdef:
        readonly int64_t target_ns
        readonly int64_t interval_ns
        readonly bint is_shedding
        readonly Py_ssize_t refused         # requests since the start
        int64_t due_ns                      # when the probe is, or was, due

        # When it last went off
        int64_t probed_ns
        Py_ssize_t completed
        bint was_late
        # When it first went off of a row of times that were late; 0 if the last was not
        int64_t late_since_ns
        Py_ssize_t completed_before

        # Of this interval, while requests are refused
        int64_t interval_began_ns
        Py_ssize_t asked
        Py_ssize_t refused_before

        # Those that come at once are not let in one after the other, but with others between that are refused
        double skip                         # how many these are before the next one
        double stride                       # and how many between two
        bint is_drawn                       # since the probe last went off
        Py_ssize_t let_in                   # requests while others were refused, since the start
        Py_ssize_t let_in_then              # up to when it was last drawn
        Py_ssize_t refused_then
        int64_t skipped_ns                  # when the last request came, if it was one of those between; or 0
        uint64_t seed

        # How fast requests are let in, each of which takes a token
        double rate                         # tokens a nanosecond
        int64_t late_at_ns                  # when the loop was last late
        double tokens
        int64_t filled_ns

    cpdef bint refuses(self, int64_t now_ns, Py_ssize_t completed, Py_ssize_t running) noexcept
    cpdef bint note_probe(self, int64_t now_ns, Py_ssize_t completed) noexcept
    cdef inline bint is_late(self, int64_t now_ns) noexcept:
        return now_ns - self.due_ns > self.target_ns
    cdef void begin(self, int64_t now_ns, Py_ssize_t completed) noexcept
    cdef void begin_interval(self, int64_t now_ns) noexcept
    cdef void learn_rate(self, int64_t now_ns, Py_ssize_t completed, bint is_late) noexcept
    cdef bint skips(self, int64_t now_ns) noexcept
    cdef void draw(self) noexcept
    cdef bint takes_token(self, int64_t now_ns, bint is_late) noexcept


cdef class LoadShedder:
    """LoadShedder(loop, target_s, registry, counters, logger): has the rule for one worker, and tells of it."""

    cdef:
        SheddingRule rule
        object loop                         # asyncio.AbstractEventLoop
        Registry registry
        Counters counters
        ErrorLog logger
        object probe                        # asyncio.TimerHandle; None while nobody asks
        bint is_asked                       # since the probe last went off
        # A period of which the log tells. It goes on if shedding begins again soon
        bint was_shedding
        int64_t period_began_ns             # 0 if there is none
        int64_t shed_until_ns               # when shedding has last ended
        Py_ssize_t refused_before           # requests, up to the last period

    # Whether a request that has just come is to be refused
    cdef inline bint refuses(self) except -1:
        self.is_asked = True
        if self.probe is None:
            self.start_probe(monotonic_ns())
        return self.rule.late_since_ns != 0 and self.refuses_late()
    cdef bint refuses_late(self) noexcept
    # A request is let in all the same
    cdef inline void let_in(self) noexcept:
        self.rule.refused -= 1
    cdef int start_probe(self, int64_t now_ns) except -1
    cdef inline Py_ssize_t completed(self) noexcept:
        return self.registry.request_count - self.registry.unfinished_count
    cdef int tell(self, int64_t now_ns) except -1
    cdef int end_period(self) except -1
