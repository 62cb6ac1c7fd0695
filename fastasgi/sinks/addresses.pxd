"""The addresses of sockets as Python's socket module says them."""

cdef extern from "sinks/accept.h" nogil:
    ctypedef union socket_address:
        pass


# (host, port); "" for a Unix socket's peer; None for other kinds
cdef object endpoint_of(const socket_address* address)
cdef object own_endpoint(int socket)    # of the socket's own end; None if it has none
