"""The fields of HTTP/2 requests (RFC 9113 section 8): what they mean, what makes a request malformed."""

from collections.abc import Iterable

import h2.exceptions
import h2.utilities
import hpack
import pytest
from heads import outcome
from hypothesis import example, given
from hypothesis import strategies as st

from fastasgi._parser import ParsedHead
from fastasgi.codecs.hpack import HPACKDecoder
from fastasgi.codecs.http2head import DecodedHead, HTTP2RequestHead, decode_request, decode_trailers

Field = tuple[bytes, bytes]

METHOD, SCHEME, PATH = (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")
AUTHORITY = (b":authority", b"a.example")
GET = (METHOD, SCHEME, PATH, AUTHORITY)
CONNECT = (b":method", b"CONNECT")
WEBSOCKET = (CONNECT, SCHEME, PATH, AUTHORITY, (b":protocol", b"websocket"))


class Client:
    """A peer on one connection, and what is read of it."""

    def __init__(self, **limits: object) -> None:
        self.head = HTTP2RequestHead(**limits)
        self.decoder = HPACKDecoder()
        self.encoder = hpack.Encoder()

    def send(self, *fields: Field) -> DecodedHead:
        return decode_request(self.head, self.decoder, self.encoder.encode(fields))

    def send_trailers(self, *fields: Field) -> str | None:
        return decode_trailers(self.head, self.decoder, self.encoder.encode(fields))


def read(*fields: Field, **limits: object) -> DecodedHead:
    return Client(**limits).send(*fields)


def with_value(name: bytes, value: bytes, fields: Iterable[Field] = GET) -> list[Field]:
    return [(name, value) if field[0] == name else field for field in fields]


def without(name: bytes, fields: Iterable[Field] = GET) -> list[Field]:
    return [field for field in fields if field[0] != name]


# ---- What is read


def test_every_part_of_a_request() -> None:
    assert read(
        (b":method", b"POST"),
        (b":authority", b"Example.org:8443"),
        (b":scheme", b"https"),
        (b":path", b"/caf%C3%A9?x=%20"),
        (b"x-custom", b"a value"),
        (b"content-length", b"12"),
        (b"cookie", b"a=b"),
        (b"expect", b"100-Continue"),
        (b"te", b"Trailers"),
        (b"priority", b"u=1"),
        (b"x-forwarded-proto", b"https"),
        (b"x-empty", b""),
    ) == DecodedHead(
        fault=None,
        status=0,
        reason=None,
        method="POST",
        path="/café",
        raw_path=b"/caf%C3%A9",
        query=b"x=%20",
        scheme=b"https",
        protocol=None,
        authority=b"Example.org:8443",
        headers=[
            (b"host", b"Example.org:8443"),
            (b"x-custom", b"a value"),
            (b"content-length", b"12"),
            (b"cookie", b"a=b"),
            (b"expect", b"100-Continue"),
            (b"te", b"Trailers"),
            (b"priority", b"u=1"),
            (b"x-forwarded-proto", b"https"),
            (b"x-empty", b""),
        ],
        priority=b"u=1",
        content_length=12,
        expect_continue=True,
        tells_client=True,
        via_proxy=False,
        accepts_trailers=True,
    )


def test_the_least_request() -> None:
    assert read((b":method", b"G"), (b":scheme", b"x"), (b":path", b"/")) == DecodedHead(
        None, 0, None, "G", "/", b"/", b"", b"x", None, None, [], None, -1, False, False, False, False
    )


def test_an_extended_connect() -> None:
    head = read(*WEBSOCKET, (b"sec-websocket-version", b"13"), (b"origin", b"https://a.example"))
    assert (head.fault, head.method, head.path, head.protocol) == (None, "CONNECT", "/", b"websocket")
    assert [name for name, _ in head.headers] == [b"host", b"sec-websocket-version", b"origin"]


def test_the_scheme_is_in_lower_case() -> None:
    assert read(*with_value(b":scheme", b"HtTp")).scheme == b"http"


@pytest.mark.parametrize(
    "method", [b"GET", b"PUT", b"POST", b"HEAD", b"PATCH", b"DELETE", b"OPTIONS", b"get", b"M-X!"]
)
def test_methods(method: bytes) -> None:
    assert read(*with_value(b":method", method)).method == method.decode()


def test_options_may_ask_for_the_whole_server() -> None:
    head = read(*with_value(b":path", b"*", with_value(b":method", b"OPTIONS")))
    assert (head.fault, head.path, head.raw_path, head.query) == (None, "*", b"*", b"")


@pytest.mark.parametrize("name", [b"via", b"x-forwarded-for"])
def test_a_proxy_shows(name: bytes) -> None:
    assert read(*GET, (name, b"1.1.1.1")).via_proxy


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        (b"x-forwarded-for", True),
        (b"x-forwarded-proto", True),
        (b"x-forwarded-host", True),
        (b"x-forwarded-port", True),
        (b"x-forwarded-prefix", True),
        (b"forwarded", True),
        (b"via", False),
        (b"x-forwarded", False),
    ],
)
def test_what_tells_of_the_client(name: bytes, tells: bool) -> None:
    assert read(*GET, (name, b"x")).tells_client == tells


