"""Chunked transfer coding, decoded in place (RFC 9112 section 7.1).

Chunk extensions and trailer fields are held to their grammar and to limits, and dropped. Must not know: asyncio, ASGI,
sockets, what the body belongs to.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef struct ChunkedDecoder:
    int64_t left                # bytes of the current chunk still to come
    uint32_t line_bytes         # bytes of the current size line's extensions, or of all trailers
    uint32_t extension_bytes    # bytes of the extensions of all size lines so far
    uint8_t state
    uint8_t digits              # the number of digits of the current chunk's size
    uint8_t trailers            # the number of trailer fields that have begun
    bint done                   # the last CRLF has been consumed


cdef void chunked_reset(ChunkedDecoder* decoder) noexcept nogil
# Decodes in place: moves the body's bytes to the front of `p` and sets `*body` to their count.
# Returns how many bytes of the input it consumed (less than n only if the body has ended); -1 if it is malformed
cdef Py_ssize_t chunked_decode(
    ChunkedDecoder* decoder, char* p, Py_ssize_t n, Py_ssize_t* body
) noexcept nogil
