"""Targets of requests and hosts: by themselves, and as HTTP/1's parser reads them."""

import urllib.parse

import pytest
from heads import outcome
from hypothesis import example, given
from hypothesis import strategies as st

from fastasgi._parser import ParsedHead
from fastasgi.codecs.target import check_host, split_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", ("/", b"/", b"")),
        (b"/?", ("/", b"/", b"")),
        (b"/a?b=c&d?e", ("/a", b"/a", b"b=c&d?e")),
        (b"/a%20b%2Fc?%41", ("/a b/c", b"/a%20b%2Fc", b"%41")),
        (b"/caf%C3%A9", ("/café", b"/caf%C3%A9", b"")),
        (b"/%ff%", ("/\ufffd%", b"/%ff%", b"")),
        (b"/%4", ("/%4", b"/%4", b"")),
        (b"/%zz%2", ("/%zz%2", b"/%zz%2", b"")),
        (b'/"<>\\^`{|}', ('/"<>\\^`{|}', b'/"<>\\^`{|}', b"")),
        (b"//host/../a", ("//host/../a", b"//host/../a", b"")),
        (b"/" + b"%61" * 2000 + b"?q", ("/" + "a" * 2000, b"/" + b"%61" * 2000, b"q")),
        (b"/" + b"p" * 2000, ("/" + "p" * 2000, b"/" + b"p" * 2000, b"")),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else "",
)
def test_a_target_has_a_path_and_a_query(target: bytes, expected: tuple[str, bytes, bytes]) -> None:
    assert split_target(target) == expected


def test_a_target_without_a_query_is_its_own_raw_path() -> None:
    target = b"/a/path"
    split = split_target(target)
    assert split is not None
    assert split[1] is target


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"a",
        b"?q",
        b"http://host/",
        b"/#fragment",
        b"/?q#fragment",
        *(b"/" + bytes([byte]) for byte in (*range(0x21), *range(0x7F, 0x100))),
        *(b"/?" + bytes([byte]) for byte in (*range(0x21), *range(0x7F, 0x100))),
    ],
)
def test_what_is_no_path_is_refused(target: bytes) -> None:
    assert split_target(target) is None


TARGETS = st.lists(
    st.sampled_from([b"/", b"?", b"#", b"%", b"%2f", b"%C3%A9", b"a", b"=&;", b" ", b"\t", b"\x7f", b"\xe9"])
    | st.binary(max_size=40),
    max_size=8,
).map(b"".join)


@given(target=TARGETS.map(b"/".__add__))
@example(target=b"/" + b"a" * 64 + b" ")
def test_http1_reads_the_same_target(target: bytes) -> None:
    head = outcome(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    split = split_target(target)
    if split is None:
        assert head == 400
    else:
        assert isinstance(head, ParsedHead)
        assert (head.path, head.raw_path, head.query) == split


@given(target=TARGETS.map(b"/".__add__))
def test_a_path_is_decoded_as_urllib_does(target: bytes) -> None:
    split = split_target(target)
    if split is not None:
        path, raw_path, query = split
        assert path == urllib.parse.unquote_to_bytes(raw_path).decode(errors="replace")
        assert target in (raw_path + b"?" + query, raw_path)


HOSTS = st.lists(
    st.sampled_from(
        [b"a", b".", b":", b"80", b"65536", b"[", b"]", b"::1", b"1.2.3.4", b"%41", b"%", b"@", b"v1.x"]
    )
    | st.binary(max_size=3),
    max_size=8,
).map(b"".join)


@given(host=HOSTS)
@example(host=b"")
@example(host=b"[::ffff:1.2.3.4]:65535")
@example(host=b"user@host")
def test_http1_takes_the_same_hosts(host: bytes) -> None:
    if host == host.strip(b" \t") and not {*b"\r\n"} & {*host}:
        accepted = outcome(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") != 400
        assert check_host(host) == accepted
        named = outcome(b"GET http://" + host + b" HTTP/1.1\r\nHost: a\r\n\r\n") != 400
        if not {*b"/? "} & {*host}:
            assert check_host(host, named=True) == named


@pytest.mark.parametrize("host", [b"", b":", b":80"])
def test_a_host_may_lack_a_name(host: bytes) -> None:
    assert check_host(host)
    assert not check_host(host, named=True)


@pytest.mark.parametrize(
    "host",
    [
        b"a",
        b"a:",
        b"a:0",
        b"a:65535",
        b"a_b.c~d!$&'()*+,;=",
        b"%C3%A9",
        b"1.2.3.4:80",
        b"[::1]",
        b"[v1.a:b]:1",
    ],
)
def test_a_host_with_a_name(host: bytes) -> None:
    assert check_host(host)
    assert check_host(host, named=True)


@pytest.mark.parametrize(
    "host",
    [
        b"a:65536",
        b"a:-1",
        b"a:8O",
        b"a b",
        b"a/b",
        b"u@a",
        b"a%",
        b"a%4",
        b"[::1",
        b"[::1]a",
        b"::1",
        b"a,b c",
        b"\xe9",
    ],
)
def test_a_malformed_host(host: bytes) -> None:
    assert not check_host(host)
    assert not check_host(host, named=True)
