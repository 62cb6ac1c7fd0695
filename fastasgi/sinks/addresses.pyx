"""See addresses.pxd for the contracts."""

cdef extern from "sinks/accept.h" nogil:
    enum:
        ADDRESS_TEXT_SIZE
    int is_unix_address(const socket_address* address)
    int put_address(const socket_address* address, char* text)
    int own_address(int fd, socket_address* own)


cdef object endpoint_of(const socket_address* address):
    cdef char[ADDRESS_TEXT_SIZE] text
    cdef int port = put_address(address, text)
    if port >= 0:
        return (text.decode("ascii"), port)
    return "" if is_unix_address(address) else None


cdef object own_endpoint(int socket):
    cdef socket_address own
    return None if own_address(socket, &own) < 0 else endpoint_of(&own)
