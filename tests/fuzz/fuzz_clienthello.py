"""A ClientHello has one server name however it arrives, and OpenSSL reads no other in it.

Run by `make fuzz`, and for moments by tests/fuzz/test_fuzz.py.
"""

import ssl
import sys
from collections.abc import Iterable
from random import Random
from typing import Any

from clientframes import cut
from clienthellos import client_hello, host, in_records, made, record, vector
from fuzz.driver import main

from fastasgi.codecs.clienthello import decode_client_hello

NAMES = [b"a.example", b"\xff.example", b"", b"x" * 255, b"x" * 256, b"a\0b"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def outcome(pieces: Iterable[bytes]) -> tuple[str | None, str | None, int] | None:
    found = decode_client_hello(pieces)
    return None if found is None else (found.name, found.fault, found.alert)


def names_for_openssl(data: bytes) -> list[str | None]:
    """The names that OpenSSL hands to a callback; what the ssl module can't decode raises."""
    names: list[str | None] = []

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int:
        names.append(name)
        return 112  # that will do

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = choose  # type: ignore[assignment]
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    told: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, told.append
    try:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLError:
        pass
    finally:
        sys.unraisablehook = before
    assert not told, told
    return names


def make_hello(rng: Random) -> bytes:
    if rng.random() < 0.5:
        version = rng.choice(VERSIONS)
        name = rng.choice([None, "a.example", "b" * 60 + ".example"])
        return client_hello(name, minimum_version=version, maximum_version=version)
    names = b"".join(host(rng.choice(NAMES)) for _ in range(rng.choice([1, 1, 1, 2])))
    extensions = [b"\0\0" + vector(names)] * rng.choice([1, 1, 1, 2])
    extensions += [
        rng.choice([b"\0\x17\0\0", b"\xab\xcd" + vector(bytes(20))]) for _ in range(rng.randint(0, 2))
    ]
    rng.shuffle(extensions)
    return made(b"".join(extensions), session=bytes(rng.choice([0, 32, 33])))


def spoil(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data)) if rng.random() < 0.3 else max(0, len(data) - rng.randint(1, 60))
    kind = rng.random()
    if kind < 0.6:
        return data[:at] + bytes([data[at] ^ 1 << rng.randint(0, 7)]) + data[at + 1 :]
    if kind < 0.8:
        return data[:at] + data[at + rng.randint(1, 5) :]
    return data[:at] + rng.choice([record(b"\1\x5a", 21), record(b"\1", 20), rng.randbytes(3)]) + data[at:]


def check(rng: Random, data: bytes) -> None:
    found = outcome([data])
    for _ in range(3):
        pieces = cut(data, [rng.randint(0, len(data)) for _ in range(rng.choice([1, 2, 5, 30]))])
        assert outcome(pieces) == found
    assert found is None or found[0] is None or (found[0].isascii() and found[1] is None)
    if found is None:
        assert names_for_openssl(data) == []
    elif found[1] is None:
        # One that it refuses may have come so far that there is a name, and it is not asked for
        assert names_for_openssl(data) in ([], [found[0]])


class ClientHelloTarget:
    """Hellos in one record and many: as they should be, spoilt, and any bytes."""

    def run_case(self, seed: int) -> None:
        rng = Random(seed)
        data = make_hello(rng)
        if rng.random() < 0.5:
            data = in_records(data, *(rng.randrange(len(data)) for _ in range(rng.randint(1, 5))))
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            data = spoil(rng, data)
        check(rng, data)

    def run_input(self, data: bytes) -> None:
        for seed in range(20):
            check(Random(seed), data)

    def close(self) -> None:
        """Nothing is shared."""


if __name__ == "__main__":
    main(ClientHelloTarget)
