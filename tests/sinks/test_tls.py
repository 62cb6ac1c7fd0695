"""TLS connections: what is offered, what applications are told, and what broken or hostile peers get."""

import asyncio
import contextlib
import datetime
import logging
import ssl
import subprocess
import time
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from certificates import Authority, Pair
from wire import (
    CLOSE,
    Served,
    echo,
    error_records,
    hello,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
    shift_clock,
)

from fastasgi.tls.certificate import Certificate


def mutual(authority: Authority, required: int = 2) -> dict[str, Any]:
    return {"ssl_cert_reqs": required, "ssl_ca_certs": authority.path}


def tls_of(scopes: list[Any]) -> dict[str, Any]:
    """An application's last scope's extension."""
    return scopes[-1]["extensions"]["tls"]


def noting(scopes: list[Any], app: Any = hello) -> Any:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await app(scope, receive, send)

    return noting


async def exchange(running: Served, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """One request on a connection of its own, and how that connection was."""
    client = await running.connect(ssl=context, server_hostname=name)
    assert (await client.ask(request())).status == 200
    client.close()
    return client.writer.get_extra_info("ssl_object")


# --- A client that has its records in its hands ---


class Records:
    """A TLS client on a plain connection: what it sends can be cut, held back and damaged."""

    def __init__(
        self,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        name: str = "localhost",
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    @classmethod
    async def connect(cls, running: Served, *arguments: Any) -> "Records":
        self = cls(*arguments)
        self.client = await running.connect()
        return self

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.read()
            else:
                return await self.flush()

    async def flush(self) -> None:
        await self.client.write(self.outgoing.read())

    async def read(self) -> None:
        data = await self.client.reader.read(65536)
        self.incoming.write(data) if data else self.incoming.write_eof()

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def decrypted(self) -> bytes:
        """What comes next; nothing at the server's close_notify. Raises SSLEOFError where that is missing."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self.read()

    async def rest(self) -> bytes:
        """All that comes before the server's close_notify."""
        data = bytearray()
        while piece := await self.decrypted():
            data += piece
        return bytes(data)

    async def until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            piece = await self.decrypted()
            assert piece, data
            data += piece
        return data


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
    context.set_alpn_protocols(["h2", "http/1.1"])
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
        waiting = await running.connect()
        await waiting.write(PROXY_LINE[:10])
        waiting.close()
        while running.context.registry.connection_count:
            await asyncio.sleep(0)
    assert any(line in record.getMessage() for record in caplog.records)
    assert error_records(caplog) == []


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


async def until_closed(running: Served) -> None:
    while running.context.registry.connection_count:
        await asyncio.sleep(0.005)


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
