"""The codec of PROXY protocol headers (HAProxy's proxy-protocol.txt, versions 1 and 2)."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxywire import DGRAM, INET, INET6, LOCAL, SIGNATURE, UNIX, UNSPEC, v1, v2

from fastasgi.codecs.proxyheader import DecodedProxyHeader, decode_proxy_header

MOST = 16 + 65535

CLIENT, SERVER = ("192.0.2.1", 56324), ("198.51.100.7", 443)
CLIENT_6, SERVER_6 = ("2001:db8::1", 0), ("2001:db8:ffff::7", 65535)
TLVS = b"\x03\x00\x04abcd" + b"\x20\x00\x05\x01\0\0\0\0" + b"\x04\x00\x00"

GOOD = {
    "v1 TCP4": (v1("TCP4", CLIENT, SERVER), (CLIENT, SERVER)),
    "v1 TCP6": (v1("TCP6", CLIENT_6, SERVER_6), (CLIENT_6, SERVER_6)),
    "v1 longest TCP6": (
        v1("TCP6", ("ffff" + ":ffff" * 7, 65535), ("ffff" + ":ffff" * 7, 65535)),
        (("ffff" + ":ffff" * 7, 65535), ("ffff" + ":ffff" * 7, 65535)),
    ),
    "v1 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n",
        (("192.0.2.1", 1), ("::1", 2)),
    ),
    "v1 port 0": (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        (("0.0.0.0", 0), ("255.255.255.255", 65535)),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", (None, None)),
    "v1 UNKNOWN with a rest": (b"PROXY UNKNOWN ffff:f...f:ffff \0 65535\xff\r\n", (None, None)),
    "v1 UNKNOWN, longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", (None, None)),
    "v2 INET": (v2(INET, CLIENT, SERVER), (CLIENT, SERVER)),
    "v2 INET with TLVs": (v2(INET, CLIENT, SERVER, TLVS), (CLIENT, SERVER)),
    "v2 INET6": (v2(INET6, CLIENT_6, SERVER_6), (CLIENT_6, SERVER_6)),
    "v2 INET6 with malformed TLVs": (v2(INET6, CLIENT_6, SERVER_6, b"\x03\xff\xff"), (CLIENT_6, SERVER_6)),
    "v2 INET6 mapped": (
        v2(INET6, ("::ffff:192.0.2.1", 1), ("::ffff:198.51.100.7", 2)),
        (("192.0.2.1", 1), ("198.51.100.7", 2)),
    ),
    "v2 UNIX": (v2(UNIX, b"/run/a.sock", b"/run/b.sock"), (b"/run/a.sock", b"/run/b.sock")),
    "v2 UNIX, nameless": (v2(UNIX, b"", b"\0abstract", TLVS), (b"", b"\0abstract")),
    "v2 UNIX, longest": (v2(UNIX, b"/" * 108, b"x" * 108), (b"/" * 108, b"x" * 108)),
    "v2 UNSPEC": (v2(UNSPEC), (None, None)),
    "v2 UNSPEC with TLVs": (v2(UNSPEC, tlvs=TLVS), (None, None)),
    "v2 LOCAL": (v2(UNSPEC, command=LOCAL), (None, None)),
    "v2 LOCAL with addresses": (v2(INET, CLIENT, SERVER, TLVS, command=LOCAL), (None, None)),
    "v2 DGRAM": (v2(INET, CLIENT, SERVER, transport=DGRAM), (None, None)),
    "v2 longest": (v2(INET, CLIENT, SERVER, bytes(65535 - 12)), (CLIENT, SERVER)),
}


def head_v2(version_command: int, family: int, length: int) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version_command, family, length)


MALFORMED = {
    "HTTP": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lower case": b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "a blank first": b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "no blank": b"PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "two blanks": b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "two blanks between": b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
    "a blank last": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
    "a tab": b"PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n",
    "nothing": b"PROXY \r\n",
    "only a protocol": b"PROXY TCP4\r\n",
    "only a protocol and a blank": b"PROXY TCP4 \r\n",
    "unknown protocol": b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
    "UDP4": b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "UNKNOWNS": b"PROXY UNKNOWNS\r\n",
    "UNIX": b"PROXY UNIX /a /b\r\n",
    "no ports": b"PROXY TCP4 1.2.3.4 5.6.7.8\r\n",
    "one port": b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
    "empty port": b"PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n",
    "three ports": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
    "port too large": b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
    "port too long": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 000002\r\n",
    "port with a zero": b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    "port with a sign": b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
    "port in hexadecimal": b"PROXY TCP4 1.2.3.4 5.6.7.8 a 2\r\n",
    "address with a zero": b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
    "address too large": b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
    "a name": b"PROXY TCP4 localhost 5.6.7.8 1 2\r\n",
    "an address with NUL": b"PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n",
    "IPv6 in TCP4": b"PROXY TCP4 ::1 ::2 1 2\r\n",
    "IPv4 in TCP6": b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
    "brackets": b"PROXY TCP6 [::1] [::2] 1 2\r\n",
    "bare LF": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\nGET / HTTP/1.1\r\n",
    "bare LF behind UNKNOWN": b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n",
    "bare LF in what is ignored": b"PROXY UNKNOWN a b c\nGET / HTTP/1.1\r\n",
    "bare CR": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rG",
    "two CR": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "endless": b"PROXY UNKNOWN " + b"x" * 100000,
    "endless port": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 " + b"0" * 100000,
    "v2, broken signature": SIGNATURE[:-1] + b"\r",
    "v2, version 1": head_v2(0x11, 0x11, 12),
    "v2, version 3": head_v2(0x31, 0x11, 12),
    "v2, unknown command": head_v2(0x22, 0x11, 12),
    "v2, unknown family": head_v2(0x21, 0x41, 12),
    "v2, unknown transport": head_v2(0x21, 0x13, 12),
    "v2, LOCAL of an unknown family": head_v2(0x20, 0xF1, 12),
    "v2, INET too short": head_v2(0x21, 0x11, 11),
    "v2, INET6 too short": head_v2(0x21, 0x21, 35),
    "v2, UNIX too short": head_v2(0x21, 0x31, 215),
    "v2, empty": head_v2(0x21, 0x11, 0),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_whole_and_with_bytes_behind_it(name: str) -> None:
    data, (source, destination) = GOOD[name]
    expected = DecodedProxyHeader(len(data), 2 if name.startswith("v2") else 1, source, destination)
    assert decode_proxy_header(data) == expected
    for behind in (b"G", b"\r\n", data, bytes(70000)):
        assert decode_proxy_header(data + behind) == expected


@pytest.mark.parametrize("name", GOOD)
def test_a_header_at_every_split(name: str) -> None:
    data, _ = GOOD[name]
    ends = range(len(data)) if len(data) < 1000 else [*range(300), *range(300, len(data), 997), len(data) - 1]
    assert [end for end in ends if decode_proxy_header(data[:end]) is not None] == []


def first_error(data: bytes) -> int:
    """The length of the shortest prefix that is refused. Each longer one is, for the same reason."""
    ends = [*range(min(len(data), 400) + 1), len(data)]
    outcomes = []
    for end in ends:
        try:
            assert decode_proxy_header(data[:end]) is None
            outcomes.append("")
        except ValueError as error:
            outcomes.append(str(error))
    first = next(index for index, outcome in enumerate(outcomes) if outcome)
    assert len(set(outcomes[first:])) == 1
    return ends[first]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_refused_early(name: str) -> None:
    data = MALFORMED[name]
    assert first_error(data) <= min(len(data), 107)
    assert first_error(data + b"GET / HTTP/1.1\r\n\r\n") == first_error(data)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"GET / HTTP/1.1\r\n", 1), (b"POST /", 2), (b"PROXX", 5), (b"\r\n\r\nX", 5), (b"\x16\x03", 1),
        (MALFORMED["endless"], 106), (b"PROXY GARBAGE ", 7), (b"PROXY TCP9 ", 10), (b"PROXY TCP46", 11),
        (b"PROXY TCP4 not-an-address ", 12), (b"PROXY TCP4 ::1", 12), (b"PROXY TCP6 ::g", 14),
        (b"PROXY TCP4 1.2.3 ", 17), (b"PROXY TCP6 1.2.3.4 ", 19), (b"PROXY TCP4 1.2.3.4 5.6.7.8 70000", 32),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 00", 29), (b"PROXY TCP4 1.2.3.4 5.6.7.8 123456", 33),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r", 30), (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", 31),
        (b"PROXY TCP4 1.2.3.4\n", 19), (b"PROXY TCP4\n", 11), (b"PROXY UNKNOWN\n", 14),
        (b"PROXY UNKNOWN x\n", 16), (b"PROXY UNKNOWNS", 14), (b"PROXY TCP6 " + b":" * 100, 106),
        (MALFORMED["v2, version 3"], 13), (MALFORMED["v2, unknown family"], 14),
        (MALFORMED["v2, INET too short"], 16),
    ],
)  # fmt: skip
def test_the_first_wrong_byte_is_enough(data: bytes, length: int) -> None:
    assert first_error(data) == length


addresses = st.tuples(st.ip_addresses(v=4), st.integers(0, 65535))
addresses_6 = st.tuples(st.ip_addresses(v=6), st.integers(0, 65535))


def canonical(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> tuple[str, int]:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(ipaddress.ip_address(mapped or address)), port


@given(
    st.one_of(st.tuples(addresses, addresses), st.tuples(addresses_6, addresses_6)),
    st.booleans(),
    st.binary(max_size=50),
    st.binary(max_size=50),
)
def test_what_is_written_is_read(pair: tuple, binary: bool, tlvs: bytes, behind: bytes) -> None:
    ends = [(str(address), port) for address, port in pair]
    is_4 = pair[0][0].version == 4
    binary_header = v2(INET if is_4 else INET6, *ends, tlvs)
    data = binary_header if binary else v1("TCP4" if is_4 else "TCP6", *ends)
    read = decode_proxy_header(data + behind)
    assert read is not None
    assert read[:2] == (len(data), 2 if binary else 1)

    def same(told: object, end: tuple) -> bool:
        host, port = told
        return canonical(ipaddress.ip_address(host), port) == canonical(*end)

    assert same(read.source, pair[0])
    assert same(read.destination, pair[1])


@given(
    st.one_of(
        st.binary(max_size=150),
        st.binary(max_size=150).map(lambda data: b"PROXY " + data),
        st.text("TCP46 UNKOW0123456789.:abf\r\n", max_size=120).map(
            lambda text: b"PROXY TCP" + text.encode()
        ),
        st.binary(max_size=300).map(lambda data: SIGNATURE + data),
        st.tuples(
            st.sampled_from([0x20, 0x21]), st.integers(0, 255), st.integers(0, 300), st.binary(max_size=300)
        ).map(lambda parts: head_v2(*parts[:3]) + parts[3]),
    )
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """And more bytes change nothing of what has been decided."""
    outcome: object = None
    for end in range(len(data) + 1):
        try:
            read: object = decode_proxy_header(data[:end])
        except ValueError as error:
            read = str(error)
        assert outcome is None or read == outcome
        outcome = read
    if isinstance(outcome, DecodedProxyHeader):
        assert 8 <= outcome.consumed <= min(len(data), MOST)