def test_priorities_are_one_value() -> None:
    assert read(*GET).priority is None
    assert read(*GET, (b"priority", b"u=1"), (b"priority", b"i")).priority == b"u=1, i"
    long = b"x" * 250
    assert read(*GET, *((b"priority", value) for value in (long, b"u=1234", b"u=12345", b"i"))).priority == (
        long + b", u=1234"
    )


def test_a_new_request_has_nothing_of_the_one_before() -> None:
    client = Client()
    expected = client.send(*GET)
    client.send(
        *WEBSOCKET,
        *((name, b"1") for name in (b"content-length", b"priority", b"via", b"forwarded")),
        (b"te", b"trailers"),
        (b"expect", b"100-continue"),
    )
    assert client.send(*GET) == expected
    assert client.send(*GET, (b"expect", b"x")).fault == "refused"
    assert client.send(*GET, (b"X", b"x")).fault == "malformed"
    assert client.send(*GET) == expected


# ---- Hosts


def test_the_authority_becomes_the_host() -> None:
    assert read(*GET, (b"a", b"b")).headers == [(b"host", b"a.example"), (b"a", b"b")]
    head = read(*GET, (b"a", b"b"), (b"host", b"A.Example"))
    assert (head.authority, head.headers) == (b"a.example", [(b"host", b"a.example"), (b"a", b"b")])


def test_host_comes_first_without_an_authority() -> None:
    head = read(METHOD, SCHEME, PATH, (b"a", b"b"), (b"host", b"a.example:80"))
    assert (head.authority, head.headers) == (b"a.example:80", [(b"host", b"a.example:80"), (b"a", b"b")])


def test_a_host_without_an_authority_may_be_empty_as_in_http1() -> None:
    assert read(METHOD, SCHEME, PATH, (b"host", b"")).headers == [(b"host", b"")]


HOSTS = st.lists(
    st.sampled_from([b"a", b"A", b".", b":", b"80", b"[", b"]", b"::1", b"%41", b"@", b",", b"_"])
    | st.binary(max_size=2),
    max_size=6,
).map(b"".join)


