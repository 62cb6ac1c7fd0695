"""See clienthello.pxd for the contracts."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.string cimport memcmp

cdef enum:
    HANDSHAKE = 22                      # types of a record (RFC 8446 section 5.1)
    FIRST_TYPE = 20
    LAST_TYPE = 23
    CLIENT_HELLO = 1                    # types of a handshake message (section 4)
    SERVER_HELLO = 2
    SERVER_NAME = 0                     # type of an extension (RFC 6066 section 3)
    HOST_NAME = 0
    UNEXPECTED_MESSAGE = 10             # alerts (RFC 8446 section 6)
    ILLEGAL_PARAMETER = 47
    UNRECOGNIZED_NAME = 112
    MOST_BODY = 16384                   # bytes of a record's body, at most
    MOST_HELLO = 131400                 # bytes of a hello with its header that OpenSSL accepts, at most
    MOST_HELD = 163840                  # bytes of the records in which a hello comes, at most

# The random value of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3)
cdef bytes RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
cdef const char* RETRY = RETRY_RANDOM


cdef class ClientHello:

    def __cinit__(self, bint follows_retry=False):
        self.follows_retry = follows_retry
        self.records = bytearray()
        self.message = bytearray()

    cdef bint feed(self, const char* p, Py_ssize_t n) except -1:
        cdef const unsigned char* q
        cdef Py_ssize_t body
        cdef Py_ssize_t size
        self.records += p[:n]
        while len(self.records) - self.at >= 5:
            q = <const unsigned char*>PyByteArray_AS_STRING(self.records) + self.at
            body = q[3] << 8 | q[4]
            if q[1] != 3 or body == 0 or body > MOST_BODY:
                return self.refuse(UNEXPECTED_MESSAGE, "unexpected message")
            if q[0] != HANDSHAKE:
                # change_cipher_spec and early data may come before a second hello, but nothing within one (RFC 8446
                # section 5.1)
                if self.message or not self.follows_retry or not FIRST_TYPE <= q[0] <= LAST_TYPE:
                    return self.refuse(UNEXPECTED_MESSAGE, "unexpected message")
            if len(self.records) - self.at < 5 + body:
                break
            self.at += 5 + body
            if q[0] != HANDSHAKE:
                continue
            self.message += (<const char*>q)[5:5 + body]
            if len(self.message) < 4:
                continue
            q = <const unsigned char*>PyByteArray_AS_STRING(self.message)
            size = 4 + (q[1] << 16 | q[2] << 8 | q[3])
            # A client waits for the server's answer to its hello
            if q[0] != CLIENT_HELLO or len(self.message) > size:
                return self.refuse(UNEXPECTED_MESSAGE, "unexpected message")
            if size > MOST_HELLO:
                return self.refuse(ILLEGAL_PARAMETER, "excessive message size")
            if len(self.message) == size:
                self.read_name(q + 4, q + size)
                return True
        if len(self.records) > MOST_HELD:
            return self.refuse(ILLEGAL_PARAMETER, "excessive message size")
        return False

    cdef bint refuse(self, int alert, str fault) except -1:
        self.alert = alert
        self.fault = fault
        return True

    cdef int read_name(self, const unsigned char* p, const unsigned char* end) except -1:
        """Find the name in the body of a hello (RFC 8446 section 4.1.2): the first one, if its type is the usual one.
        OpenSSL reads the same.
        """
        cdef const unsigned char* behind
        cdef bytes name
        if end - p < 34:
            return 0
        p = behind_vector(p + 34, end, 1)                   # session ID
        p = behind_vector(p, end, 2)                        # cipher suites
        p = behind_vector(p, end, 1)                        # compression methods
        if p is NULL:
            return 0
        p += 2                                              # the length of all extensions
        while end - p >= 4:
            behind = behind_vector(p + 2, end, 2)
            if behind is NULL:
                return 0
            if (p[0] << 8 | p[1]) == SERVER_NAME:
                if behind - p < 9 or p[6] != HOST_NAME or behind_vector(p + 7, behind, 2) is NULL:
                    return 0
                name = (<const char*>p)[9:9 + (p[7] << 8 | p[8])]
                if not name.isascii():
                    return self.refuse(UNRECOGNIZED_NAME, "unrecognized name")
                self.name = name.decode("ascii")
                return 0
            p = behind
        return 0


cdef const unsigned char* behind_vector(const unsigned char* p, const unsigned char* end, int width) noexcept:
    """Past a length of `width` bytes and as many bytes as it says; NULL if they are not all there."""
    cdef Py_ssize_t size
    if p is NULL or end - p < width:
        return NULL
    size = p[0] if width == 1 else p[0] << 8 | p[1]
    if end - p - width < size:
        return NULL
    return p + width + size


cdef bint is_retry_request(const char* p, Py_ssize_t n) noexcept:
    return n >= 43 and p[0] == HANDSHAKE and p[5] == SERVER_HELLO and memcmp(p + 11, RETRY, 32) == 0


# --- For Python: tests ---

def decode_client_hello(pieces, bint follows_retry=False):
    cdef ClientHello hello = ClientHello(follows_retry)
    for piece in pieces:
        if hello.feed(piece, len(piece)):
            return hello
    return None
