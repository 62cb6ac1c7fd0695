"""The server name in ClientHellos: Python's own, cut in every way, damaged, and of hostile clients."""

import ssl

import pytest
from clienthellos import NAME, client_hello, host, in_records, made, record, vector
from fuzz.fuzz_clienthello import names_for_openssl
from hypothesis import given
from hypothesis import strategies as st

from fastasgi.codecs.clienthello import ClientHello, decode_client_hello

UNEXPECTED, ILLEGAL, UNRECOGNIZED = 10, 47, 112  # alerts


def decode(*pieces: bytes, follows_retry: bool = False) -> ClientHello:
    hello = decode_client_hello(pieces, follows_retry)
    assert hello is not None
    return hello


def outcome(*pieces: bytes) -> tuple[str | None, str | None, int]:
    hello = decode(*pieces)
    assert hello.records == b"".join(pieces)
    return hello.name, hello.fault, hello.alert


def test_every_split_of_reads_gives_the_same() -> None:
    for hello in (client_hello(), in_records(client_hello(), 1, 2, 3, 4, 5, 40, 100)):
        for at in range(1, len(hello)):
            assert decode_client_hello([hello[:at]]) is None
            assert outcome(hello[:at], hello[at:]) == (NAME, None, 0)
        assert outcome(*(hello[at : at + 1] for at in range(len(hello)))) == (NAME, None, 0)


def test_every_split_into_records_gives_the_same() -> None:
    hello = client_hello()
    for at in range(1, len(hello) - 5):
        assert outcome(in_records(hello, at)) == (NAME, None, 0)
    assert outcome(in_records(hello, *range(len(hello)))) == (NAME, None, 0)


def test_openssl_reads_the_same_name() -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        hello = client_hello(maximum_version=version)
        assert names_for_openssl(hello) == names_for_openssl(in_records(hello, 1, 50, 130)) == [NAME]


LABEL = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
VERSIONS = st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@given(
    name=st.none() | st.lists(LABEL, min_size=1, max_size=6).map(".".join),
    protocols=st.lists(st.sampled_from(["h2", "http/1.1", "x" * 200]), max_size=5),
    version=VERSIONS,
    cuts=st.lists(st.integers(0, 700), max_size=8),
    at=st.integers(0, 2000),
)
def test_the_name_of_pythons_own_hellos_is_read(
    name: str | None, protocols: list[str], version: ssl.TLSVersion, cuts: list[int], at: int
) -> None:
    details = {"minimum_version": version, "maximum_version": version}
    if name is not None and all(part.isdigit() for part in name.split(".")):
        name = f"x{name}"  # or it may be an address, of which no name is sent
    hello = in_records(client_hello(name, protocols, **details), *cuts)
    assert outcome(hello[:at], hello[at:]) == (name, None, 0)


@given(name=st.binary(min_size=1, max_size=300))
def test_a_name_is_ascii_or_a_fault(name: bytes) -> None:
    expected = (name.decode(), None, 0) if name.isascii() else (None, "unrecognized name", UNRECOGNIZED)
    assert outcome(made(None, names=host(name))) == expected


@pytest.mark.parametrize(
    "hello",
    [
        made(None),
        made(b""),
        made(b"\0\x17\0\0"),
        made(None, names=b"\0"),
        made(None, names=b"\0\0"),
        made(None, names=host(b"")[:-1]),
        made(None, names=vector(b"\1" + vector(b"name"))),  # not a host's
        made(None, names=vector(b"\0\0\x05name")),  # longer than what there is
        made(b"\0\0\0\x20" + host(b"name")),
        made(b"\0\0\0"),
        record(b"\1" + vector(b"", 3)),
        record(b"\1" + vector(bytes(33), 3)),
        record(b"\1" + vector(bytes(34), 3)),
        record(b"\1" + vector(b"\3\3" + bytes(32) + b"\xff", 3)),
        record(b"\1" + vector(b"\3\3" + bytes(32) + b"\0\xff\xff", 3)),
        record(b"\1" + vector(b"\3\3" + bytes(32) + b"\0\0\0\xff", 3)),
    ],
    ids=lambda hello: hello[43:].hex() or "empty",
)
def test_a_hello_without_a_name_that_can_be_read_has_none(hello: bytes) -> None:
    assert outcome(hello)[:2] in ((None, None), ("", None))


