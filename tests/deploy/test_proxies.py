"""The configurations of docs/deploy: nginx, HAProxy and Caddy in front of fastasgi."""

import contextlib
import getpass
import http.client
import json
import math
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from load import Load
from serving import WAIT_S, ServerProcess, Start, listening_ports, wait_until
from shipped import DEPLOY, command, program, substituted
from websockets.sync.client import connect

from fastasgi import Config
from fastasgi.processes.workerlimits import EXIT_S

SOCKET = "/run/fastasgi/app.sock"
CERTIFICATE = "/etc/ssl/private/example.org.pem"
CADDY_OPTIONS = ("--timeout-keep-alive", "60", "--header-underscores", "drop")
CLIENT = "127.0.0.5"  # the address of clients, which is nobody else's

APP = """
    import asyncio
    import json
    import sys

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        names = ("type", "client", "server", "scheme", "path", "root_path")
        told = {name: scope[name] for name in names}
        told["tls_version"] = scope["extensions"].get("tls", {}).get("tls_version")
        told = json.dumps({**told, "headers": headers})
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": told})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            return
        size = 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", b"%d" % size)]})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            gone = asyncio.ensure_future(receive())
            while not (await asyncio.wait({gone}, timeout=0.05))[0]:
                # HAProxy notices only by this that its client has gone
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
            assert gone.result()["type"] == "http.disconnect"
            print("its client has gone", file=sys.stderr, flush=True)
            return
        await send({"type": "http.response.body", "body": told.encode()})
"""

SPOOFED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;host=evil.example",
    "X_Forwarded_For": "6.6.6.6",
}


