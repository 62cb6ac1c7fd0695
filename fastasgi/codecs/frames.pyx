"""See frames.pxd for the contracts."""

import zlib
from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_DECREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastasgi.codecs.deflate cimport DEFLATE_TAIL, Inflater

from fastasgi.codecs.deflate import check_deflate_settings


cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void* PyUnicode_DATA(object text)
    # If these fail, an exception is set. Their callers look at it or hand it on themselves, since Cython's own handler
    # needs memory.
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* p, Py_ssize_t n) noexcept
    int resize_bytes "_PyBytes_Resize" (PyObject** data, Py_ssize_t n) noexcept
    PyObject* decode_utf8 "PyUnicode_DecodeUTF8" (const char* p, Py_ssize_t n, const char* errors) noexcept
    char* bytes_start "PyBytes_AS_STRING" (PyObject* data)

cdef extern from "codecs/mask.h" nogil:
    ctypedef enum Utf8State:
        UTF8_BAD
        UTF8_WHOLE

    ctypedef enum MaskImplementation:
        pass

    void mask_choose()
    uint32_t mask_turn(uint32_t key, size_t n)
    bint unmask_copy(uint8_t* dst, const uint8_t* src, size_t n, uint32_t key)
    int unmask_with(
        MaskImplementation implementation, uint8_t* dst, const uint8_t* src, size_t n, uint32_t key)
    Utf8State utf8_check(Utf8State state, const uint8_t* p, const uint8_t* end)

cdef enum:
    FIN = 0x80
    RSV1 = 0x40
    RSV = 0x70
    OPCODE = 0x0f
    MASKED = 0x80
    LENGTH = 0x7f
    LENGTH_16 = 126                     # the length follows in 2 bytes
    LENGTH_64 = 127                     # the length follows in 8 bytes

cdef enum:
    MAX_FRAGMENTS = 131072              # frames of a message behind its first one
    MAX_FINAL_BLOCKS = 1024             # final blocks of a compressed message; each begins a new zlib stream
    DEFLATE_SLACK = 65536               # deflated bytes beyond twice the limit of a message
    MIN_CAPACITY = 64                   # bytes of a message's buffer, at least
    INFLATE_IN = 16384                  # deflated bytes that zlib gets at once, at most: it copies those that it leaves
    INFLATE_OUT = 65536                 # bytes that zlib gives at once, at most

mask_choose()


cdef inline bint is_close_code(int code) noexcept nogil:
    """Whether a Close frame may carry this code (RFC 6455 section 7.4, and its registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


# --- A server's frames ---

cdef char* put_frame_head(char* p, int opcode, bint compressed, Py_ssize_t payload_bytes) noexcept nogil:
    cdef uint64_t n = <uint64_t>payload_bytes
    cdef int length_bytes = 0 if n < LENGTH_16 else 2 if n < 0x10000 else 8
    cdef int i
    p[0] = <char>(FIN | (RSV1 if compressed else 0) | opcode)
    p[1] = <char>(n if length_bytes == 0 else LENGTH_16 if length_bytes == 2 else LENGTH_64)
    p += 2
    for i in range(length_bytes):
        p[i] = <char>(n >> 8 * (length_bytes - 1 - i))
    return p + length_bytes


def close_payload(int code, str reason not None):
    cdef bytes text = reason.encode()
    if code == CLOSE_NO_STATUS and not text:
        return b""
    if not is_close_code(code):
        raise ValueError(f"{code} is no code of a Close frame: 1000-1003, 1007-1014 and 3000-4999 are")
    if len(text) > MAX_CONTROL_BYTES - 2:
        raise ValueError(f"the reason of a Close frame has at most {MAX_CONTROL_BYTES - 2} bytes, not {len(text)}")
    return code.to_bytes(2, "big") + text


# --- A client's frames ---

cdef class FrameDecoder:

    def __init__(self, *, Py_ssize_t max_message_bytes=16777216, deflate=None):
        if max_message_bytes < 0:
            raise ValueError(f"max_message_bytes must be 0 (no limit) or more, not {max_message_bytes}")
        # At most half of the largest Py_ssize_t, so that no sum with it overflows
        self.max_message_bytes = min(max_message_bytes or PY_SSIZE_T_MAX, PY_SSIZE_T_MAX // 2)
        if deflate is not None:
            check_deflate_settings(deflate)
            self.inflater = Inflater(deflate.client_max_window_bits, not deflate.client_no_context_takeover)
        self.utf8 = UTF8_WHOLE

    def __dealloc__(self):
        Py_CLEAR(self.buffer)

    cdef int decode(self, const char** p, const char* end) except -1:
        cdef int event = NEED_DATA
        if self.failed:
            return FAILED
        if self.over:
            p[0] = end
            return NEED_DATA
        while event == NEED_DATA:
            if not self.in_payload:
                event = read_head(self, p, end)
                if not self.in_payload:
                    break
            event = read_payload(self, p, end)
            if self.in_payload:
                break
        return event

    def feed(self, data):
        cdef Py_buffer view
        cdef const char* p
        cdef const char* end
        cdef list events = []
        cdef int event
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            p = <const char*>view.buf
            end = p + view.len
            while True:
                event = self.decode(&p, end)
                if event == NEED_DATA:
                    return events
                events.append(frame_event(self, event))
                if event == FAILED:
                    return events
        finally:
            PyBuffer_Release(&view)


cdef int fail(FrameDecoder decoder, int code, str reason) except -1:
    decoder.failed = True
    decoder.close_code = code
    decoder.close_reason = reason
    decoder.in_payload = False
    decoder.inflater = None
    decoder.data = None
    Py_CLEAR(decoder.buffer)
    return FAILED


cdef int refuse(FrameDecoder decoder, str reason) except -1:
    return fail(decoder, CLOSE_PROTOCOL_ERROR, reason)


# --- Heads ---

cdef int read_head(FrameDecoder decoder, const char** p, const char* end) except -1:
    """Read a frame's head, or keep the part of it that has come. Returns NEED_DATA or FAILED."""
    cdef Py_ssize_t n = end - p[0]
    cdef Py_ssize_t kept = decoder.part_bytes
    cdef Py_ssize_t size
    if kept == 0:
        size = parse_head(decoder, <const uint8_t*>p[0], n)
        if size == 0:
            memcpy(decoder.part, p[0], n)
    else:
        n = min(n, CLIENT_HEAD_ROOM - kept)
        memcpy(decoder.part + kept, p[0], n)
        size = parse_head(decoder, decoder.part, kept + n)
    if size < 0:
        return FAILED
    decoder.part_bytes = <uint8_t>(kept + n if size == 0 else 0)
    p[0] += n if size == 0 else size - kept
    return NEED_DATA


