"""See http2head.pxd for the contracts."""

from collections import namedtuple

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memset

from fastasgi.codecs.fieldnames cimport (
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    EXPECT,
    FORWARDED_NAMES,
    HOST,
    KEEP_ALIVE,
    MAX_NAMES,
    PRIORITY,
    PROXY_CONNECTION,
    PSEUDO_AUTHORITY,
    PSEUDO_METHOD,
    PSEUDO_PATH,
    PSEUDO_PROTOCOL,
    PSEUDO_SCHEME,
    PSEUDO_STATUS,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    VIA,
    find_known,
)
from fastasgi.codecs.headreader cimport UNDERSCORES_ALLOW, UNDERSCORES_REFUSE, HeadReader, unlent_reader
from fastasgi.codecs.hpack cimport Field, FieldList, HPACKDecoder
from fastasgi.codecs.scan cimport scan_lower
from fastasgi.codecs.target cimport is_host, is_named_host, method_text, split_target
from fastasgi.codecs.text cimport Span, equals_folded, is_digit, is_token, read_length, span_of

cdef extern from "Python.h":
    void set_list_size "Py_SET_SIZE" (list headers, Py_ssize_t n)

cdef enum:
    PSEUDO_FIELDS = 5           # of a request, at most
    LARGEST_LIST = 1 << 28       # what a FieldList takes as limits
    MOST_FIELDS = 1 << 20
    LINE_BYTES = 10             # of an HTTP/1.1 request line besides method and target
    MAX_PRIORITY_BYTES = 256    # of several Priority fields; what goes beyond does not count
    # What of a joined cookie is remembered, at most, since each entry of a peer's table may begin one
    MAX_COOKIE_BYTES = 4096
    MAX_CRUMBS = 128

cdef bytes HOST_NAME = b"host"
cdef tuple ASTERISK = ("*", b"*", b"")


# --- Marks: why a field has to be looked at ---

cdef enum:
    PSEUDO = 1
    CONNECTION_SPECIFIC = 2     # RFC 9113 section 8.2.2
    DECIDES = 4                 # decide_field() knows what it means
    TELLS_CLIENT = 8
    BY_PROXY = 16               # a proxy has written it

cdef uint8_t marks[MAX_NAMES]   # by KnownName

cdef int set_marks() except -1:
    cdef int known
    memset(marks, 0, sizeof(marks))
    for known in (PSEUDO_AUTHORITY, PSEUDO_METHOD, PSEUDO_PATH, PSEUDO_PROTOCOL, PSEUDO_SCHEME, PSEUDO_STATUS):
        marks[known] = PSEUDO
    for known in (CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE):
        marks[known] = CONNECTION_SPECIFIC
    for known in (CONTENT_LENGTH, COOKIE, EXPECT, HOST, PRIORITY, TE):
        marks[known] = DECIDES
    for name in FORWARDED_NAMES:
        marks[find_known(name, len(name))] = TELLS_CLIENT
    marks[<int>VIA] = BY_PROXY
    marks[find_known(<const uint8_t*>b"x-forwarded-for", 15)] |= BY_PROXY
    return 0

set_marks()


cdef inline uint8_t mark_of(const Field* field) noexcept nogil:
    return marks[field.known] if field.known >= 0 else 0


# --- Faults ---

cdef inline bint spoil(HTTP2RequestHead head, const char* reason) noexcept:
    """Note that a head is malformed. Returns the False that a function which reads a part of it returns then."""
    head.fault = MALFORMED
    head.status = 0
    head.reason = reason
    return False


cdef inline bint refuse(HTTP2RequestHead head, int status, const char* reason) noexcept:
    """Note that a request is to be refused, if it is not malformed. The first reason counts. Returns True: the rest
    is read too.
    """
    if head.fault == NO_FAULT:
        head.fault = REFUSED
        head.status = status
        head.reason = reason
    return True


# --- Fields ---

# A function that reads a part of a head returns False if that is malformed.

cdef struct Draft:              # what is known of a head before its fields are all read; borrows from the FieldList
    const Field* method
    const Field* scheme
    const Field* authority
    const Field* path
    const Field* protocol
    const Field* host
    const Field* crumb          # the first one of cookie
    int crumbs
    Py_ssize_t cookie_at        # place of cookie among the headers
    int count                   # of the fields that limits count: no pseudo fields, all crumbs as one
    Py_ssize_t kept             # of the places in the list of headers: the first one is for host


