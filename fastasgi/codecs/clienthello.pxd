"""The ClientHello that begins a TLS handshake: bytes from the network in, the server name out.

Must not know: connections, certificates, OpenSSL's objects. A malformed hello has no name here:
OpenSSL refuses it. What could bring OpenSSL a name that is not read here, or that is not ASCII, is a fault.
"""


cdef class ClientHello:
    cdef:
        readonly bytearray records      # all bytes that have come, for OpenSSL to read again
        readonly str name               # the server name, ASCII; None if there is none that can be read
        readonly str fault              # why the hello is to be refused, for the log; or None
        readonly int alert              # the alert that tells the client so (RFC 8446 section 6)
        bint follows_retry              # it answers a HelloRetryRequest
        bytearray message               # bodies of the handshake records that have come whole
        Py_ssize_t at                   # bytes of `records` that have been looked at

    cdef bint feed(self, const char* p, Py_ssize_t n) except -1     # copies. Whether the hello is whole, or has a fault
    cdef bint refuse(self, int alert, str fault) except -1
    cdef int read_name(self, const unsigned char* p, const unsigned char* end) except -1


# Whether the first bytes of a server are a HelloRetryRequest, which a second ClientHello follows. Borrows them
cdef bint is_retry_request(const char* p, Py_ssize_t n) noexcept
