"""HTTP/1.x request heads: bytes in, plain data out (RFC 9112).

Three layers: reading the grammar (request line, fields), deciding what the fields mean for the message
(`decide_*`, one set of rules for both head parsers), and building Python objects of the result.
"""

from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int16_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from fastasgi.codecs.fieldnames cimport (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    MEANINGFUL_NAMES,
    TRANSFER_ENCODING,
    UPGRADE,
    NameTable,
    is_shared,
    known_index,
    name_table,
    new_pair,
    shared_pair,
)
from fastasgi.codecs.headreader cimport UNDERSCORES_ALLOW, UNDERSCORES_REFUSE, HeadReader, unlent_reader
from fastasgi.codecs.scan cimport (
    SCAN_NAME_BYTES,
    SCAN_REGNAME,
    SCAN_TOKEN,
    SCAN_VALUE,
    ScanClass,
    ScanImplementation,
    ScanName,
    scan,
    scan_choose,
    scan_fold,
    scan_is,
    scan_is_blank,
    scan_lower,
    scan_name,
    scan_with,
)
from fastasgi.codecs.target cimport decode_path, is_host, is_named_host, method_text, read_path, read_query
from fastasgi.codecs.text cimport (
    Span, equals_folded, is_token, read_length, span, span_of, trim_left, trim_right, trimmed,
)

import httptools


cdef const NameTable* interned = name_table()

scan_choose()


# --- Refusals ---

# A function that reads a part of a head returns the pointer behind it, or NULL: either more data is needed
# (head.status is 0), or the head is refused (head.status says how).

cdef inline const uint8_t* refuse(RequestHead* head, int status, const char* reason) noexcept nogil:
    head.status = status
    head.reason = reason
    return NULL


cdef inline bint reject(RequestHead* head, int status, const char* reason) noexcept nogil:
    """Refuse a head. Returns the False that a function which decides, rather than reads, returns then."""
    refuse(head, status, reason)
    return False


# --- The request line (RFC 9112 section 3) ---

cdef enum:
    # Which fields were seen, and what they asked for
    SEEN_HOST = 1
    SEEN_UPGRADE = 2            # with a value: an empty one names no protocol
    SAID_CLOSE = 4
    SAID_KEEP_ALIVE = 8
    SAID_UPGRADE = 16
    SEEN_OTHER_CODING = 32      # in Transfer-Encoding, another one than chunked

cdef struct Draft:              # what is known of a head before its fields are all read
    int seen                    # bits of SEEN_ and SAID_
    int host                    # index of the Host field
    Span authority              # of an absolute-form target; p is NULL for the other forms


cdef inline bint method_is(const RequestHead* head, const char* literal, Py_ssize_t length) noexcept nogil:
    return head.method.n == length and memcmp(head.method.p, literal, length) == 0


cdef const uint8_t* read_asterisk(RequestHead* head, const uint8_t* p) noexcept nogil:
    # RFC 9112 section 3.2.4. PRI is let through to have the HTTP/2 preface refused for its version.
    if not (method_is(head, "OPTIONS", 7) or method_is(head, "PRI", 3)):
        return refuse(head, 400, "the target * goes with OPTIONS only")
    head.path = span(p, p + 1)
    return p + 1