cdef Py_ssize_t parse_head(FrameDecoder decoder, const uint8_t* p, Py_ssize_t n) except -2:
    """Understand the head at p. Returns its size; 0 if it isn't whole; -1 if it is wrong, as soon as that shows."""
    cdef uint64_t length
    cdef Py_ssize_t size
    cdef int opcode
    cdef int i
    cdef bint compressed
    if n < 1:
        return 0
    opcode = p[0] & OPCODE
    if check_first_byte(decoder, p[0], opcode) == FAILED:
        return -1
    if n < 2:
        return 0
    if not p[1] & MASKED:
        refuse(decoder, "a client's frame must be masked")      # RFC 6455 section 5.1
        return -1
    length = p[1] & LENGTH
    size = 2
    if length >= LENGTH_16:
        if opcode >= OP_CLOSE:
            refuse(decoder, "a control frame has at most 125 bytes")    # RFC 6455 section 5.5
            return -1
        size = 4 if length == LENGTH_16 else 10
        if n < size:
            return 0
        length = 0
        for i in range(2, size):
            length = length << 8 | p[i]
        if length < <uint64_t>(LENGTH_16 if size == 4 else 0x10000) or length >> 63:
            refuse(decoder, "the length of a frame is not encoded in the shortest form")  # RFC 6455 section 5.2
            return -1
    compressed = decoder.compressed if opcode == OP_CONTINUATION else p[0] & RSV1 != 0
    # A compressed message may be longer than its frames: inflate() holds it to the limit.
    if opcode < OP_CLOSE and not compressed and length > <uint64_t>(decoder.max_message_bytes - decoder.size):
        fail_too_big(decoder)
        return -1
    size += 4
    if n < size:
        return 0
    memcpy(&decoder.key, p + size - 4, 4)
    decoder.final = p[0] & FIN != 0
    decoder.left = <int64_t>length
    return -1 if begin_frame(decoder, opcode, compressed) == FAILED else size


cdef int begin_frame(FrameDecoder decoder, int opcode, bint compressed) except -1:
    """0, or FAILED."""
    decoder.in_payload = True
    decoder.opcode = <uint8_t>opcode
    if opcode == OP_TEXT or opcode == OP_BINARY:
        decoder.message = <uint8_t>opcode
        decoder.compressed = compressed
        decoder.fragments = 0
    elif opcode == OP_CONTINUATION:
        decoder.fragments += 1
        if decoder.fragments > MAX_FRAGMENTS:
            return fail(decoder, CLOSE_TOO_BIG, f"a message has more than {MAX_FRAGMENTS} fragments")
    return 0


