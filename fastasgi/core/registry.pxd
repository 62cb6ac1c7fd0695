"""What is open and runs in one worker, and how much there has been.

Must not know: what connections and exchanges are.
"""


from fastasgi.core.shares cimport Shares


cdef class Registry:
    cdef:
        object loop                     # asyncio.AbstractEventLoop
        set connections                 # of Connection
        Py_ssize_t inner_count          # those of them that have no socket of their own, but are inside another one
        list slow_ended                 # see slow_ended() of asgi.record
        Py_ssize_t slow_more
        set suspended                   # of Exchange whose application call has not returned
        readonly Py_ssize_t exchange_count      # running application calls, suspended or not
        # Those of them whose response is not complete, or whose WebSocket the application has not closed
        Py_ssize_t unfinished_count
        readonly Py_ssize_t request_count       # requests that have begun since the start
        public Py_ssize_t max_requests  # the number of requests at which on_max_requests is called; 0: never
        public object on_max_requests   # called once, without arguments, when max_requests have begun; or None
        object idle_waiter              # asyncio.Future of wait_idle(), or None
        public Shares shares            # where other workers read how many connections are open; or None
        long long wait_count            # waits of connections for their next request, since the start
        bint wants_room                 # connections wait until one of those that are open is closed, or may be
        object on_room                  # called once, without arguments, when one is; or None

    cdef inline int count_request(self) except -1:
        self.request_count += 1
        if self.request_count == self.max_requests and self.on_max_requests is not None:
            self.on_max_requests()
        return 0
    cdef inline Py_ssize_t socket_count(self) noexcept:     # of connections that have a socket of their own
        return len(self.connections) - self.inner_count
    cdef inline void tell_others(self) noexcept:
        if self.shares is not None:
            self.shares.tell(self.socket_count())
    # To be called when a connection may be closed to make room, or was closed
    cdef inline int offer_room(self) except -1:
        if self.wants_room:
            self.wants_room = False
            self.on_room()
        return 0
    # To be called after a connection or an exchange has ended: if it was the last one, wait_idle() returns
    cdef int check_idle(self) except -1
