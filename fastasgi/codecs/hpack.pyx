"""See hpack.pxd for the contracts."""

from collections import namedtuple

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport UINT32_MAX, int16_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fastasgi.codecs.fieldnames cimport (
    COOKIE, MAX_NAMES, NameTable, SharedPairs, find_known, is_shared, name_table, new_pair, shared_pair,
)
from fastasgi.codecs.heads cimport DECIMAL_ROOM, DefaultFields, put_decimal
from fastasgi.codecs.scan cimport SCAN_VALUE, scan, scan_choose, scan_is_blank, scan_lower, scan_sample
from fastasgi.codecs.text cimport Span, span_of, trim_left, trim_right


cdef extern from "codecs/huffman.h" nogil:
    void huffman_build()
    size_t huffman_room(size_t n)
    uint8_t* huffman_decode(const uint8_t* p, const uint8_t* end, uint8_t* out)
    size_t huffman_size(const uint8_t* p, const uint8_t* end)
    uint8_t* huffman_encode(const uint8_t* p, const uint8_t* end, uint8_t* out)


cdef const NameTable* interned = name_table()

scan_choose()
huffman_build()


# --- Representations (RFC 7541 section 6) ---

cdef enum:
    INDEXED = 0x80              # an index of 7 bits
    WITH_INDEXING = 0x40        # a literal that is added to the table; the index of its name has 6 bits
    SIZE_UPDATE = 0x20          # a size of 5 bits
    NEVER_INDEXED = 0x10        # a literal that nobody may add to a table; the index of its name has 4 bits
    WITHOUT_INDEXING = 0x00     # a literal; the index of its name has 4 bits
    HUFFMAN = 0x80              # of a string, whose length has 7 bits
    CONTINUATION_BYTES = 5      # of an integer, at most

cdef enum:                      # indexes of the static table
    FIRST_STATUS = 8
    LAST_STATUS = 14
    CONTENT_LENGTH_INDEX = 28
    STATIC_FIELDS = 61

cdef enum:
    FIRST_CAPACITY = 8          # of a ring
    FIRST_FIELDS = 32           # of a FieldList
    FIRST_SCRATCH = 4096

cdef enum:                      # by itself, as no int holds it
    DYNAMIC = 0x80000000        # in Field.entry: of the dynamic table; the other bits are the lowest of its number


# --- The static table (RFC 7541 appendix A) ---

STATIC = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""),
    (b"via", b""), (b"www-authenticate", b""),
)

cdef TableEntry static_entries[STATIC_FIELDS + 1]
cdef uint8_t static_index[MAX_NAMES]    # by KnownName: the first entry with this name, or 0
cdef list static_pairs = []             # owns the pairs
cdef int STATUSES[LAST_STATUS + 1 - FIRST_STATUS]
STATUSES[:] = [200, 204, 206, 304, 400, 404, 500]


cdef int fill_static_entries() except -1:
    cdef int index
    cdef int known
    cdef TableEntry* entry
    cdef tuple pair
    for index, (name, value) in enumerate(STATIC, 1):
        known = find_known(<const uint8_t*>PyBytes_AS_STRING(name), len(name))
        if known < 0:
            raise SystemError(f"{name!r} is not interned")
        pair = (<bytes>interned.names[known].object, value)
        static_pairs.append(pair)
        entry = &static_entries[index]
        entry.pair = <PyObject*>pair
        entry.size = <uint32_t>(len(name) + len(value) + ENTRY_OVERHEAD)
        entry.known = <int16_t>known
        if static_index[known] == 0:
            static_index[known] = <uint8_t>index
    return 0


fill_static_entries()


# --- Decoding: the list of what was decoded ---

@cython.no_gc                   # SharedPairs is in no circle, and has to be there until the end
cdef class FieldList:
    def __cinit__(self, *, int max_count=128, Py_ssize_t max_size=65536, SharedPairs shared=None):
        if not 1 <= max_count <= 2**20:
            raise ValueError(f"max_count is {max_count}: not within 1 and 2**20")
        if not 16 <= max_size <= 2**28:
            raise ValueError(f"max_size is {max_size}: not within 16 and 2**28")
        self.max_count = max_count
        self.max_size = max_size
        self.shared = SharedPairs() if shared is None else shared
        self.capacity = FIRST_FIELDS
        self.fields = <Field*>PyMem_Malloc(FIRST_FIELDS * sizeof(Field))
        self.scratch_bytes = FIRST_SCRATCH
        self.scratch = <uint8_t*>PyMem_Malloc(FIRST_SCRATCH)
        if self.fields is NULL or self.scratch is NULL:
            raise MemoryError

    def __dealloc__(self):
        clear(self)
        PyMem_Free(self.fields)
        PyMem_Free(self.scratch)

    @property
    def has_more(self):
        return bool(self.exceeds)

    @property
    def details(self):
        return [detail(&self.fields[i]) for i in range(self.count)]


