"""HTTP/1.x request heads: bytes in, plain data out (RFC 9112).

Knows the grammar and what makes a message ambiguous. Must not know: asyncio, ASGI, sockets, responses.
Pointers are borrowed from the caller for the length of one call, and so are the spans in a RequestHead.
"""

from libc.stdint cimport int16_t, int64_t, uint32_t

from fastasgi.codecs.headreader cimport HeadReader
from fastasgi.codecs.text cimport Span


cdef struct HeaderField:
    const char* name            # borrows; the case of the wire
    const char* value           # borrows; without leading and trailing blanks
    uint32_t name_length        # bytes
    uint32_t value_length       # bytes
    int16_t known               # index of the name among the interned ones, or -1


cdef struct RequestHead:
    Span method                 # this one and the next two borrow from the parsed input
    Span path                   # of origin-form and absolute-form, without query; "*" of asterisk-form
    Span query                  # what follows the first "?"; empty if there is none
    bint path_is_plain          # no "%" in path: the bytes are the decoded path
    int minor_version           # 0 or 1, of HTTP/1.x; 1 also for a later one
    HeaderField* fields         # owned by the HeadParser
    int field_count
    int64_t content_length      # bytes; -1 if not given. It is never given together with chunked
    bint chunked                # the body has Transfer-Encoding: chunked
    bint keep_alive             # the connection may go on, by version and Connection (RFC 9112 section 9.3)
    bint expect_continue        # the client sent Expect: 100-continue, in HTTP/1.1
    # Connection names upgrade, and there is an Upgrade field with a protocol; HTTP/1.0's is to be ignored (RFC 9110
    # section 7.8)
    bint upgrade
    int status                  # of a refused head: 400, 414, 417, 431, 501, 505
    const char* reason          # of a refused head: a static sentence for the log


cdef class HeadParser(HeadReader):
    """Fastasgi's own strict grammar. max_head_bytes are of all lines, with blank ones before the head and its last."""

    cdef:
        # The result of the last parse(). A refused head has method, path, query and version as far as they are
        # understood; each of the others is empty, or -1
        RequestHead head
    # Parses the head at `p`, before which skip_blank_lines() has skipped `blank_bytes`, at most max_head_bytes. Returns
    # how many bytes the head has; 0 if it needs more; -1 if it is refused, as soon as its beginning shows that.
    cdef Py_ssize_t parse(self, const char* p, const char* end, Py_ssize_t blank_bytes) except -2


# Returns how many bytes the whole empty lines at `p` have, which may stand before a request line (RFC 9112 section
# 2.2). begun: whether the request line has begun behind them.
cdef Py_ssize_t skip_blank_lines(const char* p, const char* end, bint* begun) noexcept nogil


cdef HeadParser unlent_parser(HeadParser parser)        # this parser; if it is lent, a new one with its limits


cdef class LlhttpHeadParser(HeadParser):
    """A HeadParser whose fields are read by llhttp, through httptools (--http httptools)."""

    cdef object lines           # owns the bytes that the spans borrow, until the next parse()


# Whether a request line, of which all but the method may be malformed or missing, is a HEAD's: its answer has no body
cdef bint is_of_head(const char* line, Py_ssize_t n) noexcept nogil
# Whether a head has one of the FORWARDED_NAMES of fieldnames
cdef bint has_forwarded(const RequestHead* head) noexcept nogil

# Plain Python objects of a parsed head
cdef str method_of(const RequestHead* head)              # interned if the method is a common one
cdef str path_of(const RequestHead* head)                # percent-decoded, UTF-8, invalid sequences replaced
cdef list headers_of(HeadParser parser)                  # [(lower-case name, value)] of its head, in order
