"""See priority.pxd for the contracts."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t

from fastasgi.codecs.scan cimport SCAN_TOKEN, scan_is
from fastasgi.codecs.text cimport is_digit, read_decimal, span, trim_left

cdef enum:
    MAX_INTEGER_DIGITS = 15             # RFC 9651 section 4.2.4
    MAX_WHOLE_DIGITS = 12               # of a decimal, before its point
    MAX_FRACTION_DIGITS = 3

cdef enum ItemType:                     # as far as it matters here
    INTEGER
    BOOLEAN
    OTHER

cdef struct BareItem:
    ItemType type
    int64_t number              # of an integer; of a boolean 0 or 1


# --- Structured fields (RFC 9651 section 4.2) ---

# A function that reads or skips a part of a value returns the pointer behind it, or NULL if it is malformed.

cdef inline bint is_lower(uint8_t byte) noexcept nogil:
    return c"a" <= byte <= c"z"


cdef inline bint is_alpha(uint8_t byte) noexcept nogil:
    return is_lower(byte | 0x20)


cdef inline const uint8_t* skip_spaces(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and p[0] == c" ":
        p += 1
    return p


cdef inline const uint8_t* skip_digits(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and is_digit(p[0]):
        p += 1
    return p


cdef const uint8_t* skip_key(const uint8_t* p, const uint8_t* end) noexcept nogil:
    if p == end or not (is_lower(p[0]) or p[0] == c"*"):
        return NULL
    while p < end and (
        is_lower(p[0]) or is_digit(p[0]) or p[0] == c"_" or p[0] == c"-" or p[0] == c"." or p[0] == c"*"
    ):
        p += 1
    return p


cdef const uint8_t* read_number(const uint8_t* p, const uint8_t* end, BareItem* item) noexcept nogil:
    """Read an integer or a decimal."""
    cdef bint negative = p[0] == c"-"
    cdef const uint8_t* whole = p + negative
    cdef const uint8_t* fraction
    p = skip_digits(whole, end)
    if p == whole or p - whole > MAX_INTEGER_DIGITS:
        return NULL
    if p == end or p[0] != c".":
        item.type = INTEGER
        item.number = read_decimal(span(whole, p), INT64_MAX)
        if negative:
            item.number = -item.number
        return p
    fraction = p + 1
    if p - whole > MAX_WHOLE_DIGITS:
        return NULL
    p = skip_digits(fraction, end)
    return p if 1 <= p - fraction <= MAX_FRACTION_DIGITS else NULL


cdef const uint8_t* skip_string(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Skip the rest of a string, behind its first quote."""
    while p < end and 0x20 <= p[0] <= 0x7e:
        if p[0] == c'"':
            return p + 1
        if p[0] == c"\\":
            p += 1
            if p == end or p[0] != c'"' and p[0] != c"\\":
                return NULL
        p += 1
    return NULL


cdef inline bint is_lower_hex(uint8_t byte) noexcept nogil:
    return is_digit(byte) or c"a" <= byte <= c"f"


