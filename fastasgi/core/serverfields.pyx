"""See serverfields.pxd for the contracts."""

from email.utils import formatdate

from fastasgi.codecs.heads cimport put_bytes


cdef class ServerFields:

    def __init__(self, headers, bint date_header):
        lines = [(name.lower(), b"%b: %b\r\n" % (name, value)) for name, value in headers]
        self.server_line = b"".join([line for name, line in lines if name == b"server"])
        self.other_lines = b"".join([line for name, line in lines if name != b"server"])
        self.has_date = date_header

    cdef bint renew(self, long second) except -1:
        if second == self.second:
            return False
        self.second = second
        self.date_line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode() if self.has_date else b""
        self.lines = self.server_line + self.date_line + self.other_lines
        return True

    cdef char* put(self, char* p, bint without_server, bint without_date) noexcept:
        if not (without_server or without_date):
            return put_bytes(p, self.lines)
        if not without_server:
            p = put_bytes(p, self.server_line)
        if not without_date:
            p = put_bytes(p, self.date_line)
        return put_bytes(p, self.other_lines)