cdef inline void clear(FieldList fields) noexcept:
    cdef int i
    cdef int count = fields.count
    fields.count = 0
    fields.counted = 0
    fields.size = 0
    fields.exceeds = False
    for i in range(count):
        Py_DECREF(<object>fields.fields[i].pair)
        Py_XDECREF(fields.fields[i].meaning)


cdef inline int admit(HPACKDecoder decoder, FieldList fields, const TableEntry* entry) noexcept:
    """Count a field. Whether it is to be kept; -1 if there is too much."""
    fields.size += entry.size
    fields.counted += entry.known != COOKIE
    if fields.size <= fields.max_size and fields.counted <= fields.max_count:
        return 1
    fields.exceeds = True
    if fields.size <= 4 * fields.max_size:
        return 0
    decoder.outcome = TOO_MUCH
    return -1


cdef int enlarge(FieldList fields) except -1:
    cdef Field* larger = <Field*>PyMem_Realloc(fields.fields, 2 * fields.capacity * sizeof(Field))
    if larger is NULL:
        raise MemoryError
    fields.fields = larger
    fields.capacity *= 2
    return 0


cdef inline int append(FieldList fields, const TableEntry* entry, PyObject* meaning, uint32_t number) except -1:
    cdef Field* field
    if fields.count == fields.capacity:
        enlarge(fields)
    field = &fields.fields[fields.count]
    fields.count += 1
    Py_INCREF(<object>entry.pair)
    Py_XINCREF(meaning)
    field.pair = entry.pair
    field.meaning = meaning
    field.entry = number
    field.known = entry.known
    field.faults = entry.faults
    return 0


cdef uint8_t* make_room(FieldList fields, size_t n) except NULL:
    """So many bytes of scratch; what was there is gone."""
    cdef uint8_t* scratch
    if n > fields.scratch_bytes:
        scratch = <uint8_t*>PyMem_Malloc(n)
        if scratch is NULL:
            raise MemoryError
        PyMem_Free(fields.scratch)
        fields.scratch = scratch
        fields.scratch_bytes = n
    return fields.scratch


# --- Decoding: integers and strings (RFC 7541 section 5) ---

# A function that reads a part of a block returns the pointer behind it, or NULL: the block is malformed or has too much
# (decoder.outcome says so), or an exception is set.

cdef struct Text:               # a string of a block
    const uint8_t* p            # borrows from the block, or from the scratch of the FieldList
    size_t n


cdef inline const uint8_t* malformed(HPACKDecoder decoder, const char* reason) noexcept:
    decoder.outcome = COMPRESSION_FAULT
    decoder.reason = reason
    return NULL


cdef const uint8_t* read_long_integer(
    HPACKDecoder decoder, const uint8_t* p, const uint8_t* end, uint32_t* number
) noexcept:
    """Read the bytes behind a prefix whose bits are all set; `number` has its value."""
    cdef uint64_t value = number[0]
    cdef uint8_t byte
    cdef int shift
    for shift in range(0, 7 * CONTINUATION_BYTES, 7):
        if p == end:
            return malformed(decoder, "the block ends within an integer")
        byte = p[0]
        value += <uint64_t>(byte & 0x7f) << shift
        p += 1
        if not byte & 0x80:
            if value > UINT32_MAX:
                break
            number[0] = <uint32_t>value
            return p
    return malformed(decoder, "an integer has more than 32 bits")


cdef inline const uint8_t* read_integer(
    HPACKDecoder decoder, const uint8_t* p, const uint8_t* end, uint8_t prefix, uint32_t* number
) noexcept:
    """Read an integer with a prefix, whose bits are those of `prefix`, in the byte at `p`."""
    number[0] = p[0] & prefix
    if number[0] < prefix:
        return p + 1
    return read_long_integer(decoder, p + 1, end, number)


cdef inline const uint8_t* read_string(
    HPACKDecoder decoder, const uint8_t* p, const uint8_t* end, FieldList fields, Text* text
) except? NULL:
    """Read a string. It is there until the next one is read."""
    cdef uint32_t n
    cdef bint is_huffman
    cdef uint8_t* out
    cdef uint8_t* out_end
    if p == end:
        return malformed(decoder, "the block ends before a string")
    is_huffman = p[0] & HUFFMAN != 0
    p = read_integer(decoder, p, end, 0x7f, &n)
    if p is NULL:
        return NULL
    if n > <size_t>(end - p):
        return malformed(decoder, "the block ends within a string")
    text.p = p
    text.n = n
    if is_huffman:
        out = make_room(fields, huffman_room(n))
        out_end = huffman_decode(p, p + n, out)
        if out_end is NULL:
            return malformed(decoder, "the Huffman code of a string is malformed")
        text.p = out
        text.n = <size_t>(out_end - out)
    return p + n