cdef inline bytes value_of(const Field* field):
    return <bytes>PyTuple_GET_ITEM(<object>field.pair, 1)


cdef inline void keep(list headers, Draft* draft, const Field* field) noexcept:
    Py_INCREF(<object>field.pair)
    PyList_SET_ITEM(headers, draft.kept, <object>field.pair)
    draft.kept += 1


cdef inline const Field** place_of(Draft* draft, int known) noexcept nogil:
    """Where a pseudo field belongs; NULL if requests have none of this name."""
    if known == PSEUDO_METHOD:
        return &draft.method
    if known == PSEUDO_SCHEME:
        return &draft.scheme
    if known == PSEUDO_AUTHORITY:
        return &draft.authority
    if known == PSEUDO_PATH:
        return &draft.path
    if known == PSEUDO_PROTOCOL:
        return &draft.protocol
    return NULL


cdef inline bint note_pseudo(HTTP2RequestHead head, Draft* draft, const Field* field) noexcept:
    cdef const Field** place = place_of(draft, field.known)
    if draft.count:
        return spoil(head, "a pseudo field comes after other fields")
    if place is NULL:
        return spoil(head, "a pseudo field of responses")
    if place[0] is not NULL:
        return spoil(head, "a pseudo field is repeated")
    place[0] = field
    return True


cdef bint decide_te(HTTP2RequestHead head, const Field* field) except -1:
    if not equals_folded(span_of(value_of(field)), "trailers", 8):
        return spoil(head, "TE has another value than trailers")
    return True


cdef bint decide_field(HTTP2RequestHead head, list headers, Draft* draft, const Field* field) except -1:
    """Decide what a field means for the message, and keep it if it is one of the headers by itself."""
    cdef bytes value = value_of(field)
    if field.known == COOKIE:
        draft.crumbs += 1
        if draft.crumbs > 1:
            draft.count -= 1
            return True
        draft.crumb = field
        draft.cookie_at = draft.kept
    elif field.known == HOST:
        if draft.host is not NULL:
            return spoil(head, "host is repeated")
        draft.host = field
        return True
    elif field.known == CONTENT_LENGTH:
        if head.content_length >= 0:
            return spoil(head, "content-length is repeated")
        head.content_length = read_length(span_of(value))
        if head.content_length < 0:
            return spoil(head, "content-length is malformed")
    elif field.known == EXPECT:
        if equals_folded(span_of(value), "100-continue", 12):
            head.expect_continue = True
        else:
            refuse(head, 417, "an expectation other than 100-continue")
    elif field.known == TE:
        head.accepts_trailers = True
        if not decide_te(head, field):
            return False
    elif field.known == PRIORITY:
        if head.priority is None:
            head.priority = value
        elif len(head.priority) + len(value) <= MAX_PRIORITY_BYTES:
            head.priority = head.priority + b", " + value
    keep(headers, draft, field)
    return True


cdef bint is_dropped(HTTP2RequestHead head, const Field* field) except -1:
    """Whether a field that is not interned is left out for an underscore in its name."""
    cdef bytes name = <bytes>PyTuple_GET_ITEM(<object>field.pair, 0)
    if memchr(PyBytes_AS_STRING(name), c"_", PyBytes_GET_SIZE(name)) is NULL:
        return False
    return head.underscores != UNDERSCORES_REFUSE or refuse(head, 400, "an underscore in a header name")


cdef bint read_fields(HTTP2RequestHead head, list headers, Draft* draft) except -1:
    cdef const Field* field = head.fields.fields
    cdef const Field* end = field + head.fields.count
    cdef uint8_t mark
    while field < end:
        if field.faults:
            return spoil(head, "a field has a malformed name or value")
        mark = mark_of(field)
        if mark & PSEUDO:
            if not note_pseudo(head, draft, field):
                return False
        elif mark & CONNECTION_SPECIFIC:
            return spoil(head, "a field that is about the connection")
        else:
            draft.count += 1
            if mark & DECIDES:
                if not decide_field(head, headers, draft, field):
                    return False
            elif field.known >= 0 or head.underscores == UNDERSCORES_ALLOW or not is_dropped(head, field):
                keep(headers, draft, field)
                if mark:
                    head.tells_client |= mark & TELLS_CLIENT != 0
                    head.via_proxy |= mark & BY_PROXY != 0
        field += 1
    if head.fields.exceeds or draft.count > head.max_header_count:
        refuse(head, 431, "the headers are too many or too large")
    return True


