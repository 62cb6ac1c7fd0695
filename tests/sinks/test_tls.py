"""HTTP over TLS: requests, what the server offers, a PROXY header before it."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from certificates import Authority, Pair
from tlspeer import Records, exchange, mutual, noting, tls_of
from wire import CLOSE, Served, echo, error_records, hello, in_each_loop, in_loop, request, served

# --- Requests ---


@pytest.mark.parametrize(
    ("version", "number", "suite"),
    [("TLSv1_2", 0x0303, 0xC02C), ("TLSv1_3", 0x0304, 0x1302)],
)
@in_each_loop
async def test_a_request_is_served_and_the_application_told_how(
    authority: Authority, pair: Pair, version: str, number: int, suite: int
) -> None:
    scopes: list[Any] = []
    context = authority.client(
        minimum_version=ssl.TLSVersion[version], maximum_version=ssl.TLSVersion[version]
    )
    context.set_alpn_protocols(["http/1.1"])
    async with served(noting(scopes), **pair.settings) as running:
        connection = await exchange(running, context)
    assert connection.selected_alpn_protocol() == "http/1.1"
    assert scopes[0]["scheme"] == "https"
    assert tls_of(scopes) == {
        "server_cert": pair.pem,
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": number,
        "cipher_suite": suite,
    }


@in_loop
async def test_each_request_has_an_extension_of_its_own(authority: Authority, pair: Pair) -> None:
    scopes: list[Any] = []
    async with served(noting(scopes), **pair.settings) as running:
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        await client.ask(request())
        tls_of(scopes).clear()
        await client.ask(request())
        assert tls_of(scopes)["server_cert"] == pair.pem


@in_loop
async def test_a_plain_connection_has_no_extension() -> None:
    scopes: list[Any] = []
    async with served(noting(scopes)) as running:
        await running.talk(request("GET / HTTP/1.1", CLOSE))
    assert scopes[0]["scheme"] == "http"
    assert "tls" not in scopes[0]["extensions"]


@in_each_loop
async def test_a_websocket_is_served_and_told_too(authority: Authority, pair: Pair) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})

    client_pair = authority.issue("me@x.example", file="client", common_name="Me")
    data = bytes(range(256)) * 1000
    async with served(app, **pair.settings, **mutual(authority)) as running:
        url = f"wss://localhost:{running.port}/"
        async with websockets.connect(url, ssl=authority.client(client_pair)) as socket:
            for size in (0, 1, 70_000, len(data)):
                await socket.send(data[:size])
                assert await socket.recv() == data[:size]
    assert scopes[0]["scheme"] == "wss"
    assert tls_of(scopes)["client_cert_chain"][0] == client_pair.pem
    assert tls_of(scopes)["client_cert_name"].startswith("CN=Me,")


@in_each_loop
async def test_bodies_of_all_sizes_come_whole_both_ways(authority: Authority, pair: Pair) -> None:
    """Around the size of a record, of an output block, and of what is encrypted at once."""
    data = bytes(range(251)) * 5000
    async with served(echo, **pair.settings) as running:
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        for size in (0, 1, 16383, 16384, 16385, 65536, 131072, 262144, 262145, 1_200_000):
            body = data[:size]
            answer = await client.ask(request("POST / HTTP/1.1", f"content-length: {size}", body=body))
            assert answer.body == b"POST /? " + body


@in_loop
async def test_httpx_is_served(authority: Authority, pair: Pair) -> None:
    client = httpx.AsyncClient(verify=authority.client())
    async with served(echo, **pair.settings) as running, client:
        for _ in range(3):
            response = await client.post(f"https://localhost:{running.port}/x?y", content=b"z" * 100_000)
            assert response.content == b"POST /x?y " + b"z" * 100_000


@in_loop
async def test_records_are_understood_however_they_are_cut(authority: Authority, pair: Pair) -> None:
    async with served(echo, **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        for byte in peer.outgoing.read():
            peer.client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await peer.shake()
        one = request("POST / HTTP/1.1", "content-length: 3", body=b"abc")
        records = b"".join(peer.encrypted(one[at : at + 7]) for at in range(0, len(one), 7))
        for byte in records:
            peer.client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await peer.until(b"POST /? abc")
        # The end of one record and the beginning of the next in one read
        records = peer.encrypted(one) + peer.encrypted(one)
        await peer.client.write(records[:-10])
        await peer.until(b"POST /? abc")
        await peer.client.write(records[-10:] + peer.encrypted(one * 2))
        data = b""
        while data.count(b"POST /? abc") < 3:
            data += await peer.decrypted()


@in_loop
async def test_a_file_is_sent(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(data)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    async with served(app, **pair.settings) as running:
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        assert (await client.ask(request())).body == data


# --- What is offered ---


async def handshake_of(running: Served, context: ssl.SSLContext) -> tuple[Any, Any] | None:
    """Version and cipher, or None where the server refuses."""
    try:
        client = await running.connect(ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError):
        return None
    connection = client.writer.get_extra_info("ssl_object")
    client.close()
    return connection.version(), connection.cipher()[0]


def weak_client(**details: Any) -> ssl.SSLContext:
    """One that takes all that its OpenSSL can do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    for name, value in details.items():
        setattr(context, name, value)
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@in_loop
async def test_only_tls_1_2_and_1_3_are_offered(pair: Pair) -> None:
    async with served(hello, **pair.settings) as running:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = weak_client(maximum_version=version, minimum_version=version)
            assert await handshake_of(running, context) is None, version
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert await handshake_of(running, weak_client(maximum_version=version)), version
    async with served(hello, **pair.settings, ssl_version=ssl.PROTOCOL_TLSv1_2) as running:
        [version, _] = await handshake_of(running, weak_client())
        assert version == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("ciphers", [None, "TLSv1"])
