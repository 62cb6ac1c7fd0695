"""See deflate.pxd for the contracts."""

import re
import zlib
from collections import namedtuple

from fastasgi.codecs.text cimport is_token

from fastasgi._parser import ParseError

cdef enum:
    MIN_WINDOW_BITS = 8                 # RFC 7692 section 7.1.2
    MAX_WINDOW_BITS = 15
    # zlib deflates no raw stream with a window of 8 bits
    MIN_DEFLATE_WINDOW_BITS = 9
    MAX_EXTENSIONS_BYTES = 4096         # of Sec-WebSocket-Extensions in a handshake: reading them takes time and memory
    DEFLATE_MEMORY_LEVEL = 5            # 16 KiB besides the window; zlib's own default takes 128 KiB

DEFLATE_TAIL = b"\x00\x00\xff\xff"


# --- Negotiation ---

DeflateSettings = namedtuple(
    "DeflateSettings",
    "server_no_context_takeover client_no_context_takeover server_max_window_bits client_max_window_bits",
    defaults=(False, False, MAX_WINDOW_BITS, MAX_WINDOW_BITS),
)

_WINDOW_BITS = {b"%d" % bits: bits for bits in range(MIN_WINDOW_BITS, MAX_WINDOW_BITS + 1)}


def _token(bytes data):
    if not is_token(data, len(data)):
        raise ParseError(400, "the Sec-WebSocket-Extensions field is malformed")
    return data


def _parse_parameter(bytes data):
    """Name and value of `name`, `name=value` or `name="value"`; the value is None if there is none."""
    name, equals, value = data.partition(b"=")
    value = value.strip(b" \t")
    # A quoted value without its quotes is a token too (RFC 6455 section 9.1): no separator can be in it
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        value = re.sub(rb"\\(.)", rb"\1", value[1:len(value) - 1])
    return _token(name.strip(b" \t")), _token(value) if equals else None


def _parse_extensions(values):
    """(name, [(parameter, value)]) of each extension that is offered (RFC 6455 section 9.1)."""
    for value in values:
        for element in value.split(b","):
            if element.strip(b" \t"):
                name, *parameters = element.split(b";")
                yield _token(name.strip(b" \t")), [_parse_parameter(parameter) for parameter in parameters]


def _parse_offer(parameters):
    """The parameters of an offer by name; None if it is to be declined (RFC 7692 section 7.1)."""
    offer = {}
    for name, value in parameters:
        if name in offer:
            return None
        if name in (b"server_no_context_takeover", b"client_no_context_takeover"):
            valid = value is None
            offer[name] = True
        elif name in (b"server_max_window_bits", b"client_max_window_bits"):
            valid = value in _WINDOW_BITS or (value is None and name == b"client_max_window_bits")
            offer[name] = _WINDOW_BITS.get(value, MAX_WINDOW_BITS)
        else:
            valid = False
        if not valid:
            return None
    return offer


def _accept(offer, settings):
    """The response to an offer, and what is agreed on by it; None if the offer can't be met."""
    server_bits = min(offer.get(b"server_max_window_bits", MAX_WINDOW_BITS), settings.server_max_window_bits)
    if server_bits < MIN_DEFLATE_WINDOW_BITS:
        return None
    # A client that doesn't offer client_max_window_bits may not understand it (RFC 7692 section 7.1.2.2)
    client_bits = MAX_WINDOW_BITS
    if b"client_max_window_bits" in offer:
        client_bits = min(offer[b"client_max_window_bits"], settings.client_max_window_bits)
    accepted = DeflateSettings(
        b"server_no_context_takeover" in offer or settings.server_no_context_takeover,
        b"client_no_context_takeover" in offer or settings.client_no_context_takeover,
        server_bits,
        client_bits,
    )
    response = [b"permessage-deflate"]
    if accepted.server_no_context_takeover:
        response.append(b"server_no_context_takeover")
    if accepted.client_no_context_takeover:
        response.append(b"client_no_context_takeover")
    if server_bits < MAX_WINDOW_BITS or b"server_max_window_bits" in offer:
        response.append(b"server_max_window_bits=%d" % server_bits)
    if client_bits < MAX_WINDOW_BITS:
        response.append(b"client_max_window_bits=%d" % client_bits)
    return b"; ".join(response), accepted


def check_deflate_settings(settings):
    for name, least in (
        ("server_max_window_bits", MIN_DEFLATE_WINDOW_BITS),
        ("client_max_window_bits", MIN_WINDOW_BITS),
    ):
        bits = getattr(settings, name)
        if not least <= bits <= MAX_WINDOW_BITS:
            raise ValueError(f"{name} must be from {least} to {MAX_WINDOW_BITS}, not {bits}")


def negotiate_deflate(values, settings):
    check_deflate_settings(settings)
    values = list(values)
    if sum([len(value) for value in values]) > MAX_EXTENSIONS_BYTES:
        raise ParseError(431, f"Sec-WebSocket-Extensions has more than {MAX_EXTENSIONS_BYTES} bytes")
    # All are parsed before one is accepted, so that a malformed one is always found
    for name, parameters in list(_parse_extensions(values)):
        if name == b"permessage-deflate":
            offer = _parse_offer(parameters)
            accepted = None if offer is None else _accept(offer, settings)
            if accepted is not None:
                return accepted
    return None


# --- Messages ---

cdef class Inflater:

    def __cinit__(self, int window_bits, bint keeps_window):
        self.window_bits = window_bits
        self.keeps_window = keeps_window

    cdef int feed(self, bytes source, bint last) except -1:
        self.source = source
        self.source_is_last = last
        self.pending = len(source) > 0
        self.source_bytes += len(source)

    cdef bytes next_piece(self, Py_ssize_t max_bytes):
        cdef bytes piece
        if self.stream is None:
            self.stream = zlib.decompressobj(-self.window_bits)
        self.fed = True
        piece = self.stream.decompress(self.source, max_bytes)
        if self.stream.eof:
            # A final block (RFC 7692 section 7.2.3.4) has ended the stream. What follows is a new one, which can't
            # refer to this one. If only the tail follows, it belongs to no block.
            self.source = self.stream.unused_data
            self.pending = len(self.source) > (len(DEFLATE_TAIL) if self.source_is_last else 0)
            self.stream = None
            self.fed = False
            self.final_blocks += 1
        else:
            self.source = self.stream.unconsumed_tail
            # If zlib has stopped at the limit, it may have output left though it has read all input
            self.pending = len(self.source) > 0 or len(piece) == max_bytes
        return piece

    cdef int end_message(self) except -1:
        self.source = None
        self.fed = False
        self.final_blocks = 0
        self.source_bytes = 0
        if not self.keeps_window:
            self.stream = None


cdef class Deflater:

    def __init__(self, settings not None, *, Py_ssize_t min_bytes=0):
        check_deflate_settings(settings)
        self.window_bits = settings.server_max_window_bits
        self.keeps_window = not settings.server_no_context_takeover
        self.min_bytes = min_bytes

    cpdef bytes deflate(self, bytes data):
        cdef bytes payload
        if len(data) < self.min_bytes:
            return None
        if self.stream is None:
            self.stream = zlib.compressobj(
                zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self.window_bits, DEFLATE_MEMORY_LEVEL
            )
        payload = self.stream.compress(data) + self.stream.flush(zlib.Z_SYNC_FLUSH)
        if not self.keeps_window:
            self.stream = None
        return payload[:len(payload) - len(DEFLATE_TAIL)]
