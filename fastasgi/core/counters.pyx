"""See counters.pxd for the contracts."""

import json
import mmap
import time

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from fastasgi.core.clock cimport monotonic_ns
from fastasgi.core.shares import ROW_SIZE, new_row

cdef extern from * nogil:
    """
    #define take_if(place, before, after) \\
        __sync_bool_compare_and_swap((place), (before), (after))
    #define full_barrier() __sync_synchronize()
    """
    bint take_if(uint32_t* place, uint32_t before, uint32_t after)
    void full_barrier()

PROTOCOLS = ("1.0", "1.1", "2", "ws")
WIRES = ("none", "1", "2", "ws")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "_OTHER")
CLASSES = ("aborted", "1xx", "2xx", "3xx", "4xx", "5xx")
REFUSALS = ("bad_request", "timeout", "too_large", "uri_too_long", "fields_too_large", "not_implemented", "concurrency",
            "overload", "stopping", "websocket_handshake", "tls_handshake", "proxy_header", "flood", "other")
TIMEOUTS = ("tls_handshake", "request_head", "request_body", "keep_alive", "write", "websocket_ping", "http2_ping")
ENDS = ("asked", "limit", "stall", "overdue", "not_started", "exit", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS",
        "SIGILL", "SIGFPE", "SIGTERM", "other_signal")

# Of this layout of a memory: another one gets another number
LAYOUT = 1
# Of one row. A multiple of a page, so that what nobody has had costs no memory
AREA_SIZE = (sizeof(Counts) + 4095) // 4096 * 4096
BUCKETS = BUCKET_COUNT

# Why requests are refused, where the status does not tell
IS_FULL = "limit_concurrency is reached"
IS_STOPPING = "the server is stopping"
IS_OVERLOADED = "overload_delay is exceeded"

cdef str GET = METHODS[0]
cdef dict METHOD_INDEX = {name: i for i, name in enumerate(METHODS)}
# The kinds of refusals that their status tells
cdef dict KIND_OF_STATUS = {
    400: BAD_REQUEST, 408: TIMED_OUT, 413: TOO_LARGE, 414: URI_TOO_LONG, 426: BAD_HANDSHAKE, 431: FIELDS_TOO_LARGE,
    501: NOT_IMPLEMENTED}
cdef dict KIND_OF_REASON = {IS_FULL: CONCURRENCY, IS_STOPPING: STOPPING, IS_OVERLOADED: OVERLOAD}


def bucket_start_s(int bucket) -> float:
    """The least time that is counted in a bucket, in seconds; for BUCKETS, where the last one ends."""
    cdef int octave = bucket // 16
    cdef int64_t steps = bucket if octave == 0 else <int64_t>(16 + bucket % 16) << (octave - 1)
    return steps * STEP_NS / 1e9


def bucket_of_time(double seconds) -> int:
    """The bucket in which a time is counted."""
    return bucket_of(<int64_t>(seconds * 1e9))


cdef int method_of(str name) except -1:
    if name is GET:
        return 0
    return METHOD_INDEX.get(name, METHOD_COUNT - 1)


cdef int refusal_of(int status, str reason):
    kind = KIND_OF_REASON.get(reason)
    return KIND_OF_STATUS.get(status, OTHER_REFUSAL) if kind is None else kind


# --- The memory ---

def memory_size(int rows) -> int:
    """Bytes of a memory with so many rows, of which the first, row 0, is no process's."""
    return rows * (ROW_SIZE + AREA_SIZE)


def rows_in(Py_ssize_t size) -> int:
    """The number of rows, row 0 included, of a memory of so many bytes."""
    return size // (ROW_SIZE + AREA_SIZE)


def area_of(Py_ssize_t size, int row) -> tuple:
    """Where the counts of a row begin in a memory of so many bytes, and how many bytes these are.

    Raises ValueError if there is no such row.
    """
    cdef Py_ssize_t rows = rows_in(size)
    if not 0 < row < rows:
        raise ValueError(f"there is no row {row} in {size} bytes")
    return rows * ROW_SIZE + row * AREA_SIZE, AREA_SIZE


cdef Counts* counts_at(Py_buffer* memory, int row) except NULL:
    return <Counts*>(<char*>memory.buf + <Py_ssize_t>area_of(memory.len, row)[0])


def take_row(memory, int row, int slot) -> bool:
    """Give the row to a process of this slot, 0 or more, that is about to start; False if it can't have it: another
    process has it, or another slot."""
    cdef Py_buffer view
    cdef Counts* counts
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    try:
        counts = counts_at(&view, row)
        if counts.slot not in (0, <uint32_t>slot + 1) or not take_if(&counts.is_taken, 0, 1):
            return False
        counts.slot = slot + 1
        counts.starts += 1
        return True
    finally:
        PyBuffer_Release(&view)


