"""What a worker has done and is doing, in memory that other processes read: counts, histograms, gauges, last records.

The memory has rows. A process has one for its life, and a row stays with one slot: whoever has it next goes on
counting, so that no worker's end loses a count, and sums never fall. Gauges tell of the process that has the row now.

Each value is written by one thread, in one store, and read without a lock. Must not know: what is counted, beyond its
names; who reads it.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef enum:                              # of Counts.responses: which protocol, see PROTOCOLS
    HTTP_1_0
    HTTP_1_1
    HTTP_2
    WEBSOCKET                           # handshakes; one that was accepted is of class 1xx, also in HTTP/2
    PROTOCOL_COUNT

cdef enum:                              # of Gauges.open: what a connection speaks, see WIRES
    NO_WIRE                             # not known yet
    WIRE_HTTP1
    WIRE_HTTP2
    WIRE_WEBSOCKET
    WIRE_COUNT

cdef enum:                              # of Counts.refusals, see REFUSALS
    BAD_REQUEST
    TIMED_OUT
    TOO_LARGE
    URI_TOO_LONG
    FIELDS_TOO_LARGE
    NOT_IMPLEMENTED
    CONCURRENCY
    OVERLOAD
    STOPPING
    BAD_HANDSHAKE                       # of a WebSocket
    BAD_TLS
    BAD_PROXY_HEADER
    FLOOD
    OTHER_REFUSAL
    REFUSAL_COUNT

cdef enum:                              # of Counts.timeouts, see TIMEOUTS
    TLS_TIMEOUT
    HEAD_TIMEOUT
    BODY_TIMEOUT
    KEEP_ALIVE_TIMEOUT
    WRITE_TIMEOUT
    WEBSOCKET_PING_TIMEOUT
    HTTP2_PING_TIMEOUT
    TIMEOUT_COUNT

cdef enum:
    METHOD_COUNT = 8                    # see METHODS
    CLASS_COUNT = 6                     # classes of statuses; 0: the client left before the response was complete
    END_COUNT = 14                      # see ENDS
    GENERATIONS = 3                     # of the garbage collector
    # Of a histogram. The first 16 buckets have STEP_NS each, and each 16 after them an octave: a value is known to 1/16
    OCTAVES = 32
    BUCKET_COUNT = 16 * (OCTAVES + 1)
    STEP_BITS = 6
    STEP_NS = 64
    STALL_RECORDS = 16
    STALL_BYTES = 2048
    REFUSAL_RECORDS = 32
    REFUSAL_BYTES = 512


cdef struct Histogram:                  # of times
    int64_t sum_ns
    int64_t buckets[BUCKET_COUNT]


cdef struct Gauges:                     # cleared when the process ends
    int64_t pid
    int64_t started_ns                  # Unix time
    int64_t beat_ns                     # Unix time at which the event loop last turned, as far as is known
    int64_t running                     # requests under way
    int64_t websockets                  # open ones
    int64_t open[WIRE_COUNT][2]         # connections, without and with TLS
    int64_t is_shedding
    int64_t resident_bytes
    int64_t descriptors
    int64_t descriptors_limit


cdef struct Record:                     # a JSON text in UTF-8 follows it
    uint32_t version                    # odd while it is written; 0 if it never was
    uint32_t length                     # bytes


cdef struct Counts:                     # AREA_SIZE bytes hold it
    uint32_t slot                       # of the worker, from 1 on; 0 if nobody has ever had the row
    uint32_t is_taken                   # a process has the row
    Gauges now
    int64_t starts                      # of processes; the supervisor counts these and their ends
    int64_t ends[END_COUNT]
    int64_t responses[PROTOCOL_COUNT][METHOD_COUNT][CLASS_COUNT]
    Histogram first_byte                # from the arrival of a request's head to the first byte of its response
    Histogram duration                  # and to the last one
    Histogram lag                       # how late the event loop runs what is due
    int64_t bytes_received
    int64_t bytes_sent
    int64_t accepted[2]                 # connections, without and with TLS
    int64_t refusals[REFUSAL_COUNT]
    int64_t timeouts[TIMEOUT_COUNT]
    int64_t exceptions                  # out of the application
    int64_t messages_received           # of WebSockets
    int64_t messages_sent
    int64_t busy_ns                     # of the event loop
    int64_t cpu_ns                      # of the process
    int64_t stalls
    int64_t stalled_ns
    int64_t sheds                       # periods in which requests were refused for overload
    int64_t gc_pauses[GENERATIONS]
    int64_t gc_pause_ns[GENERATIONS]
    int64_t stall_records               # how many there have been; the last STALL_RECORDS are kept
    int64_t refusal_records
    char stall_memory[STALL_RECORDS * STALL_BYTES]
    char refusal_memory[REFUSAL_RECORDS * REFUSAL_BYTES]


cdef extern from * nogil:
    """
    #define count_leading_zeros(value) __builtin_clzll(value)
    """
    int count_leading_zeros(uint64_t value)


cdef inline int bucket_of(int64_t time_ns) noexcept nogil:
    cdef uint64_t steps = <uint64_t>time_ns >> STEP_BITS
    cdef int octave
    if time_ns < 0:
        return 0
    if steps < 16:
        return <int>steps
    octave = 60 - count_leading_zeros(steps)
    if octave > OCTAVES:
        return BUCKET_COUNT - 1         # an hour and more
    return 16 * octave + <int>(steps >> (octave - 1)) - 16


cdef inline void add_time(Histogram* histogram, int64_t time_ns) noexcept nogil:
    histogram.buckets[bucket_of(time_ns)] += 1
    histogram.sum_ns += time_ns


cdef class Counters:
    """Counters(memory, row): the row of one process."""

    cdef:
        Py_buffer view                  # of the memory
        Counts* counts                  # borrows from `view`
        int64_t gc_began_ns             # when the collection under way began

    cdef inline void count_response(self, int protocol, int method, int status) noexcept:
        # Whoever does not know a class takes it for 5xx (RFC 9110 section 15)
        self.counts.responses[protocol][method][min(status // 100, 5)] += 1
    # Counts a refusal, and keeps what is told of it in the ring. kind: BAD_REQUEST and on
    cdef int note_refusal(self, int kind, dict record) except -1


cdef int method_of(str name) except -1          # the index of a request's method in METHODS
cdef int refusal_of(int status, str reason)     # the kind of a refusal: BAD_REQUEST and on
