"""TLS connections: how they end, and peers that are broken or hostile."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from certificates import Authority, Pair
from tlspeer import Records, noting, until_closed
from wire import (
    CLOSE,
    Served,
    error_records,
    hello,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
    shift_clock,
)

# --- The end of connections ---


@in_each_loop
async def test_the_server_says_that_it_ends_the_connection(authority: Authority, pair: Pair) -> None:
    """Without close_notify a client could not tell the end from an attack (RFC 8446 section 6.1)."""
    async with served(hello, **pair.settings) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            peer = await Records.connect(running, authority.client(maximum_version=version))
            await peer.shake()
            await peer.client.write(peer.encrypted(request("GET / HTTP/1.1", CLOSE)))
            await peer.until(b"hello")
            assert await peer.decrypted() == b""


@in_each_loop
async def test_a_clients_close_notify_ends_the_connection(authority: Authority, pair: Pair) -> None:
    async with served(hello, **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        await peer.shake()
        await peer.client.write(peer.encrypted(request()))
        await peer.until(b"hello")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.flush()
        await peer.read()
        peer.tls.unwrap()
        assert await peer.client.rest() == b""


@pytest.mark.parametrize("says", [True, False])
@in_each_loop
async def test_an_application_hears_that_its_client_has_gone(
    authority: Authority, pair: Pair, says: bool
) -> None:
    begun, heard = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async with served(app, **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        await peer.shake()
        await peer.client.write(peer.encrypted(request()))
        await begun.wait()
        if says:
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.unwrap()
            await peer.flush()
        else:
            peer.client.close()
        await heard.wait()


@in_loop
async def test_a_response_that_waits_for_a_slow_client_is_whole_and_ends_well(
    authority: Authority, pair: Pair
) -> None:
    """One message of 64 MiB: encrypted as the client takes it, then close_notify."""
    body = bytes(range(256)) * (2**18)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, body)

    async with served(app, **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        await peer.shake()
        await peer.client.write(peer.encrypted(request("GET / HTTP/1.1", CLOSE)))
        assert (await peer.rest()).endswith(body)


@in_loop
async def test_no_deadline_comes_before_the_close_notify(authority: Authority, pair: Pair) -> None:
    """The server looks at its deadlines in each turn of the loop, once the time to close is over."""
    body = bytes(2**25)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop.call_soon(shift_clock, 100.0)
        loop.call_soon(look)
        await respond(send, body)

    def look() -> None:
        running.context.tick()
        looking.append(loop.call_soon(look))

    loop, looking = asyncio.get_running_loop(), []
    async with served(app, timeout_write=1000, **pair.settings) as running:
        peer = await Records.connect(running, authority.client())
        await peer.shake()
        await peer.client.write(peer.encrypted(request("GET / HTTP/1.1", CLOSE)))
        assert (await peer.rest()).endswith(body)
    looking[-1].cancel()


# --- Broken and hostile peers ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "PRI", "X"])
@in_each_loop
async def test_plain_http_gets_a_400(pair: Pair, caplog: pytest.LogCaptureFixture, method: str) -> None:
    async with served(hello, log_config=None, **pair.settings) as running:
        client = await running.connect()
        await client.write(request(f"{method} / HTTP/1.1"))
        answer = await client.rest()
        client.close()
        await until_closed(running)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    body = b"" if method == "HEAD" else b"This port speaks TLS: use https.\n"
    assert answer.endswith(b"\r\n\r\n" + body)
    assert [record.getMessage().partition(" refused ")[2] for record in caplog.records] == [
        "with 400: plain HTTP where TLS is spoken"
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"\x80\x2e\x01\x03\x01" + b"\x01" * 50,  # a hello of SSL 2
        b"\x16\x03\x01\xff\xff" + b"a" * 10,  # a record longer than any may be
        b"\x16\x03\x01\x00\x05hello",
        b"\x17\x03\x03\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",  # an alert
        b"\x14\x03\x03\x00\x01\x01" * 100,
        b"\x16\x03\x03\x00\x00" * 1000,
        b"\x16\x02\x01\x00\x05hello",
        b"\xff" * 300_000,
        "SSH-2.0-x".lower().encode(),
    ],
    ids=lambda data: data[:8].hex(),
)
@in_each_loop
async def test_garbage_ends_the_connection(pair: Pair, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    async with served(hello, log_config=None, **pair.settings) as running:
        client = await running.connect()
        client.writer.write(data)
        with contextlib.suppress(ConnectionError):
            answer = await client.rest()
            assert answer[:1] in (b"", b"\x15")  # nothing, or an alert
        client.close()
        await until_closed(running)
    assert not error_records(caplog)
    assert len([record for record in caplog.records if "TLS handshake" in record.getMessage()]) == 1


@in_loop
async def test_a_truncated_handshake_leaves_nothing(authority: Authority, pair: Pair) -> None:
    async with served(hello, **pair.settings) as running:
        hello_size = len(client_hello(authority))
        for n in (0, 1, 4, 5, 6, hello_size // 2, hello_size - 1, hello_size):
            client = await running.connect()
            client.writer.write(client_hello(authority)[:n])
            client.writer.write_eof()
            await client.rest()
            client.close()
        await until_closed(running)


def client_hello(authority: Authority) -> bytes:
    peer = Records(authority.client())
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    return peer.outgoing.read()


@pytest.mark.parametrize("n", [0, 1, 100])
@in_loop
async def test_a_handshake_has_its_time_however_slowly_it_goes_on(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture, n: int
) -> None:
    """Bytes that come one by one give no more time."""
    caplog.set_level(logging.INFO, "fastasgi.error")
    async with served(hello, log_config=None, **pair.settings, ssl_handshake_timeout=0.2) as running:
        client = await running.connect()
        begun = time.monotonic()
        rest = asyncio.create_task(client.rest())
        for byte in client_hello(authority)[:n]:
            if rest.done():
                break
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            assert await rest == b""
        assert 0.2 <= time.monotonic() - begun < 5
        await until_closed(running)
    [record] = [record for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert record.getMessage().endswith(" failed: not done within ssl_handshake_timeout")


@in_loop
async def test_a_handshake_under_way_does_not_hold_the_shutdown_up(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    async with served(hello, **pair.settings, timeout_graceful_shutdown=10) as running:
        client = await running.connect()
        client.writer.write(b"\x16")
        while not running.context.registry.connection_count:
            await asyncio.sleep(0)
        begun = time.monotonic()
        running.server.should_exit = True
        with contextlib.suppress(ConnectionError):
            assert await client.rest() == b""
        assert time.monotonic() - begun < 5
    told = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert [text.rpartition(" failed: ")[2] for text in told] == ["the server is stopping"]


@in_loop
async def test_a_damaged_record_ends_the_connection_without_a_word_in_the_error_log(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []
    async with served(noting(calls), log_config=None, **pair.settings) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            peer = await Records.connect(running, authority.client(maximum_version=version))
            await peer.shake()
            record = bytearray(peer.encrypted(request()))
            record[-1] ^= 1
            await peer.client.write(bytes(record))
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await peer.until(b"never")
        await until_closed(running)
    assert not calls
    assert not error_records(caplog)


@contextlib.asynccontextmanager
async def s_client(running: Served, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """openssl's own client, which takes commands as lines of one letter."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{running.port}", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@in_loop
async def test_renegotiation_is_refused(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async with served(hello, log_config=None, **pair.settings) as running:
        async with s_client(running, "-tls1_2") as client:
            await client.stdout.readuntil(b"Extended master secret")
            client.stdin.write(b"R\n")
            output = await client.stdout.read()
        await until_closed(running)
    assert b"RENEGOTIATING" in output
    assert b"no renegotiation" in output
    assert not error_records(caplog)


@in_loop
async def test_keys_may_be_changed_at_any_time(pair: Pair) -> None:
    async with served(hello, **pair.settings) as running, s_client(running, "-tls1_3") as client:
        for _ in range(3):
            client.stdin.write(b"K\n")
            await client.stdout.readuntil(b"KEYUPDATE")
        client.stdin.write(request("GET / HTTP/1.1", CLOSE))
        assert b"hello" in await client.stdout.read()
