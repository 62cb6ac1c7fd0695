"""See address.pxd for the contracts."""

from libc.string cimport memchr, memcmp, memcpy, memmove

cdef extern from *:
    """
    #ifdef _WIN32
    #include <winsock2.h>
    #include <ws2tcpip.h>
    #pragma comment(lib, "ws2_32")
    #else
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <sys/socket.h>
    #endif
    """
    int AF_INET
    int AF_INET6
    enum:
        INET6_ADDRSTRLEN
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size)


cdef bint read_address(const char* p, Py_ssize_t n, Address* address) noexcept:
    cdef char text[INET6_ADDRSTRLEN]
    if not 0 < n < INET6_ADDRSTRLEN or memchr(p, 0, n) is not NULL:
        return False
    memcpy(text, p, n)
    text[n] = 0
    if memchr(p, c":", n) is NULL:
        address.size = 4
        return inet_pton(AF_INET, text, address.bytes) == 1
    if inet_pton(AF_INET6, text, address.bytes) != 1:
        return False
    address.size = 16
    unmap(address)
    return True


cdef void unmap(Address* address) noexcept:
    # RFC 4291 section 2.5.5.2
    if address.size == 16 and memcmp(address.bytes, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        memmove(address.bytes, address.bytes + 12, 4)
        address.size = 4


cdef str address_text(const Address* address):
    cdef char text[INET6_ADDRSTRLEN]
    inet_ntop(AF_INET if address.size == 4 else AF_INET6, address.bytes, text, INET6_ADDRSTRLEN)
    return text.decode("ascii")


cdef str endpoint_text(object endpoint):
    return "%s:%d" % tuple(endpoint[:2])