# --- Pseudo fields (RFC 9113 section 8.3) ---

cdef bint read_method(HTTP2RequestHead head, HPACKDecoder decoder, const Field* field) except -1:
    cdef Span method
    if field.meaning is not NULL:
        head.method = <str>field.meaning
        return True
    method = span_of(value_of(field))
    if not is_token(method.p, method.n):
        return spoil(head, "the method is malformed")
    head.method = method_text(method)
    decoder.remember(field.entry, head.method)
    return True


cdef bint is_scheme(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ) (RFC 3986 section 3.1)"""
    cdef const uint8_t* start = p
    while p < end and (
        c"a" <= (p[0] | 0x20) <= c"z"
        or p > start and (is_digit(p[0]) or p[0] == c"+" or p[0] == c"-" or p[0] == c".")
    ):
        p += 1
    return p == end and p != start


cdef bint read_scheme(HTTP2RequestHead head, HPACKDecoder decoder, const Field* field) except -1:
    cdef bytes value
    cdef const uint8_t* p
    if field.meaning is not NULL:
        head.scheme = <bytes>field.meaning
        return True
    value = value_of(field)
    p = <const uint8_t*>PyBytes_AS_STRING(value)
    if not is_scheme(p, p + PyBytes_GET_SIZE(value)):
        return spoil(head, ":scheme is malformed")
    head.scheme = value.lower()
    decoder.remember(field.entry, head.scheme)
    return True


cdef tuple new_pair(bytes name, bytes value):
    cdef tuple pair = PyTuple_New(2)
    Py_INCREF(name)
    PyTuple_SET_ITEM(pair, 0, name)
    Py_INCREF(value)
    PyTuple_SET_ITEM(pair, 1, value)
    return pair


cdef bint is_same_host(bytes a, bytes b) noexcept:
    """Whether these are equal but for the case of letters. `a` is valid."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(a)
    cdef const uint8_t* q = <const uint8_t*>PyBytes_AS_STRING(b)
    cdef Py_ssize_t i
    if PyBytes_GET_SIZE(a) != PyBytes_GET_SIZE(b):
        return False
    for i in range(PyBytes_GET_SIZE(a)):
        # Of what is no tchar, such as a colon, scan_lower has 0
        if p[i] != q[i] and (scan_lower[p[i]] == 0 or scan_lower[p[i]] != scan_lower[q[i]]):
            return False
    return True


cdef tuple read_authority(HTTP2RequestHead head, HPACKDecoder decoder, const Draft* draft):
    """The pair of host that the request is for; None if it has none, or is malformed."""
    cdef const Field* field = draft.authority
    cdef bytes value
    cdef const uint8_t* p
    cdef tuple pair
    if field is NULL:
        if draft.host is NULL:
            return None
        value = value_of(draft.host)
        p = <const uint8_t*>PyBytes_AS_STRING(value)
        if not is_host(p, p + PyBytes_GET_SIZE(value)):
            spoil(head, "host is malformed")
            return None
        return <tuple>draft.host.pair
    if field.meaning is not NULL:
        pair = <tuple>field.meaning
    else:
        value = value_of(field)
        p = <const uint8_t*>PyBytes_AS_STRING(value)
        if not is_named_host(p, p + PyBytes_GET_SIZE(value)):
            spoil(head, ":authority is malformed")
            return None
        pair = new_pair(HOST_NAME, value)
        decoder.remember(field.entry, pair)
    if draft.host is not NULL and not is_same_host(<bytes>PyTuple_GET_ITEM(pair, 1), value_of(draft.host)):
        spoil(head, "host differs from :authority")
        return None
    return pair