class Proxy:
    """A proxy's process. Its sockets are bound and listened on here, so that it is ready from the start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = "1.1"  # of HTTP, in which it speaks to the server
        self.certificate = folder / "certificate.pem"
        self.sockets: dict[str, socket.socket] = {}
        self.ports: dict[str, int] = {}  # those that are reserved
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
            "/CN=localhost",
             "-keyout", folder / "key.pem", "-out", folder / "own.pem"],
            check=True, capture_output=True, timeout=WAIT_S,
        )  # fmt: skip
        pem = (folder / "own.pem").read_text() + (folder / "key.pem").read_text()
        self.certificate.write_text(pem)

    def listen(self, name: str) -> tuple[int, int]:
        """Descriptor and port of a new listening socket."""
        self.sockets[name] = sock = socket.create_server(("127.0.0.1", 0))
        return sock.fileno(), self.port(name)

    def reserve(self, name: str) -> int:
        """A port that is free by now, for a proxy that takes no sockets."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.ports[name] = sock.getsockname()[1]
        return self.ports[name]

    def port(self, name: str) -> int:
        port: int = self.ports.get(name) or self.sockets[name].getsockname()[1]
        return port

    def run(self, arguments: list[Any], environment: dict[str, str] | None = None) -> None:
        self.log = self.folder / "proxy.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                arguments, stdout=log, stderr=log, env=environment, cwd=self.folder,
                pass_fds=[sock.fileno() for sock in self.sockets.values()],
            )  # fmt: skip

    def is_up(self) -> bool:
        """Whether its reserved ports are listened on, by whomever, or it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            return True
        listening = listening_ports(self.process.pid).get("127.0.0.1", [])
        return set(self.ports.values()) <= set(listening)

    def close(self) -> None:
        code = None
        if self.process is not None:
            code = self.process.poll()
            self.process.terminate()
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(WAIT_S)
        for sock in self.sockets.values():
            sock.close()
        assert code is None, self.log.read_text()

    def request(
        self, name: str, path: str = "/", body: bytes | None = None, tls: bool = True
    ) -> http.client.HTTPResponse:
        """A response through one of its sockets, on a connection of its own; spoofed headers go with it."""
        port = self.port(name)
        options: dict[str, Any] = {"timeout": WAIT_S, "source_address": (CLIENT, 0)}
        connection: http.client.HTTPConnection
        if tls:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=unverified(), **options)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, **options)
        connection.request("POST" if body is not None else "GET", path, body, SPOOFED)
        assert connection.sock is not None
        self.connection = connection
        self.client = list(connection.sock.getsockname())
        return connection.getresponse()


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    folder = tmp_path / "proxy"
    folder.mkdir()
    proxy = Proxy(folder)
    yield proxy
    proxy.close()


def run_nginx(proxy: Proxy, upstream: str) -> None:
    nginx = program("nginx")
    numbers = [proxy.listen("http"), proxy.listen("https")]
    text = substituted(
        "nginx.conf",
        {
            "user www-data;": f"user {getpass.getuser()};",
            "/run/nginx.pid": f"{proxy.folder}/nginx.pid",
            "/var/log/nginx": f"{proxy.folder}",
            f"unix:{SOCKET}": upstream,
            "listen 80;": f"listen 127.0.0.1:{numbers[0][1]};",
            "listen 443 ssl;": f"listen 127.0.0.1:{numbers[1][1]} ssl;",
            CERTIFICATE: str(proxy.certificate),
            "http {": "http {\n" + "".join(
                f"    {name}_temp_path {proxy.folder}/{name};\n"
                for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        },
    )  # fmt: skip
    (proxy.folder / "nginx.conf").write_text(text)
    # The variable by which nginx hands its sockets to a successor
    environment = {"NGINX": "".join(f"{fd};" for fd, _ in numbers)}
    arguments = ["-e", proxy.folder / "error.log", "-c", proxy.folder / "nginx.conf", "-g", "daemon off;"]
    proxy.run([nginx, *arguments], environment)


def run_haproxy(proxy: Proxy, name: str, path: str, port: int = 9) -> None:
    """With the server's Unix socket, and the port of the one that TLS is passed on to; nobody has port 9."""
    haproxy = program("haproxy")
    values = {
        "bind :80\n": f"bind fd@{proxy.listen('http')[0]}\n",
        "bind :443 ": f"bind fd@{proxy.listen('https')[0]} ",
        CERTIFICATE: str(proxy.certificate),
        f"unix@{SOCKET}": f"unix@{path}",
        "    user haproxy\n    group haproxy\n": "",
    }
    if name == "haproxy.cfg":
        values["bind :8443\n"] = f"bind fd@{proxy.listen('passthrough')[0]}\n"
        values["127.0.0.1:8001"] = f"127.0.0.1:{port}"
    else:
        proxy.version = "2"
    text = substituted(name, values)
    (proxy.folder / "haproxy.cfg").write_text(text)
    proxy.run([haproxy, "-db", "-f", proxy.folder / "haproxy.cfg"])


