"""Attacks by HTTP/2: what each may cost the server, and how it ends.

The server is a process of its own, which serves another client meanwhile. Budgets are a connection's:
200 resets, and 10 more each second; 1000 frames that do nothing, and 100 more each second.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import attacker
import pytest
from attacker import Attacked, Outcome, attacked, block, encoded, integer, literal, shake
from backpressure import MIB
from certificates import Authority, Pair
from http2peer import (
    MAX_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    ErrorCode,
    Frame,
    FrameType,
    HTTP2Peer,
    Setting,
    continuation,
    data,
    goaway,
    headers,
    ping,
    priority,
    priority_update,
    request_fields,
    rst_stream,
    settings,
    window_update,
)
from memory import linux_only
from serving import Start
from waiting import read_all
from wire import in_loop
from wire import request as http1_request

pytestmark = linux_only

STREAMS = 100  # http2_max_concurrent_streams
MANY = 20_000
PIECE = 2**16

CALM = ErrorCode.ENHANCE_YOUR_CALM


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Attacked]:
    """A server; a test's parameter are its arguments."""
    with attacked(tmp_path_factory.mktemp("server"), *getattr(request, "param", ())) as server:
        yield server


def serving_with(*arguments: str) -> pytest.MarkDecorator:
    """Has a test's server started with these arguments."""
    return pytest.mark.parametrize("server", [arguments], indirect=True, ids=[" "])


def pieces(frames: bytes) -> Iterator[bytes]:
    """What was made beforehand, in pieces as a socket takes them."""
    return (frames[start : start + PIECE] for start in range(0, len(frames), PIECE))


def on_streams(make: Callable[[int], bytes], count: int = MANY) -> Iterator[bytes]:
    """What is made for each of so many streams, in pieces."""
    return pieces(b"".join(make(2 * number + 1) for number in range(count)))


def opened(
    target: str = "/wait", *fields: str, method: str = "GET", whole: bool = True
) -> Callable[[int], bytes]:
    """Makes a request's head on a stream."""
    asked = block(target, *fields, method=method)
    return lambda stream: headers(stream, asked, end_stream=whole)


# --- Streams that are opened and reset ---


@pytest.mark.parametrize("target", ["/wait", "/work"])
def test_rapid_reset(server: Attacked, target: str) -> None:
    """CVE-2023-44487. A call runs until it has returned, also if it does not listen to its client."""
    head = opened(target)
    with server.within_bounds():
        outcome = server.attack(on_streams(lambda stream: head(stream) + rst_stream(stream)))
        assert outcome.code == CALM
        _, most, calls = server.counts
        assert most <= STREAMS
        assert calls <= (300 if target == "/wait" else STREAMS)


def test_rapid_reset_of_websockets(server: Attacked) -> None:
    asked = shake()
    with server.within_bounds():
        resets = on_streams(lambda stream: headers(stream, asked, end_stream=False) + rst_stream(stream))
        assert server.attack(resets).code == CALM
        _, most, calls = server.counts
        assert most <= STREAMS
        assert calls <= 300


UPLOAD = opened("/wait", "content-length: 5", method="POST", whole=False)
OPEN = opened("/wait", method="POST", whole=False)
WHOLE = opened("/wait")