cdef const uint8_t* skip_display_string(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Skip the rest of a display string, behind its percent sign. Whether it is UTF-8 is not looked at."""
    if p == end or p[0] != c'"':
        return NULL
    p += 1
    while p < end and 0x20 <= p[0] <= 0x7e:
        if p[0] == c'"':
            return p + 1
        if p[0] == c"%":
            if end - p < 3 or not (is_lower_hex(p[1]) and is_lower_hex(p[2])):
                return NULL
            p += 2
        p += 1
    return NULL


cdef const uint8_t* skip_bytes(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Skip the rest of a byte sequence, behind its first colon. Whether it is whole base64 is not looked at."""
    while p < end and (is_alpha(p[0]) or is_digit(p[0]) or p[0] == c"+" or p[0] == c"/" or p[0] == c"="):
        p += 1
    return p + 1 if p < end and p[0] == c":" else NULL


cdef const uint8_t* read_bare_item(const uint8_t* p, const uint8_t* end, BareItem* item) noexcept nogil:
    item.type = OTHER
    if p == end:
        return NULL
    if is_digit(p[0]) or p[0] == c"-":
        return read_number(p, end, item)
    if is_alpha(p[0]) or p[0] == c"*":
        while p < end and (scan_is(SCAN_TOKEN, p[0]) or p[0] == c":" or p[0] == c"/"):
            p += 1
        return p
    if p[0] == c"?":
        if end - p < 2 or p[1] != c"0" and p[1] != c"1":
            return NULL
        item.type = BOOLEAN
        item.number = p[1] - c"0"
        return p + 2
    if p[0] == c'"':
        return skip_string(p + 1, end)
    if p[0] == c":":
        return skip_bytes(p + 1, end)
    if p[0] == c"%":
        return skip_display_string(p + 1, end)
    if p[0] == c"@" and p + 1 < end and (is_digit(p[1]) or p[1] == c"-"):
        p = read_number(p + 1, end, item)
        if p is not NULL and item.type != INTEGER:
            return NULL
        item.type = OTHER
        return p
    return NULL


cdef const uint8_t* skip_parameters(const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef BareItem item
    while p < end and p[0] == c";":
        p = skip_key(skip_spaces(p + 1, end), end)
        if p is not NULL and p < end and p[0] == c"=":
            p = read_bare_item(p + 1, end, &item)
        if p is NULL:
            return NULL
    return p


cdef const uint8_t* skip_inner_list(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Skip the rest of an inner list, behind its parenthesis, up to its parameters."""
    cdef BareItem item
    while True:
        p = skip_spaces(p, end)
        if p < end and p[0] == c")":
            return p + 1
        p = read_bare_item(p, end, &item)
        if p is not NULL:
            p = skip_parameters(p, end)
        if p is NULL or p == end or p[0] != c" " and p[0] != c")":
            return NULL


cdef const uint8_t* read_member(const uint8_t* p, const uint8_t* end, BareItem* item) noexcept nogil:
    """Read what stands behind a key of a dictionary: nothing, which means true, or "=" and a value; parameters."""
    item.type = BOOLEAN
    item.number = 1
    if p < end and p[0] == c"=":
        p += 1
        if p < end and p[0] == c"(":
            item.type = OTHER
            p = skip_inner_list(p + 1, end)
        else:
            p = read_bare_item(p, end, item)
    if p is NULL:
        return NULL
    return skip_parameters(p, end)


# --- What the parameters mean (RFC 9218 section 4) ---

cdef inline void set_default(Priority* priority) noexcept nogil:
    priority.urgency = DEFAULT_URGENCY
    priority.incremental = False


cdef inline void decide_member(Priority* priority, uint8_t key, const BareItem* item) noexcept nogil:
    """Of a key that comes again the last value counts: it takes the place of the one before, whatever it is."""
    if key == c"u":
        if item.type == INTEGER and MOST_URGENT <= item.number <= LEAST_URGENT:
            priority.urgency = <uint8_t>item.number
        else:
            priority.urgency = DEFAULT_URGENCY
    elif key == c"i":
        priority.incremental = item.type == BOOLEAN and item.number == 1


cdef const uint8_t* read_members(Priority* priority, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Read a dictionary up to the last byte that belongs to it."""
    cdef const uint8_t* key
    cdef bint is_single
    cdef BareItem item
    while p < end:
        key = p
        p = skip_key(p, end)
        if p is NULL:
            return NULL
        is_single = p - key == 1
        p = read_member(p, end, &item)
        if p is NULL:
            return NULL
        if is_single:
            decide_member(priority, key[0], &item)
        p = trim_left(p, end)
        if p == end:
            return p
        if p[0] != c",":
            return NULL
        p = trim_left(p + 1, end)
        if p == end:
            return NULL                 # no comma may be the last
    return p


cdef bint read_priority(Priority* priority, const char* p, Py_ssize_t n) noexcept nogil:
    cdef const uint8_t* end = <const uint8_t*>p + n
    set_default(priority)
    if read_members(priority, skip_spaces(<const uint8_t*>p, end), end) is not NULL:
        return True
    set_default(priority)
    return False


# --- For Python: tests ---

ResponsePriority = namedtuple("ResponsePriority", "urgency incremental")


def parse_priority(bytes value not None):
    cdef Priority priority
    if not read_priority(&priority, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)):
        return None
    return ResponsePriority(priority.urgency, bool(priority.incremental))
