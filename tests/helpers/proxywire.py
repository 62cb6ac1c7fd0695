"""PROXY protocol headers as a proxy writes them (HAProxy's proxy-protocol.txt)."""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0, 1
UNSPEC, INET, INET6, UNIX = range(4)
STREAM, DGRAM = 1, 2

End = tuple[str, int] | bytes | None


def v1(protocol: str, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    return f"PROXY {protocol} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def v2(
    family: int,
    source: End = None,
    destination: End = None,
    tlvs: bytes = b"",
    *,
    command: int = PROXY,
    transport: int = STREAM,
) -> bytes:
    block = b""
    if isinstance(source, tuple) and isinstance(destination, tuple):
        packed = [ipaddress.ip_address(host).packed for host, _ in (source, destination)]
        block = b"".join(packed) + struct.pack("!HH", source[1], destination[1])
    elif isinstance(source, bytes) and isinstance(destination, bytes):
        block = source.ljust(108, b"\0") + destination.ljust(108, b"\0")
    kind = family << 4 | transport if family else 0
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, kind, len(block + tlvs)) + block + tlvs
