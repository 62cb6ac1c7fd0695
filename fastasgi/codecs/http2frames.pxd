"""HTTP/2 frames (RFC 9113 sections 4 to 7): their heads, the payloads that have one layout, settings, error codes.

Knows the layout of each frame and what is wrong with one by itself. Must not know: streams, windows, header blocks,
what is answered to a frame. Every put_* writes at `p`, where the caller has made room, and returns the end of what it
wrote. Pointers are borrowed for the length of a call.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum FrameType:                    # RFC 9113 section 6; RFC 9218 section 7.1
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    PRIORITY_UPDATE = 16


cdef enum:                              # flags of a frame. What a type does not define is to be ignored
    END_STREAM = 0x01
    ACK = 0x01
    END_HEADERS = 0x04
    PADDED = 0x08
    PRIORITY_FLAG = 0x20


cdef enum ErrorCode:                    # RFC 9113 section 7
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


cdef enum SettingId:                    # RFC 9113 section 6.5.2; RFC 8441 section 3; RFC 9218 section 2.1
    SETTINGS_HEADER_TABLE_SIZE = 1
    SETTINGS_ENABLE_PUSH = 2
    SETTINGS_MAX_CONCURRENT_STREAMS = 3
    SETTINGS_INITIAL_WINDOW_SIZE = 4
    SETTINGS_MAX_FRAME_SIZE = 5
    SETTINGS_MAX_HEADER_LIST_SIZE = 6
    SETTINGS_ENABLE_CONNECT_PROTOCOL = 8
    SETTINGS_NO_RFC7540_PRIORITIES = 9


cdef enum:                              # bytes
    FRAME_HEAD = 9                      # of each frame, before its payload
    SETTING_BYTES = 6                   # of one setting
    PING_BYTES = 8                      # of a PING's payload
    PRIORITY_BYTES = 5                  # of a PRIORITY's payload, which HEADERS may begin with
    SETTINGS_ACK_ROOM = 9               # that put_settings_ack writes; the next ones are of the put_* of these names
    WINDOW_UPDATE_ROOM = 13
    RST_STREAM_ROOM = 13
    PING_ROOM = 17
    GOAWAY_ROOM = 17                    # and its text
    DEFAULT_WINDOW = 65535              # of a stream or connection, before it is told otherwise (section 6.9.2)
    MAX_WINDOW = 0x7fffffff
    MAX_FRAME_SIZE = 16384              # of a payload, at most, unless its receiver has set another limit
    LARGEST_FRAME_SIZE = 0xffffff       # that a receiver may set as the limit


# What a client sends first (RFC 9113 section 3.4)
cdef const char* PREFACE
cdef enum:
    PREFACE_BYTES = 24


cdef struct FrameHead:
    uint32_t length             # bytes of the payload
    uint8_t type                # one of FrameType, or any other
    uint8_t flags
    uint32_t stream_id          # 31 bits; 0 is the connection


cdef struct Content:            # where in a payload that may be padded the content is
    uint32_t offset             # bytes before it
    uint32_t length             # bytes of it
    uint32_t dependency         # the stream on which a HEADERS with PRIORITY_FLAG depends; otherwise 0


cdef struct Settings:           # of a peer
    uint32_t header_table_size
    # The smallest that the last SETTINGS has named, or header_table_size: what an encoder has to go down to first
    # (RFC 7541 section 4.2)
    uint32_t least_header_table_size
    uint32_t max_concurrent_streams     # UINT32_MAX: no limit
    uint32_t initial_window_size
    uint32_t max_frame_size
    uint32_t max_header_list_size       # UINT32_MAX: no limit
    bint enable_push
    bint enable_connect_protocol
    bint no_rfc7540_priorities


# --- Numbers: all in network byte order ---

cdef inline uint16_t read_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline uint32_t read_u32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint32_t read_u31(const uint8_t* p) noexcept nogil:
    """The lower 31 bits: a stream, or an increment of a window. The upper bit is reserved and to be ignored."""
    return read_u32(p) & 0x7fffffff


cdef inline char* put_u16(char* p, uint16_t number) noexcept nogil:
    p[0] = <char>(number >> 8)
    p[1] = <char>number
    return p + 2


cdef inline char* put_u32(char* p, uint32_t number) noexcept nogil:
    p[0] = <char>(number >> 24)
    p[1] = <char>(number >> 16)
    p[2] = <char>(number >> 8)
    p[3] = <char>number
    return p + 4


# --- Heads ---

cdef inline void read_frame_head(const uint8_t* p, FrameHead* head) noexcept nogil:
    """Read the FRAME_HEAD bytes at `p`."""
    head.length = <uint32_t>p[0] << 16 | <uint32_t>p[1] << 8 | p[2]
    head.type = p[3]
    head.flags = p[4]
    head.stream_id = read_u31(p + 5)


cdef inline char* put_frame_head(
    char* p, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream_id
) noexcept nogil:
    p[0] = <char>(length >> 16)
    p[1] = <char>(length >> 8)
    p[2] = <char>length
    p[3] = <char>type
    p[4] = <char>flags
    return put_u32(p + 5, stream_id)


# What is wrong with the head of a client's frame, whatever has come before it: an error code that ends the connection,
# or 0. One thing is not looked at: the length of a PRIORITY, whose fault is its stream's alone.
cdef uint32_t check_head(const FrameHead* head) noexcept nogil


# --- Payloads ---

# Finds the content of a DATA or HEADERS, of whose payload one byte has come if it is PADDED, and all if it is a
# HEADERS. Returns 0, or the error code that ends the connection.
cdef uint32_t find_content(const FrameHead* head, const uint8_t* payload, Content* content) noexcept nogil

cdef void settings_init(Settings* settings) noexcept nogil      # what holds before the peer has sent any
# Reads n bytes of a client's SETTINGS. Returns 0, or the error code that ends the connection.
cdef uint32_t read_settings(Settings* settings, const uint8_t* p, uint32_t n) noexcept nogil

cdef char* put_setting(char* p, uint16_t setting_id, uint32_t value) noexcept nogil     # SETTING_BYTES, without a head
cdef char* put_settings_ack(char* p) noexcept nogil
cdef char* put_window_update(char* p, uint32_t stream_id, uint32_t increment) noexcept nogil
cdef char* put_rst_stream(char* p, uint32_t stream_id, uint32_t error_code) noexcept nogil
cdef char* put_ping(char* p, uint8_t flags, const uint8_t* opaque) noexcept nogil       # `opaque` has PING_BYTES
# n bytes of text say for people what happened; with none it may be NULL
cdef char* put_goaway(
    char* p, uint32_t last_stream_id, uint32_t error_code, const char* text, uint32_t n) noexcept nogil


# --- Header blocks ---

# Bytes of all frames of a block of n bytes, with their heads
cdef inline Py_ssize_t block_room(Py_ssize_t n, uint32_t max_frame_size) noexcept nogil:
    return n + FRAME_HEAD * (1 + n // max_frame_size)


# Makes frames of the block of n bytes at p + FRAME_HEAD: one of this type with these flags, and as many CONTINUATION
# frames as are needed. The last one gets END_HEADERS. `type` is HEADERS or PUSH_PROMISE, whose first four bytes, the
# promised stream, belong to the block. There is room for block_room() bytes at p.
cdef char* put_block_heads(
    char* p, Py_ssize_t n, uint8_t type, uint8_t flags, uint32_t stream_id, uint32_t max_frame_size) noexcept


# RFC 9113's name of an error code; its number in hexadecimal if it has none
cpdef str error_name(uint32_t code)
