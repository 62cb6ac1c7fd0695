"""gRPC: grpcio's client against an ASGI application that speaks it by itself, and one of connectrpc."""

import multiprocessing
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpccalls
import pytest
from certificates import Authority, Pair
from grpccalls import Outcome
from serving import WAIT_S, ServerProcess, Start, wait_until

RAW_APP = """
import asyncio
import sys
import urllib.parse

async def messages(receive):
    data = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        data += message.get("body", b"")
        more = message.get("more_body", False)
        while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
            yield bytes(data[5:end])
            del data[:end]
    assert not data

class Failure(Exception):
    pass

class Gone(Exception):
    pass

class Call:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        self.metadata = dict(scope["headers"])
        self.started = False

    async def start(self, trailers=True, fields=()):
        self.started = True
        headers = [(b"content-type", b"application/grpc"), (b"x-port", b"%d" % self.scope["client"][1])]
        headers += [(b"x-told", self.metadata.get(b"x-told", b"")), *fields]
        await self.send(
            {"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers}
        )
        await self.send({"type": "http.response.body", "body": b"", "more_body": trailers})

    async def put(self, message):
        if not self.started:
            await self.start()
        data = b"\\0" + len(message).to_bytes(4, "big") + message
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, code, text=""):
        trailers = [(b"grpc-status", b"%d" % code), (b"grpc-message", urllib.parse.quote(text).encode())]
        trailers.append((b"x-end", b"of the call"))
        if not self.started:
            await self.start(False, trailers)
        else:
            await self.send({"type": "http.response.body", "body": b""})
            await self.send({"type": "http.response.trailers", "headers": trailers})

class Service:
    async def Unary(self, call):
        async for message in messages(call.receive):
            await call.put(message)

    async def Later(self, call):
        await asyncio.sleep(1)
        await self.Unary(call)

    async def Collect(self, call):
        await call.put(b"".join([message async for message in messages(call.receive)]))

    async def Repeat(self, call):
        async for message in messages(call.receive):
            count, size = map(int, message.split())
            for number in range(count):
                await call.put(bytes([number]) * size)

    async def Both(self, call):
        await call.start()
        async for message in messages(call.receive):
            await call.put(message)

    async def Fail(self, call):
        async for message in messages(call.receive):
            await call.put(message)
            raise Failure("not ½ of 100 %")

    async def Refuse(self, call):
        raise Failure("no")

    async def Wait(self, call):
        async for message in messages(call.receive):
            for number in range(int(message)):
                await call.put(b"%d" % number)
        assert (await call.receive())["type"] == "http.disconnect"
        print("Wait: its client has gone", file=sys.stderr, flush=True)

async def app(scope, receive, send):
    assert scope["http_version"] == "2" and scope["method"] == "POST"
    assert dict(scope["headers"])[b"te"] == b"trailers"
    method = scope["path"].removeprefix("/test.Echo/")
    call = Call(scope, receive, send)
    function = getattr(Service(), method, None)
    if function is None:
        await call.end(12, "no such method")
        return
    try:
        await function(call)
    except Failure as failure:
        await call.end(3, str(failure))
    except Gone:
        pass
    else:
        if method != "Wait":
            await call.end(0)
"""