# --- Decoding: fields ---

cdef inline TableEntry* find_entry(HPACKDecoder decoder, uint32_t index) noexcept:
    """The entry of an index, which is behind the static table; NULL if there is none. Not to be kept: entries move."""
    cdef uint32_t age = index - (STATIC_FIELDS + 1)
    if age >= decoder.count:
        return NULL
    return &decoder.ring[(decoder.inserted - 1 - age) & (decoder.capacity - 1)]


cdef inline const uint8_t* decode_indexed(
    HPACKDecoder decoder, const uint8_t* p, const uint8_t* end, FieldList fields
) except? NULL:
    """An indexed field (RFC 7541 section 6.1)."""
    cdef uint32_t index
    cdef uint32_t number
    cdef TableEntry* entry
    cdef PyObject* meaning
    cdef int admitted
    p = read_integer(decoder, p, end, 0x7f, &index)
    if p is NULL:
        return NULL
    if index <= STATIC_FIELDS:
        if index == 0:
            return malformed(decoder, "the index 0 of a field")
        entry = &static_entries[index]
        meaning = decoder.meanings[index] if index < REMEMBERED_STATIC else NULL
        number = index
    else:
        entry = find_entry(decoder, index)
        if entry is NULL:
            return malformed(decoder, "the index of a field is beyond the tables")
        meaning = entry.meaning
        number = (decoder.inserted - 1 - (index - (STATIC_FIELDS + 1))) | <uint32_t>DYNAMIC
    admitted = admit(decoder, fields, entry)
    if admitted > 0:
        append(fields, entry, meaning, number)
    return p if admitted >= 0 else NULL


cdef int name_faults(Text name) noexcept:
    cdef uint8_t byte
    cdef size_t i
    if name.n == 0:
        return FAULTY_NAME
    for i in range(name.n):
        byte = name.p[i]
        if byte == 0 or scan_lower[byte] != byte:
            return FAULTY_NAME
    return 0


cdef inline int value_faults(Text value) noexcept:
    cdef const uint8_t* end = value.p + value.n
    if value.n and (scan_is_blank(value.p[0]) or scan_is_blank((end - 1)[0]) or scan(SCAN_VALUE, value.p, end) != end):
        return FAULTY_VALUE
    return 0


cdef inline PyObject* make_pair(FieldList fields, int known, bytes name, Text value) except NULL:
    """A new reference to the pair."""
    cdef tuple pair
    if is_shared(known, <Py_ssize_t>value.n):
        return shared_pair(fields.shared.pairs, interned, known, <const char*>value.p, value.n)
    pair = new_pair(name, <const char*>value.p, value.n)
    Py_INCREF(pair)
    return <PyObject*>pair


cdef bytes read_name(
    HPACKDecoder decoder, const uint8_t** p, const uint8_t* end, uint32_t index, FieldList fields, TableEntry* entry
):
    """The name of a literal field: that of an entry, or, for the index 0, a string. None if it is malformed.

    Says of `entry` what follows from the name.
    """
    cdef const TableEntry* named
    cdef Text name
    if index:
        named = &static_entries[index] if index <= STATIC_FIELDS else find_entry(decoder, index)
        if named is NULL:
            malformed(decoder, "the index of a name is beyond the tables")
            return None
        entry.known = named.known
        entry.faults = named.faults & FAULTY_NAME
        return <bytes>PyTuple_GET_ITEM(<object>named.pair, 0)
    p[0] = read_string(decoder, p[0], end, fields, &name)
    if p[0] is NULL:
        return None
    entry.known = <int16_t>find_known(name.p, name.n)
    entry.faults = <uint8_t>(name_faults(name) if entry.known < 0 else 0)
    if entry.known >= 0:
        return <bytes>interned.names[entry.known].object
    return PyBytes_FromStringAndSize(<const char*>name.p, name.n)


cdef const uint8_t* decode_literal(
    HPACKDecoder decoder, const uint8_t* p, const uint8_t* end, FieldList fields
) except? NULL:
    """A literal field (RFC 7541 section 6.2)."""
    cdef bint with_indexing = p[0] & WITH_INDEXING != 0
    cdef uint32_t index
    cdef uint32_t number = 0
    cdef TableEntry entry
    cdef bytes name
    cdef Text value
    cdef int admitted
    p = read_integer(decoder, p, end, 0x3f if with_indexing else 0x0f, &index)
    if p is NULL:
        return NULL
    name = read_name(decoder, &p, end, index, fields, &entry)
    if name is None:
        return NULL
    p = read_string(decoder, p, end, fields, &value)
    if p is NULL:
        return NULL
    entry.faults |= <uint8_t>value_faults(value)
    entry.size = <uint32_t>(PyBytes_GET_SIZE(name) + value.n + ENTRY_OVERHEAD)
    entry.meaning = NULL
    admitted = admit(decoder, fields, &entry)
    if admitted < 0:
        return NULL
    if admitted or with_indexing:
        entry.pair = make_pair(fields, entry.known, name, value)
        try:
            if with_indexing:
                number = insert(decoder, &entry)
            if admitted:
                append(fields, &entry, NULL, number)
        finally:
            Py_DECREF(<object>entry.pair)
    return p


