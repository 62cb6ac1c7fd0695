"""See http2stream.pxd for the contracts."""

import os

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.contextvars cimport PyContext_Copy

from fastasgi.asgi.exchange cimport Exchange
from fastasgi.codecs.heads cimport fields_size
from fastasgi.codecs.http2frames cimport INTERNAL_ERROR
from fastasgi.core.contracts cimport Connection
from fastasgi.wires.http2output cimport HTTP2Output, OutboundStream
from fastasgi.wires.tunnel cimport TunnelSink
from fastasgi.wires.websocket cimport new_websocket

from fastasgi.asgi.exchange import ClientDisconnected


cdef class HTTP2Stream(OutboundStream):

    cdef int open_block(self) except -1:
        if not self.is_open or self.connection.sink is None:
            raise ClientDisconnected("the client has disconnected")
        return 0

    # --- What the application sends ---

    cdef int put_response(self, bytes body, bint more) except -1:
        self.open_block()
        cdef HTTP2Output connection = self.connection
        cdef bint is_whole = not (more or self.wants_trailers)
        cdef bint ends = self.bodiless or (is_whole and not body)
        cdef char* p
        if self.status == 204 and self.content_length >= 0:
            # RFC 9110 section 8.6: a 204 has no Content-Length
            self.headers = [pair for pair in self.headers if (<bytes>pair[0]).lower() != b"content-length"]
            self.content_length = -1
        p = connection.begin_block(self.headers_size, len(self.headers))
        p = connection.encoder.put_status(p, self.status)
        p = connection.encoder.put_defaults(p, self.worker.fields, self.has_server, self.has_date)
        p = connection.encoder.put_fields(p, self.headers)
        if is_whole and not self.bodiless and self.content_length < 0:
            p = connection.encoder.put_content_length(p, len(body))
        connection.end_block(self.id, p, ends)
        if ends:
            self.end_is_put = True
            self.sent_all()
        else:
            connection.put_data(self, body, is_whole)
        return connection.push() if more else 0

    cdef int put_data(self, bytes body, bint more) except -1:
        if self.bodiless:
            return 0
        self.open_block()
        cdef HTTP2Output connection = self.connection
        connection.put_data(self, body, not (more or self.wants_trailers))
        return connection.push() if more else 0

    cdef int put_informational(self, int status, list headers) except -1:
        self.open_block()
        cdef HTTP2Output connection = self.connection
        cdef char* p = connection.begin_block(fields_size(headers), len(headers))
        p = connection.encoder.put_fields(connection.encoder.put_status(p, status), headers)
        connection.end_block(self.id, p, False)
        return connection.push()

    cdef int put_trailers(self) except -1:
        if self.bodiless:
            return 0
        self.open_block()
        return self.connection.put_last_fields(self, self.trailers)

    cdef object put_file(self, object file, long long offset, long long count, bint more):
        return send_file(self, file, offset, count, more)

    cdef int put_push(self, str path, list headers) except -1:
        self.open_block()
        return self.connection.promise(self, path, headers)

    cdef int reset(self, bint has_begun) except -1:
        self.is_over = True
        return self.connection.cancel(self, INTERNAL_ERROR) if self.is_open else 0

    cdef int ended(self) except -1:
        cdef HTTP2Output connection = self.connection
        self.is_over = True
        if not self.is_open:
            return 0
        connection.settle(self)
        return connection.push()

    cdef int relieve(self) except -1:
        return OutboundStream.relieve(self) if self.tunnel is None else self.tunnel.relieve()

    cdef int sent_all(self) except -1:
        return self.connection.settle(self) if self.is_over else 0

    # --- What the application receives ---

    cdef int want_body(self) except -1:
        return self.connection.return_credit(self)

    # --- WebSockets (RFC 8441) ---

    cdef Connection put_switch(self, list headers, Exchange websocket):
        self.open_block()
        cdef HTTP2Output connection = self.connection
        cdef char* p = connection.begin_block(fields_size(headers), len(headers))
        p = connection.encoder.put_status(p, 200)
        p = connection.encoder.put_defaults(p, self.worker.fields, self.has_server, self.has_date)
        connection.end_block(self.id, connection.encoder.put_fields(p, headers), False)
        return new_websocket(websocket)

    cdef int hand_over(self, Connection successor) except -1:
        cdef TunnelSink tunnel
        self.is_over = True
        if not self.is_open:
            return successor.on_lost()
        tunnel = TunnelSink.__new__(TunnelSink)
        self.tunnel = tunnel
        tunnel.begin(self)
        successor.begin_on(self.worker, tunnel, self.worker.limits.ws_ping_interval)
        self.connection.push()
        return self.inherit_to(successor)

    cdef int inherit_to(self, Connection successor) except -1:
        """Hand over what the client has sent without waiting for the answer to its handshake."""
        cdef TunnelSink tunnel = self.tunnel
        cdef bytes early = b"" if self.body is None else <bytes>self.body
        if self.more_body is not None:
            early += b"".join(self.more_body)
        self.body = self.more_body = None
        self.body_size = 0
        successor.inherit(0, PyBytes_AS_STRING(early), len(early))
        if self.is_open:
            self.connection.return_credit(self)
        return tunnel.feed_end() if self.body_complete else 0

    # --- Server push ---

    def start_pushed(self):
        """Answer a request that the server has promised."""
        cdef bint was = self.worker.enter()
        try:
            if self.is_open:
                self.start()
        finally:
            self.worker.leave(was)

    # --- The end ---

    cdef int outlive(self) except -1:
        cdef object task = self.task if self.websocket is None else self.websocket.task
        if task is not None:
            self.connection.outliving_count += 1
            task.add_done_callback(self.on_call_ended, context=PyContext_Copy(self.worker.context))
        return 0

    def on_call_ended(self, task):
        """The callback of outlive()."""
        self.connection.outliving_count -= 1


async def send_file(HTTP2Stream stream, file, offset, count, bint more):
    """Send `count` bytes of `file` from `offset` on as a piece of the body, and close it.

    The client may be gone at the first step already, and after each wait: then there is nothing more to do.
    """
    cdef bint ends = not (more or stream.wants_trailers)
    with file:
        if stream.is_open and not stream.gone and not stream.bodiless:
            stream.connection.put_file(stream, file.fileno(), offset, count, ends)
            stream.connection.push()
            try:
                await stream.sent()
            finally:
                # If this wait is cancelled, nothing is to be read from a descriptor that is closed
                stream.file_left = 0
    if stream.file_error > 0:
        raise OSError(stream.file_error, os.strerror(stream.file_error))
    if stream.file_error:
        raise RuntimeError(f"the file has fewer than the {count} bytes that were to be sent")
    if stream.gone or not stream.is_open:
        stream.feed_disconnect()
        return
    stream.file_sent(more)
