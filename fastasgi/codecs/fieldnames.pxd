"""Names of fields that are interned, and pairs of name and value that many messages share (RFC 9110 section 5).

Knows which names come often, and whose values come again. Must not know: what a field means, how it stands on a wire.
The lookups are inline: every field of every request takes them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from fastasgi.codecs.scan cimport ScanName, scan_hash, scan_same, scan_sample


cdef enum KnownName:            # an index of NameTable.names; a name that is not in it has -1
    # What decides about an HTTP/1.1 message itself
    HOST
    CONTENT_LENGTH
    TRANSFER_ENCODING
    CONNECTION
    EXPECT
    UPGRADE
    MEANINGFUL_NAMES
    # What else is looked at, of the names whose values repeat
    KEEP_ALIVE = MEANINGFUL_NAMES
    PROXY_CONNECTION
    TE
    VIA
    PRIORITY
    PSEUDO_AUTHORITY            # the pseudo fields of HTTP/2 and HTTP/3 (RFC 9113 section 8.3, RFC 8441 section 4)
    PSEUDO_METHOD
    PSEUDO_PROTOCOL
    PSEUDO_SCHEME
    PSEUDO_STATUS
    REPEATING_NAMES = 83        # from here on are names whose values are not kept
    PSEUDO_PATH = REPEATING_NAMES
    COOKIE
    DATE
    SERVER

cdef enum:
    SLOT_BITS = 11
    SLOTS = 1 << SLOT_BITS
    MAX_NAMES = 192
    PAIR_BITS = 8
    MAX_SHARED_BYTES = 192      # bytes of a value that is kept, at most


cdef struct InternedName:
    ScanName name
    size_t length               # bytes of the name
    bint is_forwarded           # the name is one of FORWARDED_NAMES
    PyObject* object            # bytes; lives as long as the process
    uint64_t padding            # to a cache line


# A perfect hash: no two names share a slot. A slot holds an index of `names`; free slots hold that of an entry which no
# name equals.
cdef struct NameTable:
    uint64_t multiplier
    InternedName names[MAX_NAMES]
    uint8_t slots[SLOTS]


# The fields in which proxies tell of the client, in lower case: X-Forwarded-For, -Proto, -Host, -Port and -Prefix, and
# Forwarded (RFC 7239).
cdef tuple FORWARDED_NAMES

cdef const NameTable* name_table() noexcept      # lives as long as the process
# The index of a name, which must be in lower case to be found, or -1
cdef int find_known(const uint8_t* name, size_t n) noexcept nogil


cdef inline uint32_t slot_of(const ScanName* name, size_t length, uint64_t multiplier) noexcept nogil:
    return <uint32_t>(scan_hash(name, length, multiplier) >> (64 - SLOT_BITS))


cdef inline int known_index(const NameTable* table, const ScanName* name, size_t length) noexcept nogil:
    """The index of a name in lower case, or -1. Its length distinguishes padding from NUL bytes of the input."""
    cdef int index = table.slots[slot_of(name, length, table.multiplier)]
    if table.names[index].length == length and scan_same(&table.names[index].name, name, length):
        return index
    return -1


cdef inline tuple new_pair(bytes name, const char* value, Py_ssize_t n):
    """A pair of its own. The value is borrowed, and read before anything else can run."""
    cdef bytes copied = PyBytes_FromStringAndSize(value, n)
    cdef tuple pair = PyTuple_New(2)
    Py_INCREF(name)
    PyTuple_SET_ITEM(pair, 0, name)
    Py_INCREF(copied)
    PyTuple_SET_ITEM(pair, 1, copied)
    return pair


cdef class SharedPairs:
    """The last pairs with names that are meaningful or whose values repeat, and are no secrets; one object a worker.

    A pair that comes again costs a comparison instead of two allocations, and all connections have the same one.
    """

    cdef PyObject* pairs[1 << PAIR_BITS]        # owned, or NULL


cdef inline bint is_shared(int known, Py_ssize_t n) noexcept nogil:
    """Whether pairs with this name and a value of n bytes are kept."""
    return <unsigned int>known < <unsigned int>REPEATING_NAMES and n <= MAX_SHARED_BYTES


cdef inline bint pair_is(PyObject* pair, PyObject* name, const char* value, Py_ssize_t n) noexcept:
    cdef PyObject* other
    if pair is NULL or PyTuple_GET_ITEM(<object>pair, 0) != name:
        return False
    other = PyTuple_GET_ITEM(<object>pair, 1)
    return PyBytes_GET_SIZE(<object>other) == n and memcmp(PyBytes_AS_STRING(<object>other), value, n) == 0


cdef inline PyObject* shared_pair(
    PyObject** pairs, const NameTable* table, int known, const char* value, Py_ssize_t n
) except NULL:
    """A new reference to the kept pair of a name and value for which is_shared() holds. `pairs` are a SharedPairs'."""
    cdef uint64_t sample = scan_sample(<const uint8_t*>value, n)
    cdef PyObject** slot = &pairs[((sample >> (64 - PAIR_BITS)) + <uint64_t>known * 37) & ((1 << PAIR_BITS) - 1)]
    cdef PyObject* name = table.names[known].object
    cdef tuple pair
    if not pair_is(slot[0], name, value, n):
        pair = new_pair(<bytes>name, value, n)
        Py_INCREF(pair)
        Py_XDECREF(slot[0])
        slot[0] = <PyObject*>pair
    Py_INCREF(<object>slot[0])
    return slot[0]
