"""See http2frames.pxd for the contracts."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memmove

PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

cdef enum:
    MAX_SETTINGS = 32                   # in one SETTINGS frame: RFC 9113 defines six, extensions about as many

cdef tuple ERROR_NAMES = (              # in the order of ErrorCode
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)


cpdef str error_name(uint32_t code):
    return ERROR_NAMES[code] if code < <uint32_t>len(ERROR_NAMES) else f"0x{code:x}"


# --- Heads ---

cdef inline bint belongs_to_stream(uint8_t type) noexcept nogil:
    return type <= RST_STREAM or type == PUSH_PROMISE or type == CONTINUATION


cdef inline bint belongs_to_connection(uint8_t type) noexcept nogil:
    return type == SETTINGS or type == PING or type == GOAWAY or type == PRIORITY_UPDATE


cdef uint32_t check_head(const FrameHead* head) noexcept nogil:
    cdef uint32_t n = head.length
    cdef uint8_t type = head.type
    if n > MAX_FRAME_SIZE:
        return FRAME_SIZE_ERROR
    if belongs_to_stream(type) if head.stream_id == 0 else belongs_to_connection(type):
        return PROTOCOL_ERROR
    if type == RST_STREAM or type == WINDOW_UPDATE:
        return NO_ERROR if n == 4 else FRAME_SIZE_ERROR
    if type == SETTINGS:
        return FRAME_SIZE_ERROR if n % SETTING_BYTES or n and head.flags & ACK else NO_ERROR
    if type == PUSH_PROMISE:
        return PROTOCOL_ERROR           # a client cannot push (section 8.4)
    if type == PING:
        return NO_ERROR if n == PING_BYTES else FRAME_SIZE_ERROR
    if type == GOAWAY:
        return NO_ERROR if n >= 8 else FRAME_SIZE_ERROR
    if type == PRIORITY_UPDATE:
        return NO_ERROR if n >= 4 else FRAME_SIZE_ERROR
    return NO_ERROR


# --- Payloads ---

cdef uint32_t find_content(const FrameHead* head, const uint8_t* payload, Content* content) noexcept nogil:
    cdef uint32_t offset = 0
    cdef uint32_t padding = 0
    content.dependency = 0
    if head.flags & PADDED:
        if head.length == 0:
            return FRAME_SIZE_ERROR
        padding = payload[0]
        offset = 1
    if head.type == HEADERS and head.flags & PRIORITY_FLAG:
        if head.length < offset + PRIORITY_BYTES:
            return FRAME_SIZE_ERROR
        content.dependency = read_u31(payload + offset)
        offset += PRIORITY_BYTES
    if padding > head.length - offset:
        return PROTOCOL_ERROR           # sections 6.1 and 6.2
    content.offset = offset
    content.length = head.length - offset - padding
    return NO_ERROR


cdef void settings_init(Settings* settings) noexcept nogil:
    settings.header_table_size = settings.least_header_table_size = 4096
    settings.max_concurrent_streams = UINT32_MAX
    settings.initial_window_size = DEFAULT_WINDOW
    settings.max_frame_size = MAX_FRAME_SIZE
    settings.max_header_list_size = UINT32_MAX
    settings.enable_push = True
    settings.enable_connect_protocol = False
    settings.no_rfc7540_priorities = False


cdef uint32_t read_setting(Settings* settings, uint16_t setting_id, uint32_t value) noexcept nogil:
    if setting_id == SETTINGS_HEADER_TABLE_SIZE:
        settings.header_table_size = value
        settings.least_header_table_size = min(settings.least_header_table_size, value)
    elif setting_id == SETTINGS_MAX_CONCURRENT_STREAMS:
        settings.max_concurrent_streams = value
    elif setting_id == SETTINGS_INITIAL_WINDOW_SIZE:
        if value > MAX_WINDOW:
            return FLOW_CONTROL_ERROR
        settings.initial_window_size = value
    elif setting_id == SETTINGS_MAX_FRAME_SIZE:
        if not MAX_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            return PROTOCOL_ERROR
        settings.max_frame_size = value
    elif setting_id == SETTINGS_MAX_HEADER_LIST_SIZE:
        settings.max_header_list_size = value
    elif (
        setting_id == SETTINGS_ENABLE_PUSH
        or setting_id == SETTINGS_ENABLE_CONNECT_PROTOCOL
        or setting_id == SETTINGS_NO_RFC7540_PRIORITIES
    ):
        if value > 1:
            return PROTOCOL_ERROR
        if setting_id == SETTINGS_ENABLE_PUSH:
            settings.enable_push = value
        elif setting_id == SETTINGS_ENABLE_CONNECT_PROTOCOL:
            settings.enable_connect_protocol = value
        else:
            settings.no_rfc7540_priorities = value
    return NO_ERROR


cdef uint32_t read_settings(Settings* settings, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef uint32_t error_code
    if n % SETTING_BYTES:
        return FRAME_SIZE_ERROR
    if n > MAX_SETTINGS * SETTING_BYTES:
        return ENHANCE_YOUR_CALM
    settings.least_header_table_size = UINT32_MAX
    while p < end:
        error_code = read_setting(settings, read_u16(p), read_u32(p + 2))
        if error_code:
            return error_code
        p += SETTING_BYTES
    settings.least_header_table_size = min(settings.least_header_table_size, settings.header_table_size)
    return NO_ERROR


cdef char* put_setting(char* p, uint16_t setting_id, uint32_t value) noexcept nogil:
    return put_u32(put_u16(p, setting_id), value)


cdef char* put_settings_ack(char* p) noexcept nogil:
    return put_frame_head(p, 0, SETTINGS, ACK, 0)


cdef char* put_window_update(char* p, uint32_t stream_id, uint32_t increment) noexcept nogil:
    return put_u32(put_frame_head(p, 4, WINDOW_UPDATE, 0, stream_id), increment)


cdef char* put_rst_stream(char* p, uint32_t stream_id, uint32_t error_code) noexcept nogil:
    return put_u32(put_frame_head(p, 4, RST_STREAM, 0, stream_id), error_code)


cdef char* put_ping(char* p, uint8_t flags, const uint8_t* opaque) noexcept nogil:
    p = put_frame_head(p, PING_BYTES, PING, flags, 0)
    memcpy(p, opaque, PING_BYTES)
    return p + PING_BYTES


cdef char* put_goaway(
    char* p, uint32_t last_stream_id, uint32_t error_code, const char* text, uint32_t n
) noexcept nogil:
    p = put_frame_head(p, 8 + n, GOAWAY, 0, 0)
    p = put_u32(put_u32(p, last_stream_id), error_code)
    if n:
        memcpy(p, text, n)
    return p + n


# --- Header blocks ---

cdef char* put_block_heads(
    char* p, Py_ssize_t n, uint8_t type, uint8_t flags, uint32_t stream_id, uint32_t max_frame_size
) noexcept:
    cdef Py_ssize_t first = min(n, max_frame_size)
    cdef Py_ssize_t rest = n - first
    cdef Py_ssize_t frames = (rest + max_frame_size - 1) // max_frame_size
    cdef char* end = p + FRAME_HEAD + n + frames * FRAME_HEAD
    cdef char* source
    cdef char* target = end
    cdef Py_ssize_t size
    cdef uint8_t last = END_HEADERS
    # From the last fragment to the first, since each moves to behind the heads of those before it
    while rest:
        size = rest - (frames - 1) * max_frame_size
        source = p + FRAME_HEAD + first + rest - size
        target -= size
        memmove(target, source, size)
        target -= FRAME_HEAD
        put_frame_head(target, <uint32_t>size, CONTINUATION, last, stream_id)
        last = 0
        rest -= size
        frames -= 1
    put_frame_head(p, <uint32_t>first, type, flags | last, stream_id)
    return end


# --- For Python: tests ---

FrameSettings = namedtuple(
    "FrameSettings",
    "header_table_size least_header_table_size max_concurrent_streams initial_window_size max_frame_size"
    " max_header_list_size enable_push enable_connect_protocol no_rfc7540_priorities",
)


def decode_frame_head(bytes data not None):
    cdef FrameHead head
    if len(data) < FRAME_HEAD:
        raise ValueError("a frame's head has nine bytes")
    read_frame_head(<const uint8_t*>PyBytes_AS_STRING(data), &head)
    return head.length, head.type, head.flags, head.stream_id, check_head(&head)


def decode_content(bytes frame not None):
    cdef FrameHead head
    cdef Content content
    cdef uint32_t error_code
    cdef const uint8_t* payload = <const uint8_t*>PyBytes_AS_STRING(frame) + FRAME_HEAD
    if len(frame) < FRAME_HEAD:
        raise ValueError("a frame's head has nine bytes")
    read_frame_head(<const uint8_t*>PyBytes_AS_STRING(frame), &head)
    if len(frame) != FRAME_HEAD + head.length:
        raise ValueError("the frame is not whole")
    error_code = find_content(&head, payload, &content)
    if error_code:
        return error_code
    return (<const char*>payload)[content.offset:content.offset + content.length], content.dependency


def decode_settings(payloads):
    cdef Settings settings
    cdef uint32_t error_code
    cdef bytes payload
    settings_init(&settings)
    for payload in payloads:
        error_code = read_settings(&settings, <const uint8_t*>PyBytes_AS_STRING(payload), len(payload))
        if error_code:
            return error_code
    return FrameSettings(
        settings.header_table_size, settings.least_header_table_size, settings.max_concurrent_streams,
        settings.initial_window_size, settings.max_frame_size, settings.max_header_list_size,
        bool(settings.enable_push), bool(settings.enable_connect_protocol), bool(settings.no_rfc7540_priorities),
    )


def encode_settings(settings):
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, FRAME_HEAD + SETTING_BYTES * len(settings))
    cdef char* p = put_frame_head(
        PyBytes_AS_STRING(frame), SETTING_BYTES * <uint32_t>len(settings), SETTINGS, 0, 0)
    for setting_id, value in settings.items():
        p = put_setting(p, setting_id, value)
    return frame


def encode_settings_ack():
    cdef char frame[SETTINGS_ACK_ROOM]
    return frame[:put_settings_ack(frame) - frame]


def encode_window_update(uint32_t stream_id, uint32_t increment):
    cdef char frame[WINDOW_UPDATE_ROOM]
    return frame[:put_window_update(frame, stream_id, increment) - frame]


def encode_rst_stream(uint32_t stream_id, uint32_t error_code):
    cdef char frame[RST_STREAM_ROOM]
    return frame[:put_rst_stream(frame, stream_id, error_code) - frame]


def encode_ping(bytes opaque not None, *, bint ack=False):
    cdef char frame[PING_ROOM]
    if len(opaque) != PING_BYTES:
        raise ValueError("a ping has eight bytes")
    return frame[:put_ping(frame, ACK if ack else 0, <const uint8_t*>PyBytes_AS_STRING(opaque)) - frame]


def encode_goaway(uint32_t last_stream_id, uint32_t error_code, bytes text=b""):
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, GOAWAY_ROOM + len(text))
    put_goaway(PyBytes_AS_STRING(frame), last_stream_id, error_code, text, <uint32_t>len(text))
    return frame


def encode_block(
    bytes block not None, uint32_t stream_id, *, uint8_t flags=0, bint promises=False,
    uint32_t max_frame_size=MAX_FRAME_SIZE
):
    cdef bytes frames
    cdef char* p
    if not 1 <= max_frame_size <= LARGEST_FRAME_SIZE:
        raise ValueError(f"max_frame_size is {max_frame_size}: not within 1 and 2**24 - 1")
    frames = PyBytes_FromStringAndSize(NULL, block_room(len(block), max_frame_size))
    p = PyBytes_AS_STRING(frames)
    memcpy(p + FRAME_HEAD, PyBytes_AS_STRING(block), len(block))
    return p[:put_block_heads(
        p, len(block), PUSH_PROMISE if promises else HEADERS, flags, stream_id, max_frame_size) - p]