# --- Decoding: the dynamic table (RFC 7541 section 4) ---

cdef void evict(HPACKDecoder decoder, Py_ssize_t most) noexcept:
    """Evict the oldest entries until the table has at most so many bytes."""
    cdef TableEntry entry
    while decoder.size > most:
        entry = decoder.ring[(decoder.inserted - decoder.count) & (decoder.capacity - 1)]
        decoder.count -= 1
        decoder.size -= entry.size
        Py_DECREF(<object>entry.pair)
        Py_XDECREF(entry.meaning)


cdef int grow(HPACKDecoder decoder) except -1:
    cdef uint32_t capacity = decoder.capacity * 2 if decoder.capacity else FIRST_CAPACITY
    cdef TableEntry* ring = <TableEntry*>PyMem_Malloc(capacity * sizeof(TableEntry))
    cdef uint32_t number
    cdef uint32_t i
    if ring is NULL:
        raise MemoryError
    for i in range(decoder.count):
        number = decoder.inserted - decoder.count + i
        ring[number & (capacity - 1)] = decoder.ring[number & (decoder.capacity - 1)]
    PyMem_Free(decoder.ring)
    decoder.ring = ring
    decoder.capacity = capacity
    return 0


cdef uint32_t insert(HPACKDecoder decoder, const TableEntry* entry) except? 0:
    """Add an entry. Returns what Field.entry is to be: 0 if the entry is larger than the table, which is empty then."""
    cdef uint32_t number
    if <Py_ssize_t>entry.size > decoder.max_size:
        evict(decoder, 0)
        return 0
    evict(decoder, decoder.max_size - entry.size)
    if decoder.count == decoder.capacity:
        grow(decoder)
    number = decoder.inserted
    decoder.ring[number & (decoder.capacity - 1)] = entry[0]
    Py_INCREF(<object>entry.pair)
    decoder.inserted += 1
    decoder.count += 1
    decoder.size += entry.size
    return number | <uint32_t>DYNAMIC


cdef const uint8_t* read_size_updates(HPACKDecoder decoder, const uint8_t* p, const uint8_t* end) noexcept:
    """The table's size may change at the beginning of a block only (RFC 7541 section 4.2)."""
    cdef uint32_t size
    while p < end and p[0] & 0xe0 == SIZE_UPDATE:
        p = read_integer(decoder, p, end, 0x1f, &size)
        if p is NULL:
            return NULL
        if size > TABLE_BYTES:
            return malformed(decoder, "the table is made larger than SETTINGS_HEADER_TABLE_SIZE")
        decoder.max_size = size
        evict(decoder, size)
    return p


cdef class HPACKDecoder:
    def __cinit__(self):
        self.max_size = TABLE_BYTES

    def __dealloc__(self):
        cdef int i
        evict(self, 0)
        PyMem_Free(self.ring)
        for i in range(REMEMBERED_STATIC):
            Py_XDECREF(self.meanings[i])

    cdef int decode(self, const uint8_t* p, Py_ssize_t n, FieldList fields) except -1:
        cdef const uint8_t* end = p + n
        clear(fields)
        self.outcome = 0
        p = read_size_updates(self, p, end)
        while p is not NULL and p < end:
            if p[0] & INDEXED:
                p = decode_indexed(self, p, end, fields)
            elif p[0] & 0xe0 == SIZE_UPDATE:
                p = malformed(self, "the table's size is changed behind a field")
            else:
                p = decode_literal(self, p, end, fields)
        return self.outcome

    cdef int remember(self, uint32_t entry, object meaning) except -1:
        cdef PyObject** place
        cdef PyObject* before
        cdef uint32_t age
        if entry & <uint32_t>DYNAMIC:
            age = (self.inserted - 1 - entry) & (DYNAMIC - 1)
            if age >= self.count:
                return 0
            place = &self.ring[(self.inserted - 1 - age) & (self.capacity - 1)].meaning
        elif 0 < entry < REMEMBERED_STATIC:
            place = &self.meanings[entry]
        else:
            return 0
        before = place[0]
        Py_INCREF(meaning)
        place[0] = <PyObject*>meaning
        Py_XDECREF(before)
        return 0

    def read(self, data, FieldList fields=None):
        cdef Py_buffer view
        cdef int outcome
        if fields is None:
            fields = FieldList()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            outcome = self.decode(<const uint8_t*>view.buf, view.len, fields)
        finally:
            PyBuffer_Release(&view)
        if outcome == COMPRESSION_FAULT:
            raise HPACKError(self.reason.decode())
        if outcome == TOO_MUCH:
            raise HPACKError("the fields are larger than four times the limit")
        return pairs_of(fields)

    def remember_field(self, FieldList fields not None, int index, meaning):
        if not 0 <= index < fields.count:
            raise IndexError(index)
        self.remember(fields.fields[index].entry, meaning)

    @property
    def table(self):
        return [
            <object>find_entry(self, STATIC_FIELDS + 1 + age).pair for age in range(self.count)
        ]

    @property
    def table_size(self):
        return self.size


