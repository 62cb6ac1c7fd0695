"""See headreader.pxd for the contracts."""

cimport cython

from fastasgi.codecs.fieldnames cimport SharedPairs

_UNDERSCORES = ("allow", "drop", "refuse")      # in the order of Underscores


@cython.no_gc                   # SharedPairs is in no circle, and has to be there until the end
cdef class HeadReader:
    def __cinit__(
        self,
        *,
        Py_ssize_t max_request_line_bytes=8192,
        Py_ssize_t max_head_bytes=65536,
        int max_header_count=128,
        str underscores="allow",
        SharedPairs shared=None,
    ):
        if not 16 <= max_request_line_bytes <= 2**30:
            raise ValueError(f"max_request_line_bytes is {max_request_line_bytes}: not within 16 and 2**30")
        if not 16 <= max_head_bytes <= 2**30:
            raise ValueError(f"max_head_bytes is {max_head_bytes}: not within 16 and 2**30")
        if not 1 <= max_header_count <= 2**20:
            raise ValueError(f"max_header_count is {max_header_count}: not within 1 and 2**20")
        if underscores not in _UNDERSCORES:
            raise ValueError(f"underscores is {underscores!r}: not one of {', '.join(_UNDERSCORES)}")
        self.max_request_line_bytes = max_request_line_bytes
        self.max_head_bytes = max_head_bytes
        self.max_header_count = max_header_count
        self.underscores = _UNDERSCORES.index(underscores)
        self.shared = SharedPairs() if shared is None else shared


cdef HeadReader unlent_reader(HeadReader reader):
    if not reader.lent:
        return reader
    return type(reader)(
        max_request_line_bytes=reader.max_request_line_bytes, max_head_bytes=reader.max_head_bytes,
        max_header_count=reader.max_header_count, underscores=_UNDERSCORES[reader.underscores], shared=reader.shared)