PROVOKED = {
    "window overflow": (lambda x: WHOLE(x) + window_update(x, MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "increment 0": (lambda x: WHOLE(x) + window_update(x, 0), ErrorCode.PROTOCOL_ERROR),
    "data beyond the window": (
        lambda x: OPEN(x) + 4 * data(x, bytes(16384)), ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "priority on itself": (lambda x: WHOLE(x) + priority(x, x), ErrorCode.PROTOCOL_ERROR),
    "head that depends on itself": (
        lambda x: headers(x, block(), depends_on=x), ErrorCode.PROTOCOL_ERROR,
    ),
    "priority of a wrong length": (
        lambda x: WHOLE(x) + bytes(Frame(FrameType.PRIORITY, 0, x, bytes(4))), ErrorCode.FRAME_SIZE_ERROR,
    ),
    "data behind the end": (lambda x: WHOLE(x) + data(x, b"x"), ErrorCode.STREAM_CLOSED),
    "head behind the end": (lambda x: WHOLE(x) + headers(x, block()), ErrorCode.STREAM_CLOSED),
    "body that is too long": (lambda x: UPLOAD(x) + data(x, bytes(6)), ErrorCode.PROTOCOL_ERROR),
    "body that is too short": (
        lambda x: UPLOAD(x) + data(x, b"x", end_stream=True), ErrorCode.PROTOCOL_ERROR,
    ),
    "trailers without an end": (
        lambda x: OPEN(x) + headers(x, literal(b"a", b"b"), end_stream=False), ErrorCode.PROTOCOL_ERROR,
    ),
    "trailers with a pseudo field": (lambda x: OPEN(x) + headers(x, block()), ErrorCode.PROTOCOL_ERROR),
    "names without a character": (
        lambda x: headers(x, block() + 9 * literal(b"", b"")), ErrorCode.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "code"), PROVOKED.values(), ids=PROVOKED)
@serving_with("--http2-initial-stream-window-size", "65535")
def test_made_you_reset(server: Attacked, make: Callable[[int], bytes], code: ErrorCode) -> None:
    """CVE-2025-8671: the client has the server reset its streams. That counts as if it did so itself."""
    with server.within_bounds():
        outcome = server.attack(on_streams(make, 400))
        assert outcome.code == CALM
        assert set(outcome.resets) <= {code, ErrorCode.REFUSED_STREAM}
        assert outcome.resets.count(code) >= STREAMS
        _, most, calls = server.counts
        assert most <= STREAMS
        assert calls <= 300


@serving_with("--limit-request-body", "10")
@in_loop
async def test_bodies_that_are_too_large_free_no_call(server: Attacked) -> None:
    """The requests are answered, and their streams reset. Calls that do not listen go on, and count."""
    peer = await HTTP2Peer.connect(server.port)
    with closing(peer), server.within_bounds():
        await peer.open()
        for _ in range(3):
            streams = [await peer.begin("POST", "/work") for _ in range(STREAMS)]
            await peer.settle()
            await peer.write(b"".join(data(stream, bytes(11)) for stream in streams))
            await peer.settle()
        assert {peer.of(stream).status for stream in range(1, 2 * STREAMS, 2)} == {413}
        running, most, _ = server.counts
        assert (running, most) == (STREAMS, STREAMS)


@serving_with("--timeout-write", "1")
@in_loop
async def test_responses_that_are_given_up_free_no_call(server: Attacked) -> None:
    peer = await HTTP2Peer.connect(server.port)
    with closing(peer), server.within_bounds():
        await peer.open((Setting.INITIAL_WINDOW_SIZE, 0))
        for _ in range(2):
            streams = [await peer.request("GET", "/deaf") for _ in range(STREAMS)]
            for stream in streams:
                await peer.response(stream)
        running, most, _ = server.counts
        assert (running, most) == (STREAMS, STREAMS)


def test_streams_over_the_limit_are_refused_and_harm_no_other(server: Attacked) -> None:
    count = STREAMS + 50
    with server.within_bounds():
        answers = on_streams(opened("/work"), count)
        outcome = server.attack(answers, until=lambda outcome: len(outcome.resets) == 50)
        assert outcome.resets == [ErrorCode.REFUSED_STREAM] * 50
        assert outcome.code is None
        assert server.counts == (STREAMS, STREAMS, STREAMS)


def test_a_client_that_only_opens_streams(server: Attacked) -> None:
    with server.within_bounds():
        outcome = server.attack(on_streams(opened("/work")))
        assert outcome.code == CALM
        assert set(outcome.resets) == {ErrorCode.REFUSED_STREAM}
        _, most, calls = server.counts
        assert (most, calls) == (STREAMS, STREAMS)


# --- Header blocks ---


@pytest.mark.parametrize("size", [0, 1, 100, 16384])
def test_a_block_that_goes_on(server: Attacked, size: int) -> None:
    """CVE-2024-27316 and its kin. A block has 8 frames at most."""
    further = continuation(1, literal(b"a", bytes(20))[:1] * size, end_headers=False)
    flood = headers(1, block(), end_headers=False) + further * (20 * MIB // len(further) if size else 10**5)
    with server.within_bounds():
        assert server.attack(pieces(flood)).code == CALM
        assert server.counts == (0, 0, 0)


LARGE = literal(b"x", b"v" * 4000, index=True)
SMALL = literal(b"x", b"", index=True)
AGAIN = b"\xbe"  # the dynamic table's youngest entry

BOMBS = {
    "a large field 15 times": (LARGE + 15 * AGAIN, 200, None),
    "a large field 20 times": (LARGE + 20 * AGAIN, 431, None),
    "a large field 10 000 times": (LARGE + 10_000 * AGAIN, None, CALM),
    "a small field 50 times": (SMALL + 50 * AGAIN, 200, None),
    "a small field 5000 times": (SMALL + 5000 * AGAIN, 431, None),
    "a small field 16 000 times": (SMALL + 16_000 * AGAIN, None, CALM),
    "1500 cookies": (literal(b"cookie", b"", index=True) + 1500 * AGAIN, 200, None),
    "5000 cookies": (literal(b"cookie", b"", index=True) + 5000 * AGAIN, 431, None),
}


@pytest.mark.parametrize(("fields", "status", "code"), BOMBS.values(), ids=BOMBS)
def test_header_bombs(server: Attacked, fields: bytes, status: int | None, code: ErrorCode | None) -> None:
    """CVE-2016-6581, CVE-2026-49975: a byte stands for a whole field, and counts as that."""

    def is_answered(outcome: Outcome) -> bool:
        return status in outcome.statuses

    with server.within_bounds():
        bomb = headers(1, block("/answer") + fields)
        outcome = server.attack([bomb], until=is_answered)
        assert outcome.code == code
        assert outcome.statuses == ([status] if status else [])


@serving_with("--timeout-write", "1")
def test_header_bombs_that_are_held(server: Attacked) -> None:
    """By windows that let no response out. A connection's requests have 1 MiB of headers at most."""
    size = 15 * (4000 + 1 + 32)

    def is_over(outcome: Outcome) -> bool:
        return len(outcome.resets) == STREAMS

    asked = block("/answer")
    bombs = b"".join(
        headers(2 * i + 1, asked + (LARGE if i == 0 else b"") + 14 * AGAIN) for i in range(STREAMS)
    )
    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0))
    with server.within_bounds():
        outcome = server.attack([bombs], until=is_over, opening=opening)
        refused = outcome.resets.count(ErrorCode.REFUSED_STREAM)
        assert STREAMS - refused <= MIB / size + 1
        assert outcome.resets.count(ErrorCode.CANCEL) == STREAMS - refused
        assert outcome.code is None


TABLES = {
    "a table over what was offered": integer(4097, 5, 0x20),
    "a table of 2 GiB": integer(2**31, 5, 0x20),
    "a size within a block": block() + integer(0, 5, 0x20),
    "an integer without end": b"\x7f" + b"\xff" * 100,
    "an integer of 64 bits": b"\x7f" + integer(2**63, 7, 0x80)[1:],
    "an integer with zeros": b"\x7f" + b"\x80" * 10 + b"\0",
    "a length beyond the block": b"\0" + integer(2**31, 7),
    "an index beyond the table": integer(2**30, 7, 0x80),
    "index 0": b"\x80",
    "Huffman code with its end": b"\0\x01a\x84\xff\xff\xff\xff",
    "Huffman code with a byte of padding": b"\0\x01a\x82\x07\xff",
    "Huffman code padded with zeros": b"\0\x01a\x81\0",
}


@pytest.mark.parametrize("wrong", TABLES.values(), ids=TABLES)
def test_wrong_header_blocks(server: Attacked, wrong: bytes) -> None:
    with server.within_bounds(processor_s=0.2):
        outcome = server.attack([headers(1, wrong)])
        assert outcome.code == ErrorCode.COMPRESSION_ERROR
        assert server.counts == (0, 0, 0)


@in_loop
async def test_a_large_table_for_responses(server: Attacked) -> None:
    """The client's offer does not make the server keep more than 4096 bytes."""
    peer = await HTTP2Peer.connect(server.port)
    with closing(peer), server.within_bounds():
        await peer.open((Setting.HEADER_TABLE_SIZE, 2**32 - 1))
        peer.decoder.max_allowed_table_size = 4096
        for _ in range(3):
            streams = [await peer.request("GET", "/fields") for _ in range(STREAMS // 4)]
            assert {(await peer.response(stream)).status for stream in streams} == {200}


# --- Frames that cost much and do nothing ---

FLOODS = {
    "pings": ping(),
    "acknowledged pings": ping(ack=True),
    "settings": settings(),
    "settings of the window": b"".join(settings((Setting.INITIAL_WINDOW_SIZE, n)) for n in (0, 1)),
    "settings of the table": b"".join(settings((Setting.HEADER_TABLE_SIZE, n)) for n in (0, 4096)),
    "acknowledged settings": SETTINGS_ACK,
    "priorities": priority(1, 3) + priority(3, 1) + priority(5, 0),
    "priority updates": priority_update(1, b"u=1") + priority_update(3, b"i"),
    "an unknown type": bytes(Frame(0xEE, 0xFF, 1, b"x")),
    "a large unknown type": bytes(Frame(0xEE, 0xFF, 0, bytes(16384))),
    "empty data": data(1),
    "padding": data(1, padding=255),
    "data of a byte": data(1, b"x"),
    "windows of the connection": window_update(0, 1),
    "windows of a stream": window_update(1, 1),
    "windows of a closed stream": window_update(3, 1),
    "resets of a closed stream": rst_stream(3),
    "data of a closed stream": data(5),
    "heads of a closed stream": headers(5, block()),
    "farewells": goaway(),
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_floods(server: Attacked, flood: bytes) -> None:
    """CVE-2019-9512, -9515, -9518 and others.

    The application of stream 1 receives nothing. 3 is closed; 5 is reset by the server, and what comes for it
    may have been sent before that was seen.
    """
    before = opened("/work", method="POST", whole=False)(1) + headers(3, block("/answer"))
    before += headers(5, block("/answer", "connection: close"))
    with server.within_bounds():
        outcome = server.attack(itertools.chain([before], pieces(flood * max(3000, 16 * MIB // len(flood)))))
        assert outcome.code == CALM


@pytest.mark.parametrize("flood", [ping(), settings()], ids=["pings", "settings"])
def test_floods_whose_answers_nobody_reads(server: Attacked, flood: bytes) -> None:
    with server.within_bounds():
        server.attack(pieces(flood * 10**6), reads=False)


def test_many_settings_in_one_frame(server: Attacked) -> None:
    with server.within_bounds(processor_s=0.2):
        assert server.attack([settings(*33 * [(Setting.INITIAL_WINDOW_SIZE, 1)])]).code == CALM


def test_a_response_bit_by_bit(server: Attacked) -> None:
    """CVE-2019-9511: each byte of window costs a frame."""
    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)) + headers(1, block("/large?1000000"))
    with server.within_bounds():
        outcome = server.attack(pieces(window_update(1, 1) * 10**5), opening=opening)
        assert outcome.code == CALM


# --- Windows ---


@pytest.mark.parametrize(
    ("increment", "code"), [(MAX_WINDOW, ErrorCode.FLOW_CONTROL_ERROR), (0, ErrorCode.PROTOCOL_ERROR)]
)
def test_wrong_windows_of_the_connection(server: Attacked, increment: int, code: ErrorCode) -> None:
    with server.within_bounds(processor_s=0.2):
        assert server.attack([window_update(0, increment)]).code == code


def test_a_setting_under_which_a_window_overflows(server: Attacked) -> None:
    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0))
    asked = opened("/large?1000000")(1) + window_update(1, MAX_WINDOW)
    larger = settings((Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW))
    with server.within_bounds(processor_s=0.2):
        assert server.attack([asked + larger], opening=opening).code == ErrorCode.FLOW_CONTROL_ERROR


def test_uploads_that_nobody_takes(server: Attacked) -> None:
    """What waits is bounded by the window of the connection; what exceeds that is an error."""
    begun = b"".join(opened("/work", method="POST", whole=False)(2 * i + 1) for i in range(STREAMS))
    body = b"".join(data(2 * i + 1, bytes(16384)) for i in range(STREAMS))
    with server.within_bounds():
        for _ in range(4):
            outcome = server.attack(itertools.chain([begun], pieces(8 * body)))
            assert outcome.code == ErrorCode.FLOW_CONTROL_ERROR


@serving_with("--timeout-write", "1")
def test_responses_that_nobody_reads(server: Attacked) -> None:
    """CVE-2019-9517: the windows are open, but nothing is read from the socket."""
    opening = (
        PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW)) + window_update(0, MAX_WINDOW - 65535)
    )
    heads = b"".join(opened("/large?100000000")(2 * i + 1) for i in range(STREAMS))
    with server.within_bounds(), closing(server.connect()) as sock:
        sock.sendall(opening + heads)
        server.until_running(STREAMS)
        server.until_running(0)


@serving_with("--timeout-write", "1")
def test_small_pieces_that_nobody_reads(server: Attacked) -> None:
    """What waits in many pieces takes more memory than its bytes."""
    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0))
    with server.within_bounds():
        outcome = server.attack(
            on_streams(opened("/drips?8000"), STREAMS),
            opening=opening,
            until=lambda outcome: len(outcome.resets) == STREAMS,
        )
        assert outcome.resets == [ErrorCode.CANCEL] * STREAMS


@serving_with("--timeout-write", "1")
def test_answers_that_nobody_reads(server: Attacked) -> None:
    """Small ones, of which many wait: no more is read then."""
    with server.within_bounds():
        server.attack(on_streams(opened("/fields")), reads=False)
        _, _, calls = server.counts
        assert calls < MANY / 2


@pytest.mark.parametrize("window", [0, MAX_WINDOW], ids=["of streams", "of the connection"])
@serving_with("--timeout-write", "1")
def test_windows_that_let_nothing_out(server: Attacked, window: int) -> None:
    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, window))
    with server.within_bounds():
        head = opened("/large?1000000")
        outcome = server.attack(
            on_streams(head, STREAMS), opening=opening, until=lambda outcome: len(outcome.resets) == STREAMS
        )
        assert outcome.resets == [ErrorCode.CANCEL] * STREAMS
        assert outcome.code is None
        server.until_running(0)


