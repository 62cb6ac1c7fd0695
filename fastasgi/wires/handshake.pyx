"""See handshake.pxd for the contracts."""

import base64
import hashlib

from fastasgi._parser import ParseError
from fastasgi.codecs.deflate import DeflateSettings, negotiate_deflate

# What the server wishes: windows of 4 KiB on both sides keep a connection's memory small
cdef object DEFLATE_SETTINGS = DeflateSettings(server_max_window_bits=12, client_max_window_bits=12)


cdef Handshake refused(Handshake handshake, int status, str reason):
    handshake.status = status
    handshake.reason = reason
    return handshake


cdef Handshake read_handshake(list headers):
    cdef Handshake handshake = Handshake.__new__(Handshake)
    cdef list upgrades = []
    cdef list keys = []
    cdef list versions = []
    cdef list extensions = []
    cdef bytes name, value
    for name, value in headers:
        if name == b"upgrade":
            upgrades.append(value)
        elif name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"sec-websocket-extensions":
            extensions.append(value)
    if b"websocket" not in [token.strip() for token in b",".join(upgrades).lower().split(b",")]:
        return None
    if not decide(handshake, versions, extensions).status:
        if len(keys) != 1 or not is_key(keys[0]):
            return refused(handshake, 400, "the handshake has no valid Sec-WebSocket-Key")
        handshake.key = keys[0]
    return handshake


cdef Handshake read_connect(list headers):
    return decide(
        Handshake.__new__(Handshake), [value for name, value in headers if name == b"sec-websocket-version"],
        [value for name, value in headers if name == b"sec-websocket-extensions"])


cdef Handshake decide(Handshake handshake, list versions, list extensions):
    """What all handshakes have to say, whatever version of HTTP they come in (RFC 6455 section 4.2.1)."""
    if not versions:
        return refused(handshake, 400, "the handshake has no Sec-WebSocket-Version")
    if versions != [b"13"]:
        return refused(handshake, 426, "the WebSocket version is not 13")
    if extensions:
        try:
            handshake.deflate = negotiate_deflate(extensions, DEFLATE_SETTINGS)
        except ParseError as error:
            return refused(handshake, error.status, str(error))
    return handshake


cdef bint is_key(bytes key):
    """Whether a key is the base64 of 16 bytes."""
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


cdef bytes accept_key(bytes key):
    # RFC 6455 section 4.2.2
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
