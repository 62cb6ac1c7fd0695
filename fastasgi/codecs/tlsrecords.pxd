"""Where TLS records end (RFC 8446 section 5.1), in whatever pieces they come.

Must not know: what is in them. Everything is inline.
"""

cdef enum:
    MOST_RECORD = 18432                 # bytes of a record's body (RFC 5246 section 6.2.3; TLS 1.3 allows fewer)


cdef struct RecordCursor:               # the record that is coming in; all zero at first
    unsigned char[5] header             # its type, version and length
    int header_length                   # bytes of the header that have come; 0 between two records
    int body_left                       # bytes of the body that have not come


cdef inline Py_ssize_t follow_record(RecordCursor* cursor, const char* p, Py_ssize_t n) noexcept nogil:
    """How many of n bytes belong to the current record. header_length is 0 after its last one.

    Bytes that can't be a record all belong to it: OpenSSL is to refuse them before more are waited for.
    """
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t body
    while cursor.header_length < 5:
        if used == n:
            return n
        cursor.header[cursor.header_length] = <unsigned char>p[used]
        cursor.header_length += 1
        used += 1
        if cursor.header_length == 5:
            cursor.body_left = cursor.header[3] << 8 | cursor.header[4]
            if not 20 <= cursor.header[0] <= 24 or cursor.header[1] != 3 or cursor.body_left > MOST_RECORD:
                cursor.header_length = 0
                return n
    body = min(n - used, cursor.body_left)
    cursor.body_left -= <int>body
    if cursor.body_left == 0:
        cursor.header_length = 0
    return used + body
