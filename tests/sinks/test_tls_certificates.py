"""Certificates: those that clients show, and the choice among the server's."""

import asyncio
import contextlib
import datetime
import logging
import ssl
import subprocess
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair
from tlspeer import Records, exchange, mutual, noting, tls_of, until_closed
from wire import CLOSE, Served, error_records, hello, in_each_loop, in_loop, request, served

from fastasgi.tls.certificate import Certificate

# --- Client certificates ---


@in_loop
async def test_a_clients_chain_is_told_whole_its_own_certificate_first(
    authority: Authority, pair: Pair
) -> None:
    client_pair = authority.intermediate().issue("me@x.example", file="client", common_name='A, "B"')
    scopes: list[Any] = []
    async with served(noting(scopes), **pair.settings, **mutual(authority)) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client(client_pair, maximum_version=version)
            await exchange(running, context)
            first, second = tls_of(scopes)["client_cert_chain"]
            assert first + second == client_pair.cert.read_text()
            assert tls_of(scopes)["client_cert_name"].startswith('CN=A\\, \\"B\\",')
            assert tls_of(scopes)["client_cert_error"] is None
            # Again, with what there is to resume: nothing of TLS 1.3, which would not bring the chain
            session = (await answered(running, context)).session
            peer = await answered(running, context, session)
            assert peer.session_reused == (version == ssl.TLSVersion.TLSv1_2)
            assert len(tls_of(scopes)["client_cert_chain"]) == 2