def test_the_first_name_counts_and_the_list_is_not_asked_for_its_length() -> None:
    """OpenSSL refuses these; what it might read is read here."""
    assert outcome(made(None, names=host(b"first") + host(b"\xff"))) == ("first", None, 0)
    assert outcome(made(None, names=b"\xff\xff" + host(b"\xff")[2:]))[2] == UNRECOGNIZED
    assert outcome(made(None, names=host(b"name"), session=bytes(200)))[0] == "name"


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x16\2\1\0\1\1", UNEXPECTED),
        (b"\x80\x2e\1\3\1" + bytes(50), UNEXPECTED),  # a hello of SSL 2
        (b"\x16\3\1\0\0", UNEXPECTED),
        (b"\x16\3\1\x40\1", UNEXPECTED),
        *((bytes([kind]) + b"\3\1\0\1", UNEXPECTED) for kind in (0, 20, 21, 23, 24, 255)),
        (record(b"\2" + vector(b"", 3)), UNEXPECTED),
        (record(b"\1\2\1\x45"), ILLEGAL),  # one byte more than OpenSSL takes
        (in_records(client_hello(), 50)[:55] + record(b"\1\x5a", 21), UNEXPECTED),
        (record(client_hello()[5:] + b"\1"), UNEXPECTED),
        (record(client_hello()[5:] * 2), UNEXPECTED),
    ],
    ids=lambda value: value[:10].hex() if isinstance(value, bytes) else None,
)
def test_what_could_hide_a_name_is_refused(data: bytes, alert: int) -> None:
    for size in (1, 3, len(data)):
        found = decode_client_hello(data[at : at + size] for at in range(0, len(data), size))
        assert found is not None
        assert found.alert == alert


def test_the_largest_hello_is_read_and_a_flood_of_records_refused() -> None:
    name = b"\0\0" + vector(host(b"name"))
    rest = b"\xab\xcd" + vector(bytes(65535 - 4 - len(name)))
    body = b"\3\3" + bytes(32) + b"\0" + vector(bytes(65534)) + vector(b"\0", 1) + vector(name + rest)
    message = b"\1" + vector(body, 3)
    pieces = [record(message[at : at + 16384]) for at in range(0, len(message), 16384)]
    assert outcome(*pieces) == ("name", None, 0)
    flood = (record(b"\1\2\0\0"), *(record(b"\0") for _ in range(131072)))
    hello = decode(*flood)
    assert hello.alert == ILLEGAL
    assert len(hello.records) < 170_000


def test_a_second_hello_stands_behind_what_a_client_sends_for_middleboxes_and_early() -> None:
    before = record(b"\1", 20) + record(b"early", 23) + record(b"\1\x5a", 21)
    hello = before + in_records(client_hello(), 100)
    for at in range(len(hello)):
        assert decode(hello[:at], hello[at:], follows_retry=True).name == NAME
    within = in_records(client_hello(), 100)[:105] + record(b"\1", 20)
    assert decode(within, follows_retry=True).alert == UNEXPECTED


@given(data=st.binary(max_size=200), at=st.integers(0, 400), follows_retry=st.booleans())
def test_garbage_has_one_meaning_however_it_comes(data: bytes, at: int, follows_retry: bool) -> None:
    hello = client_hello("x.example")
    spoilt = hello[:at] + data + hello[at + len(data) :]
    whole = decode_client_hello([spoilt], follows_retry)
    bytewise = decode_client_hello((bytes([byte]) for byte in spoilt), follows_retry)
    assert (whole is None) == (bytewise is None)
    if whole is not None and bytewise is not None:
        assert (whole.name, whole.fault) == (bytewise.name, bytewise.fault)