cdef int check_first_byte(FrameDecoder decoder, uint8_t first, int opcode) except -1:
    """FAILED if no frame may begin so now; else NEED_DATA."""
    if first & RSV and (
        first & RSV != RSV1 or decoder.inflater is None or opcode == OP_CONTINUATION or opcode > OP_BINARY
    ):
        # RFC 6455 section 5.2, RFC 7692 section 6.1
        return refuse(decoder, "a reserved bit is set")
    if opcode > OP_PONG or OP_BINARY < opcode < OP_CLOSE:
        return refuse(decoder, f"{opcode} is no opcode")        # RFC 6455 section 5.2
    if opcode >= OP_CLOSE:
        if not first & FIN:
            return refuse(decoder, "a control frame is fragmented")     # RFC 6455 section 5.5
    elif opcode == OP_CONTINUATION:
        if decoder.message == 0:
            return refuse(decoder, "there is no message to continue")   # RFC 6455 section 5.4
    elif decoder.message:
        return refuse(decoder, "a message begins inside another one")   # RFC 6455 section 5.4
    return NEED_DATA


cdef int fail_too_big(FrameDecoder decoder) except -1:
    return fail(decoder, CLOSE_TOO_BIG, f"a message has more than {decoder.max_message_bytes} bytes")


# --- Payloads ---

cdef int read_payload(FrameDecoder decoder, const char** p, const char* end) except -1:
    """Read the part of a frame's payload that has come. Returns the event that it completes, NEED_DATA or FAILED."""
    cdef const uint8_t* payload = <const uint8_t*>p[0]
    cdef Py_ssize_t n = <Py_ssize_t>min(decoder.left, <int64_t>(end - p[0]))
    cdef uint32_t key = decoder.key
    cdef bint whole = n == decoder.left
    p[0] += n
    decoder.left -= n
    decoder.key = mask_turn(key, n)
    decoder.in_payload = not whole
    if decoder.opcode >= OP_CLOSE:
        return read_control(decoder, payload, n, key)
    if decoder.compressed:
        return read_compressed(decoder, payload, n, key)
    if not (whole and decoder.final):
        return append_masked(decoder, payload, n, key)
    if decoder.size == 0:
        return end_with(decoder, payload, n, key)
    if append_masked(decoder, payload, n, key) == FAILED:
        return FAILED
    return end_message(decoder)


cdef int read_control(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n, uint32_t key) except -1:
    unmask_copy(decoder.part + decoder.part_bytes, payload, n, key)
    decoder.part_bytes += <uint8_t>n
    if decoder.in_payload:
        return NEED_DATA
    n = decoder.part_bytes
    decoder.part_bytes = 0
    if decoder.opcode == OP_CLOSE:
        return read_close(decoder, decoder.part, n)
    decoder.data = PyBytes_FromStringAndSize(<char*>decoder.part, n)
    return decoder.opcode


cdef int read_close(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n) except -1:
    """Read the payload of a Close frame (RFC 6455 section 5.5.1). Returns OP_CLOSE or FAILED."""
    cdef int code = CLOSE_NO_STATUS
    cdef str reason = ""
    if n == 1:
        return refuse(decoder, "the code of a Close frame has one byte")
    if n >= 2:
        code = payload[0] << 8 | payload[1]
        if not is_close_code(code):
            return refuse(decoder, f"{code} is no code of a Close frame")
        if not read_text(decoder, payload + 2, n - 2):
            return fail(decoder, CLOSE_INVALID_DATA, "the reason of a Close frame is not UTF-8")
        reason = decoder.payload()
    decoder.over = True
    decoder.message = 0
    decoder.inflater = None
    Py_CLEAR(decoder.buffer)
    decoder.close_code = code
    decoder.close_reason = reason
    return OP_CLOSE


# --- Messages ---

cdef int end_with(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n, uint32_t key) except -1:
    """End a message of which this is the whole payload."""
    cdef object data
    if decoder.message == OP_BINARY:
        data = PyBytes_FromStringAndSize(NULL, n)
        unmask_copy(<uint8_t*>PyBytes_AS_STRING(data), payload, n, key)
    else:
        data = PyUnicode_New(n, 127)
        # If it isn't ASCII, it is decoded from this object, which is thrown away then
        if unmask_copy(<uint8_t*>PyUnicode_DATA(data), payload, n, key):
            return end_with_text(decoder, <const uint8_t*>PyUnicode_DATA(data), n)
    return give(decoder, data)