def run_caddy(proxy: Proxy, upstream: str) -> None:
    """Long, since Caddy takes no sockets: it is started anew if somebody else has taken a port meanwhile."""
    site = "{$SITE:example.org} {\n"
    own = f"\tbind 127.0.0.1\n\ttls {proxy.certificate} {proxy.certificate}\n"
    text = substituted("Caddyfile", {site: site + own})
    environment = {**os.environ, "UPSTREAM": upstream, "HOME": str(proxy.folder)}
    environment |= {name: str(proxy.folder) for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    for _ in range(5):
        ports = [proxy.reserve(name) for name in ("http", "https")]
        head = f"{{\n\tadmin off\n\thttp_port {ports[0]}\n\thttps_port {ports[1]}\n}}\n"
        (proxy.folder / "Caddyfile").write_text(head + text)
        arguments = ["run", "--config", proxy.folder / "Caddyfile", "--adapter", "caddyfile"]
        proxy.run([program("caddy"), *arguments], environment | {"SITE": f":{ports[1]}"})
        wait_until(proxy.is_up, proxy.log.read_text)
        if proxy.process is not None and proxy.process.poll() is None:
            return
        assert "address already in use" in proxy.log.read_text()


def start_on_unix_socket(
    start: Start, tmp_path: Path, configuration: str, *more: str
) -> tuple[ServerProcess, str]:
    path = str(tmp_path / "app.sock")
    server = start(APP, *command(configuration, {SOCKET: path, "main:app": "app:app"}, "--uds"), *more)
    server.wait_for("running on")
    return server, path


def check_request(told: dict[str, Any]) -> None:
    assert (told["client"], told["scheme"]) == ([CLIENT, 0], "https")
    headers = dict(told["headers"])
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (CLIENT, "https")
    assert headers["host"].partition(":")[0] == "127.0.0.1"
    others = {name for name in headers if "forwarded" in name} - {"x-forwarded-for", "x-forwarded-proto"}
    assert others == set()
    assert (told["path"], told["root_path"]) == ("/", "")


def check_websocket(proxy: Proxy, name: str) -> dict[str, Any]:
    """Messages both ways; what the scope was."""
    with socket.create_connection(("127.0.0.1", proxy.port(name)), WAIT_S, (CLIENT, 0)) as sock:
        proxy.client = list(sock.getsockname())
        options: dict[str, Any] = {"additional_headers": SPOOFED, "proxy": None, "ssl": unverified()}
        with connect("wss://localhost/", sock=sock, **options) as websocket:
            told: dict[str, Any] = json.loads(websocket.recv(WAIT_S))
            for message in ("hello", b"x" * 300_000):
                websocket.send(message)
                assert websocket.recv(WAIT_S) == message
    assert told["type"] == "websocket"
    return told


@pytest.fixture(
    params=[
        "nginx, unix socket",
        "nginx, TCP",
        "haproxy, unix socket",
        "haproxy, HTTP/2, unix socket",
        "caddy, unix socket",
        "caddy, TCP",
    ]
)
def https_proxy(request: Any, proxy: Proxy, start: Start, tmp_path: Path) -> tuple[Proxy, ServerProcess]:
    """A proxy where TLS ends, and the server behind it."""
    if request.param == "nginx, TCP":
        server = start(APP, "--port", "0", "--timeout-keep-alive", "60", "app:app")
        run_nginx(proxy, f"127.0.0.1:{server.port}")
        return proxy, server
    if request.param == "caddy, TCP":
        server = start(APP, *CADDY_OPTIONS, "--port", "0", "app:app")
        run_caddy(proxy, f"127.0.0.1:{server.port}")
        return proxy, server
    name = {
        "nginx, unix socket": "nginx.conf",
        "haproxy, unix socket": "haproxy.cfg",
        "haproxy, HTTP/2, unix socket": "haproxy-http2.cfg",
        "caddy, unix socket": "Caddyfile",
    }[request.param]
    server, path = start_on_unix_socket(start, tmp_path, name)
    if name == "nginx.conf":
        run_nginx(proxy, f"unix:{path}")
    elif name == "Caddyfile":
        run_caddy(proxy, f"unix/{path}")
    else:
        run_haproxy(proxy, name, path)
    return proxy, server


def test_requests_through_a_proxy(https_proxy: tuple[Proxy, ServerProcess]) -> None:
    proxy, server = https_proxy
    for _ in range(3):
        response = proxy.request("https")
        assert response.status == 200
        check_request(json.loads(response.read()))
    body = bytes(3_000_000)
    response = proxy.request("https", body=body)
    assert response.headers["x-size"] == str(len(body))
    check_request(json.loads(response.read()))
    server.end()
    assert server.output.count(f'{CLIENT}:0 - "GET / HTTP/{proxy.version}" 200') == 3


def test_a_websocket_through_a_proxy(https_proxy: tuple[Proxy, ServerProcess]) -> None:
    told = check_websocket(https_proxy[0], "https")
    assert (told["client"], told["scheme"]) == ([CLIENT, 0], "wss")


def test_a_streamed_response_passes_at_once(https_proxy: tuple[Proxy, ServerProcess]) -> None:
    proxy, server = https_proxy
    response = proxy.request("https", "/stream")
    assert response.read(5) == b"first"
    proxy.connection.close()
    response.close()
    server.wait_for("its client has gone")


def test_a_worker_is_replaced_behind_haproxy_by_http2(proxy: Proxy, start: Start, tmp_path: Path) -> None:
    """Its requests share a few connections, which get a GOAWAY under load: none may fail."""
    name = "haproxy-http2.cfg"
    server, path = start_on_unix_socket(start, tmp_path, name, "--workers", "1", "--no-access-log")
    run_haproxy(proxy, name, path)

    def connect_to_proxy() -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", proxy.port("https")), WAIT_S, (CLIENT, 0))
        return unverified().wrap_socket(plain)

    with Load(connect_to_proxy) as load:
        load.wait_for_answers()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Reloaded")
        load.wait_for_answers(200)
    assert not load.failures
    assert server.end() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize(("scheme", "version"), [("", "1.1"), ("h2c://", "2")])
def test_http2_clients_of_caddy(proxy: Proxy, start: Start, scheme: str, version: str) -> None:
    """They get HTTP/2, whichever version Caddy speaks to the server."""
    server = start(APP, *CADDY_OPTIONS, "--port", "0", "app:app")
    run_caddy(proxy, f"{scheme}127.0.0.1:{server.port}")
    transport = httpx.HTTPTransport(http2=True, verify=False, local_address=CLIENT)
    with httpx.Client(transport=transport, base_url=f"https://127.0.0.1:{proxy.port('https')}") as client:
        for body in (b"", bytes(3_000_000)):
            response = client.post("/", content=body, headers=SPOOFED)
            assert response.http_version == "HTTP/2"
            assert response.headers["x-size"] == str(len(body))
            check_request(response.json())
    server.end()
    assert server.output.count(f'{CLIENT}:0 - "POST / HTTP/{version}" 200') == 2


def test_plain_http_is_sent_to_https(https_proxy: tuple[Proxy, ServerProcess]) -> None:
    response = https_proxy[0].request("http", "/a?b", tls=False)
    assert response.status == 308
    assert re.fullmatch(r"https://127\.0\.0\.1(:\d+)?/a\?b", response.headers["location"])


def test_the_host_is_the_one_that_the_proxy_has_gone_by(https_proxy: tuple[Proxy, ServerProcess]) -> None:
    """A target in absolute form names another host than the header (RFC 9112 section 3.2.2)."""
    proxy, _ = https_proxy
    with socket.create_connection(("127.0.0.1", proxy.port("https")), WAIT_S) as plain:
        sock = unverified().wrap_socket(plain)
        sock.sendall(
            b"GET https://target.example/ HTTP/1.1\r\nhost: header.example\r\nconnection: close\r\n\r\n"
        )
        response = http.client.HTTPResponse(sock)
        response.begin()
        body = response.read()
        sock.close()
    # HAProxy refuses it
    assert response.status == 400 or dict(json.loads(body)["headers"])["host"] == "target.example"


@pytest.fixture
def passthrough(proxy: Proxy, start: Start, tmp_path: Path) -> tuple[Proxy, ServerProcess]:
    """HAProxy that passes TLS on behind a PROXY header of version 2, and the server behind it."""
    values = {"8001": "0", CERTIFICATE: str(proxy.certificate), "main:app": "app:app"}
    server = start(APP, *command("haproxy.cfg", values, "--proxy-protocol"))
    run_haproxy(proxy, "haproxy.cfg", str(tmp_path / "nobody.sock"), server.port)
    return proxy, server


def test_requests_behind_a_proxy_header(passthrough: tuple[Proxy, ServerProcess]) -> None:
    proxy, server = passthrough
    body = bytes(3_000_000)
    for data in (None, body):
        response = proxy.request("passthrough", body=data)
        assert isinstance(proxy.connection.sock, ssl.SSLSocket)
        own = ssl.PEM_cert_to_DER_cert((proxy.folder / "own.pem").read_text())
        assert proxy.connection.sock.getpeercert(binary_form=True) == own
        assert response.headers["x-size"] == str(len(data or b""))
        told = json.loads(response.read())
        assert (told["client"], told["scheme"]) == (proxy.client, "https")
        assert told["tls_version"] == 0x0304
        assert told["server"] == ["127.0.0.1", proxy.port("passthrough")]
        assert dict(told["headers"])["x-forwarded-for"] == "6.6.6.6"  # passed on, not believed
    server.end()
    assert f'{":".join(map(str, proxy.client))} - "POST / HTTP/1.1" 200' in server.output
    # HAProxy's health checks are LOCAL connections without a request
    assert "WARNING" not in server.log


def test_a_websocket_behind_a_proxy_header(passthrough: tuple[Proxy, ServerProcess]) -> None:
    proxy, _ = passthrough
    told = check_websocket(proxy, "passthrough")
    assert (told["client"], told["scheme"]) == (proxy.client, "wss")


def test_around_the_proxy_a_header_is_believed_of_nobody(passthrough: tuple[Proxy, ServerProcess]) -> None:
    """Who reaches the server's own port from elsewhere has no say in who it is."""
    _, server = passthrough
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, timeout=WAIT_S, source_address=(CLIENT, 0), context=unverified()
    )
    connection.request("GET", "/", headers=SPOOFED)
    assert connection.sock is not None
    own = list(connection.sock.getsockname())
    assert json.loads(connection.getresponse().read())["client"] == own
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S, (CLIENT, 0)) as sock:
        sock.sendall(b"PROXY TCP4 6.6.6.6 7.7.7.7 1 2\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
    server.wait_for("closed: a PROXY header of a peer that proxy_protocol does not name")


# A balancer that can't be run here


def test_the_arithmetic_for_an_alb() -> None:
    section = (DEPLOY.parent / "proxies.md").read_text().partition("### AWS ALB")[2]
    match = re.search(r"(?s)```bash\nfastasgi (.*?)```", section)
    assert match
    words = shlex.split(match[1].replace("\\\n", " "))
    options = dict(zip(words[:-1:2], words[1::2], strict=True))
    idle = re.search(r"\| idle timeout \| (\d+) s \|", section)
    assert idle
    assert int(options["--timeout-keep-alive"]) >= int(idle[1]) + 15
    check = re.search(
        r"`(/\w+)` at port (\d+), by HTTP1, each (\d+) s, (\d+) s of patience, (\d+) fail", section
    )
    assert check
    path, port, *times = check.groups()
    interval_s, patience_s, failures = map(int, times)
    assert path == "/readyz"
    assert options["--admin"] == f"0.0.0.0:{port}"
    drain_s = int(options["--timeout-drain"])
    assert drain_s > failures * interval_s + patience_s
    sum_s = re.search(r"is then (\d+) \+ (\d+) \+ (\d+) = (\d+) seconds", section)
    assert sum_s
    grace_s = Config("app:app").grace_timeout_s
    assert [int(term) for term in sum_s.groups()] == [drain_s, grace_s, 8, drain_s + grace_s + 8]
    assert math.ceil(EXIT_S) == 8


def test_behind_a_balancer_that_appends_to_what_clients_send(start: Start) -> None:
    """As an ALB does: the last entry is the client, whatever stands before it."""
    server = start(APP, "--port", "0", "--forwarded-allow-ips", CLIENT, "app:app")
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S, (CLIENT, 0)) as sock:
        fields = (
            "x-forwarded-for: 6.6.6.6, 192.0.2.7\r\nx-forwarded-proto: https\r\nx-forwarded-port: 443\r\n"
        )
        fields += "x-forwarded-host: evil.example\r\nconnection: close\r\n"
        sock.sendall(f"GET / HTTP/1.1\r\nhost: app.example\r\n{fields}\r\n".encode())
        response = http.client.HTTPResponse(sock)
        response.begin()
        told = json.loads(response.read())
    assert (told["client"], told["scheme"]) == (["192.0.2.7", 0], "https")
    assert dict(told["headers"])["host"] == "app.example"
