"""The settings and the files of TLS: mistakes in them, files that change, many processes."""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import PASSWORD, Authority, Pair, encrypt_key
from serving import WAIT_S, Start, signal_set
from tlspeer import noting
from wire import error_records, hello, in_loop, request, served

from fastasgi import Config
from fastasgi.errors import ConfigError
from fastasgi.settings.declaration import init_values

PID = """
    import os

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


@contextlib.contextmanager
def connected(port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", port), WAIT_S)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        yield sock


def ask(sock: ssl.SSLSocket) -> str:
    """The body of an answer of less than 10 bytes."""
    sock.sendall(request())
    data = b""
    while not (found := re.search(rb"\r\n\r\n(.+)", data)):
        piece = sock.recv(4096)
        assert piece, data
        data += piece
    return found[1].decode()


def certificate_at(port: int, context: ssl.SSLContext) -> bytes | None:
    with connected(port, context) as sock:
        return sock.getpeercert(True)


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.pem)


# --- Mistakes ---


@pytest.fixture
def files(authority: Authority, pair: Pair, tmp_path: Path) -> Path:
    """A folder with files that are wrong in each way."""
    other = authority.issue(file="other")
    locked = authority.issue(file="locked")
    encrypt_key(locked.key)
    (tmp_path / "both.pem").write_text(pair.key.read_text() + pair.cert.read_text())
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.pem").write_text(pair.cert.read_text().replace("M", "N"))
    first, body, *last = other.key.read_text().splitlines()
    (tmp_path / "broken.key").write_text("\n".join([first, body[::-1], *last, ""]))
    return tmp_path


MISTAKES = [
    ({"ssl_certfile": "none.pem"}, "ssl_certfile 'none.pem' can't be read: No such file or directory; "),
    ({"ssl_certfile": "folder"}, "ssl_certfile 'folder' can't be read: Is a directory; "),
    ({"ssl_certfile": "empty"}, "ssl_certfile 'empty' holds no certificate: "),
    ({"ssl_certfile": "server.key"}, "ssl_certfile 'server.key' holds no certificate: "),
    ({"ssl_certfile": "broken.pem"}, "ssl_certfile 'broken.pem' holds a broken certificate: "),
    ({"ssl_certfile": "server.pem"}, "ssl_certfile 'server.pem' holds no private key: set ssl_keyfile too"),
    (
        {"ssl_certfile": "server.pem", "ssl_keyfile": "none.key"},
        "ssl_keyfile 'none.key' can't be read: No such file or directory; ",
    ),
    ({"ssl_certfile": "server.pem", "ssl_keyfile": "empty"}, "ssl_keyfile 'empty' holds no private key: "),
    (
        {"ssl_certfile": "server.pem", "ssl_keyfile": "server.pem"},
        "ssl_keyfile 'server.pem' holds no private key: ",
    ),
    (
        {"ssl_certfile": "server.pem", "ssl_keyfile": "other.key"},
        "ssl_keyfile 'other.key' is not the key of ssl_certfile 'server.pem': ",
    ),
    (
        {"ssl_certfile": "locked.pem", "ssl_keyfile": "locked.key"},
        "ssl_keyfile 'locked.key' is encrypted: set ssl_keyfile_password",
    ),
    (
        {"ssl_certfile": "locked.pem", "ssl_keyfile": "locked.key", "ssl_keyfile_password": "wrong"},
        "ssl_keyfile_password (hidden) does not decrypt ssl_keyfile 'locked.key': give that key's password",
    ),
    (
        {"ssl_certfile": ["server.pem", "other.pem"], "ssl_keyfile": "server.key"},
        "ssl_keyfile is given once and ssl_certfile 2 times: give a key for each certificate, ",
    ),
    ({"ssl_keyfile": "server.key"}, "ssl_keyfile is given once and ssl_certfile not at all: "),
    (
        {"ssl_keyfile_password": "x"},
        "ssl_keyfile_password is given, but no certificate: set ssl_certfile too",
    ),
    ({"ssl_ca_certs": "ca.pem"}, "ssl_ca_certs is given, but no certificate: set ssl_certfile too"),
    ({"ssl_cert_reqs": 2}, "ssl_cert_reqs is given, but no certificate: set ssl_certfile too"),
    (
        {"ssl_certfile": "both.pem", "ssl_cert_reqs": 2},
        "ssl_cert_reqs 2 asks for client certificates, but of no authority: set ssl_ca_certs",
    ),
    (
        {"ssl_certfile": "both.pem", "ssl_ca_certs": "ca.pem"},
        "ssl_ca_certs 'ca.pem' is for client certificates, which ssl_cert_reqs 0 does not ask for: ",
    ),
    ({"ssl_certfile": "both.pem", "ssl_cert_reqs": 3}, "ssl_cert_reqs 3: give a whole number from 0 to 2"),
    (
        {"ssl_certfile": "both.pem", "ssl_cert_reqs": 1, "ssl_ca_certs": "none.pem"},
        "ssl_ca_certs 'none.pem' can't be read: No such file or directory; ",
    ),
    (
        {"ssl_certfile": "both.pem", "ssl_cert_reqs": 1, "ssl_ca_certs": "empty"},
        "ssl_ca_certs 'empty' holds no certificates that can be read ",
    ),
    (
        {"ssl_certfile": "both.pem", "ssl_ciphers": "NONE-OF"},
        "ssl_ciphers 'NONE-OF' names no cipher of this ",
    ),
    ({"ssl_certfile": "both.pem", "ssl_version": 3}, "ssl_version 3: give 17 for TLS 1.2 and later, or 5 "),
    ({"ssl_certfile": 1}, "ssl_certfile 1: give paths"),
    ({"ssl_handshake_timeout": -1}, "ssl_handshake_timeout -1: give a number of seconds, 0 or more"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES, ids=[message[:50] for _, message in MISTAKES])
def test_a_mistake_is_one_line_with_setting_value_and_mend(
    files: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(ConfigError) as caught:
        Config(hello, log_config=None, **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_broken_key_is_one_line_too(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(
        ConfigError, match=r"^ssl_certfile 'other.pem' and its key can't be used: OpenSSL says \w"
    ):
        Config(hello, log_config=None, ssl_certfile="other.pem", ssl_keyfile="broken.key")


def test_a_mistake_in_a_file_ends_with_exit_code_1(files: Path, start: Start) -> None:
    server = start(PID, "--ssl-certfile", "server.pem", "--ssl-keyfile", "other.key", "app:app")
    assert server.wait() == 1
    assert server.log == (
        "Error: ssl_keyfile 'other.key' is not the key of ssl_certfile 'server.pem': "
        "name the files that belong together\n"
    )


def test_no_terminal_is_asked_for_a_password(files: Path, start: Start) -> None:
    server = start(PID, "--ssl-certfile", "locked.pem", "--ssl-keyfile", "locked.key", "app:app")
    assert server.wait() == 1
    assert server.log == "Error: ssl_keyfile 'locked.key' is encrypted: set ssl_keyfile_password\n"


def test_the_password_is_nowhere_shown(files: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.chdir(files)
    settings = {"ssl_certfile": "locked.pem", "ssl_keyfile": "locked.key", "ssl_keyfile_password": PASSWORD}
    assert PASSWORD not in repr(Config(hello, log_config=None, **settings))
    server = start(
        *(PID, "--ssl-certfile", "locked.pem", "--ssl-keyfile", "locked.key", "--print-config", "app:app"),
        environment={**os.environ, "FASTASGI_SSL_KEYFILE_PASSWORD": PASSWORD},
    )
    assert server.wait() == 0
    assert re.search(r"ssl_keyfile_password +\(hidden\)", server.output)
    assert PASSWORD not in server.output + server.log


@in_loop
async def test_an_expired_certificate_and_an_encrypted_key_and_both_in_a_file_are_fine(
    files: Path, authority: Authority
) -> None:
    expired = authority.issue(file="expired", expired=True)
    settings = [
        expired.settings,
        {"ssl_certfile": files / "both.pem"},
        {
            "ssl_certfile": files / "locked.pem",
            "ssl_keyfile": files / "locked.key",
            "ssl_keyfile_password": PASSWORD,
        },
    ]
    context = authority.client(check_hostname=False)
    context.verify_mode = ssl.CERT_NONE
    for each in settings:
        async with served(hello, **each) as running:
            client = await running.connect(ssl=context, server_hostname="localhost")
            assert (await client.ask(request())).body == b"hello"


@pytest.mark.parametrize("mode", [(), ("--workers", "1")])
def test_the_password_leaves_the_environment(
    mode: tuple[str, ...], files: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.chdir(files)
    server = start(
        PID.replace("str(os.getpid())", "repr(dict(os.environ))"),
        *("--port", "0", "--ssl-certfile", "locked.pem", "--ssl-keyfile", "locked.key", *mode, "app:app"),
        environment={**os.environ, "FASTASGI_SSL_KEYFILE_PASSWORD": PASSWORD, "OTHER": "seen"},
    )
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/", context=context) as answer:
        text = answer.read().decode()
    assert "'OTHER': 'seen'" in text
    assert PASSWORD not in text
    assert server.end() == (0 if mode else -signal.SIGTERM)


# --- A context of one's own ---


@in_loop
async def test_a_factory_may_change_the_usual_context(authority: Authority, pair: Pair) -> None:
    seen: list[Any] = []

    def factory(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = default()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        seen.append((config.ssl_certfile, context))
        return context

    async with served(hello, ssl_context_factory=factory, **pair.settings) as running:
        assert running.server.config.is_ssl
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        assert (await client.ask(request())).body == b"hello"
        assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.2"
    assert [certfiles for certfiles, _ in seen] == [[str(pair.cert)]]


@in_loop
async def test_a_factory_may_make_a_context_without_the_settings(authority: Authority, pair: Pair) -> None:
    scopes: list[Any] = []

    def factory(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        return context

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    async with served(app, ssl_context_factory=factory) as running:
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        assert (await client.ask(request())).body == b"hello"
    extension = scopes[0]["extensions"]["tls"]
    assert extension["server_cert"] is None  # the ssl module does not tell which it is
    assert (extension["tls_version"], extension["cipher_suite"]) == (0x0304, 0x1302)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda config, default: None, "ssl_context_factory returned None: return an ssl.SSLContext"),
        (lambda config, default: default(), "ssl_context_factory calls its default factory, which needs "),
    ],
)
def test_a_factory_that_gives_no_context_is_told(factory: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Config(hello, log_config=None, ssl_context_factory=factory)


# --- Files that change ---


@in_loop
async def test_changed_files_are_for_new_connections_and_bad_ones_for_none(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastasgi.error")
    scopes: list[Any] = []
    async with served(noting(scopes), log_config=None, **pair.settings) as running:
        tls = running.server.config.tls
        first_pem = pair.pem
        times = itertools.count(asyncio.get_running_loop().time() + 1000)  # from here on, nobody else looks

        def look() -> None:
            tls.poll(next(times))

        # Before its first request, which is when an application is told
        client = await running.connect(ssl=authority.client(), server_hostname="localhost")
        authority.issue()
        second_pem = pair.pem
        look()
        look()
        assert (await client.ask(request())).body == b"hello"
        assert scopes[-1]["extensions"]["tls"]["server_cert"] == first_pem != second_pem
        renewed = await running.connect(ssl=authority.client(), server_hostname="localhost")
        assert (await renewed.ask(request())).body == b"hello"
        assert scopes[-1]["extensions"]["tls"]["server_cert"] == second_pem

        other = authority.issue(file="other")
        for path, contents in ((pair.key, other.key.read_bytes()), (pair.cert, b"")):
            path.write_bytes(contents)
            for _ in range(4):
                look()
            last = await running.connect(ssl=authority.client(), server_hostname="localhost")
            assert (await last.ask(request())).body == b"hello"
            assert scopes[-1]["extensions"]["tls"]["server_cert"] == second_pem
        pair.key.unlink()
        tls.reload()
        for each in (client, renewed):
            assert (await each.ask(request())).body == b"hello"
    assert [
        record.getMessage().partition(":")[0] for record in caplog.records if "ertificates" in record.msg
    ] == [
        "Certificates renewed",
        *["Certificates not renewed, the old ones stay"] * 3,
    ]
    texts = [record.getMessage() for record in error_records(caplog)]
    assert f"ssl_keyfile '{pair.key}' is not the key of ssl_certfile '{pair.cert}'" in texts[0]
    assert f"ssl_certfile '{pair.cert}' holds no certificate" in texts[1]
    assert all("\n" not in text for text in texts)
    assert all(record.exc_info is None for record in caplog.records)


def test_the_files_are_watched_and_a_running_connection_stays(
    authority: Authority, pair: Pair, start: Start
) -> None:
    server = start(PID, "--port", "0", *pair.arguments, "app:app")
    context = authority.client()
    with connected(server.port, context) as sock:
        assert ask(sock)
        assert sock.getpeercert(True) == der(pair)
        authority.issue()
        server.wait_for("Certificates renewed")
        assert certificate_at(server.port, context) == der(pair) != sock.getpeercert(True)
        assert ask(sock) == str(server.process.pid)
    assert server.end() == -signal.SIGTERM


@pytest.mark.parametrize("at_start", [signal.SIG_DFL, signal.SIG_IGN])
def test_hup_renews_in_place_and_a_bad_file_keeps_the_old_one(
    authority: Authority, pair: Pair, start: Start, at_start: signal.Handlers
) -> None:
    """Also under nohup, where SIGHUP is ignored at the start."""
    with signal_set(signal.SIGHUP, at_start):
        server = start(PID, "--port", "0", *pair.arguments, "app:app")
    context = authority.client()
    port = server.port
    authority.issue()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("Certificates renewed")
    good = der(pair)
    assert certificate_at(port, context) == good
    pair.cert.write_text("nothing")
    server.process.send_signal(signal.SIGHUP)
    mistake = f"ssl_certfile '{pair.cert}' holds no certificate: "
    server.wait_for(f"ERROR: +Certificates not renewed, the old ones stay: {mistake}")
    assert certificate_at(port, context) == good
    assert "Traceback" not in server.log
    assert server.end() == -signal.SIGTERM


# --- Many processes ---


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_each_worker_serves_tls_and_renews_by_itself(
    authority: Authority, pair: Pair, start: Start, more: list[str]
) -> None:
    server = start(PID, "--port", "0", "--workers", "2", *more, *pair.arguments, "app:app")
    server.wait_for("(?s)startup complete.*startup complete")
    port, context = server.port, authority.client()
    with connected(port, context) as sock:
        assert int(ask(sock)) != server.process.pid
        authority.issue()
        server.wait_for("(?s)(Certificates renewed.*){3}")  # by each of them and the supervisor
        assert {certificate_at(port, context) for _ in range(8)} == {der(pair)}
        assert ask(sock)
    assert server.end() == 0


def test_a_reload_of_workers_with_a_bad_file_changes_nothing(
    authority: Authority, pair: Pair, start: Start
) -> None:
    server = start(PID, "--port", "0", "--workers", "1", *pair.arguments, "app:app")
    server.wait_for("startup complete")
    port, context, good = server.port, authority.client(), der(pair)
    pair.key.write_text("nothing")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(
        f"Not reloaded, the workers go on as they are: ssl_keyfile '{pair.key}' holds no private key: "
    )
    assert certificate_at(port, context) == good
    authority.issue()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("Reloaded")
    server.wait_for("Finished server process")  # until then the old worker may accept
    assert certificate_at(port, context) == der(pair) != good
    assert server.end() == 0


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_a_worker_is_replaced_while_a_file_is_bad(
    authority: Authority, pair: Pair, start: Start, more: list[str]
) -> None:
    """By one with the last good files, also where those are not the ones of the start."""
    server = start(PID, "--port", "0", "--workers", "1", *more, *pair.arguments, "app:app")
    server.wait_for("startup complete")
    port, context = server.port, authority.client()
    authority.issue()
    server.wait_for("(?s)Certificates renewed.*Certificates renewed")  # by supervisor and worker
    good = der(pair)
    pair.cert.write_text("nothing")
    server.wait_for("(?s)renewed, the old ones stay.*renewed, the old ones stay")
    with connected(port, context) as sock:
        os.kill(int(ask(sock)), signal.SIGKILL)
    server.wait_for("(?s)startup complete.*has died: signal SIGKILL.*startup complete")
    assert certificate_at(port, context) == good
    if not more:  # it has looked at the files itself
        server.wait_for("(?s)has died.*Certificates not renewed, the old ones stay: ")
    authority.issue()
    server.wait_for("(?s)has died.*Certificates renewed.*Certificates renewed")
    assert certificate_at(port, context) == der(pair) != good
    assert server.end() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
def test_a_pipe_is_read_once(
    authority: Authority, pair: Pair, start: Start, tmp_path: Path, more: list[str]
) -> None:
    """As bash's <(command) gives one. A second look would wait for ever, or find nothing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(pair.key.read_bytes(),))
    writing.start()
    arguments = ["--ssl-certfile", str(pair.cert), "--ssl-keyfile", str(pipe)]
    server = start(PID, "--port", "0", *more, *arguments, "app:app")
    context = authority.client()
    with connected(server.port, context) as sock:
        pid = int(ask(sock))
    writing.join()
    if more:
        os.kill(pid, signal.SIGKILL)
        server.wait_for("(?s)has died.*startup complete")
    else:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Certificates renewed")
    assert certificate_at(server.port, context) == der(pair)
    assert server.end() == (0 if more else -signal.SIGTERM)
    assert all("has died" in line for line in re.findall("ERROR.*", server.log))