cdef bint read_path(HTTP2RequestHead head, HPACKDecoder decoder, const Field* field) except -1:
    cdef bytes value = value_of(field)
    cdef tuple target
    if len(head.method) + PyBytes_GET_SIZE(value) + LINE_BYTES > head.max_request_line_bytes:
        return refuse(head, 414, "the path is too long")
    if field.meaning is not NULL:
        target = <tuple>field.meaning
    else:
        target = ASTERISK if value == b"*" else split_target(value)
        if target is None:
            return spoil(head, ":path is malformed")
        decoder.remember(field.entry, target)
    if target is ASTERISK and head.method != "OPTIONS":
        return spoil(head, "the :path * goes with OPTIONS only")
    head.path = <str>PyTuple_GET_ITEM(target, 0)
    head.raw_path = <bytes>PyTuple_GET_ITEM(target, 1)
    head.query = <bytes>PyTuple_GET_ITEM(target, 2)
    return True


cdef bint read_connect(HTTP2RequestHead head, const Draft* draft) except -1:
    """Read what is particular about a CONNECT (RFC 9113 section 8.5), and an extended one (RFC 8441 section 4)."""
    if draft.protocol is NULL:
        if draft.authority is NULL or draft.scheme is not NULL or draft.path is not NULL:
            return spoil(head, "CONNECT has :authority, and neither :scheme nor :path")
        return refuse(head, 501, "CONNECT is not implemented")
    if draft.authority is NULL:
        return spoil(head, "an extended CONNECT without :authority")
    head.protocol = value_of(draft.protocol)
    if not equals_folded(span_of(head.protocol), "websocket", 9):
        return refuse(head, 501, "a :protocol other than websocket")
    return True


cdef bint read_pseudo_fields(HTTP2RequestHead head, HPACKDecoder decoder, const Draft* draft) except -1:
    """Read all but :authority."""
    cdef bint is_connect
    cdef bint is_cut = head.fields.exceeds      # what is missing may be among what was not kept
    if draft.method is NULL:
        return is_cut or spoil(head, ":method is missing")
    if not read_method(head, decoder, draft.method):
        return False
    is_connect = head.method == "CONNECT"
    if is_connect:
        if not is_cut and not read_connect(head, draft):
            return False
    elif draft.protocol is not NULL:
        return spoil(head, ":protocol goes with CONNECT only")
    if draft.scheme is NULL or draft.path is NULL:
        if not is_cut and (not is_connect or draft.protocol is not NULL):
            return spoil(head, ":scheme or :path is missing")
    if draft.scheme is not NULL and not read_scheme(head, decoder, draft.scheme):
        return False
    return draft.path is NULL or read_path(head, decoder, draft.path)


# --- Cookies ---

cdef bint is_joined_of(tuple joined, const Draft* draft) noexcept:
    """Whether a cookie was joined of these very crumbs: it is remembered as its pair, and theirs."""
    cdef const Field* field = draft.crumb
    cdef Py_ssize_t i
    if PyTuple_GET_SIZE(joined) != 1 + draft.crumbs:
        return False
    for i in range(1, 1 + draft.crumbs):
        while field.known != COOKIE:
            field += 1
        if PyTuple_GET_ITEM(joined, i) != field.pair:
            return False
        field += 1
    return True


cdef tuple join_crumbs(HPACKDecoder decoder, const Draft* draft):
    """The pair of a cookie that came in crumbs (RFC 9113 section 8.2.3)."""
    cdef const Field* field = draft.crumb
    cdef tuple crumbs = PyTuple_New(1 + draft.crumbs)
    cdef list values = []
    cdef bint may_repeat = True
    cdef Py_ssize_t i
    cdef bytes value
    cdef tuple pair
    for i in range(1, 1 + draft.crumbs):
        while field.known != COOKIE:
            field += 1
        may_repeat = may_repeat and field.entry != 0
        Py_INCREF(<object>field.pair)
        PyTuple_SET_ITEM(crumbs, i, <object>field.pair)
        values.append(value_of(field))
        field += 1
    value = b"; ".join(values)
    pair = new_pair(<bytes>PyTuple_GET_ITEM(<object>draft.crumb.pair, 0), value)
    Py_INCREF(pair)
    PyTuple_SET_ITEM(crumbs, 0, pair)
    if may_repeat and draft.crumbs <= MAX_CRUMBS and PyBytes_GET_SIZE(value) <= MAX_COOKIE_BYTES:
        decoder.remember(draft.crumb.entry, crumbs)
    return pair