# --- Encoding: what is added to the table ---

cdef enum Policy:               # what is done with a field, by its name
    # It is added when it comes for the second time: a value that never comes again, as that of x-process-time, would
    # only displace others
    ADD_SECOND
    ADD                         # it is added at once
    ADD_NOT                     # its value changes with each response, or is not worth an entry
    ADD_NEVER                   # its value may be a secret: no proxy may add it either (RFC 7541 section 7.1.3)
    LEAVE_OUT                   # it is connection-specific (RFC 9113 section 8.2.2)

cdef uint8_t policies[MAX_NAMES]        # by KnownName

POLICIES = {
    ADD: (
        b"accept-ranges", b"access-control-allow-credentials", b"access-control-allow-headers",
        b"access-control-allow-methods", b"access-control-allow-origin", b"access-control-expose-headers",
        b"access-control-max-age", b"allow", b"alt-svc", b"cache-control", b"content-encoding", b"content-language",
        b"content-type", b"date", b"referrer-policy", b"server",
        b"strict-transport-security", b"vary", b"x-content-type-options", b"x-frame-options", b"x-powered-by",
        b"x-xss-protection", b":status", b":authority", b":scheme", b":method",
    ),
    ADD_NOT: (
        b"age", b"content-length", b"content-location", b"content-range", b"etag", b"expires", b"if-modified-since",
        b"if-none-match", b"last-modified", b"location", b"retry-after", b"server-timing", b"traceparent",
        b"tracestate", b"x-b3-spanid", b"x-b3-traceid", b"x-correlation-id", b"x-request-id", b"request-id",
        b"correlation-id", b":path",
    ),
    ADD_NEVER: (
        b"authorization", b"cookie", b"proxy-authenticate", b"proxy-authorization", b"set-cookie", b"www-authenticate",
        b"x-api-key", b"x-csrf-token", b"x-csrftoken", b"x-xsrf-token",
    ),
    LEAVE_OUT: (
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings",
    ),
}
# Names with one of these in them are those of secrets
SECRETS = (b"token", b"secret", b"api-key", b"csrf")
cdef Span secrets[4]

cdef enum:
    RAW_BYTES = 24              # bytes of a string below which Huffman's code is not worth its time, unless it is added
    FIELD_ROOM = 13             # bytes of a field beyond name and value, at most
    BLOCK_ROOM = 64             # bytes of size updates, status and content-length, at most


cdef int fill_policies() except -1:
    for policy, names in POLICIES.items():
        for name in names:
            policies[find_known(<const uint8_t*>PyBytes_AS_STRING(<bytes>name), len(name))] = <uint8_t><int>policy
    for index, name in enumerate(SECRETS):
        secrets[<int>index] = span_of(<bytes>name)
    return 0


fill_policies()


cdef bint names_secret(const char* name, Py_ssize_t n) noexcept nogil:
    cdef const Span* secret
    cdef Py_ssize_t i
    cdef int k
    for i in range(n):
        for k in range(4):
            secret = &secrets[k]
            if name[i] == secret.p[0] and secret.n <= n - i and memcmp(name + i, secret.p, secret.n) == 0:
                return True
    return False


cdef inline int policy_of(bytes name, int known) noexcept:
    if known >= 0:
        return policies[known]
    return ADD_NEVER if names_secret(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)) else ADD_SECOND


# --- Encoding: integers and strings ---

cdef inline char* put_integer(char* p, uint8_t pattern, uint8_t prefix, size_t n) noexcept:
    """An integer whose prefix has these bits, in a byte with the pattern beside it."""
    if n < prefix:
        p[0] = <char>(pattern | n)
        return p + 1
    p[0] = <char>(pattern | prefix)
    n -= prefix
    while n >= 0x80:
        p += 1
        p[0] = <char>(n & 0x7f | 0x80)
        n >>= 7
    p[1] = <char>n
    return p + 2