@in_loop
async def test_only_ciphers_with_forward_secrecy_and_authentication_are_offered(
    pair: Pair, ciphers: str | None
) -> None:
    offered = set()
    async with served(hello, **pair.settings, ssl_ciphers=ciphers) as running:
        for cipher in weak_client().get_ciphers():
            if cipher["name"].startswith("TLS_"):
                continue
            context = weak_client(maximum_version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(f"{cipher['name']}:@SECLEVEL=0")
            if found := await handshake_of(running, context):
                offered.add(found[1])
    # The certificate's key is one for ECDSA
    assert offered == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    }


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@in_loop
async def test_a_cipher_list_of_ones_own_is_kept_to(pair: Pair) -> None:
    name = "ECDHE-ECDSA-CHACHA20-POLY1305"
    async with served(hello, **pair.settings, ssl_ciphers=name) as running:
        context = weak_client(maximum_version=ssl.TLSVersion.TLSv1_2)
        assert await handshake_of(running, context) == ("TLSv1.2", name)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        assert await handshake_of(running, context) is None


@pytest.mark.parametrize(
    ("http2", "asked", "agreed"),
    [
        ("on", ["h2", "http/1.1"], "h2"),
        ("on", ["http/1.1", "h2"], "h2"),
        ("on", ["http/1.1"], "http/1.1"),
        ("on", ["other"], None),
        ("on", [], None),
        ("off", ["h2", "http/1.1"], "http/1.1"),
        ("off", ["h2"], None),
        ("only", ["http/1.1", "h2"], "h2"),
        ("only", ["http/1.1"], None),
    ],
)
@in_loop
async def test_the_setting_http2_says_what_alpn_offers(
    authority: Authority, pair: Pair, http2: str, asked: list[str], agreed: str | None
) -> None:
    context = authority.client()
    if asked:
        context.set_alpn_protocols(asked)
    async with served(hello, http2=http2, **pair.settings) as running:
        client = await running.connect(ssl=context, server_hostname="localhost")
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
        client.close()


# --- A PROXY header before it ---

PROXY_LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 4567 443\r\n"


@pytest.mark.parametrize("size", [1, 10, 10_000])
@in_each_loop
async def test_a_proxy_header_comes_before_tls(authority: Authority, pair: Pair, size: int) -> None:
    scopes: list[Any] = []
    async with served(noting(scopes), proxy_protocol="127.0.0.1", **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        data = PROXY_LINE + peer.outgoing.read()
        for at in range(0, len(data), size):
            await peer.client.write(data[at : at + size])
            await asyncio.sleep(0)
        await peer.shake()
        await peer.client.write(peer.encrypted(request()))
        await peer.until(b"hello")
    assert scopes[0]["client"] == ("192.0.2.7", 4567)
    assert scopes[0]["scheme"] == "https"
    assert tls_of(scopes)["tls_version"] == 0x0304


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"PROXY TCP4 nonsense\r\n", "closed: "),
        (PROXY_LINE + request(), "with 400: plain HTTP where TLS is spoken"),
    ],
)
@in_each_loop
async def test_what_is_no_proxy_header_or_no_tls_behind_it(
    pair: Pair, data: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(hello, proxy_protocol="127.0.0.1", **pair.settings) as running:
        client = await running.connect()
        await client.write(data)
        with contextlib.suppress(ConnectionError):
            assert b"hello" not in await client.rest()
        client.close()
        waiting = await running.connect()
        await waiting.write(PROXY_LINE[:10])
        waiting.close()
        while running.context.registry.connection_count:
            await asyncio.sleep(0)
    assert any(line in record.getMessage() for record in caplog.records)
    assert error_records(caplog) == []