cdef int end_with_text(FrameDecoder decoder, const uint8_t* text, Py_ssize_t n) except -1:
    return give(decoder, decoder.data) if read_text(decoder, text, n) else fail_not_utf8(decoder)


cdef int read_text(FrameDecoder decoder, const uint8_t* text, Py_ssize_t n) except -1:
    """Decode n bytes of text into decoder.data. Returns whether they are UTF-8."""
    cdef PyObject* decoded = decode_utf8(<const char*>text, n, NULL)
    if decoded is NULL:
        if not PyErr_ExceptionMatches(UnicodeDecodeError):
            return -1
        PyErr_Clear()
        return False
    decoder.data = <object>decoded
    Py_DECREF(decoder.data)
    return True


cdef int end_message(FrameDecoder decoder) except -1:
    """End the message in the buffer, which is whole."""
    cdef int event
    if decoder.message == OP_TEXT:
        event = end_with_text(decoder, <const uint8_t*>bytes_start(decoder.buffer), decoder.size)
    else:
        if decoder.size < decoder.capacity:
            resize(decoder, decoder.size)
        event = give(decoder, <object>decoder.buffer)
    Py_CLEAR(decoder.buffer)
    decoder.size = 0
    decoder.capacity = 0
    return event


cdef int give(FrameDecoder decoder, object data) except -1:
    cdef int event = decoder.message
    decoder.message = 0
    decoder.data = data
    return event


cdef int fail_not_utf8(FrameDecoder decoder) except -1:
    return fail(decoder, CLOSE_INVALID_DATA, "a text message is not UTF-8")     # RFC 6455 section 8.1


cdef int append_masked(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n, uint32_t key) except -1:
    cdef Py_ssize_t expected = decoder.max_message_bytes
    cdef uint8_t* room
    if n == 0:
        return NEED_DATA
    if decoder.final:
        expected = decoder.size + n + <Py_ssize_t>decoder.left
    room = room_for(decoder, n, expected)
    return append(decoder, room, n, unmask_copy(room, payload, n, key))


cdef int append_plain(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n) except -1:
    cdef uint8_t* room
    if n == 0:
        return NEED_DATA
    room = room_for(decoder, n, decoder.max_message_bytes)
    memcpy(room, payload, n)
    return append(decoder, room, n, True)


cdef int append(FrameDecoder decoder, const uint8_t* room, Py_ssize_t n, bint may_be_high) except -1:
    """Count n bytes that were written at room_for(n); unless `may_be_high` they are ASCII."""
    decoder.size += n
    if decoder.message == OP_TEXT and (may_be_high or decoder.utf8 != UTF8_WHOLE):
        decoder.utf8 = utf8_check(<Utf8State>decoder.utf8, room, room + n)
        if decoder.utf8 == UTF8_BAD:
            return fail_not_utf8(decoder)
    return NEED_DATA


cdef uint8_t* room_for(FrameDecoder decoder, Py_ssize_t n, Py_ssize_t expected) except NULL:
    """Where the next n > 0 bytes of the message go. The message will have at most `expected` bytes."""
    cdef Py_ssize_t needed = decoder.size + n
    if needed > decoder.capacity:
        resize(decoder, max(needed, min(expected, max(2 * needed, MIN_CAPACITY))))
    return <uint8_t*>bytes_start(decoder.buffer) + decoder.size


cdef int resize(FrameDecoder decoder, Py_ssize_t capacity) except -1:
    if decoder.buffer is NULL:
        decoder.buffer = new_bytes(NULL, capacity)
    else:
        resize_bytes(&decoder.buffer, capacity)
    if decoder.buffer is NULL:
        # The buffer is gone, and with it the message
        fail(decoder, CLOSE_INTERNAL_ERROR, "there is no memory for a message")
        return -1
    decoder.capacity = capacity


# --- Compressed messages ---

cdef int read_compressed(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n, uint32_t key) except -1:
    cdef bint ends = decoder.final and not decoder.in_payload
    try:
        while n > INFLATE_IN:
            if inflate(decoder, payload, INFLATE_IN, key, False) == FAILED:
                return FAILED
            payload += INFLATE_IN       # a multiple of 4: the key begins again
            n -= INFLATE_IN
        return inflate(decoder, payload, n, key, ends)
    except zlib.error:
        return fail(decoder, CLOSE_INVALID_DATA, "a compressed message can't be inflated")