@in_loop
async def test_what_openssl_reads_is_what_has_been_read(authority: Authority, pair: Pair) -> None:
    """However the files change meanwhile: certificate, key and authorities belong together."""
    config = Config(hello, log_config=None, **pair.settings, ssl_cert_reqs=2, ssl_ca_certs=authority.path)
    files = config.tls.files
    settings = init_values(config)
    for path in (pair.cert, pair.key, authority.path):
        path.unlink()
    again = Config.with_tls_files(files, **settings)
    assert again.tls.files is files
    again.tls.reload()
    assert again.tls.files is files


# --- Memory ---

BIG = """
    PIECE = bytes(65536)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        size = int(scope["path"][1:]) * 2**20
        for _ in range(0, size, len(PIECE)):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body"})
"""


def peak_rss_kib(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_download_of_1_gib_takes_less_than_8_mib(
    authority: Authority, pair: Pair, start: Start, version: str
) -> None:
    server = start(BIG, "--port", "0", *pair.arguments, "app:app")

    def download(mib: int) -> int:
        curl = ["curl", "-sS", version, "-m", "60", "--cacert", str(authority.path), "-o", os.devnull]
        curl += ["-w", "%{size_download}", f"https://localhost:{server.port}/{mib}"]
        return int(subprocess.run(curl, capture_output=True, check=True).stdout)

    assert download(1) == 2**20
    before = peak_rss_kib(server.process.pid)
    assert download(1024) == 2**30
    assert peak_rss_kib(server.process.pid) - before < 8 * 1024