@serving_with("--timeout-write", "1")
def test_windows_that_let_a_byte_out_now_and_then(server: Attacked) -> None:
    """Less than 1 KiB is no progress."""

    def bytes_now_and_then() -> Iterator[bytes]:
        yield headers(1, block("/large?1000000"))
        while True:
            time.sleep(0.1)
            yield window_update(1, 1)

    opening = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0))
    with server.within_bounds():
        outcome = server.attack(bytes_now_and_then(), opening=opening, until=lambda outcome: outcome.resets)
        assert outcome.resets == [ErrorCode.CANCEL]
        assert outcome.sent < 1000


# --- Slow clients ---

SLOW = {
    "no preface": (b"", b"", None),
    "a part of the preface": (PREFACE[:20], b"", None),
    "no settings": (PREFACE, b"", None),
    "a part of a frame": (PREFACE + settings(), headers(1, block())[:12], ErrorCode.PROTOCOL_ERROR),
    "a part of a block": (
        PREFACE + settings(), headers(1, block(), end_headers=False), ErrorCode.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("opening", "begun", "code"), SLOW.values(), ids=SLOW)
@serving_with("--timeout-request-head", "1")
def test_beginnings_without_an_end(
    server: Attacked, opening: bytes, begun: bytes, code: ErrorCode | None
) -> None:
    with server.within_bounds(processor_s=0.3):
        outcome = server.attack([begun], opening=opening)
        assert outcome.code == code


@serving_with("--timeout-request-body", "1")
def test_bodies_without_an_end(server: Attacked) -> None:
    with server.within_bounds(processor_s=0.5):
        head = opened("/upload", method="POST", whole=False)
        outcome = server.attack(
            on_streams(head, STREAMS), until=lambda outcome: len(outcome.resets) == STREAMS
        )
        assert outcome.statuses == [408] * STREAMS
        assert outcome.resets == [ErrorCode.NO_ERROR] * STREAMS
        assert outcome.code is None


# --- What is no HTTP/2, or would be something else behind a proxy ---


def test_smuggling_past_a_proxy_by_h2c(server: Attacked) -> None:
    """A proxy that passes the upgrade on would not see the requests behind it."""
    fields = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    with closing(socket.create_connection(("127.0.0.1", server.port))) as sock:
        sock.sendall(http1_request("GET /answer HTTP/1.1", *fields) + PREFACE + settings())
        answer = read_all(sock)
    first, _, rest = answer.partition(b"hello")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"upgrade" not in first.lower()
    assert rest.startswith(b"HTTP/1.1 505 ")


def fields_with(*more: tuple[bytes, bytes], without: bytes = b"", method: str = "GET") -> bytes:
    """A block with these fields more."""
    pseudo = [(name, value) for name, value in request_fields(method, "/answer") if name != without]
    return encoded(pseudo) + b"".join(literal(*pair) for pair in more)


DESYNC = {
    "CR LF in a value": fields_with((b"x", b"a\r\nb: c")),
    "NUL in a value": fields_with((b"x", b"a\0b")),
    "LF in a name": fields_with((b"x\ny", b"a")),
    "a colon in a name": fields_with((b"x:y", b"a")),
    "a blank in a name": fields_with((b"content-length ", b"5")),
    "a capital in a name": fields_with((b"Content-Length", b"5")),
    "transfer-encoding": fields_with((b"transfer-encoding", b"chunked"), method="POST"),
    "connection": fields_with((b"connection", b"close")),
    "upgrade": fields_with((b"upgrade", b"websocket")),
    "a CR LF in the path": fields_with((b":path", b"/ HTTP/1.1\r\nx: y"), without=b":path"),
    "a blank in the path": fields_with((b":path", b"/answer HTTP/1.1"), without=b":path"),
    "a blank in the method": fields_with((b":method", b"GET / HTTP/1.1\r\n"), without=b":method"),
    "two paths": fields_with((b":path", b"/other")),
    "a path behind a field": fields_with((b"x", b"y"), (b":path", b"/answer"), without=b":path"),
    "another host": fields_with((b"host", b"other")),
    "a user in the authority": fields_with((b":authority", b"user@x"), without=b":authority"),
    "two lengths": fields_with((b"content-length", b"0"), (b"content-length", b"5")),
    "a length with a sign": fields_with((b"content-length", b"+0")),
    "a length without a body": fields_with((b"content-length", b"5")),
}


def test_requests_that_a_proxy_may_take_for_others(server: Attacked) -> None:
    frames = b"".join(headers(2 * i + 1, wrong) for i, wrong in enumerate(DESYNC.values()))
    with server.within_bounds(processor_s=0.3):
        outcome = server.attack([frames], until=lambda outcome: len(outcome.resets) == len(DESYNC))
        reset = {x.stream for x in outcome.frames if x.type == FrameType.RST_STREAM}
        assert [name for i, name in enumerate(DESYNC) if 2 * i + 1 not in reset] == []
        assert set(outcome.resets) == {ErrorCode.PROTOCOL_ERROR}
        assert outcome.statuses == []
        assert server.counts == (0, 0, 0)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)], ids=["no ALPN", "HTTP/1.1"])
