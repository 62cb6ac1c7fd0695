"""HPACK: header blocks to pairs of name and value, and back (RFC 7541).

Knows both tables, integers and strings, and which bytes a field may have. Must not know: frames, streams, asyncio,
ASGI, what a field means for a message.
Pointers are borrowed from the caller for the length of one call.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t

from fastasgi.codecs.fieldnames cimport SharedPairs
from fastasgi.codecs.heads cimport DefaultFields


cdef enum:                      # bits of Field.faults (RFC 9113 section 8.2.1)
    FAULTY_NAME = 1             # not a token in lower case, and none of the pseudo fields that exist
    FAULTY_VALUE = 2            # it has a control byte other than TAB, or a blank at an end


cdef enum:                      # what HPACKDecoder.decode() returns besides 0
    COMPRESSION_FAULT = -2
    TOO_MUCH = -3


cdef enum:
    TABLE_BYTES = 4096          # size of a dynamic table, at most, by the measure of RFC 7541 section 4.1
    ENTRY_OVERHEAD = 32         # bytes that this measure adds to name and value
    REMEMBERED_STATIC = 8       # entries of the static table before this one keep what remember() is given
    SENT_FIELDS = 64            # entries that an encoder can refer to, at most
    SENT_CHAINS = 128
    SEEN_FIELDS = 64
    REMEMBERED_DEFAULTS = 32    # bytes of the encoded default fields that are kept, at most


cdef struct Field:              # a decoded field
    # Owned by the FieldList: (name, value), a tuple of bytes. The same object for as long as its entry is in the table;
    # a shared one where possible
    PyObject* pair
    PyObject* meaning           # owned by the FieldList, or NULL: what remember() was given for this entry
    uint32_t entry              # for remember(); 0 if the field came from no entry and made none
    int16_t known               # the KnownName, or -1
    uint8_t faults              # bits of FAULTY_


cdef class FieldList:
    """The fields of the last header block. One object serves all connections of a worker in turn.

    While it is in use, from decode() on, `lent` has to be set, since a collection that runs within may lead to
    another connection: that one has to take another list.
    """

    cdef:
        Field* fields
        int count               # of `fields`
        int capacity
        int max_count           # of fields that are kept; those named cookie do not count
        Py_ssize_t max_size     # bytes that are kept, by the measure of RFC 7541 section 4.1: name, value and 32
        int counted             # fields of the block, without those named cookie, also of those that were not kept
        Py_ssize_t size         # bytes of all fields of the block, also of those that were not kept
        bint exceeds            # the fields are more than max_count, or larger than max_size: not all were kept
        bint lent
        SharedPairs shared
        uint8_t* scratch        # strings that are decoded
        size_t scratch_bytes


cdef struct TableEntry:
    PyObject* pair              # owned
    PyObject* meaning           # owned, or NULL
    uint32_t size               # by the measure of RFC 7541 section 4.1
    int16_t known
    uint8_t faults


cdef class HPACKDecoder:
    """Reads the header blocks of one peer. SETTINGS_HEADER_TABLE_SIZE is to be 4096 for it, as it is from the start."""

    cdef:
        TableEntry* ring        # entry n is at n & (capacity - 1)
        uint32_t capacity       # a power of two, or 0
        uint32_t count          # of entries in the table
        uint32_t inserted       # entries so far, in the circle of 32 bits
        Py_ssize_t size         # of the table
        Py_ssize_t max_size     # of the table, as the peer has set it
        PyObject* meanings[REMEMBERED_STATIC]   # owned, or NULL; of entries of the static table
        int outcome             # of the block under way
        const char* reason      # of a COMPRESSION_FAULT: a static sentence for the log

    # Decodes a whole header block into `fields`, which forgets what it had. Returns 0; COMPRESSION_FAULT if the block
    # is malformed; TOO_MUCH if the fields are larger than 4 * max_size, which is where decoding stops. Behind either
    # of them, or an exception, no other block can be decoded.
    cdef int decode(self, const uint8_t* p, Py_ssize_t n, FieldList fields) except -1
    # Remembers what the field of an entry means for as long as the entry is in the table: it is the Field.meaning of
    # the same entry from now on. Nothing happens if the entry is 0, or has left the table meanwhile, or is in the
    # static table, but of no pseudo field of requests. The end of a meaning's life must run no Python: str, bytes, int,
    # and tuples of them will do.
    cdef int remember(self, uint32_t entry, object meaning) except -1


cdef struct SentField:          # an entry of the encoder's dynamic table
    PyObject* name              # owned; bytes, in lower case
    PyObject* value             # owned; bytes
    uint32_t hash
    uint16_t size               # by the measure of RFC 7541 section 4.1
    uint8_t next                # the slot of an older field in the same chain, counted from 1; 0: there is none


cdef class HPACKEncoder:
    """Writes the header blocks for one peer.

    Every put_* writes at `p`, where room() bytes have to be there, and returns the end of what it wrote. A block begins
    with begin_block(). What was put has to be sent, in the same order, or nothing can be put any more. No Python code
    runs meanwhile, nor the collector: nothing that it tracks is made.
    """

    cdef:
        SentField* ring         # entry n is at n & (capacity - 1)
        uint32_t capacity       # a power of two, or 0
        uint32_t count
        uint32_t inserted       # entries so far, in the circle of 32 bits
        Py_ssize_t size         # of the entries that are known here; the peer may have older ones
        Py_ssize_t max_size     # of the table
        Py_ssize_t told_size    # what max_size was when the peer was told
        Py_ssize_t least_size   # what max_size has been since then, at least
        uint8_t chains[SENT_CHAINS]     # by hash: the newest entry's slot, counted from 1; 0: there is none
        uint16_t seen[SEEN_FIELDS]      # by hash: what was sent once and not put into the table
        # The default fields as they were encoded last, for the same defaults, second and table
        PyObject* defaults      # owned, or NULL: a DefaultFields
        long defaults_second
        uint32_t defaults_inserted
        int defaults_bytes
        char defaults_block[REMEMBERED_DEFAULTS]

    # Bytes that a block takes at most. fields_bytes: those of names and values of `count` fields. Status, defaults (or
    # None), a content-length and updates of the table's size are included.
    cdef Py_ssize_t room(self, DefaultFields defaults, Py_ssize_t fields_bytes, Py_ssize_t count) noexcept
    cdef char* begin_block(self, char* p) noexcept
    cdef char* put_status(self, char* p, int status) except NULL
    # The server's own fields, but for those that the application has set itself
    cdef char* put_defaults(self, char* p, DefaultFields defaults, bint has_server, bint has_date) except NULL
    # Of (bytes, bytes) tuples, exact types both. Names are written in lower case, values without blanks at their ends.
    # Connection-specific fields are left out (RFC 9113 section 8.2.2), and so is te.
    cdef char* put_fields(self, char* p, list fields) except NULL
    cdef char* put_content_length(self, char* p, long long n) noexcept
    cdef void set_max_size(self, Py_ssize_t n) noexcept      # the peer's SETTINGS_HEADER_TABLE_SIZE, n >= 0
