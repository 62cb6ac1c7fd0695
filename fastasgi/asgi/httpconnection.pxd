"""What all requests of one HTTP connection have in common, whatever version of HTTP it speaks: the client, its scopes,
the limits that refuse, what is counted, and how a request becomes a WebSocket.

Must not know: wires, framing, how an answer looks.
"""

from libc.stdint cimport int64_t

from fastasgi.asgi.http cimport HTTPExchange
from fastasgi.core.contracts cimport Connection


cdef class HTTPConnection(Connection):
    cdef:
        dict scope_template             # what is the same in all scopes of this connection; None before the first one
        dict tls                        # the scopes' extension "tls"; None without TLS
        bint believes_forwarded         # the peer is trusted, and believed what it says of its clients
        bint strips_forwarded           # the peer is not trusted, and the application is not to see what it says
        double stalls_at                # the worker.now, in seconds, by which the client has to read more

    cdef int find_addresses(self) except -1
    # The scope of a request. Every container in it, also `headers`, is the request's own. tells_client: there are
    # fields in which proxies tell of the client. scheme: what the request itself says, which is believed only of a
    # trusted peer; or None
    cdef dict new_scope(
        self, str http_version, str method, str path, bytes raw_path, bytes query, list headers, bint tells_client,
        dict extensions, str scheme)
    # Whether a request is to be refused with 413, for TOO_LARGE
    cdef inline bint exceeds_body_limit(self, int64_t body_bytes) noexcept:
        return 0 < self.worker.limits.limit_request_body < body_bytes
    # Why a request is to be refused with 503 (RFC 9110 section 15.6.4), or None
    cdef str unavailable(self, dict scope, bint opens_websocket)
    cdef bytes retry_after(self)                # the value of a refusal's Retry-After, in seconds
    # These make an exchange a request to the application, or one that opens a WebSocket
    cdef int begin_request(self, HTTPExchange exchange, dict scope) except -1
    cdef int begin_websocket(self, HTTPExchange exchange, dict scope, object deflate) except -1
    # To be called once it has begun. protocol: HTTP_1_0 and on
    cdef int count_request(self, HTTPExchange exchange, str method, int protocol) except -1

    # Sets the deadline for a client that does nothing: that does not read a response which waits in the sink, does not
    # send a body to which there is no response yet, or, between two requests, asks for nothing. `exchange` is the one
    # that is being answered, or None; body_is_due says that the end of its body has not come
    cdef int bound_time(self, HTTPExchange exchange, bint body_is_due) except -1
    cdef int watch_progress(self) except -1
    # Whether a client that has not read all by its deadline is given more time. `unsent` is the sink's
    cdef bint may_take_longer(self, Py_ssize_t unsent) noexcept

    # Gives the sink to what carries an open WebSocket's messages, and the bytes that are held
    cdef int switch_to(self, Connection successor) except -1


cdef str TOO_LARGE                      # the reason of a refusal, for the log