CONNECT_APP = """
import asyncio
import sys

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint

class Bytes:
    # As messages, instead of what protoc makes of descriptions
    def name(self):
        return "proto"

    def encode(self, message):
        return message

    def decode(self, data, message_class):
        return bytes(data)

def tell(context):
    context.response_headers["x-port"] = context.client_address.rpartition(":")[2]
    context.response_headers["x-told"] = context.request_headers.get("x-told", "")
    context.response_trailers["x-end"] = "of the call"

class Service:
    async def Unary(self, request, context):
        tell(context)
        return request

    async def Later(self, request, context):
        await asyncio.sleep(1)
        return request

    async def Collect(self, requests, context):
        return b"".join([request async for request in requests])

    async def Repeat(self, request, context):
        tell(context)
        count, size = map(int, request.split())
        for number in range(count):
            yield bytes([number]) * size

    async def Both(self, requests, context):
        async for request in requests:
            yield request

    async def Fail(self, requests, context):
        tell(context)
        async for request in requests:
            yield request
            raise ConnectError(Code.INVALID_ARGUMENT, "not ½ of 100 %")

    async def Refuse(self, request, context):
        tell(context)
        raise ConnectError(Code.INVALID_ARGUMENT, "no")

    async def Wait(self, request, context):
        try:
            for number in range(int(request)):
                yield b"%d" % number
            await asyncio.Event().wait()
        finally:
            print("Wait: its client has gone", file=sys.stderr, flush=True)

KINDS = {
    "unary": ["Unary", "Later", "Refuse"],
    "client_stream": ["Collect"],
    "server_stream": ["Repeat", "Wait"],
    "bidi_stream": ["Both", "Fail"],
}

def endpoints(service):
    found = {}
    for kind, names in KINDS.items():
        for name in names:
            method = MethodInfo(
                name=name, service_name="test.Echo", input=bytes, output=bytes,
                idempotency_level=IdempotencyLevel.UNKNOWN, stream_type=StreamType[kind.upper()],
            )
            found["/test.Echo/" + name] = getattr(Endpoint, kind)(method, getattr(service, name))
    return found

class Application(ConnectASGIApplication):
    path = "/test.Echo"

app = Application(service=Service(), endpoints=endpoints, codecs=[Bytes()], read_max_bytes=2**23)
"""

APPS = {"raw ASGI": RAW_APP, "connectrpc": CONNECT_APP}


@pytest.fixture(scope="module")
def client() -> Iterator[Executor]:
    """Runs functions of `grpccalls` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


class Service:
    """A server, and calls to it, or to a port of another one in front."""

    def __init__(self, server: ServerProcess, client: Executor, port: int | None = None) -> None:
        self.server = server
        self.target = f"127.0.0.1:{port or server.port}"
        self._client = client

    def begin(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        """What will come of a function of `grpccalls`."""
        return self._client.submit(function, self.target, *arguments, **options)

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return self.begin(function, *arguments, **options).result(WAIT_S)

    def call(self, kind: str, method: str, *messages: bytes, **options: Any) -> Outcome:
        outcome: Outcome = self.run(grpccalls.call, kind, method, *messages, **options)
        return outcome

    def count_gone(self) -> int:
        """How many calls of Wait have heard of their clients' leaving."""
        return self.server.log.count("Wait: its client has gone")

    def end(self) -> None:
        """End the server, which must have had no trouble."""
        assert self.server.end() == -signal.SIGTERM
        assert "Traceback" not in self.server.log
        assert "WARNING" not in self.server.log


Services = Callable[[str], Service]


@pytest.fixture(scope="module")
def services(
    client: Executor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Service]]:
    """Gives the service of an application of APPS, which is started once: ``services(name)``."""
    started: dict[str, Service] = {}

    def service(name: str) -> Service:
        if name not in started:
            folder = tmp_path_factory.mktemp("service")
            (folder / "app.py").write_text(APPS[name])
            server = ServerProcess(folder, "app:app", "--port", "0", "--lifespan", "off")
            started[name] = Service(server, client)
        return started[name]

    try:
        yield service
        for each in started.values():
            each.end()
    finally:
        for each in started.values():
            each.server.close()


@pytest.fixture(params=list(APPS))
def service(request: Any, services: Services) -> Service:
    return services(request.param)


# --- The four kinds of calls ---


def test_unary(service: Service) -> None:
    outcome = service.call("unary_unary", "Unary", b"hello", metadata=[("x-told", "metadata")])
    assert (outcome.code, outcome.details, outcome.messages) == ("OK", "", [b"hello"])
    assert outcome.initial["x-told"] == "metadata"
    assert outcome.trailing == {"x-end": "of the call"}
    assert service.call("unary_unary", "Unary", b"").messages == [b""]


def test_client_streaming(service: Service) -> None:
    parts = [bytes([n]) * n * 100 for n in range(200)]
    outcome = service.call("stream_unary", "Collect", *parts)
    assert (outcome.code, outcome.messages) == ("OK", [b"".join(parts)])
    assert service.call("stream_unary", "Collect").messages == [b""]


def test_server_streaming(service: Service) -> None:
    outcome = service.call("unary_stream", "Repeat", b"200 5000")
    assert (outcome.code, outcome.messages) == ("OK", [bytes([n]) * 5000 for n in range(200)])
    outcome = service.call("unary_stream", "Repeat", b"0 0")
    assert (outcome.code, outcome.messages) == ("OK", [])