cdef char* put_string(char* p, bytes text, bint is_kept) noexcept:
    """A string, by Huffman's code if that is shorter and worth its time."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef size_t n = PyBytes_GET_SIZE(text)
    cdef size_t coded
    if is_kept or n >= RAW_BYTES:
        coded = huffman_size(start, start + n)
        if coded < n:
            p = put_integer(p, HUFFMAN, 0x7f, coded)
            return <char*>huffman_encode(start, start + n, <uint8_t*>p)
    p = put_integer(p, 0, 0x7f, n)
    memcpy(p, start, n)
    return p + n


# --- Encoding: the dynamic table ---

cdef inline uint32_t hash_of(bytes name, bytes value) noexcept:
    cdef uint64_t mixed = scan_sample(<const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
    mixed ^= mixed >> 29
    mixed += scan_sample(<const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return <uint32_t>(mixed >> 32)


cdef inline bint is_same(PyObject* a, PyObject* b) noexcept:
    """Whether two bytes objects are equal."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(<object>a)
    return a == b or (
        n == PyBytes_GET_SIZE(<object>b)
        and memcmp(PyBytes_AS_STRING(<object>a), PyBytes_AS_STRING(<object>b), n) == 0
    )


cdef inline uint32_t chain_of(uint32_t hashed) noexcept:
    return hashed & (SENT_CHAINS - 1)


cdef inline uint32_t find_sent(HPACKEncoder encoder, uint32_t hashed, bytes name, bytes value) noexcept:
    """The index of a field in the dynamic table, or 0."""
    cdef SentField* entry
    cdef uint32_t slot = encoder.chains[chain_of(hashed)]
    while slot:
        entry = &encoder.ring[slot - 1]
        if entry.hash == hashed and is_same(entry.value, <PyObject*>value) and is_same(entry.name, <PyObject*>name):
            return STATIC_FIELDS + 1 + ((encoder.inserted - slot) & (encoder.capacity - 1))
        slot = entry.next
    return 0


cdef void drop_oldest(HPACKEncoder encoder) noexcept:
    cdef uint32_t slot = ((encoder.inserted - encoder.count) & (encoder.capacity - 1)) + 1
    cdef SentField* entry = &encoder.ring[slot - 1]
    cdef uint8_t* link = &encoder.chains[chain_of(entry.hash)]
    while link[0] != slot:
        link = &encoder.ring[link[0] - 1].next
    link[0] = 0                 # what is behind the oldest one in a chain has gone before
    encoder.count -= 1
    encoder.size -= entry.size
    Py_DECREF(<object>entry.name)
    Py_DECREF(<object>entry.value)


cdef inline void link_newest(HPACKEncoder encoder, uint32_t slot) noexcept:
    cdef SentField* entry = &encoder.ring[slot - 1]
    cdef uint8_t* first = &encoder.chains[chain_of(entry.hash)]
    entry.next = first[0]
    first[0] = <uint8_t>slot


cdef int grow_sent(HPACKEncoder encoder) except -1:
    cdef uint32_t capacity = encoder.capacity * 2 if encoder.capacity else FIRST_CAPACITY
    cdef SentField* ring = <SentField*>PyMem_Malloc(capacity * sizeof(SentField))
    cdef SentField* before = encoder.ring
    cdef uint32_t number = encoder.inserted - encoder.count
    if ring is NULL:
        raise MemoryError
    memset(encoder.chains, 0, sizeof(encoder.chains))
    encoder.ring = ring
    while number != encoder.inserted:
        ring[number & (capacity - 1)] = before[number & (encoder.capacity - 1)]
        link_newest(encoder, (number & (capacity - 1)) + 1)
        number += 1
    encoder.capacity = capacity
    PyMem_Free(before)
    return 0


cdef int insert_sent(HPACKEncoder encoder, uint32_t hashed, bytes name, bytes value, Py_ssize_t size) except -1:
    """Add a field that is not larger than the table."""
    cdef uint32_t slot
    cdef SentField* entry
    # An entry that is dropped for its number stays in the peer's table, behind all that are known here
    while encoder.size + size > encoder.max_size or encoder.count == SENT_FIELDS:
        drop_oldest(encoder)
    if encoder.count == encoder.capacity:
        grow_sent(encoder)
    slot = (encoder.inserted & (encoder.capacity - 1)) + 1
    entry = &encoder.ring[slot - 1]
    Py_INCREF(name)
    entry.name = <PyObject*>name
    Py_INCREF(value)
    entry.value = <PyObject*>value
    entry.hash = hashed
    entry.size = <uint16_t>size
    link_newest(encoder, slot)
    encoder.inserted += 1
    encoder.count += 1
    encoder.size += size
    return 0


# --- Encoding: fields ---

