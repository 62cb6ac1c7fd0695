"""The settings that connections read, as plain numbers.

Must not know: the use of a setting, where it comes from.
"""


cdef class Limits:
    """Settings by the names that they have in Config, from which each field is filled: to add a setting is to declare
    it there and here, and to use it. A setting that is None in Config, which means off, is 0 here.
    """

    cdef public:
        # Bytes or numbers
        Py_ssize_t http2_max_concurrent_streams
        Py_ssize_t http2_initial_stream_window_size
        Py_ssize_t http2_initial_connection_window_size
        Py_ssize_t limit_request_body           # 0: no limit, as in those that follow
        Py_ssize_t limit_concurrency
        Py_ssize_t limit_connections
        Py_ssize_t ws_max_size
        Py_ssize_t ws_max_queue
        # Seconds
        double timeout_keep_alive               # 0: no connection is kept
        double timeout_request_head             # 0: no limit, as in those that follow
        double timeout_request_body
        double timeout_write
        double ssl_handshake_timeout
        double ws_ping_interval                 # 0: no pings
        double ws_ping_timeout                  # 0: the answer to a ping may take any time
        double log_slow                         # 0: off
        double http2_keep_alive_interval        # 0: no pings
        double http2_keep_alive_timeout         # 0: the answer to a ping may take any time
        # Switches
        bint serves_websockets
        bint ws_per_message_deflate

    cdef double shortest_time_s(self)           # the shortest timeout that is set; infinity if none is