def test_http2_where_alpn_has_not_chosen_it(
    start: Start, pair: Pair, authority: Authority, protocols: tuple[str, ...]
) -> None:
    files = itertools.chain(
        *[(f"--{name.replace('_', '-')}", str(path)) for name, path in pair.settings.items()]
    )
    context = authority.client()
    if protocols:
        context.set_alpn_protocols(protocols)
    process = start(attacker.APP, "app:app", "--port", "0", *files)
    sock = socket.create_connection(("127.0.0.1", process.port))
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(PREFACE + settings() + headers(1, block("/answer")))
        answer = read_all(tls)
    assert answer.startswith(b"HTTP/1.1 505 ")


def test_stream_ids_are_used_up(server: Attacked) -> None:
    """The client is told to connect again long before there is none."""
    last = 2**30 + 1
    with server.within_bounds(processor_s=0.2):
        outcome = server.attack([headers(1, block("/answer")) + headers(last, block("/answer"))])
        assert outcome.statuses == [200, 200]
        assert outcome.code == ErrorCode.NO_ERROR
        [last_stream] = {x.payload[:4] for x in outcome.frames if x.type == FrameType.GOAWAY}
        assert int.from_bytes(last_stream, "big") == last


# --- What the log says ---


def test_attacks_fill_no_log(server: Attacked) -> None:
    """A line for each connection at the most, and few where there are many."""
    flood = b"".join(5000 * [ping()])
    with server.within_bounds(processor_s=3.0):
        for _ in range(100):
            assert server.attack([flood]).code == CALM
    lines = [line for line in server.process.errors if "ENHANCE_YOUR_CALM" in line]
    assert 1 <= len(lines) < 50, server.process.log