def test_bidirectional_streaming(service: Service) -> None:
    messages = [b"%d" % n for n in range(300)]
    outcome = service.call("stream_stream", "Both", *messages)
    assert (outcome.code, outcome.messages) == ("OK", messages)


def test_a_bidirectional_stream_answers_each_message_before_the_next(service: Service) -> None:
    messages = [b"%d" % n for n in range(100)] + [bytes(100_000)]
    outcome = service.run(grpccalls.talk, *messages)
    assert (outcome.code, outcome.messages) == ("OK", messages)


def test_initial_metadata_come_first(services: Services) -> None:
    """connectrpc sends them with the first message only."""
    outcome = services("raw ASGI").run(grpccalls.hear_first)
    assert outcome.code == "OK"
    assert set(outcome.initial) == {"x-port", "x-told"}


@pytest.mark.parametrize(
    ("kind", "method", "count"), [("unary_unary", "Unary", 1), ("stream_stream", "Both", 3)]
)
def test_messages_of_4_mib(service: Service, kind: str, method: str, count: int) -> None:
    """Far larger than any window."""
    messages = [bytes([n + 1]) * 2**22 for n in range(count)]
    outcome = service.call(kind, method, *messages)
    assert (outcome.code, outcome.messages == messages) == ("OK", True)


def test_compressed_messages(services: Services) -> None:
    """The raw application knows nothing of compression."""
    outcome = services("connectrpc").call(
        "unary_unary", "Unary", bytes(10**6), compression=grpc.Compression.Gzip
    )
    assert (outcome.code, outcome.messages) == ("OK", [bytes(10**6)])


@pytest.mark.parametrize("source", APPS.values(), ids=list(APPS))
def test_over_tls(source: str, start: Start, client: Executor, authority: Authority, pair: Pair) -> None:
    service = Service(start(source, "app:app", "--port", "0", "--lifespan", "off", *pair.arguments), client)
    ca = authority.path.read_bytes()
    outcome = service.call("unary_unary", "Unary", bytes(100_000), ca=ca)
    assert (outcome.code, outcome.messages) == ("OK", [bytes(100_000)])
    assert service.call("stream_stream", "Both", b"a", b"b", ca=ca).messages == [b"a", b"b"]
    service.end()


def test_many_calls_on_one_connection(service: Service) -> None:
    outcomes = service.run(grpccalls.at_once, 150)
    for number, outcome in enumerate(outcomes):
        assert outcome.code == "OK"
        answers = [bytes([n]) * 2000 for n in range(number)] if number % 2 else [b"%d" % number]
        assert outcome.messages == answers
    assert len({outcome.initial["x-port"] for outcome in outcomes}) == 1


# --- Errors ---


def test_an_error_in_the_trailers(service: Service) -> None:
    outcome = service.call("stream_stream", "Fail", b"one")
    assert (outcome.code, outcome.details) == ("INVALID_ARGUMENT", "not ½ of 100 %")
    assert outcome.messages == [b"one"]
    assert outcome.trailing == {"x-end": "of the call"}


def test_an_error_that_leaves_the_request_unread(service: Service) -> None:
    outcome = service.call("stream_stream", "Fail", *[bytes(2**20)] * 4)
    assert (outcome.code, outcome.details) == ("INVALID_ARGUMENT", "not ½ of 100 %")


def test_an_error_instead_of_a_response(service: Service) -> None:
    """Its status is in the only header block."""
    outcome = service.call("unary_unary", "Refuse", b"")
    assert (outcome.code, outcome.details, outcome.messages) == ("INVALID_ARGUMENT", "no", [])
    assert outcome.trailing["x-end"] == "of the call"


def test_a_method_that_is_not_there(service: Service) -> None:
    assert service.call("unary_unary", "Nothing", b"").code == "UNIMPLEMENTED"


# --- Through proxies ---

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen grpc
    bind fd@{fd} proto h2
    server app 127.0.0.1:{port} proto h2
"""

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder};
    server {{
        listen 127.0.0.1:{own_port} http2;
        location / {{ grpc_pass grpc://127.0.0.1:{port}; }}
    }}
}}
"""