def give_row_back(memory, int row, str end) -> None:
    """The process that had the row has ended, for one of the reasons in ENDS; "" if it was not started."""
    cdef Py_buffer view
    cdef Counts* counts
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    try:
        counts = counts_at(&view, row)
        if end:
            counts.ends[<int>ENDS.index(end)] += 1
        else:
            counts.starts -= 1
        close_stall(counts)
        memset(&counts.now, 0, sizeof(Gauges))
        full_barrier()
        counts.is_taken = 0
    finally:
        PyBuffer_Release(&view)


cdef int close_stall(Counts* counts) except -1:
    """A stall that lasted to the end of the process ends with it."""
    cdef list records = records_of(counts.stall_memory, STALL_RECORDS, STALL_BYTES, counts.stall_records)
    if records and not records[len(records) - 1]["is_over"]:
        record = records.pop()
        record["is_over"] = True
        record["duration_s"] = round(max(record["duration_s"], time.time() - record["at"]), 3)
        counts.stalled_ns += <int64_t>(record["duration_s"] * 1e9)
        put_record(counts.stall_memory, STALL_RECORDS, STALL_BYTES, counts.stall_records - 1, record)
    return 0


# --- Reading ---

def read_row(memory, int row) -> dict | None:
    """What is in a row, by the names of Counts; None if nobody has ever had it. Raises ValueError if there is no such
    row."""
    cdef Py_buffer view
    cdef Counts* counts
    PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
    try:
        counts = counts_at(&view, row)
        return None if counts.slot == 0 else content_of(counts)
    finally:
        PyBuffer_Release(&view)


cdef dict content_of(Counts* counts):
    cdef dict content = counts_of(counts)
    content.update(gauges_of(counts))
    content["last_stalls"] = records_of(
        counts.stall_memory, STALL_RECORDS, STALL_BYTES, counts.stall_records)
    content["last_refusals"] = records_of(
        counts.refusal_memory, REFUSAL_RECORDS, REFUSAL_BYTES, counts.refusal_records)
    return content


cdef dict counts_of(Counts* counts):
    return {
        "slot": counts.slot - 1,
        "starts": counts.starts,
        "ends": named(ENDS, counts.ends),
        "responses": responses_of(counts),
        "first_byte": times_of(&counts.first_byte),
        "duration": times_of(&counts.duration),
        "lag": times_of(&counts.lag),
        "bytes_received": counts.bytes_received,
        "bytes_sent": counts.bytes_sent,
        "accepted": {"plain": counts.accepted[0], "tls": counts.accepted[1]},
        "refusals": named(REFUSALS, counts.refusals),
        "timeouts": named(TIMEOUTS, counts.timeouts),
        "exceptions": counts.exceptions,
        "messages_received": counts.messages_received,
        "messages_sent": counts.messages_sent,
        "busy_s": counts.busy_ns / 1e9,
        "cpu_s": counts.cpu_ns / 1e9,
        "stalls": counts.stalls,
        "stalled_s": counts.stalled_ns / 1e9,
        "sheds": counts.sheds,
        "gc_pauses": [counts.gc_pauses[i] for i in range(GENERATIONS)],
        "gc_pause_s": [counts.gc_pause_ns[i] / 1e9 for i in range(GENERATIONS)],
    }


cdef dict gauges_of(Counts* counts):
    cdef Gauges* now = &counts.now
    return {
        "is_running": counts.is_taken != 0,
        "pid": now.pid,
        "started_at": now.started_ns / 1e9,
        "beat_at": now.beat_ns / 1e9,
        "running": now.running,
        "websockets": now.websockets,
        "open": {(WIRES[i], ("plain", "tls")[j]): now.open[i][j] for i in range(WIRE_COUNT) for j in range(2)},
        "is_shedding": now.is_shedding != 0,
        "resident_bytes": now.resident_bytes,
        "descriptors": now.descriptors,
        "descriptors_limit": now.descriptors_limit,
    }


cdef dict named(tuple names, const int64_t* values):
    return {name: values[i] for i, name in enumerate(names)}


cdef dict responses_of(Counts* counts):
    """The numbers of responses that are not 0, by protocol, method and class."""
    cdef dict found = {}
    cdef int i, j, k
    for i in range(PROTOCOL_COUNT):
        for j in range(METHOD_COUNT):
            for k in range(CLASS_COUNT):
                if counts.responses[i][j][k]:
                    found[PROTOCOLS[i], METHODS[j], CLASSES[k]] = counts.responses[i][j][k]
    return found


