"""Who speaks on a new connection: told by its first bytes, by TLS, behind a PROXY header."""

import asyncio
import ssl
from typing import Any

import pytest
from anyclient import Request, Response
from certificates import Authority
from eachwire import HTTP1, NETSTRINGS, served
from jumpingloop import in_jumping_loop
from netstringclient import NetstringClient
from proxywire import INET, v1, v2
from scopes import Scopes
from wire import CLOSE, Reads, echo, error_records, in_each_loop, in_loop, request, talk

from fastasgi.tls.contexts import ALPN

PREFACE = NetstringClient.preface
CLIENT, SERVER = ("192.0.2.1", 56324), ("198.51.100.7", 443)
ASKED = Request("POST", "/a?b", body=b"body")
ANSWER = Response(200, body=b"POST /a?b body")

every_split = pytest.mark.parametrize("split", range(1, len(PREFACE) + 1))


def encoded(client: NetstringClient, *requests: Request) -> bytes:
    return PREFACE + client.encode(*requests)


async def write_alone(reads: Reads, client: Any, data: bytes) -> None:
    """Send this, and return when the server has read it."""
    total = reads.total + len(data)
    await client.write(data)
    await reads.until(total)


def last(method: str) -> bytes:
    """An HTTP/1.1 request of this method, behind which nothing comes."""
    return request(f"{method} /a HTTP/1.1", CLOSE)


def echoed_by_http1(method: str) -> bytes:
    body = f"{method} /a? ".encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)


# --- By the first bytes ---


@in_each_loop
async def test_a_preface_and_a_request_in_one_read(reads: Reads) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        await write_alone(reads, client, encoded(client, ASKED, ASKED))
        assert [await client.response(), await client.response()] == [ANSWER, ANSWER]
        assert server.context.registry.connection_count == 1


@every_split
@in_loop
async def test_a_preface_in_two_reads(split: int, reads: Reads) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        data = encoded(client, ASKED)
        for part in (data[:split], data[split:]):
            await write_alone(reads, client, part)
        assert await client.response() == ANSWER


@in_each_loop
async def test_a_preface_byte_by_byte(reads: Reads) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        for byte in encoded(client, ASKED):
            await write_alone(reads, client, bytes([byte]))
        assert await client.response() == ANSWER


@in_loop
async def test_a_preface_alone_and_the_request_later(reads: Reads) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        await write_alone(reads, client, PREFACE)
        assert await client.ask("POST", "/a?b", body=b"body") == ANSWER


@every_split
@pytest.mark.parametrize("reads_apart", [True, False], ids=["two reads", "one read"])
@in_loop
async def test_what_only_begins_like_a_preface_is_http1(split: int, reads_apart: bool, reads: Reads) -> None:
    method = PREFACE.strip().decode()[:split]
    data = last(method)
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        for part in (data[:split], data[split:]) if reads_apart else (data,):
            await write_alone(reads, client, part)
        assert await client.rest() == echoed_by_http1(method)


@pytest.mark.parametrize("size", [1, 2, 1000])
@in_each_loop
async def test_http1_is_spoken_as_without_other_wires(size: int, reads: Reads) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        data = last("GET")
        for start in range(0, len(data), size):
            await write_alone(reads, client, data[start : start + size])
        assert await client.rest() == echoed_by_http1("GET")


@in_loop
async def test_both_wires_at_once() -> None:
    async with served(echo, NETSTRINGS) as server:
        one, two = await server.connect(), await server.connect(sends_preface=False)
        await one.begin("POST", "/a?b", length=4, body=b"bo")
        await two.write(last("GET"))
        assert await two.rest() == echoed_by_http1("GET")
        await one.send(b"dy")
        assert await one.response() == ANSWER


@in_loop
async def test_a_preface_of_no_wire_is_a_malformed_request() -> None:
    """Nothing is registered."""
    answer = await talk(echo, PREFACE + b"1:E,\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begun", [b"", b"n", PREFACE[:-1]], ids=repr)