cdef tuple cookie_of(HPACKDecoder decoder, const Draft* draft):
    cdef PyObject* meaning = draft.crumb.meaning
    if meaning is not NULL and is_joined_of(<tuple>meaning, draft):
        return <tuple>PyTuple_GET_ITEM(<object>meaning, 0)
    return join_crumbs(decoder, draft)


# --- The whole head ---

cdef inline void begin_head(HTTP2RequestHead head) noexcept:
    head.fault = NO_FAULT
    head.status = 0
    head.reason = NULL
    head.method = head.path = ""
    head.raw_path = head.query = head.scheme = b""
    head.protocol = head.authority = head.priority = None
    head.headers = None
    head.content_length = -1
    head.expect_continue = head.tells_client = head.via_proxy = head.accepts_trailers = False


cdef int end_headers(HTTP2RequestHead head, list headers, const Draft* draft, tuple host, tuple cookie) except -1:
    """Put what takes the place of several fields, and cut the list to its length."""
    if cookie is not None:
        headers[draft.cookie_at] = cookie
    set_list_size(headers, draft.kept)
    Py_INCREF(host)
    PyList_SET_ITEM(headers, 0, host)
    if host is None:
        del headers[0]
    head.headers = headers
    return 0


@cython.no_gc_clear             # its FieldList has to be there until the end
cdef class HTTP2RequestHead(HeadReader):
    def __cinit__(self):
        self.fields = FieldList(
            max_count=min(self.max_header_count + PSEUDO_FIELDS, MOST_FIELDS),
            max_size=min(self.max_head_bytes, LARGEST_LIST), shared=self.shared)

    cdef int read(self, HPACKDecoder decoder) except -1:
        cdef list headers = PyList_New(self.fields.count + 1)
        cdef Draft draft
        cdef tuple host
        cdef tuple cookie = None
        memset(&draft, 0, sizeof(draft))
        draft.kept = 1
        begin_head(self)
        if not read_fields(self, headers, &draft) or not read_pseudo_fields(self, decoder, &draft):
            return 0
        host = read_authority(self, decoder, &draft)
        if self.fault == MALFORMED:
            return 0
        if host is not None:
            self.authority = <bytes>PyTuple_GET_ITEM(host, 1)
        if draft.crumbs > 1:
            cookie = cookie_of(decoder, &draft)
        return end_headers(self, headers, &draft, host, cookie)

    cdef int read_trailers(self) except -1:
        cdef const Field* field = self.fields.fields
        cdef const Field* end = field + self.fields.count
        cdef uint8_t mark
        self.fault = NO_FAULT
        self.reason = NULL
        while field < end:
            mark = mark_of(field)
            if field.faults:
                spoil(self, "a trailer has a malformed name or value")
            elif mark & PSEUDO:
                spoil(self, "a pseudo field among the trailers")
            elif mark & CONNECTION_SPECIFIC or field.known == TE and not decide_te(self, field):
                spoil(self, "a trailer that is about the connection")
            field += 1
        return 0


cdef HTTP2RequestHead unlent_head(HTTP2RequestHead head):
    return unlent_reader(head)


# --- For Python: tests, measuring ---

DecodedHead = namedtuple(
    "DecodedHead",
    "fault status reason method path raw_path query scheme protocol authority headers priority content_length"
    " expect_continue tells_client via_proxy accepts_trailers",
)

_FAULTS = (None, "malformed", "refused")        # in the order of the constants


cdef object reason_of(HTTP2RequestHead head):
    return None if head.reason is NULL else head.reason.decode("ascii")


def decode_request(HTTP2RequestHead head not None, HPACKDecoder decoder not None, block):
    decoder.read(block, head.fields)
    head.read(decoder)
    return DecodedHead(
        _FAULTS[head.fault], head.status, reason_of(head), head.method, head.path, head.raw_path, head.query,
        head.scheme, head.protocol, head.authority, head.headers, head.priority, head.content_length,
        bool(head.expect_continue), bool(head.tells_client), bool(head.via_proxy), bool(head.accepts_trailers),
    )


def decode_trailers(HTTP2RequestHead head not None, HPACKDecoder decoder not None, block):
    decoder.read(block, head.fields)
    head.read_trailers()
    return reason_of(head)