@given(host=HOSTS)
@example(host=b"")
@example(host=b"u@a")
@example(host=b"[::1]:8000")
def test_hosts_are_those_of_http1(host: bytes) -> None:
    accepted = outcome(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") != 400
    if host == host.strip(b" \t"):
        assert (read(METHOD, SCHEME, PATH, (b"host", host)).fault is None) == accepted
        named = host != b"" and not host.startswith(b":")
        assert (read(METHOD, SCHEME, PATH, (b":authority", host)).fault is None) == (accepted and named)


@given(first=HOSTS, second=HOSTS)
@example(first=b"a:[", second=b"A:{")
def test_hosts_are_compared_without_regard_to_case(first: bytes, second: bytes) -> None:
    head = read(METHOD, SCHEME, PATH, (b":authority", first), (b"host", second))
    if head.fault is None:
        assert first.lower() == second.lower()
    elif read(METHOD, SCHEME, PATH, (b":authority", first)).fault is None and second == second.strip():
        assert first.lower() != second.lower()


# ---- Targets


TARGETS = st.lists(
    st.sampled_from([b"/", b"?", b"#", b"%", b"%2f", b"%C3%A9", b"a", b" ", b"\x7f", b"\xe9"])
    | st.binary(max_size=40),
    max_size=8,
).map(b"".join)


@given(target=TARGETS.map(b"/".__add__) | TARGETS)
def test_targets_are_those_of_http1(target: bytes) -> None:
    head = read(*with_value(b":path", target))
    parsed = outcome(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    if isinstance(parsed, ParsedHead) and target.startswith(b"/"):
        assert head.fault is None
        assert (head.path, head.raw_path, head.query) == (parsed.path, parsed.raw_path, parsed.query)
    else:
        assert head.fault == "malformed"


@pytest.mark.parametrize("method", [b"G", b"OPTIONS"])
@pytest.mark.parametrize("length", [30, 31, 32, 33, 100])
def test_both_versions_refuse_the_same_long_targets(method: bytes, length: int) -> None:
    path = b"/" * length
    limit = {"max_request_line_bytes": 42}
    head = read(*with_value(b":path", path, with_value(b":method", method)), **limit)
    parsed = outcome(method + b" " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n", **limit)
    assert (head.status or None) == (parsed if isinstance(parsed, int) else None)
    assert head.raw_path == (path if head.fault is None else b"")


# ---- Memory


def test_what_a_repeated_field_means_is_remembered() -> None:
    client = Client()
    fields = with_value(b":path", b"/caf%C3%A9?q", with_value(b":method", b"PURGE"))
    first, second, third = (client.send(*fields) for _ in range(3))
    assert first == second == third
    for one, other in ((second.path, third.path), (second.query, third.query), (second.method, third.method)):
        assert one is other
    assert second.headers[0] is third.headers[0]
    assert second.headers is not third.headers


def test_what_has_left_the_table_is_read_again() -> None:
    client = Client()
    for n in range(300):
        assert client.send(*with_value(b":path", b"/%d" % n)).path == f"/{n}"
        assert client.send(*with_value(b":path", b"/%d" % (n % 7))).path == f"/{n % 7}"


# ---- Cookies

CRUMBS = [(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]


def test_crumbs_are_joined_where_the_first_one_stands() -> None:
    head = read(*GET, (b"x", b"1"), CRUMBS[0], (b"y", b"2"), *CRUMBS[1:], (b"z", b"3"))
    assert head.headers[1:] == [(b"x", b"1"), (b"cookie", b"a=b; c=d; e=f"), (b"y", b"2"), (b"z", b"3")]
    assert read(*GET, CRUMBS[0]).headers[1:] == CRUMBS[:1]
    assert read(*GET, (b"cookie", b""), (b"cookie", b"")).headers[1:] == [(b"cookie", b"; ")]


def test_crumbs_that_come_again_are_joined_once() -> None:
    client = Client()
    client.send(*GET, *CRUMBS)
    first, second = (client.send(*GET, *CRUMBS).headers for _ in range(2))
    assert first == second
    assert first[1] is second[1]


def test_other_crumbs_are_joined_anew() -> None:
    client = Client()
    for _ in range(3):
        for crumbs in (
            CRUMBS,
            CRUMBS[:2],
            [CRUMBS[0], *CRUMBS[:0:-1]],
            [*CRUMBS, CRUMBS[0]],
            CRUMBS[:1],
            CRUMBS[1:],
        ):
            joined = b"; ".join(value for _, value in crumbs)
            assert client.send(*GET, *crumbs).headers[1:] == [(b"cookie", joined)]


def test_crumbs_that_are_in_no_table_are_joined_each_time() -> None:
    client = Client()
    secret = [hpack.NeverIndexedHeaderTuple(*crumb) for crumb in CRUMBS]
    for crumbs in (secret, [CRUMBS[0], *secret]):
        first, second = (client.send(*GET, *crumbs).headers for _ in range(2))
        assert first == second
        assert first[1] is not second[1]


def test_a_large_cookie_is_not_remembered() -> None:
    client = Client()
    crumbs = [(b"cookie", b"a" * 1000)] * 5
    first, second = (client.send(*GET, *crumbs).headers for _ in range(2))
    assert first == second
    assert first[1] is not second[1]


def test_many_crumbs_count_as_one_header() -> None:
    crumbs = [(b"cookie", b"%d" % n) for n in range(90)]
    head = read(*GET, *crumbs, (b"x", b"y"), max_header_count=2)
    assert head.fault is None
    assert head.headers[1:] == [(b"cookie", b"; ".join(value for _, value in crumbs)), (b"x", b"y")]


# ---- Malformed requests (RFC 9113 section 8.1.1)

MALFORMED = {
    # Names and values (section 8.2.1)
    "a name in upper case": [*GET, (b"X-Name", b"x")],
    "a name with a blank": [*GET, (b"x name", b"x")],
    "a name beyond ASCII": [*GET, (b"caf\xc3\xa9", b"x")],
    "a name with a colon": [*GET, (b"x:y", b"x")],
    "an empty name": [*GET, (b"", b"x")],
    "a value with CR": [*GET, (b"x", b"a\rb")],
    "a value with LF": [*GET, (b"x", b"a\nb")],
    "a value with NUL": [*GET, (b"x", b"a\0b")],
    "a value that begins with a blank": [*GET, (b"x", b" a")],
    "a value that ends in a tab": [*GET, (b"x", b"a\t")],
    "a pseudo field with a blank": with_value(b":path", b"/ "),
    # Fields about the connection (section 8.2.2)
    **{
        f"a field {name.decode()}": [*GET, (name, b"x")]
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    },
    "transfer-encoding: chunked": [*GET, (b"transfer-encoding", b"chunked")],
    "te: gzip": [*GET, (b"te", b"gzip")],
    "te: trailers, gzip": [*GET, (b"te", b"trailers, gzip")],
    "an empty te": [*GET, (b"te", b"")],
    "another te": [*GET, (b"te", b"trailers"), (b"te", b"gzip")],
    # Pseudo fields (section 8.3)
    "an unknown pseudo field": [*GET, (b":x", b"x")],
    "a pseudo field of responses": [*GET, (b":status", b"200")],
    "a pseudo field without a name": [*GET, (b":", b"x")],
    "a pseudo field behind another field": [METHOD, SCHEME, (b"x", b"y"), PATH],
    "a pseudo field behind a cookie": [METHOD, SCHEME, PATH, (b"cookie", b"a=b"), AUTHORITY],
    "a pseudo field behind host": [METHOD, SCHEME, PATH, (b"host", b"a.example"), AUTHORITY],
    **{f"{name.decode()} twice": [*GET, (name, value)] for name, value in GET},
    **{f"no {name.decode()}": without(name) for name in (b":method", b":scheme", b":path")},
    "no fields": [],
    # Their values (section 8.3.1)
    "an empty method": with_value(b":method", b""),
    "a method that is no token": with_value(b":method", b"G(T"),
    "an empty scheme": with_value(b":scheme", b""),
    "a scheme with a colon": with_value(b":scheme", b"http:"),
    "a scheme that begins with a digit": with_value(b":scheme", b"1a"),
    "an empty path": with_value(b":path", b""),
    "a path that does not begin with a slash": with_value(b":path", b"a"),
    "a path in absolute form": with_value(b":path", b"http://a.example/"),
    "a fragment": with_value(b":path", b"/#a"),
    "a blank in a path": with_value(b":path", b"/a b"),
    "a path beyond ASCII": with_value(b":path", b"/\xc3\xa9"),
    "* with GET": with_value(b":path", b"*"),
    "* and a query": with_value(b":path", b"*?a", with_value(b":method", b"OPTIONS")),
    "an empty authority": with_value(b":authority", b""),
    "an authority without a host": with_value(b":authority", b":80"),
    "user and password": with_value(b":authority", b"user:password@a.example"),
    "a malformed authority": with_value(b":authority", b"a/b"),
    "a malformed port": with_value(b":authority", b"a:65536"),
    # Host
    "another host": [*GET, (b"host", b"b.example")],
    "a host with the default port": [*GET, (b"host", b"a.example:443")],
    "an empty host": [*GET, (b"host", b"")],
    "host twice": [*GET, (b"host", b"a.example"), (b"host", b"a.example")],
    "a malformed host": [METHOD, SCHEME, PATH, (b"host", b"a b")],
    "user and password in host": [METHOD, SCHEME, PATH, (b"host", b"u:p@a.example")],
    # The length of the body (section 8.1.1)
    **{
        f"content-length: {value!r}": [*GET, (b"content-length", value)]
        for value in (b"", b"-1", b"+1", b"1.0", b"0x1", b"1, 1", b"1 1", b"9223372036854775808", b"0" * 20)
    },
    "two lengths": [*GET, (b"content-length", b"1"), (b"content-length", b"2")],
    "a length twice": [*GET, (b"content-length", b"1"), (b"content-length", b"1")],
    # CONNECT (section 8.5), and the extended one (RFC 8441 section 4)
    "CONNECT with a path": [CONNECT, AUTHORITY, PATH],
    "CONNECT with a scheme": [CONNECT, AUTHORITY, SCHEME],
    "CONNECT without an authority": [CONNECT],
    "CONNECT with host alone": [CONNECT, (b"host", b"a.example")],
    "CONNECT with a malformed authority": [CONNECT, (b":authority", b"a b")],
    ":protocol with GET": [*GET, (b":protocol", b"websocket")],
    ":protocol twice": [*WEBSOCKET, (b":protocol", b"websocket")],
    **{
        f"a WebSocket without {name.decode()}": without(name, WEBSOCKET)
        for name in (b":scheme", b":path", b":authority")
    },
    "a WebSocket on *": with_value(b":path", b"*", WEBSOCKET),
}  # fmt: skip


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests(fields: list[Field]) -> None:
    client = Client()
    for _ in range(2):  # what was remembered makes no difference
        head = client.send(*fields)
        assert (head.fault, head.status) == ("malformed", 0)
        assert head.reason
    assert client.send(*GET).fault is None


@pytest.mark.parametrize("length", [b"0", b"00", b"9223372036854775807", b"0000000000000000005"])
def test_lengths(length: bytes) -> None:
    assert read(*GET, (b"content-length", length)).content_length == int(length)


def test_te_may_ask_for_trailers() -> None:
    head = read(*GET, (b"te", b"trailers"), (b"te", b"TRAILERS"))
    assert (head.fault, head.accepts_trailers) == (None, True)


# ---- Refused requests

REFUSED = {
    "CONNECT": ([CONNECT, AUTHORITY], 501),
    "CONNECT with other fields": ([CONNECT, AUTHORITY, (b"user-agent", b"x")], 501),
    "another protocol": (with_value(b":protocol", b"connect-udp", WEBSOCKET), 501),
    "no protocol": (with_value(b":protocol", b"", WEBSOCKET), 501),
    "another expectation": ([*GET, (b"expect", b"200-ok")], 417),
    "an empty expectation": ([*GET, (b"expect", b"")], 417),
}


@pytest.mark.parametrize(("fields", "status"), REFUSED.values(), ids=REFUSED)
def test_refused_requests(fields: list[Field], status: int) -> None:
    head = read(*fields)
    assert (head.fault, head.status) == ("refused", status)
    assert head.reason
    assert (head.method, head.headers[0]) == (fields[0][1].decode(), (b"host", b"a.example"))


def test_the_first_reason_to_refuse_counts() -> None:
    assert read(*GET, (b"expect", b"x"), (b"a", b"b"), max_header_count=1).status == 417


def test_a_malformed_request_is_not_answered() -> None:
    head = read(CONNECT, AUTHORITY, (b"expect", b"x"), (b"upgrade", b"x"))
    assert (head.fault, head.status) == ("malformed", 0)


# ---- Limits


@pytest.mark.parametrize("count", [1, 7, 128])
def test_headers_are_counted(count: int) -> None:
    fields = [(b"x-%d" % n, b"") for n in range(count + 1)]
    head = read(*GET, *fields[:-1], max_header_count=count)
    assert (head.fault, len(head.headers)) == (None, count + 1)
    head = read(*GET, *fields, max_header_count=count)
    assert (head.fault, head.status) == ("refused", 431)
    assert (head.method, head.path, head.authority) == ("GET", "/", b"a.example")


def test_more_headers_than_are_kept_are_refused() -> None:
    head = read(*GET, *((b"x-%d" % n, b"") for n in range(50)), max_header_count=2)
    assert (head.fault, head.status, head.path) == ("refused", 431, "/")


def test_names_values_and_32_bytes_a_field_are_counted() -> None:
    fields = [*GET, (b"x", b"y" * 100)]
    size = sum(len(name) + len(value) + 32 for name, value in fields)
    assert read(*fields, max_head_bytes=size).fault is None
    head = read(*fields, max_head_bytes=size - 1)
    assert (head.fault, head.status, head.path) == ("refused", 431, "/")


@pytest.mark.parametrize("fields", [WEBSOCKET, [CONNECT, AUTHORITY], GET, [(b":path", b"/" * 200), *GET[:2]]])
def test_what_was_not_kept_is_not_missing(fields: list[Field]) -> None:
    whole = sum(len(name) + len(value) + 32 for name, value in fields) + 233
    for size in range((whole + 3) // 4, whole):
        head = read(*fields, (b"a", b"b" * 200), max_head_bytes=size)
        assert (head.fault, head.status) == ("refused", 431)
        assert None not in (head.method, head.path, head.raw_path, head.query, head.scheme, head.headers)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_request_line_bytes": 15},
        {"max_head_bytes": 15},
        {"max_header_count": 0},
        {"underscores": "never"},
    ],
    ids=str,
)
def test_limits_have_to_make_sense(limits: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        HTTP2RequestHead(**limits)


def test_limits_may_be_large() -> None:
    large = {"max_request_line_bytes": 2**30, "max_head_bytes": 2**30, "max_header_count": 2**20}
    assert read(*GET, **large).fault is None


# ---- Underscores

WITH_UNDERSCORES = [*GET, (b"x_y", b"1"), (b"_", b"2"), (b"x", b"_")]


def test_underscores_are_allowed() -> None:
    assert read(*WITH_UNDERSCORES).headers[1:] == WITH_UNDERSCORES[4:]


def test_headers_with_underscores_are_dropped_but_counted() -> None:
    assert read(*WITH_UNDERSCORES, underscores="drop").headers[1:] == [(b"x", b"_")]
    assert read(*WITH_UNDERSCORES, underscores="drop", max_header_count=2).status == 431


def test_headers_with_underscores_are_refused() -> None:
    head = read(*WITH_UNDERSCORES, underscores="refuse")
    assert (head.fault, head.status) == ("refused", 400)
    assert read(*GET, (b"x", b"_"), underscores="refuse").fault is None


# ---- Trailers


def test_trailers() -> None:
    client = Client()
    for trailers in (
        (),
        ((b"grpc-status", b"0"), (b"x", b"")),
        ((b"te", b"trailers"), (b"content-length", b"x")),
    ):
        assert client.send_trailers(*trailers) is None


@pytest.mark.parametrize(
    "trailer",
    [
        METHOD,
        AUTHORITY,
        (b":status", b"200"),
        (b":x", b"x"),
        (b"X", b"x"),
        (b"x", b"a\0"),
        (b"x", b" a"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"gzip"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_malformed_trailers(trailer: Field) -> None:
    client = Client()
    assert client.send_trailers((b"a", b"b"), trailer, (b"c", b"d"))
    assert client.send_trailers((b"a", b"b")) is None


# ---- Any fields, and h2's verdict on them

# Why we call a request malformed that h2 accepts
STRICTER = {
    "a field has a malformed name or value",  # h2 lets other control bytes than CR, LF and NUL pass
    "the method is malformed",
    ":scheme is malformed",
    ":authority is malformed",
    "host is malformed",
    ":path is malformed",
    "the :path * goes with OPTIONS only",
    "content-length is repeated",
    "content-length is malformed",
    "CONNECT has :authority, and neither :scheme nor :path",  # h2 takes a host alone
    "an extended CONNECT without :authority",
}
# Why h2 calls a request malformed that we accept
LENIENT = (
    "Request header block does not have an :authority or Host header",  # RFC 9113 demands neither
    "Request header block has mismatched :authority and Host headers",  # if but the case of letters differs
)

names = st.sampled_from(
    [name for name, _ in WEBSOCKET]
    + [
        b":status",
        b"host",
        b"te",
        b"expect",
        b"content-length",
        b"cookie",
        b"connection",
        b"upgrade",
        b"x_y",
        b"X",
        b"x",
    ]
) | st.binary(max_size=4)
values = st.sampled_from(
    [value for _, value in WEBSOCKET]
    + [b"", b"*", b"OPTIONS", b"A.Example", b"a b", b" a", b"a\0", b"\x1f", b"trailers", b"5"]
) | st.binary(max_size=4)


@st.composite
def spoilt_requests(draw: st.DrawFn) -> list[Field]:
    """A good request in which up to three fields are replaced, put in or left out."""
    fields = list(
        draw(st.sampled_from([GET, WEBSOCKET, (CONNECT, AUTHORITY), (*GET, (b"host", b"a.example"))]))
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(fields)))
        field = draw(st.tuples(names, values) | st.sampled_from(WEBSOCKET))
        fields[at : at + draw(st.integers(0, 1))] = draw(st.sampled_from([[field], [field], []]))
    return fields


def complaint(fields: list[Field]) -> str | None:
    """What h2 finds wrong with a request."""
    flags = h2.utilities.HeaderValidationFlags(
        is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
    )
    try:
        list(h2.utilities.validate_headers(fields, flags))
    except h2.exceptions.ProtocolError as error:
        return str(error)
    return None


@given(fields=spoilt_requests())
def test_h2_finds_the_same_requests_malformed(fields: list[Field]) -> None:
    head = read(*fields)
    objection = complaint(fields)
    if head.fault == "malformed":
        assert objection is not None or head.reason in STRICTER
    else:
        assert objection is None or objection.startswith(LENIENT)


@given(
    requests=st.lists(spoilt_requests() | st.lists(st.tuples(names, values), max_size=8), max_size=4),
    underscores=st.sampled_from(["allow", "drop", "refuse"]),
    count=st.integers(1, 8),
    size=st.integers(16, 600),
)
def test_any_requests_are_read(requests: list[list[Field]], underscores: str, count: int, size: int) -> None:
    client = Client(underscores=underscores, max_header_count=count, max_head_bytes=size)
    for fields in requests:
        if sum(len(name) + len(value) + 32 for name, value in fields) <= 4 * size:
            head = client.send(*fields)
            assert (head.status != 0) == (head.fault == "refused")
            assert (head.headers is None) == (head.fault == "malformed")
            if head.fault is None:
                assert len(head.headers) <= count + 1
        else:
            break