@pytest.mark.parametrize("how", ["end", "reset"])
@in_each_loop
async def test_a_client_that_leaves_within_a_preface_leaves_nothing(
    begun: bytes, how: str, reads: Reads, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(echo, NETSTRINGS) as server:
        client = await server.connect(sends_preface=False)
        if begun:
            await write_alone(reads, client, begun)
        if how == "end":
            client.half_close()
            assert await client.rest() == b""
        else:
            client.reset()
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


# --- Time ---


@in_jumping_loop
async def test_who_says_nothing_is_not_waited_for() -> None:
    async with served(echo, NETSTRINGS, timeout_request_head=2, timeout_keep_alive=60) as server:
        client = await server.connect(sends_preface=False)
        begun_at = asyncio.get_running_loop().time()
        assert await client.rest() == b""
        assert asyncio.get_running_loop().time() - begun_at < 5


@pytest.mark.parametrize("begun", [b"n", PREFACE[:-1]], ids=repr)
@in_jumping_loop
async def test_a_part_of_a_preface_is_a_head_that_is_late(
    begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be one of a request line, which has an answer on a server where nothing is registered."""
    answers = []
    for wire in (NETSTRINGS, HTTP1):
        async with served(echo, wire, timeout_request_head=2) as server:
            client = await server.connect(sends_preface=False)
            await client.write(begun)
            answers.append(await client.rest())
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 408 ")
    reasons = [record.getMessage().partition(" with ")[2] for record in caplog.records]
    assert reasons.count("408: the head did not arrive within timeout_request_head") == 2


@pytest.mark.parametrize("data", [PREFACE, b"netstrings / HTTP/1.1\r\n"], ids=repr)
@in_jumping_loop
async def test_the_time_of_a_head_runs_since_the_connection_was_made(data: bytes) -> None:
    async with served(echo, NETSTRINGS, timeout_request_head=4) as server:
        client = await server.connect(sends_preface=False)
        begun_at = asyncio.get_running_loop().time()
        await client.write(data[:1])
        await asyncio.sleep(3)
        await client.write(data[1:])
        await client.rest()
        assert asyncio.get_running_loop().time() - begun_at < 6.5


# --- While the server drains ---


@pytest.mark.parametrize("begun", [b"", b"n"], ids=repr)
@in_jumping_loop
async def test_a_server_that_drains_does_not_wait_long(begun: bytes, reads: Reads) -> None:
    async with served(echo, NETSTRINGS, timeout_graceful_shutdown=15) as server:
        client = await server.connect(sends_preface=False)
        if begun:
            await write_alone(reads, client, begun)
        while not server.context.registry.connection_count:
            await asyncio.sleep(0)
        asked_at = asyncio.get_running_loop().time()
        ending = asyncio.create_task(server.stop())
        await client.rest()
        client.close()
        await ending
        assert asyncio.get_running_loop().time() - asked_at < 3


@pytest.mark.parametrize("wire", ["netstrings", "HTTP/1.1"])
@in_each_loop
async def test_a_first_request_is_answered_while_the_server_drains(wire: str, reads: Reads) -> None:
    async with served(echo, NETSTRINGS, timeout_graceful_shutdown=15) as server:
        client = await server.connect(sends_preface=False)
        data = encoded(client, ASKED) if wire == "netstrings" else last("netstrings")
        await write_alone(reads, client, data[:5])
        ending = asyncio.create_task(server.stop())
        while not server.context.draining:
            await asyncio.sleep(0.001)
        await client.write(data[5:])
        if wire == "netstrings":
            assert await client.responses() == [ANSWER]
        else:
            assert await client.rest() == echoed_by_http1("netstrings")
        await ending


# --- Behind TLS ---


@pytest.fixture
def alpn(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a client's context is that asks for these protocols; servers offer both wires."""
    monkeypatch.setitem(ALPN, "on", ["netstrings", "http/1.1"])

    def context(*protocols: str) -> ssl.SSLContext:
        context = authority.client()
        if protocols:
            context.set_alpn_protocols(protocols)
        return context

    return context


@pytest.mark.parametrize(
    ("protocols", "sends_preface", "is_http1"),
    [
        (("netstrings", "http/1.1"), True, False),
        (("netstrings",), False, False),
        (("http/1.1",), False, True),
        (("other",), False, True),
        ((), True, False),
        ((), False, True),
    ],
)
@in_each_loop
async def test_alpn_decides_and_without_it_the_first_bytes(
    authority: Authority, alpn: Any, protocols: tuple[str, ...], sends_preface: bool, is_http1: bool
) -> None:
    async with served(echo, NETSTRINGS, **authority.issue().settings) as server:
        client = await server.connect(
            sends_preface=sends_preface, ssl=alpn(*protocols), server_hostname="localhost"
        )
        if is_http1:
            await client.write(last("GET"))
            assert await client.rest() == echoed_by_http1("GET")
        else:
            assert await client.ask("POST", "/a?b", body=b"body") == ANSWER


@in_loop
async def test_what_was_agreed_on_is_spoken(authority: Authority, alpn: Any) -> None:
    async with served(echo, NETSTRINGS, **authority.issue().settings) as server:
        client = await server.connect(ssl=alpn("http/1.1"), server_hostname="localhost")
        await client.write(b"1:E,\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


# --- Behind a PROXY header ---


@pytest.mark.parametrize("header", [v1("TCP4", CLIENT, SERVER), v2(INET, CLIENT, SERVER)], ids=["v1", "v2"])
@pytest.mark.parametrize("form", ["whole", "byte by byte", "header first", "preface first"])
@in_loop
async def test_behind_a_proxy_header(header: bytes, form: str, reads: Reads) -> None:
    app = Scopes()
    async with served(app, NETSTRINGS, proxy_protocol="127.0.0.1") as server:
        client = await server.connect(sends_preface=False)
        data = header + encoded(client, ASKED)
        cuts = {"whole": [], "header first": [len(header)], "preface first": [len(header) + len(PREFACE)]}
        ends = cuts.get(form, list(range(1, len(data))))
        for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
            await write_alone(reads, client, data[start:end])
        assert (await client.response()).status == 200
    assert [scope["client"] for scope in app] == [CLIENT]


@in_loop
async def test_http1_behind_a_proxy_header() -> None:
    app = Scopes()
    async with served(app, NETSTRINGS, proxy_protocol="127.0.0.1") as server:
        client = await server.connect(sends_preface=False)
        await client.write(v1("TCP4", CLIENT, SERVER) + last("netstrings"))
        assert (await client.rest()).startswith(b"HTTP/1.1 200 ")
    assert [(scope["method"], scope["client"]) for scope in app] == [("netstrings", CLIENT)]