cdef bint is_due(HPACKEncoder encoder, int policy, uint32_t hashed, Py_ssize_t size) noexcept:
    """Whether a field that is not in the table is added now."""
    cdef uint16_t mark
    cdef uint16_t* seen
    if policy > ADD or size > encoder.max_size // 4 * 3:
        return False
    if policy == ADD:
        return True
    mark = <uint16_t>(hashed >> 16) | 1
    seen = &encoder.seen[hashed & (SEEN_FIELDS - 1)]
    if seen[0] == mark:
        seen[0] = 0
        return True
    seen[0] = mark
    return False


cdef char* put_literal(HPACKEncoder encoder, char* p, uint32_t hashed, bytes name, bytes value) except NULL:
    """A field that is not in the table. Its name is in lower case."""
    cdef int known = find_known(<const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
    cdef int policy = policy_of(name, known)
    cdef uint8_t name_index = static_index[known] if known >= 0 else 0
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + ENTRY_OVERHEAD
    cdef bint is_kept
    if policy == LEAVE_OUT:
        return p
    is_kept = is_due(encoder, policy, hashed, size)
    if is_kept:
        insert_sent(encoder, hashed, name, value, size)
        p = put_integer(p, WITH_INDEXING, 0x3f, name_index)
    else:
        p = put_integer(p, NEVER_INDEXED if policy == ADD_NEVER else WITHOUT_INDEXING, 0x0f, name_index)
    if name_index == 0:
        p = put_string(p, name, is_kept)
    return put_string(p, value, is_kept)


cdef bytes lowered(bytes name):
    """The name in lower case; the same object if it is."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(name)
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(name)):
        if c"A" <= p[i] <= c"Z":
            return name.lower()
    return name


cdef bytes stripped(bytes value):
    """The value without blanks at its ends; the same object if there are none."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(value)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(value)
    cdef const uint8_t* start = trim_left(p, end)
    end = trim_right(start, end)
    if end - start == PyBytes_GET_SIZE(value):
        return value
    return PyBytes_FromStringAndSize(<const char*>start, end - start)


cdef char* put_new(HPACKEncoder encoder, char* p, bytes name, bytes value) except NULL:
    """A field as the application gave it, which is not in the table in this form."""
    cdef uint32_t hashed
    cdef uint32_t index
    name = lowered(name)
    value = stripped(value)
    hashed = hash_of(name, value)
    index = find_sent(encoder, hashed, name, value)
    if index:
        return put_integer(p, INDEXED, 0x7f, index)
    return put_literal(encoder, p, hashed, name, value)


cdef inline char* put_named(HPACKEncoder encoder, char* p, bytes name, bytes value) except NULL:
    cdef uint32_t index = find_sent(encoder, hash_of(name, value), name, value)
    if index:
        return put_integer(p, INDEXED, 0x7f, index)
    return put_new(encoder, p, name, value)


cdef inline char* put_pair(HPACKEncoder encoder, char* p, object pair) except NULL:
    return put_named(encoder, p, <bytes>(<tuple>pair)[0], <bytes>(<tuple>pair)[1])


cdef char* put_pairs(HPACKEncoder encoder, char* p, list pairs) except NULL:
    cdef object pair
    for pair in pairs:
        p = put_pair(encoder, p, pair)
    return p


cdef void remember_defaults(HPACKEncoder encoder, DefaultFields defaults, const char* p, Py_ssize_t n) noexcept:
    """Keep the default fields as they were encoded at `p`, in n bytes."""
    cdef PyObject* before = encoder.defaults
    Py_INCREF(defaults)
    encoder.defaults = <PyObject*>defaults
    Py_XDECREF(before)
    encoder.defaults_second = defaults.second
    encoder.defaults_inserted = encoder.inserted
    encoder.defaults_bytes = <int>n
    memcpy(encoder.defaults_block, p, n)


cdef class HPACKEncoder:
    def __cinit__(self):
        self.max_size = self.told_size = self.least_size = TABLE_BYTES

    def __dealloc__(self):
        while self.count:
            drop_oldest(self)
        PyMem_Free(self.ring)
        Py_XDECREF(self.defaults)

    cdef Py_ssize_t room(self, DefaultFields defaults, Py_ssize_t fields_bytes, Py_ssize_t count) noexcept:
        cdef Py_ssize_t n = BLOCK_ROOM + fields_bytes + count * FIELD_ROOM
        if defaults is not None:
            # Each line has four bytes beside name and value
            count = PyList_GET_SIZE(defaults.server_pairs) + PyList_GET_SIZE(defaults.other_pairs) + 1
            n += PyBytes_GET_SIZE(defaults.lines) + count * FIELD_ROOM
        return n

    cdef char* begin_block(self, char* p) noexcept:
        # RFC 7541 section 4.2: of several changes the smallest one too
        if self.least_size < self.told_size and self.least_size < self.max_size:
            p = put_integer(p, SIZE_UPDATE, 0x1f, self.least_size)
            self.told_size = self.least_size
        if self.max_size != self.told_size:
            p = put_integer(p, SIZE_UPDATE, 0x1f, self.max_size)
            self.told_size = self.max_size
        self.least_size = self.max_size
        return p

    cdef void set_max_size(self, Py_ssize_t n) noexcept:
        self.max_size = min(n, <Py_ssize_t>TABLE_BYTES)
        self.least_size = min(self.least_size, self.max_size)
        self.defaults_bytes = 0
        while self.size > self.max_size:
            drop_oldest(self)

    cdef char* put_status(self, char* p, int status) except NULL:
        cdef char digits[DECIMAL_ROOM]
        cdef int index
        for index in range(FIRST_STATUS, LAST_STATUS + 1):
            if STATUSES[index - FIRST_STATUS] == status:
                p[0] = <char>(INDEXED | index)
                return p + 1
        return put_named(
            self, p, b":status", PyBytes_FromStringAndSize(digits, put_decimal(digits, status) - digits))

    cdef char* put_defaults(self, char* p, DefaultFields defaults, bint has_server, bint has_date) except NULL:
        cdef char* start = p
        cdef uint32_t inserted = self.inserted
        cdef bint whole = not (has_server or has_date)
        if whole and self.defaults_bytes and (
            self.defaults == <PyObject*>defaults and self.defaults_second == defaults.second
            and self.defaults_inserted == inserted
        ):
            memcpy(p, self.defaults_block, REMEMBERED_DEFAULTS)
            return p + self.defaults_bytes
        if not has_server:
            p = put_pairs(self, p, defaults.server_pairs)
        if not has_date and defaults.date_pair is not None:
            p = put_pair(self, p, defaults.date_pair)
        p = put_pairs(self, p, defaults.other_pairs)
        if whole and self.inserted == inserted and p - start <= REMEMBERED_DEFAULTS:
            remember_defaults(self, defaults, start, p - start)
        return p

    cdef char* put_fields(self, char* p, list fields) except NULL:
        return put_pairs(self, p, fields)

    cdef char* put_content_length(self, char* p, long long n) noexcept:
        cdef char digits[DECIMAL_ROOM]
        cdef Py_ssize_t count = put_decimal(digits, n) - digits
        p = put_integer(p, WITHOUT_INDEXING, 0x0f, CONTENT_LENGTH_INDEX)
        p[0] = <char>count
        memcpy(p + 1, digits, count)
        return p + 1 + count

    def encode(
        self, list fields not None, *, int status=0, DefaultFields defaults=None, bint has_server=False,
        bint has_date=False, long long content_length=-1,
    ):
        cdef Py_ssize_t room = self.room(
            defaults, sum([len(name) + len(value) for name, value in fields]), len(fields))
        cdef bytes data = PyBytes_FromStringAndSize(NULL, room)
        cdef char* start = PyBytes_AS_STRING(data)
        cdef char* p = self.begin_block(start)
        if status:
            p = self.put_status(p, status)
        if defaults is not None:
            p = self.put_defaults(p, defaults, has_server, has_date)
        p = self.put_fields(p, fields)
        if content_length >= 0:
            p = self.put_content_length(p, content_length)
        assert p - start <= room
        return data[:p - start]

    def limit_table(self, Py_ssize_t max_size):
        if max_size < 0:
            raise ValueError(max_size)
        self.set_max_size(max_size)

    @property
    def table(self):
        cdef uint32_t mask = self.capacity - 1
        cdef uint32_t newest = self.inserted - 1
        return [
            (<object>self.ring[(newest - age) & mask].name, <object>self.ring[(newest - age) & mask].value)
            for age in range(self.count)
        ]


# --- For Python: tests, fuzzing, measuring ---

class HPACKError(ValueError):
    """A block that can't be decoded: the connection's end."""


cdef list pairs_of(FieldList fields):
    cdef list pairs = PyList_New(fields.count)
    cdef int i
    for i in range(fields.count):
        Py_INCREF(<object>fields.fields[i].pair)
        PyList_SET_ITEM(pairs, i, <object>fields.fields[i].pair)
    return pairs


DecodedField = namedtuple("DecodedField", "name value known faults meaning entry")


cdef object detail(const Field* field):
    name, value = <object>field.pair
    return DecodedField(
        name, value, None if field.known < 0 else field.known, field.faults,
        None if field.meaning is NULL else <object>field.meaning, field.entry,
    )


def _huffman_decode(bytes data not None):
    """For tests: a string by its Huffman code; None if that is malformed."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, huffman_room(len(data)))
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint8_t* end = huffman_decode(p, p + len(data), start)
    return None if end is NULL else out[:end - start]


def _huffman_encode(bytes data not None):
    """For tests."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef size_t n = huffman_size(p, p + len(data))
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(out)
    assert huffman_encode(p, p + len(data), start) == start + n
    return out