cdef const uint8_t* read_scheme(RequestHead* head, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Read `http://` or `https://`, in any case (RFC 3986 section 3.1)."""
    cdef const char* scheme = "https://"
    cdef uint8_t byte
    while scheme[0]:
        if p == end:
            return NULL
        byte = p[0] if p[0] == c":" or p[0] == c"/" else scan_lower[p[0]]
        if scheme[0] == c"s" and byte == c":":
            scheme += 1
        if byte != <uint8_t>scheme[0]:
            return refuse(head, 400, "the target is neither a path nor an http or https URL")
        scheme += 1
        p += 1
    return p


cdef const uint8_t* read_authority(
    RequestHead* head, Draft* draft, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Read the scheme and authority of an absolute-form target (RFC 9112 section 3.2.2)."""
    cdef const uint8_t* host = read_scheme(head, p, end)
    if host is NULL:
        return NULL
    p = host
    while p < end and p[0] != c"/" and p[0] != c"?" and p[0] != c" ":
        # "@" is not among these: RFC 9110 section 4.2.4 calls userinfo an error.
        if not (scan_is(SCAN_REGNAME, p[0]) or p[0] == c":" or p[0] == c"%" or p[0] == c"[" or p[0] == c"]"):
            return refuse(head, 400, "the target's host is malformed")
        p += 1
    if p == end:
        return NULL
    # RFC 9110 section 4.2.1: an http URI without a host is invalid.
    if not is_named_host(host, p):
        return refuse(head, 400, "the target's host is malformed")
    draft.authority = span(host, p)
    return p


cdef const uint8_t* read_target(
    RequestHead* head, Draft* draft, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Read a target. The caller looks at what stands behind it."""
    cdef const uint8_t* path
    head.query = span(p, p)
    head.path_is_plain = True
    draft.authority.p = NULL
    if p == end:
        return NULL
    if p[0] == c"*":
        return read_asterisk(head, p)
    if p[0] != c"/":
        p = read_authority(head, draft, p, end)
        if p is NULL:
            return NULL
    path = p
    p = read_path(p, end, &head.path, &head.path_is_plain)
    if p == path:
        # The path is empty: that happens only behind an authority, and another byte follows. It means "/" (RFC 9110
        # section 4.2.3), or to OPTIONS "*" (RFC 9112 section 3.2.4).
        head.path.p = "*" if p[0] == c" " and method_is(head, "OPTIONS", 7) else "/"
        head.path.n = 1
    return read_query(p, end, &head.query)


cdef const uint8_t* read_version(RequestHead* head, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Read `HTTP/1.` with one more digit, and the CRLF (RFC 9112 section 2.3)."""
    cdef const char* form = "HTTP/1.1"
    cdef int i
    cdef Py_ssize_t n = end - p
    if n >= 10 and memcmp(p, "HTTP/1.1\r\n", 10) == 0:
        head.minor_version = 1
        return p + 10
    for i in range(8):
        if i == n:
            return NULL
        if not (c"0" <= p[i] <= c"9" if i == 5 or i == 7 else p[i] == <uint8_t>form[i]):
            return refuse(head, 400, "the request line does not end in a version")
    if p[5] != c"1":
        return refuse(head, 505, "the version is not one of HTTP/1")
    # RFC 9110 section 2.5: a minor version above ours is read as ours
    head.minor_version = 0 if p[7] == c"0" else 1
    if n > 8 and p[8] != c"\r" or n > 9 and p[9] != c"\n":
        return refuse(head, 400, "the request line does not end in CRLF")
    return p + 10 if n >= 10 else NULL


cdef const uint8_t* read_request_line(
    RequestHead* head, Draft* draft, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    cdef const uint8_t* method = p
    if end - p >= 4 and memcmp(p, "GET ", 4) == 0:
        p += 3
    else:
        p = scan(SCAN_TOKEN, p, end)
        if p == end:
            return NULL
        if p[0] != c" " or p == method:
            return refuse(head, 400, "the method is malformed")
    head.method = span(method, p)
    if method_is(head, "CONNECT", 7):
        return refuse(head, 501, "CONNECT is not implemented")
    p = read_target(head, draft, p + 1, end)
    if p is NULL or p == end:
        return NULL
    if p[0] != c" ":
        return refuse(head, 400, "the target is malformed")
    p = read_version(head, p + 1, end)
    if p is not NULL and method_is(head, "PRI", 3):
        return refuse(head, 400, "the method PRI belongs to the HTTP/2 preface")     # RFC 9113 section 11.6
    return p


# --- What the fields mean ---

cdef bint decide_content_length(RequestHead* head, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """What Content-Length means (RFC 9112 section 6.3). No list and no repetition is accepted, even of equal
    lengths."""
    if head.content_length >= 0:
        return reject(head, 400, "Content-Length is repeated")
    if head.chunked:
        return reject(head, 400, "Content-Length with Transfer-Encoding")
    head.content_length = read_length(span(p, end))
    return head.content_length >= 0 or reject(head, 400, "Content-Length is malformed")


cdef bint decide_transfer_encoding(
    RequestHead* head, Draft* draft, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """What Transfer-Encoding means: chunked once, as the last coding, in HTTP/1.1 (RFC 9112 sections 6.1 and 7).

    Of other codings decide_head() makes a refusal: only there is known which one is the last.
    """
    cdef const uint8_t* coding
    cdef const uint8_t* comma
    cdef const uint8_t* behind
    cdef const uint8_t* parameters
    cdef bint is_chunked
    if head.minor_version == 0:
        return reject(head, 400, "Transfer-Encoding in HTTP/1.0")
    if head.content_length >= 0:
        return reject(head, 400, "Content-Length with Transfer-Encoding")
    while True:
        if head.chunked:
            return reject(head, 400, "a transfer coding behind chunked")
        comma = <const uint8_t*>memchr(p, c",", end - p)
        if comma is NULL:
            comma = end
        coding = trim_left(p, comma)
        behind = trim_right(coding, comma)
        parameters = scan(SCAN_TOKEN, coding, behind)
        is_chunked = equals_folded(span(coding, parameters), "chunked", 7)
        if is_chunked and parameters == behind:
            head.chunked = True
        elif is_chunked or parameters == coding or (
            parameters != behind and trim_left(parameters, behind)[0] != c";"
        ):
            # RFC 9112 section 7.1: chunked has no parameters
            return reject(head, 400, "Transfer-Encoding is malformed")
        else:
            draft.seen |= SEEN_OTHER_CODING
        if comma == end:
            return True
        p = comma + 1


cdef void decide_connection(Draft* draft, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Collect the options of Connection that matter here; others are passed over (RFC 9110 section 7.6.1)."""
    cdef const uint8_t* comma
    cdef Span option
    while p < end:
        comma = <const uint8_t*>memchr(p, c",", end - p)
        if comma is NULL:
            comma = end
        option = trimmed(p, comma)
        if equals_folded(option, "close", 5):
            draft.seen |= SAID_CLOSE
        elif equals_folded(option, "keep-alive", 10):
            draft.seen |= SAID_KEEP_ALIVE
        elif equals_folded(option, "upgrade", 7):
            draft.seen |= SAID_UPGRADE
        p = comma + 1


cdef bint decide_field(
    RequestHead* head, Draft* draft, int known, int index, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Decide what field `index` with the value (p, end) means for the message. False if the head is refused."""
    if known == HOST:
        # RFC 9112 section 3.2: more than one, or an invalid one, is a 400.
        if draft.seen & SEEN_HOST:
            return reject(head, 400, "Host is repeated")
        if not is_host(p, end):
            return reject(head, 400, "Host is malformed")
        draft.seen |= SEEN_HOST
        draft.host = index
    elif known == CONTENT_LENGTH:
        return decide_content_length(head, p, end)
    elif known == TRANSFER_ENCODING:
        return decide_transfer_encoding(head, draft, p, end)
    elif known == CONNECTION:
        decide_connection(draft, p, end)
    elif known == EXPECT:
        # RFC 9110 section 10.1.1: expectations of HTTP/1.0 are ignored.
        if head.minor_version == 1:
            if not equals_folded(span(p, end), "100-continue", 12):
                return reject(head, 417, "an expectation other than 100-continue")
            head.expect_continue = True
    elif known == UPGRADE and p != end:
        draft.seen |= SEEN_UPGRADE
    return True


cdef void replace_host(RequestHead* head, const Draft* draft) noexcept nogil:
    """Have the target's authority, if it has one, replace the Host field (RFC 9112 section 3.2.2)."""
    cdef int index = draft.host
    if not draft.seen & SEEN_HOST:
        index = head.field_count
        head.field_count += 1
        head.fields[index].name = "host"
        head.fields[index].name_length = 4
        head.fields[index].known = HOST
    head.fields[index].value = draft.authority.p
    head.fields[index].value_length = <uint32_t>draft.authority.n


cdef bint decide_head(RequestHead* head, const Draft* draft) noexcept nogil:
    """Decide what all fields together mean. False if the head is refused."""
    if head.minor_version == 1 and not draft.seen & SEEN_HOST:
        return reject(head, 400, "Host is missing")
    if draft.seen & SEEN_OTHER_CODING:
        # RFC 9112 section 6.3: if chunked is not the last one, nobody knows how long the body is
        if head.chunked:
            return reject(head, 501, "a transfer coding other than chunked")
        return reject(head, 400, "chunked is not the last transfer coding")
    if draft.authority.p is not NULL:
        replace_host(head, draft)
    # RFC 9112 section 9.3
    if draft.seen & SAID_CLOSE:
        head.keep_alive = False
    else:
        head.keep_alive = head.minor_version == 1 or draft.seen & SAID_KEEP_ALIVE != 0
    head.upgrade = draft.seen & (SAID_UPGRADE | SEEN_UPGRADE) == SAID_UPGRADE | SEEN_UPGRADE
    return True


# --- Fields (RFC 9112 section 5) ---

cdef struct Limits:
    Py_ssize_t request_line_bytes       # without its CRLF
    Py_ssize_t head_bytes
    int fields
    int underscores                     # one of Underscores


cdef const uint8_t* read_name(RequestHead* head, const uint8_t* name, const uint8_t* end) noexcept nogil:
    """Validate a name byte by byte, up to its colon."""
    cdef const uint8_t* p = scan(SCAN_TOKEN, name, end)
    if p == end:
        return NULL
    if p[0] == c":" and p != name:
        return p
    if scan_is_blank(p[0]):
        # RFC 9112 sections 2.2, 5.1 and 5.2
        return refuse(head, 400, "a header begins with a blank, or has one before its colon")
    return refuse(head, 400, "a header name is malformed")


cdef int find_folded(const uint8_t* name, size_t n) noexcept nogil:
    """The index of a valid name, in any case, among the interned ones, or -1."""
    cdef ScanName folded
    if n > SCAN_NAME_BYTES:
        return -1
    scan_fold(name, n, &folded)
    return known_index(interned, &folded, n)


cdef inline const uint8_t* read_field(
    RequestHead* head, HeaderField* field, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Read one field line, CRLF included, into `field`."""
    cdef ScanName folded
    cdef const uint8_t* name = p
    cdef const uint8_t* value
    cdef size_t n = scan_name(p, end, &folded)
    cdef int known = known_index(interned, &folded, n) if n else -1
    if known >= 0:
        p += n
    else:
        p = read_name(head, name, end)
        if p is NULL:
            return NULL
        if n == 0:
            known = find_folded(name, <size_t>(p - name))
    field.known = <int16_t>known
    field.name = <const char*>name
    field.name_length = <uint32_t>(p - name)
    value = trim_left(p + 1, end)
    # Names are of the same class: scanning the whole line makes this independent of the colon's place.
    p = scan(SCAN_VALUE, name, end)
    if p == end or p[0] == c"\r" and p + 1 == end:
        return NULL
    if p[0] != c"\r" or p[1] != c"\n":
        return refuse(head, 400, "a control byte, or a line end other than CRLF, in a header value")
    field.value = <const char*>value
    field.value_length = <uint32_t>(trim_right(value, p) - value)
    return p + 2


cdef bint keep_field(RequestHead* head, const Limits* limits, const HeaderField* field) noexcept nogil:
    """Whether a field that is not interned is kept; head.status is set if it is refused."""
    if limits.underscores == UNDERSCORES_ALLOW or memchr(field.name, c"_", field.name_length) is NULL:
        return True
    if limits.underscores == UNDERSCORES_REFUSE:
        refuse(head, 400, "an underscore in a header name")
    return False


cdef const uint8_t* read_fields(
    RequestHead* head, Draft* draft, const Limits* limits, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Read the field lines and the empty line behind them."""
    cdef HeaderField* field
    cdef int count = 0          # of fields, with those that are dropped
    cdef int kept = 0
    while True:
        if p == end:
            return NULL
        if p[0] == c"\r":
            if p + 1 == end:
                return NULL
            if p[1] != c"\n":
                return refuse(head, 400, "a bare CR")
            head.field_count = kept
            return p + 2
        if count == limits.fields:
            return refuse(head, 431, "too many headers")
        count += 1
        field = &head.fields[kept]
        p = read_field(head, field, p, end)
        if p is NULL:
            return NULL
        if field.known < 0:
            if keep_field(head, limits, field):
                kept += 1
            elif head.status:
                return NULL
            continue
        if field.known < MEANINGFUL_NAMES and not decide_field(
            head, draft, field.known, kept, <const uint8_t*>field.value,
            <const uint8_t*>field.value + field.value_length
        ):
            return NULL
        kept += 1


# --- The whole head ---

cdef inline void begin_head(RequestHead* head, Draft* draft) noexcept nogil:
    head.status = 0
    head.method.n = head.path.n = head.query.n = 0
    head.minor_version = -1
    head.content_length = -1
    head.chunked = False
    head.expect_continue = False
    draft.seen = 0


cdef Py_ssize_t skip_blank_lines(const char* p, const char* end, bint* begun) noexcept nogil:
    cdef const char* line = p
    while end - line >= 2 and line[0] == c"\r" and line[1] == c"\n":
        line += 2
    # If only a CR has come, it may be an empty line or a part of one
    begun[0] = line < end and (line[0] != c"\r" or end - line > 1)
    return line - p


cdef const uint8_t* read_limited_line(
    RequestHead* head, Draft* draft, const Limits* limits, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Read the request line within its limit. What lies behind the limit is not looked at."""
    cdef const uint8_t* limit = p + min(limits.request_line_bytes, end - p)
    # More has come than a line may have, unless its CRLF begins at the limit, or one byte before
    cdef bint too_long = limit != end and limit[0] != c"\r" and not (limit[0] == c"\n" and (limit - 1)[0] == c"\r")
    if too_long:
        end = limit
    elif end - limit > 2:
        end = limit + 2         # the CRLF
    p = read_request_line(head, draft, p, end)
    if p is NULL and not head.status and too_long:
        refuse(head, 414, "the request line is too long")
    return p


cdef Py_ssize_t read_head(
    RequestHead* head, const Limits* limits, const uint8_t* line, const uint8_t* end
) noexcept nogil:
    """Parse a head. Returns its bytes; 0 if it needs more; -1 if it is refused.

    Input behind a limit is not looked at: how a head is refused does not depend on how much has arrived.
    """
    cdef Draft draft
    cdef const uint8_t* p
    begin_head(head, &draft)
    if end - line > limits.head_bytes:
        end = line + limits.head_bytes
    p = read_limited_line(head, &draft, limits, line, end)
    if p is not NULL:
        p = read_fields(head, &draft, limits, p, end)
    if p is not NULL:
        return p - line if decide_head(head, &draft) else -1
    if not head.status and end - line >= limits.head_bytes:
        refuse(head, 431, "the head is too long")
    return -1 if head.status else 0


cdef class HeadParser(HeadReader):
    def __cinit__(self):
        # One field more than the limit, since an HTTP/1.0 head may get its Host from the target
        self.head.fields = <HeaderField*>PyMem_Calloc(self.max_header_count + 1, sizeof(HeaderField))
        if self.head.fields is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.head.fields)

    def read(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return parsed_head(self, <const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef Py_ssize_t parse(self, const char* p, const char* end, Py_ssize_t blank_bytes) except -2:
        cdef Limits limits = limits_of(self, blank_bytes)
        return read_head(&self.head, &limits, <const uint8_t*>p, <const uint8_t*>end)


cdef HeadParser unlent_parser(HeadParser parser):
    return unlent_reader(parser)


cdef inline Limits limits_of(HeadParser parser, Py_ssize_t blank_bytes) noexcept:
    cdef Limits limits
    limits.request_line_bytes = parser.max_request_line_bytes
    limits.head_bytes = parser.max_head_bytes - blank_bytes
    limits.fields = parser.max_header_count
    limits.underscores = parser.underscores
    return limits


# --- llhttp ---

cdef class LlhttpFields:
    """Collects what llhttp calls back; owns the bytes."""

    cdef list names
    cdef list values
    cdef bint complete

    def __cinit__(self):
        self.names = []
        self.values = []

    def on_header(self, bytes name, bytes value):
        self.names.append(name)
        self.values.append(value)

    def on_headers_complete(self):
        self.complete = True


cdef const uint8_t* find_head_end(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """The pointer behind the first CRLF CRLF, or NULL."""
    while end - p >= 4:
        p = <const uint8_t*>memchr(p, c"\r", end - p - 3)
        if p is NULL:
            return NULL
        if memcmp(p, "\r\n\r\n", 4) == 0:
            return p + 4
        p += 1
    return NULL


cdef bint has_lines(const uint8_t* p, const uint8_t* end, Py_ssize_t expected) noexcept nogil:
    """Whether there are as many CR and LF as the lines that llhttp has seen have CRLF."""
    cdef Py_ssize_t returns = 0
    cdef Py_ssize_t feeds = 0
    cdef Py_ssize_t i
    for i in range(end - p):
        returns += p[i] == c"\r"
        feeds += p[i] == c"\n"
    return returns == expected and feeds == expected


cdef bint read_llhttp_field(
    RequestHead* head, Draft* draft, const Limits* limits, Span name_span, Span value_span
) noexcept nogil:
    """Put a field of llhttp's through the rules of our own grammar. False if it is refused."""
    cdef HeaderField* field = &head.fields[head.field_count]
    cdef const uint8_t* name = <const uint8_t*>name_span.p
    cdef const uint8_t* value = <const uint8_t*>value_span.p
    cdef const uint8_t* end = value + value_span.n
    if not is_token(name_span.p, name_span.n):
        return reject(head, 400, "a header name is malformed")
    if scan(SCAN_VALUE, value, end) != end:
        return reject(head, 400, "a control byte, or a line end other than CRLF, in a header value")
    value_span = trimmed(value, end)
    field.name = name_span.p
    field.name_length = <uint32_t>name_span.n
    field.value = value_span.p
    field.value_length = <uint32_t>value_span.n
    field.known = <int16_t>find_folded(name, <size_t>name_span.n)
    if field.known < 0:
        if not keep_field(head, limits, field):
            return head.status == 0
    elif field.known < MEANINGFUL_NAMES and not decide_field(
        head, draft, field.known, head.field_count, <const uint8_t*>value_span.p,
        <const uint8_t*>value_span.p + value_span.n
    ):
        return False
    head.field_count += 1
    return True


cdef int read_llhttp_fields(
    LlhttpHeadParser parser, Draft* draft, const Limits* limits, const uint8_t* p, const uint8_t* fields_at,
    const uint8_t* end
) except -1:
    """Read the fields of the head (p, end). 0 if it is refused."""
    cdef LlhttpFields fields = LlhttpFields()
    cdef Py_ssize_t i
    cdef bytes data = PyBytes_FromStringAndSize(<const char*>p, end - p)
    # llhttp knows no later minor version, which is the last byte before the CRLF
    PyBytes_AS_STRING(data)[fields_at - p - 3] = <char>(c"0" + parser.head.minor_version)
    llhttp = httptools.HttpRequestParser(fields)
    try:
        llhttp.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return reject(&parser.head, 400, "llhttp refuses the head")
    if not fields.complete or not has_lines(p, end, len(fields.names) + 2):
        return reject(&parser.head, 400, "llhttp sees line ends other than CRLF")
    parser.lines = fields
    if len(fields.names) > limits.fields:
        return reject(&parser.head, 431, "too many headers")
    for i in range(len(fields.names)):
        if not read_llhttp_field(
            &parser.head, draft, limits, span_of(<bytes>fields.names[i]), span_of(<bytes>fields.values[i])
        ):
            return False
    return True


cdef class LlhttpHeadParser(HeadParser):
    cdef Py_ssize_t parse(self, const char* p, const char* end, Py_ssize_t blank_bytes) except -2:
        """Read the request line by our own rules, the fields by llhttp. Our rules decide what they mean.

        Waits for the whole head, since llhttp can't begin again from its start.
        """
        cdef Limits limits = limits_of(self, blank_bytes)
        cdef RequestHead* head = &self.head
        cdef Draft draft
        cdef const uint8_t* line = <const uint8_t*>p
        cdef const uint8_t* stop = <const uint8_t*>end
        cdef const uint8_t* fields_at
        cdef const uint8_t* behind
        begin_head(head, &draft)
        head.field_count = 0
        if stop - line > limits.head_bytes:
            stop = line + limits.head_bytes
        behind = find_head_end(line, stop)
        fields_at = read_limited_line(head, &draft, &limits, line, stop)
        if fields_at is NULL or behind is NULL:
            if not head.status and stop - line >= limits.head_bytes:
                refuse(head, 431, "the head is too long")
            return -1 if head.status else 0
        if not (
            read_llhttp_fields(self, &draft, &limits, line, fields_at, behind) and decide_head(head, &draft)
        ):
            return -1
        return behind - line


# --- Python objects ---

cdef bint has_forwarded(const RequestHead* head) noexcept nogil:
    cdef int i
    for i in range(head.field_count):
        if head.fields[i].known >= 0 and interned.names[head.fields[i].known].is_forwarded:
            return True
    return False


cdef bint is_of_head(const char* line, Py_ssize_t n) noexcept nogil:
    return n >= 5 and memcmp(line, "HEAD ", 5) == 0


cdef str method_of(const RequestHead* head):
    return method_text(head.method)


cdef str path_of(const RequestHead* head):
    return decode_path(head.path, head.path_is_plain)


cdef bytes name_of(const HeaderField* field):
    cdef bytes name
    cdef uint8_t* out
    cdef uint32_t i
    if field.known >= 0:
        return <bytes>interned.names[field.known].object
    name = PyBytes_FromStringAndSize(NULL, field.name_length)
    out = <uint8_t*>PyBytes_AS_STRING(name)
    for i in range(field.name_length):
        out[i] = scan_lower[<uint8_t>field.name[i]]
    return name


cdef list headers_of(HeadParser parser):
    cdef const RequestHead* head = &parser.head
    cdef list headers = PyList_New(head.field_count)
    cdef const HeaderField* field = head.fields
    cdef PyObject** shared = parser.shared.pairs
    cdef tuple pair
    cdef int i
    for i in range(head.field_count):
        if is_shared(field.known, field.value_length):
            PyList_SET_ITEM(headers, i, <object>shared_pair(
                shared, interned, field.known, field.value, field.value_length))
        else:
            pair = new_pair(name_of(field), field.value, field.value_length)
            Py_INCREF(pair)
            PyList_SET_ITEM(headers, i, pair)
        field += 1
    return headers


# --- For Python: tests, fuzzing, measuring ---

class ParseError(ValueError):
    """Malformed or refused input; `status` is the HTTP status that answers it."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


ParsedHead = namedtuple(
    "ParsedHead",
    "consumed method path raw_path query minor_version headers content_length chunked keep_alive"
    " expect_continue upgrade",
)

cdef object parsed_head(HeadParser parser, const char* p, Py_ssize_t n):
    cdef bint begun
    cdef Py_ssize_t blank_bytes = skip_blank_lines(p, p + n, &begun)
    cdef Py_ssize_t consumed = 0
    cdef const RequestHead* head = &parser.head
    if blank_bytes > parser.max_head_bytes:
        raise ParseError(431, "too many empty lines before the request line")
    if begun:
        consumed = parser.parse(p + blank_bytes, p + n, blank_bytes)
    if consumed == 0:
        return None
    if consumed < 0:
        raise ParseError(head.status, head.reason.decode("ascii"))
    return ParsedHead(
        blank_bytes + consumed, method_of(head), path_of(head), head.path.p[:head.path.n], head.query.p[:head.query.n],
        head.minor_version, headers_of(parser), head.content_length, bool(head.chunked), bool(head.keep_alive),
        bool(head.expect_continue), bool(head.upgrade),
    )


def parse_request_head(data, *, bint llhttp=False, **limits):
    return (LlhttpHeadParser(**limits) if llhttp else HeadParser(**limits)).read(data)


# In the order of ScanClass and of ScanImplementation
_SCAN_CLASSES = ("value", "path", "query", "token", "regname", "quoted")
_SCAN_IMPLEMENTATIONS = ("scalar", "16", "32", "chosen")


def _scan(str implementation, str kind, data, Py_ssize_t start=0):
    """For tests: the index of the first byte outside a class; None if there is no such implementation."""
    cdef Py_buffer view
    cdef const uint8_t* p
    cdef const uint8_t* found
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        p = <const uint8_t*>view.buf
        found = scan_with(
            <ScanImplementation><int>_SCAN_IMPLEMENTATIONS.index(implementation),
            <ScanClass><int>_SCAN_CLASSES.index(kind), p + start, p + view.len,
        )
        return None if found is NULL else found - p
    finally:
        PyBuffer_Release(&view)