async def answered(
    running: Served, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """One request on a connection that offers a session. Raises ConnectionError where it is refused."""
    peer = await Records.connect(running, context, session)
    await peer.shake()
    await peer.client.write(peer.encrypted(request("GET / HTTP/1.1", CLOSE)))
    try:
        await peer.until(b"hello")
        assert await peer.decrypted() == b""
    except ssl.SSLEOFError:
        raise ConnectionError("it ends without a word") from None
    peer.client.close()
    return peer.tls


def resumable(authority: Authority, client_pair: Pair) -> ssl.SSLContext:
    """Of a client whose sessions the ssl module keeps, whatever the server wants."""
    return authority.client(client_pair, maximum_version=ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize(
    ("days", "line"), [(2, "certificate has expired"), (-20_000, "certificate is not yet valid")]
)
@in_loop
async def test_a_session_is_resumed_for_no_longer_than_its_certificate_is_valid(
    authority: Authority,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    days: int,
    line: str,
) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    context = resumable(authority, authority.issue("me@x.example", file="client", not_after=tomorrow))
    calls: list[Any] = []
    async with served(noting(calls), log_config=None, **pair.settings, **mutual(authority)) as running:
        session = (await answered(running, context)).session
        assert (await answered(running, context, session)).session_reused
        with monkeypatch.context() as patch:
            then = time.time() + days * 86400
            patch.setattr("fastasgi.tls.contexts.time", types.SimpleNamespace(time=lambda: then))
            with pytest.raises(ConnectionError):
                await answered(running, context, session)
        # The session is no more, even by the old time: OpenSSL judges the certificate of the next handshake
        assert not (await answered(running, context, session)).session_reused
    assert len(calls) == 3
    told = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert [text.rpartition(" failed: ")[2] for text in told] == [line]


@in_loop
async def test_a_session_does_not_outlive_the_trust_in_its_authority(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    following = Authority(tmp_path / "next")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.path.read_bytes())
    context = resumable(authority, authority.issue("me@x.example", file="client"))
    settings = {**pair.settings, "ssl_cert_reqs": 2, "ssl_ca_certs": trusted}
    async with served(hello, **settings) as running:
        session = (await answered(running, context)).session
        assert (await answered(running, context, session)).session_reused
        trusted.write_bytes(following.path.read_bytes())
        running.server.config.tls.reload()
        with pytest.raises(ssl.SSLError, match="unknown ca"):
            await answered(running, context, session)


@in_loop
async def test_a_session_without_a_client_certificate_is_resumed(authority: Authority, pair: Pair) -> None:
    async with served(hello, **pair.settings) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client(maximum_version=version)
            session = (await answered(running, context)).session
            assert (await answered(running, context, session)).session_reused


async def is_refused(running: Served, context: ssl.SSLContext) -> bool:
    try:
        client = await running.connect(ssl=context, server_hostname="localhost")
        await client.write(request())
        return await client.rest() == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("missing", "peer did not return a certificate"),
        ("strange", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
    ],
)
@in_loop
async def test_a_client_without_a_good_certificate_is_refused(
    authority: Authority, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, line: str
) -> None:
    (tmp_path / "strange").mkdir()
    client_pair = {
        "missing": lambda: None,
        "strange": lambda: Authority(tmp_path / "strange").issue("me@x.example", file="client"),
        "expired": lambda: authority.issue("me@x.example", file="client", expired=True),
    }[fault]()
    caplog.set_level(logging.INFO, "fastasgi.error")
    calls: list[Any] = []
    async with served(noting(calls), log_config=None, **pair.settings, **mutual(authority)) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert await is_refused(running, authority.client(client_pair, maximum_version=version))
    told = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert len(told) == 2
    assert all(line in text for text in told), told
    assert not calls
    assert not error_records(caplog)


@in_loop
async def test_where_a_certificate_is_optional_one_may_be_missing_but_not_be_wrong(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "strange").mkdir()
    strange = Authority(tmp_path / "strange").issue("me@x.example", file="client")
    mine = authority.issue("me@x.example", file="client")
    scopes: list[Any] = []
    async with served(noting(scopes), **pair.settings, **mutual(authority, 1)) as running:
        await exchange(running, authority.client())
        assert tls_of(scopes)["client_cert_chain"] == ()
        assert tls_of(scopes)["client_cert_name"] is None
        await exchange(running, authority.client(mine))
        assert tls_of(scopes)["client_cert_chain"][0] == mine.pem
        assert await is_refused(running, authority.client(strange))


def test_curl_is_served_by_its_certificate_only(
    authority: Authority, pair: Pair, start: Callable[..., Any]
) -> None:
    client_pair = authority.issue("me@x.example", file="client")
    server = start(
        """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            name = scope["extensions"]["tls"]["client_cert_name"]
            await send({"type": "http.response.body", "body": name.encode()})
        """,
        *("--port", "0", "--ssl-cert-reqs", "2", "--ssl-ca-certs", str(authority.path)),
        *(*pair.arguments, "app:app"),
    )
    url = f"https://localhost:{server.port}/"
    curl = ["curl", "-sS", "-m", "10", "--cacert", str(authority.path), url]
    assert subprocess.run(curl, capture_output=True, check=False).returncode != 0
    curl += ["--cert", str(client_pair.cert), "--key", str(client_pair.key)]
    answer = subprocess.run(curl, capture_output=True, check=True, text=True).stdout
    assert answer == Certificate(ssl.PEM_cert_to_DER_cert(client_pair.pem)).subject
    assert server.end() == -15


# --- The choice among certificates ---


@in_loop
async def test_the_certificate_is_the_one_for_the_host_that_is_asked_for(authority: Authority) -> None:
    pairs = {
        name: authority.issue(*names, file=name)
        for name, names in {
            "first": ("first.example", "127.0.0.1"),
            "wild": ("*.b.example",),
            "two": ("two.example", "www.two.example"),
            "exact": ("x.b.example",),
        }.items()
    }
    settings = {
        "ssl_certfile": [pair.cert for pair in pairs.values()],
        "ssl_keyfile": [pair.key for pair in pairs.values()],
    }
    expected = {
        "first.example": "first",
        "a.b.example": "wild",
        "x.b.example": "exact",
        "TWO.example": "two",
        "www.two.example": "two",
        "127.0.0.1": "first",  # of an address no name is sent
        "b.example": "first",
        "a.a.b.example": "first",
        "unknown.example": "first",
    }
    scopes: list[Any] = []
    context = authority.client(check_hostname=False)
    async with served(noting(scopes), **settings) as running:
        for name, file in expected.items():
            connection = await exchange(running, context, name)
            assert connection.getpeercert(True) == ssl.PEM_cert_to_DER_cert(pairs[file].pem), name
            assert tls_of(scopes)["server_cert"] == pairs[file].pem, name


def two(authority: Authority, *names: str) -> dict[str, Any]:
    pairs = [authority.issue(name, file=name) for name in names]
    return {"ssl_certfile": [pair.cert for pair in pairs], "ssl_keyfile": [pair.key for pair in pairs]}


def hello_for(context: ssl.SSLContext, name: str) -> bytes:
    peer = Records(context, None, name)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    return peer.outgoing.read()


def cut_into(size: int, hello: bytes) -> bytes:
    """The same message in records of that size."""
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@in_each_loop
async def test_the_name_is_found_in_a_hello_of_many_records_and_reads(
    authority: Authority, version: str
) -> None:
    context = authority.client(maximum_version=ssl.TLSVersion[version])
    async with served(hello, **two(authority, "a.example", "b.example")) as running:
        for size, step in ((16384, 1), (16384, 100), (1, 1000), (7, 20)):
            peer = await Records.connect(running, context, None, "b.example")
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            data = cut_into(size, peer.outgoing.read())
            for at in range(0, len(data), step):
                peer.client.writer.write(data[at : at + step])
                await asyncio.sleep(0)
            await peer.shake()
            await peer.client.write(peer.encrypted(request()))
            await peer.until(b"hello")


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be told on stderr."""
    told: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    return told


def calling_back(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.sni_callback = lambda connection, name, _: None
    return context


ALERT = b"\x15\x03\x03\x00\x02\x02"


@pytest.mark.parametrize("chooses", ["settings", "factory"])
@in_loop
async def test_a_server_name_that_is_not_ascii_is_refused(
    authority: Authority,
    pair: Pair,
    caplog: pytest.LogCaptureFixture,
    unraisable: list[Any],
    chooses: str,
) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    own = two(authority, "a.example", "b.example")
    settings = own if chooses == "settings" else {**pair.settings, "ssl_context_factory": calling_back}
    bad = hello_for(authority.client(), "abcdef.example").replace(b"abcdef", b"\xff\n\xc3\xa9\x80f")
    async with served(hello, log_config=None, **settings) as running:
        for data in (bad, cut_into(50, bad), bad + bad):
            assert await running.talk(data) == ALERT + b"\x70"  # unrecognized_name
        for client in running.clients:
            client.close()
        await until_closed(running)
    told = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert [text.rpartition(" failed: ")[2] for text in told] == ["unrecognized name"] * 3
    assert unraisable == []


@in_loop
async def test_nor_is_one_taken_from_a_second_hello(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture, unraisable: list[Any]
) -> None:
    """A server that wants another key share asks for it, and OpenSSL reads the name again."""
    caplog.set_level(logging.INFO, "fastasgi.error")
    names: list[Any] = []

    def factory(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = default()
        context.set_ecdh_curve("secp384r1")
        context.sni_callback = lambda connection, name, _: names.append(name)
        return context

    async def second(running: Served) -> Records:
        peer = await Records.connect(running, authority.client(), None, "localhost")
        for _ in range(2):
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            if not names:
                await peer.flush()
                await peer.read()
        return peer

    async with served(hello, log_config=None, **pair.settings, ssl_context_factory=factory) as running:
        peer = await second(running)
        for byte in peer.outgoing.read():
            await peer.client.write(bytes([byte]))
        await peer.shake()
        assert names == ["localhost"] * 2
        await peer.client.write(peer.encrypted(request()))
        await peer.until(b"hello")

        names.clear()
        for before in (b"", b"\x15\3\3\0\2\1\x5a"):
            peer = await second(running)
            data = peer.outgoing.read()
            assert data.count(b"localhost") == 1
            await peer.client.write(before + data.replace(b"localhost", b"l\xf6calhost"))
            assert await peer.client.rest() == ALERT + b"\x70"
            assert names == ["localhost"]
            names.clear()
        # Both in one record
        first = hello_for(authority.client(), "localhost")[5:]
        data = first + first.replace(b"localhost", b"l\xf6calhost")
        assert await running.talk(b"\x16\3\1" + len(data).to_bytes(2, "big") + data) == ALERT + b"\x0a"
    assert unraisable == []
    assert not error_records(caplog)


@in_loop
async def test_all_of_a_certificates_context_holds_for_its_connections(authority: Authority) -> None:
    """A factory makes the context of each, so that no name leads past what it asks for."""
    made: list[ssl.SSLContext] = []

    def factory(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = default()
        if made:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority.path)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        made.append(context)
        return context

    scopes: list[Any] = []
    settings = {**two(authority, "a.example", "b.example"), "ssl_context_factory": factory}
    client_pair = authority.issue("me@x.example", file="client")
    async with served(noting(scopes), **settings) as running:
        assert len(made) == 2
        first = await exchange(running, authority.client(), "a.example")
        assert first.version() == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            await exchange(running, authority.client(), "b.example")
        second = await exchange(running, authority.client(client_pair), "b.example")
        assert second.version() == "TLSv1.2"
        assert tls_of(scopes)["client_cert_chain"][0] == client_pair.pem


@in_loop
async def test_a_connection_costs_nothing_of_openssls_before_its_hello(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    wrap_bio = ssl.SSLContext.wrap_bio

    def noted(
        context: ssl.SSLContext, incoming: Any, outgoing: Any, server_side: bool = False, **more: Any
    ) -> Any:
        made.extend([context] if server_side else [])
        return wrap_bio(context, incoming, outgoing, server_side, **more)

    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", noted)

    async def waiting(running: Served, data: bytes = b"") -> None:
        before = running.context.registry.connection_count
        client = await running.connect()
        await client.write(data)
        while running.context.registry.connection_count == before:
            await asyncio.sleep(0)

    async with served(hello, **pair.settings) as running:
        for _ in range(3):
            await waiting(running)
        assert made == []
        await exchange(running, authority.client())
        assert len(made) == 1
    async with served(hello, **two(authority, "a.example", "b.example")) as running:
        await waiting(running)
        await waiting(running, hello_for(authority.client(), "b.example")[:-1])
        assert len(made) == 1