@pytest.fixture(params=["haproxy", "nginx"])
def proxied(request: Any, service: Service, client: Executor, tmp_path: Path) -> Iterator[Service]:
    """The service through a proxy that speaks HTTP/2 on both sides."""
    program = shutil.which(request.param, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd, own_port = listening.fileno(), listening.getsockname()[1]
        given = {"fd": fd, "own_port": own_port, "port": service.server.port, "folder": tmp_path}
        text = HAPROXY if request.param == "haproxy" else NGINX
        (tmp_path / "proxy.cfg").write_text(text.format(**given))
        options = ["-db", "-f"] if request.param == "haproxy" else ["-p", f"{tmp_path}", "-e", "stderr", "-c"]
        with subprocess.Popen(
            [program, *options, f"{tmp_path}/proxy.cfg"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[fd],
            env={"NGINX": f"{fd};"},  # by which nginx hands its sockets to a successor
        ) as process:
            try:
                yield Service(service.server, client, own_port)
            finally:
                process.terminate()


def test_calls_through_a_proxy(proxied: Service) -> None:
    messages = [bytes([n]) * 2**20 for n in range(4)]
    outcome = proxied.call("stream_stream", "Both", *messages)
    assert (outcome.code, outcome.messages == messages) == ("OK", True)
    outcome = proxied.run(grpccalls.talk, b"one", b"two")
    assert (outcome.code, outcome.messages) == ("OK", [b"one", b"two"])
    outcome = proxied.call("stream_stream", "Fail", b"one")
    assert (outcome.code, outcome.details) == ("INVALID_ARGUMENT", "not ½ of 100 %")
    assert (outcome.messages, outcome.trailing) == ([b"one"], {"x-end": "of the call"})
    before = proxied.count_gone()
    outcome, other = proxied.run(grpccalls.cancel, "Wait", b"2", 2)
    assert (outcome.code, other.code) == ("CANCELLED", "OK")
    wait_until(lambda: proxied.count_gone() > before, "the end of the call")


# --- The end that a client sets ---


def test_a_deadline(service: Service) -> None:
    before = service.count_gone()
    outcome = service.call("unary_stream", "Wait", b"2", deadline_s=0.5)
    assert (outcome.code, outcome.messages) == ("DEADLINE_EXCEEDED", [b"0", b"1"])
    wait_until(lambda: service.count_gone() > before, "the end of the call")


@pytest.mark.parametrize("messages", [0, 3])
def test_cancelling(service: Service, messages: int) -> None:
    before = service.count_gone()
    outcome, other = service.run(grpccalls.cancel, "Wait", b"%d" % messages, messages)
    assert outcome.code == "CANCELLED"
    assert outcome.messages == [b"%d" % n for n in range(messages)]
    assert (other.code, other.messages) == ("OK", [b"still here"])
    wait_until(lambda: service.count_gone() > before, "the end of the call")


def test_cancelling_a_stream_that_is_under_way(service: Service) -> None:
    """The server has far more to send than the windows allow."""
    outcome, other = service.run(grpccalls.cancel, "Repeat", b"200 1000000", 2)
    assert (outcome.code, len(outcome.messages)) == ("CANCELLED", 2)
    assert (other.code, other.messages) == ("OK", [b"still here"])


# --- The connection ---


def test_keepalive_pings(service: Service) -> None:
    """A client that gets no answer to its pings gives the connection up."""
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 500),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    outcome = service.call("unary_unary", "Later", b"answer", options=options)
    assert (outcome.code, outcome.messages) == ("OK", [b"answer"])


def test_workers_are_replaced_while_calls_go_on(start: Start, client: Executor, tmp_path: Path) -> None:
    """grpcio opens another connection after a GOAWAY; none of its calls may fail."""
    arguments = ("app:app", "--port", "0", "--lifespan", "off", "--workers", "2", "--no-access-log")
    service = Service(start(RAW_APP, *arguments), client)
    calling = service.begin(grpccalls.call_on, tmp_path)
    wait_until((tmp_path / "called").exists, "an answer")
    service.server.process.send_signal(signal.SIGHUP)
    service.server.wait_for("Reloaded")
    (tmp_path / "called").unlink()
    wait_until((tmp_path / "called").exists, "an answer behind that")
    (tmp_path / "stop").touch()
    assert set(calling.result(WAIT_S)) == {"OK"}
    assert service.server.end() == 0
    assert "Traceback" not in service.server.log