cdef int inflate(FrameDecoder decoder, const uint8_t* payload, Py_ssize_t n, uint32_t key, bint ends) except -1:
    """Inflate a piece of a compressed message. Returns the event that it completes, NEED_DATA or FAILED."""
    cdef Inflater inflater = decoder.inflater
    # If the message is empty, or ends behind a final block, the tail could belong to nothing and is left out
    cdef Py_ssize_t tail = len(DEFLATE_TAIL) if ends and (n or inflater.fed) else 0
    cdef bytes piece = PyBytes_FromStringAndSize(NULL, n + tail)
    unmask_copy(<uint8_t*>PyBytes_AS_STRING(piece), payload, n, key)
    memcpy(PyBytes_AS_STRING(piece) + n, PyBytes_AS_STRING(DEFLATE_TAIL), tail)
    inflater.feed(piece, ends)
    if inflater.source_bytes - DEFLATE_SLACK > 2 * decoder.max_message_bytes:
        return fail_too_big(decoder)
    while inflater.pending:
        if inflater.final_blocks > MAX_FINAL_BLOCKS:
            return fail(decoder, CLOSE_TOO_BIG, f"a message has more than {MAX_FINAL_BLOCKS} final blocks")
        # One byte more than there may be shows that there is too much
        piece = inflater.next_piece(min(INFLATE_OUT, decoder.max_message_bytes - decoder.size + 1))
        if ends and decoder.size == 0 and not inflater.pending and len(piece) <= decoder.max_message_bytes:
            inflater.end_message()
            return end_inflated(decoder, piece)
        if append_inflated(decoder, piece) == FAILED:
            return FAILED
    if not ends:
        return NEED_DATA
    inflater.end_message()
    return end_inflated(decoder, b"") if decoder.size == 0 else end_message(decoder)


cdef int append_inflated(FrameDecoder decoder, bytes piece) except -1:
    cdef Py_ssize_t n = min(len(piece), decoder.max_message_bytes - decoder.size)
    if append_plain(decoder, <const uint8_t*>PyBytes_AS_STRING(piece), n) == FAILED:
        return FAILED
    return fail_too_big(decoder) if n < len(piece) else NEED_DATA


cdef int end_inflated(FrameDecoder decoder, bytes piece) except -1:
    if decoder.message == OP_TEXT:
        return end_with_text(decoder, <const uint8_t*>PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
    return give(decoder, piece)


# --- For Python: tests, fuzzing, measuring ---

FrameEvent = namedtuple("FrameEvent", "kind data close_code close_reason", defaults=(b"", 0, ""))

_OPCODES = {"text": OP_TEXT, "binary": OP_BINARY, "close": OP_CLOSE, "ping": OP_PING, "pong": OP_PONG}
_KINDS = {**{opcode: kind for kind, opcode in _OPCODES.items()}, FAILED: "failed"}


cdef object frame_event(FrameDecoder decoder, int event):
    if event == OP_CLOSE or event == FAILED:
        return FrameEvent(_KINDS[event], b"", decoder.close_code, decoder.close_reason)
    return FrameEvent(_KINDS[event], decoder.payload())


def encode_frame(str kind not None, bytes payload not None, *, bint compressed=False):
    cdef char head[FRAME_HEAD_ROOM]
    cdef char* end = put_frame_head(head, _OPCODES[kind], compressed, len(payload))
    return head[:end - head] + payload


# In the order of MaskImplementation
_MASK_IMPLEMENTATIONS = ("scalar", "16", "32", "chosen")


def _unmask(str implementation, data, bytes key, Py_ssize_t offset, target):
    """For tests: copy `data`, whose first byte has this offset in its payload, to `target` without its mask.

    Whether a byte of it is 0x80 or more; None if there is no such implementation.
    """
    cdef Py_buffer src
    cdef Py_buffer dst
    cdef uint32_t masking_key
    cdef int high
    memcpy(&masking_key, <char*>key, 4)
    PyObject_GetBuffer(data, &src, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(target, &dst, PyBUF_WRITABLE)
        try:
            assert dst.len == src.len
            high = unmask_with(
                <MaskImplementation><int>_MASK_IMPLEMENTATIONS.index(implementation),
                <uint8_t*>dst.buf, <const uint8_t*>src.buf, src.len, mask_turn(masking_key, offset),
            )
            return None if high < 0 else bool(high)
        finally:
            PyBuffer_Release(&dst)
    finally:
        PyBuffer_Release(&src)


def _check_utf8(pieces):
    """For tests: "whole" if these pieces together are UTF-8, "part" if they are the beginning of some, otherwise
    "bad"."""
    cdef Py_buffer view
    cdef Utf8State state = UTF8_WHOLE
    for piece in pieces:
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        state = utf8_check(state, <const uint8_t*>view.buf, <const uint8_t*>view.buf + view.len)
        PyBuffer_Release(&view)
    return "whole" if state == UTF8_WHOLE else "bad" if state == UTF8_BAD else "part"