cdef tuple times_of(const Histogram* histogram):
    return [histogram.buckets[i] for i in range(BUCKET_COUNT)], histogram.sum_ns / 1e9


# --- Rings of records ---

cdef int put_record(char* ring, int count, int size, int64_t number, dict record) except -1:
    """Put a record as the one of this number, from 0 on. One that is too long loses the last items of its list
    "where"."""
    cdef bytes text = json.dumps(record).encode()
    cdef Record* place = <Record*>(ring + number % count * size)
    cdef Py_ssize_t room = size - sizeof(Record)
    cdef list where
    while len(text) > room and record.get("where"):
        where = list(record["where"])
        where.pop()
        record = {**record, "where": where}
        text = json.dumps(record).encode()
    if len(text) > room:
        raise ValueError(f"a record has {len(text)} bytes, {room} are the most: {text[:100]!r}")
    place.version |= 1
    full_barrier()
    place.length = <uint32_t>len(text)
    memcpy(<char*>place + sizeof(Record), PyBytes_AS_STRING(text), len(text))
    full_barrier()
    place.version += 1
    return 0


cdef list records_of(const char* ring, int count, int size, int64_t total):
    """The records of a ring, oldest first. One that is written meanwhile is left out."""
    cdef list records = []
    cdef int64_t number
    for number in range(max(0, total - count), total):
        text = record_text(<const Record*>(ring + number % count * size), size)
        if text is not None:
            records.append(json.loads(text))
    return records


cdef bytes record_text(const Record* place, int size):
    cdef uint32_t version = place.version
    cdef bytes text
    full_barrier()
    text = PyBytes_FromStringAndSize(
        <const char*>place + sizeof(Record), min(place.length, size - <uint32_t>sizeof(Record)))
    full_barrier()
    return text if version % 2 == 0 and version == place.version else None


def new_counters() -> Counters:
    """A row of memory that no other process has."""
    memory = mmap.mmap(-1, memory_size(2))
    row = new_row(memory, 2)
    take_row(memory, row, 0)
    return Counters(memory, row)


cdef class Counters:

    @property
    def memory(self):
        """All of the memory in which the row is."""
        return <object>self.view.obj

    def __cinit__(self, memory, int row):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.counts = counts_at(&self.view, row)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def begin(self, int pid, int descriptors_limit) -> None:
        """The process of this row has started."""
        self.counts.now.pid = pid
        self.counts.now.started_ns = time.time_ns()
        self.counts.now.descriptors_limit = descriptors_limit
        self.beat()

    def beat(self) -> None:
        """The event loop turns."""
        self.counts.now.beat_ns = time.time_ns()

    def note_lag(self, double seconds) -> None:
        """The event loop was so late with a call that was due."""
        add_time(&self.counts.lag, <int64_t>(seconds * 1e9))

    def note_usage(self, int64_t resident_bytes, int64_t descriptors, double cpu_s, double busy_s) -> None:
        """What the process has now, and how much processor time it, and of busy time its event loop, has used since
        this was last called."""
        self.counts.now.resident_bytes = resident_bytes
        self.counts.now.descriptors = descriptors
        self.counts.cpu_ns += <int64_t>(cpu_s * 1e9)
        self.counts.busy_ns += <int64_t>(busy_s * 1e9)

    def note_stall(self, dict record, bint is_new) -> None:
        """The event loop is blocked, or was: `record` has "at", "duration_s", "is_over" and more. With is_new it is
        another stall than the last one that was told of."""
        if is_new:
            self.counts.stalls += 1
        if record["is_over"]:
            self.counts.stalled_ns += <int64_t>(record["duration_s"] * 1e9)
        put_record(self.counts.stall_memory, STALL_RECORDS, STALL_BYTES,
                   self.counts.stall_records - (0 if is_new else 1), record)
        if is_new:
            self.counts.stall_records += 1

    cdef int note_refusal(self, int kind, dict record) except -1:
        self.counts.refusals[kind] += 1
        if record is not None:
            record["kind"] = REFUSALS[kind]
            put_record(self.counts.refusal_memory, REFUSAL_RECORDS, REFUSAL_BYTES, self.counts.refusal_records, record)
            self.counts.refusal_records += 1
        return 0

    def on_gc(self, str phase, dict info) -> None:
        """For gc.callbacks: count how long each collection takes."""
        cdef int generation
        if phase == "start":
            self.gc_began_ns = monotonic_ns()
        elif self.gc_began_ns:
            generation = min(<int>info["generation"], GENERATIONS - 1)
            self.counts.gc_pauses[generation] += 1
            self.counts.gc_pause_ns[generation] += monotonic_ns() - self.gc_began_ns
            self.gc_began_ns = 0
