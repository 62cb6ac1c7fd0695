"""Micro-benchmarks of HPACK: a browser's header blocks, and the block of a small response. See micro.py."""

from bench.codec import Codec, Step, check

REQUEST = [
    (b":method", b"GET"),
    (b":authority", b"www.example.com"),
    (b":scheme", b"https"),
    (b":path", b"/articles?page=2&order=date"),
    (b"sec-ch-ua", b'"Chromium";v="138", "Not)A;Brand";v="8"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-US,en;q=0.9"),
    (b"priority", b"u=0, i"),
]
# As Chromium sends it first: everything is new, and coded by Huffman's code
FIRST = bytes.fromhex(
    "82418cf1e3c2e5f23a6ba0ab90f4ff874494607624c4a0a8ff2b1cc5805f07b242d90483497f40874148b1275ad1ffa3fe6f"
    "4f61e935b4ff3f7de0fe42cbdfcfd29fce93a7fb87eeed83aa4fe7efbc1fcbdfcf408b4148b1275ad1ad49e3350582ff0140"
    "8d4148b1275ad1ad5d034ca7b29f87fe739aab7cff3f4092b6b9ac1c8558d520a4b6c2ad617b5a54251f810f7abdd07f66a2"
    "81b0dae053fafc087ed4ce6aadf2a7979c89c6bfb521aeba0bc8b1e632586d975765c52f4f61e92b0165e5c0b817029b8728"
    "ec330db2eaecb953c0497ca589d34d1f43aeba0c41a4c7a98f33a69a3fdf9a68fa1d75d0620d263d4c79a68fbed00177fe8d"
    "48e62b03ee697e8d48e62b1e0b1d7f5f2c7cfdf6800bbd408a4148b4a549275906497f8840e92ac7b0d31aaf408a4148b4a5"
    "49275a93c85f86a87dcd30d25f408a4148b4a549275ad416cf82ff03408a4148b4a549275a42a13f8690e4b692d49f50929b"
    "d9abfa5242cb40d25fa523b3e94f684c9f518b2d4b70ddf45abefb4005df4086aec31ec327d785b6007d286f"
)
# And then: each field is in a table
AGAIN = bytes([0x82, 0xCC, 0x87, *range(0xCB, 0xBE - 1, -1)])

RESPONSE = [(b"content-type", b"text/plain; charset=utf-8")]
DEFAULTS = [(b"server", b"fastasgi")]
SECOND = 784111777
RESPONSE_FIELDS = [
    (b":status", b"200"),
    (b"server", b"fastasgi"),
    (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    *RESPONSE,
    (b"content-length", b"13"),
]


def _fastasgi_decode_again() -> Step:
    from fastasgi.codecs.hpack import FieldList, HPACKDecoder

    read = HPACKDecoder().read
    fields = FieldList()
    read(FIRST, fields)
    check(read(AGAIN, fields) == REQUEST)
    return lambda: read(AGAIN, fields)


def _hpack_decode_again() -> Step:
    import hpack

    decode = hpack.Decoder().decode
    decode(FIRST, raw=True)
    check(decode(AGAIN, raw=True) == REQUEST)
    return lambda: decode(AGAIN, raw=True)


def _fastasgi_decode_first() -> Step:
    from fastasgi.codecs.hpack import FieldList, HPACKDecoder

    fields = FieldList()
    check(HPACKDecoder().read(FIRST, fields) == REQUEST)
    return lambda: HPACKDecoder().read(FIRST, fields)


def _hpack_decode_first() -> Step:
    import hpack

    check(hpack.Decoder().decode(FIRST, raw=True) == REQUEST)
    return lambda: hpack.Decoder().decode(FIRST, raw=True)


def _fastasgi_encode() -> Step:
    from fastasgi.codecs.heads import DefaultFields
    from fastasgi.codecs.hpack import HPACKDecoder, HPACKEncoder

    defaults = DefaultFields(DEFAULTS, dated=True)
    defaults.renew(SECOND)
    encode = HPACKEncoder().encode

    def step() -> bytes:
        return encode(RESPONSE, status=200, defaults=defaults, content_length=13)

    check(HPACKDecoder().read(step()) == RESPONSE_FIELDS)
    return step


def _hpack_encode() -> Step:
    import hpack

    encode = hpack.Encoder().encode
    check(hpack.Decoder().decode(encode(RESPONSE_FIELDS), raw=True) == RESPONSE_FIELDS)
    return lambda: encode(RESPONSE_FIELDS)


_AGAIN_TITLE = f"HPACK block of {len(REQUEST)} indexed fields, read"
_FIRST_TITLE = f"a browser's first HPACK block, {len(FIRST)} bytes, read"
_ENCODE_TITLE = f"HPACK block of {len(RESPONSE_FIELDS)} fields that come again, written"
CODECS = [
    Codec("hpack-decode-indexed", "fastasgi", _AGAIN_TITLE, _fastasgi_decode_again, guarded=True),
    Codec("hpack-decode-indexed-hpack", "hpack", _AGAIN_TITLE, _hpack_decode_again),
    Codec("hpack-decode-browser-first", "fastasgi", _FIRST_TITLE, _fastasgi_decode_first, guarded=True),
    Codec("hpack-decode-browser-first-hpack", "hpack", _FIRST_TITLE, _hpack_decode_first),
    Codec("hpack-encode", "fastasgi", _ENCODE_TITLE, _fastasgi_encode, guarded=True),
    Codec("hpack-encode-hpack", "hpack", _ENCODE_TITLE, _hpack_encode),
]
