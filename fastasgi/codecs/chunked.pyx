"""See chunked.pxd for the contracts."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.string cimport memmove

from fastasgi.codecs.scan cimport SCAN_QUOTED, SCAN_TOKEN, SCAN_VALUE, scan_hex, scan_is, scan_is_blank

from fastasgi._parser import ParseError

cdef enum:
    MAX_SIZE_DIGITS = 16
    MAX_SIZE_LINE_BYTES = 4096          # of the extensions in one size line
    MAX_EXTENSION_BYTES = 16384         # of all extensions of a body
    MAX_TRAILER_BYTES = 8192            # of all trailer fields of a body
    MAX_TRAILERS = 64

cdef enum ChunkedState:
    SIZE                        # hexadecimal digits
    EXT_OR_END                  # blanks were seen: only ";" may follow
    EXT_NAME_START
    EXT_NAME
    EXT_NAME_END                # blanks behind a name
    EXT_VALUE_START
    EXT_VALUE
    EXT_QUOTED
    EXT_ESCAPED
    EXT_QUOTED_END
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER_START
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    DONE
    FAILED


cdef void chunked_reset(ChunkedDecoder* decoder) noexcept nogil:
    decoder.left = 0
    decoder.line_bytes = 0
    decoder.extension_bytes = 0
    decoder.state = SIZE
    decoder.digits = 0
    decoder.trailers = 0
    decoder.done = False


cdef inline int after_extension(uint8_t byte) noexcept nogil:
    """The state behind a complete size or extension."""
    if byte == c"\r":
        return SIZE_LF
    if byte == c";":
        return EXT_NAME_START
    return EXT_OR_END if scan_is_blank(byte) else FAILED


cdef int next_in_extension(int state, uint8_t byte) noexcept nogil:
    """The state after a byte of *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )."""
    if state == EXT_OR_END:
        return EXT_NAME_START if byte == c";" else EXT_OR_END if scan_is_blank(byte) else FAILED
    if state == EXT_NAME_START:
        return EXT_NAME if scan_is(SCAN_TOKEN, byte) else EXT_NAME_START if scan_is_blank(byte) else FAILED
    if state == EXT_NAME or state == EXT_NAME_END:
        if byte == c"=":
            return EXT_VALUE_START
        if byte == c";":
            return EXT_NAME_START
        if scan_is_blank(byte):
            return EXT_NAME_END
        if state == EXT_NAME_END:
            return FAILED
        return EXT_NAME if scan_is(SCAN_TOKEN, byte) else SIZE_LF if byte == c"\r" else FAILED
    if state == EXT_VALUE_START:
        if byte == c"\"":
            return EXT_QUOTED
        return EXT_VALUE if scan_is(SCAN_TOKEN, byte) else EXT_VALUE_START if scan_is_blank(byte) else FAILED
    if state == EXT_VALUE:
        return EXT_VALUE if scan_is(SCAN_TOKEN, byte) else after_extension(byte)
    if state == EXT_QUOTED:
        if byte == c"\"":
            return EXT_QUOTED_END
        return EXT_QUOTED if scan_is(SCAN_QUOTED, byte) else EXT_ESCAPED if byte == c"\\" else FAILED
    if state == EXT_ESCAPED:
        return EXT_QUOTED if scan_is(SCAN_VALUE, byte) else FAILED
    return after_extension(byte)


cdef int next_in_trailers(ChunkedDecoder* decoder, int state, uint8_t byte) noexcept nogil:
    """The state after a byte behind the last chunk's line: fields by the grammar of a head, all dropped."""
    if state == TRAILER_START:
        if byte == c"\r":
            return END_LF
        decoder.trailers += 1
        return TRAILER_NAME if scan_is(SCAN_TOKEN, byte) and decoder.trailers <= MAX_TRAILERS else FAILED
    if state == TRAILER_NAME:
        return TRAILER_NAME if scan_is(SCAN_TOKEN, byte) else TRAILER_VALUE if byte == c":" else FAILED
    if state == TRAILER_VALUE:
        return TRAILER_VALUE if scan_is(SCAN_VALUE, byte) else TRAILER_LF if byte == c"\r" else FAILED
    if state == TRAILER_LF:
        return TRAILER_START if byte == c"\n" else FAILED
    return DONE if byte == c"\n" else FAILED


cdef int next_in_size(ChunkedDecoder* decoder, uint8_t byte) noexcept nogil:
    """The state after a byte of a chunk-size; leading zeros count as digits."""
    cdef int digit = scan_hex(byte)
    if digit < 0:
        return after_extension(byte) if decoder.digits else FAILED
    if decoder.digits == MAX_SIZE_DIGITS or decoder.left > INT64_MAX >> 4:
        return FAILED
    decoder.digits += 1
    decoder.left = decoder.left << 4 | digit
    return SIZE


cdef int next_state(ChunkedDecoder* decoder, int state, uint8_t byte) noexcept nogil:
    """The state after any byte that is not chunk data."""
    if state == SIZE:
        return next_in_size(decoder, byte)
    if state < SIZE_LF:
        decoder.extension_bytes += 1
        decoder.line_bytes += 1
        if decoder.line_bytes > MAX_SIZE_LINE_BYTES or decoder.extension_bytes > MAX_EXTENSION_BYTES:
            return FAILED
        return next_in_extension(state, byte)
    if state == SIZE_LF:
        decoder.line_bytes = 0
        decoder.digits = 0
        return FAILED if byte != c"\n" else DATA if decoder.left else TRAILER_START
    if state == DATA_CR:
        return DATA_LF if byte == c"\r" else FAILED
    if state == DATA_LF:
        return SIZE if byte == c"\n" else FAILED
    decoder.line_bytes += 1
    return FAILED if decoder.line_bytes > MAX_TRAILER_BYTES else next_in_trailers(decoder, state, byte)


cdef Py_ssize_t chunked_decode(
    ChunkedDecoder* decoder, char* p, Py_ssize_t n, Py_ssize_t* body
) noexcept nogil:
    cdef char* out = p
    cdef char* start = p
    cdef char* end = p + n
    cdef int state = decoder.state
    cdef Py_ssize_t taken
    while p < end and state < DONE:
        if state == DATA:
            taken = <Py_ssize_t>min(<int64_t>(end - p), decoder.left)
            if out != p:
                memmove(out, p, taken)
            out += taken
            p += taken
            decoder.left -= taken
            if decoder.left == 0:
                state = DATA_CR
        else:
            state = next_state(decoder, state, <uint8_t>p[0])
            p += 1
    decoder.state = <uint8_t>state
    decoder.done = state == DONE
    body[0] = out - start
    return -1 if state == FAILED else p - start


cdef class ChunkedBody:
    cdef ChunkedDecoder decoder
    cdef readonly bytes unused

    def __cinit__(self):
        chunked_reset(&self.decoder)
        self.unused = b""

    @property
    def done(self):
        return bool(self.decoder.done)

    def feed(self, bytes data not None):
        cdef Py_ssize_t n = len(data)
        cdef Py_ssize_t body = 0
        cdef Py_ssize_t consumed
        cdef bytearray buffer = bytearray(data)
        consumed = chunked_decode(&self.decoder, buffer, n, &body)
        if consumed < 0:
            raise ParseError(400, "the chunked body is malformed")
        self.unused += data[consumed:]
        return bytes(buffer[:body])
