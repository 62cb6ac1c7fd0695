"""Clients that leave: with each framework its handlers end, its tasks run, and nobody has to read of it.

The application of a framework, in the folder ``apps``, notes in stderr what a middleware outside of all
others sees of each request: "entered {path}", then "returned {path}", "cancelled {path}" or "raised {path}:
{error}". It has these URLs, each of which ends in a mark:

- GET /plain/{mark}: "plain"; GET /slow/{mark}: "slow", after half a second; POST /echo/{mark}: the body
- GET /held/{mark}: "waiting {mark}" to stderr; once it has heard that its client has left, "finally {mark}"
  to stderr and, unless the framework cancels it, an answer
- GET /stream/{mark} ("stream"): one piece, then "waiting {mark}" to stderr and no other piece; and
  "finally {mark}" to stderr when the generator ends
- GET /events/{mark} ("events"): the same as server-sent events of the framework's
- GET /stream-with-task/{mark} ("background"): the same stream with a task after it: "after {mark}" to stderr
- GET /file/{mark} ("file"): the file that the environment's ``LARGE_FILE`` names
- GET /file-with-task/{mark} ("background"): the same with such a task

The names in brackets are features, which a framework may lack. ``COMPLETES_STREAMS`` in a module says that
its framework ends the body of a stream once it has heard that the client has left, ``RAISES`` what comes out
of a handler that waits for the rest of a body.
"""

import contextlib
import itertools
import re
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from certificates import Authority
from serving import WAIT_S, ServerProcess

APPLICATIONS = "*_leaving.py"

LARGE = 32 * 2**20  # bytes, more than the kernel holds for a client that does not read
NOTICED_WITHIN_S = 3.0  # a stream has ended
HELD_BACK_S = 2.0  # by the server, an EOF before the response, which may be that of a client that waits
NOBODY_TOOK_IT = "499"

numbers = itertools.count(1)


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Leaving:
    """The server of an application, and the responses that nobody took."""

    def __init__(self, process: ServerProcess, completes: bool = False) -> None:
        self.process, self.port, self.completes = process, process.port, completes
        self._statuses: dict[str, set[str]] = {}  # by path, those that the access log may have

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def ask(self, data: bytes, path: str, may_be_complete: bool = False) -> socket.socket:
        """The connection of a client that will leave before the end of the response."""
        self._statuses[path] = {NOBODY_TOOK_IT, "200"} if may_be_complete else {NOBODY_TOOK_IT}
        connection = self.connect()
        connection.sendall(data)
        return connection

    def check_end_of(self, path: str) -> None:
        """The application's call ended, and not by an exception of the leaving's."""
        assert self.end_of(path) is None

    def end_of(self, path: str) -> str | None:
        """What the application's call raised."""
        return self.process.wait_for(rf"(?m)^(?:returned|cancelled|raised) {path}(?:: (\w+).*)?$")[1]

    def check_end(self) -> None:
        """The process ends as it should, has logged no failure, and each response that nobody took once."""
        assert self.process.end() == -signal.SIGTERM, self.process.log
        failures = (
            r"(?m)^(?:ERROR|CRITICAL).*|^raised (?!/echo/).*|^.*(?:Traceback|never retrieved|never awaited).*"
        )
        assert re.findall(failures, self.process.log) == [], self.process.log
        for path, statuses in self._statuses.items():
            lines = re.findall(rf'"[A-Z]+ {path} HTTP/1.1" (\d+)', self.process.output)
            assert len(lines) == 1, (path, lines)
            assert lines[0] in statuses, path


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "file"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


@pytest.fixture(scope="module")
def server(application: Any, large_file: Path) -> Iterator[Leaving]:
    # No connection that should be closed may be so by this limit
    process = application.serve(FASTASGI_TIMEOUT_KEEP_ALIVE="60", LARGE_FILE=str(large_file))
    try:
        leaving = Leaving(process, application.constants.get("COMPLETES_STREAMS", False))
        yield leaving
        leaving.check_end()
    finally:
        process.close()


# --- Clients that leave before the end of their response ---


Leave = Callable[[socket.socket], None]


def close(connection: socket.socket) -> None:
    """An EOF is all that is seen of it. Bytes that the client has not read would make it a reset."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while connection.recv(65536):
            pass
    connection.close()


def reset(connection: socket.socket) -> None:
    """As a client that has died, or an operating system that has."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


each_way = pytest.mark.parametrize("leave", [close, reset])


def new_path(url: str, leave: Leave) -> tuple[str, str]:
    """A path, and its mark."""
    mark = f"{leave.__name__}-{next(numbers)}"
    return f"{url}/{mark}", mark


def check_wait(
    server: Leaving, connection: socket.socket, leave: Leave, path: str, mark: str, within_s: float
) -> None:
    """What waits at a path hears soon that its client has left, and ends."""
    server.process.wait_for(f"(?m)^waiting {mark}$")
    leave(connection)
    left_at = time.monotonic()
    server.process.wait_for(f"(?m)^finally {mark}$")
    assert time.monotonic() - left_at < within_s
    server.check_end_of(path)


@each_way
def test_an_answer_to_nobody_is_dropped(server: Leaving, leave: Leave) -> None:
    """It is written where an EOF is all that was seen of the leaving: the client may be there."""
    path, mark = new_path("/held", leave)
    connection = server.ask(request("GET", path), path, leave is close)
    check_wait(server, connection, leave, path, mark, HELD_BACK_S + NOTICED_WITHIN_S)


def check_stream(server: Leaving, url: str, leave: Leave) -> str:
    """A stream that waits for its next piece ends: its mark."""
    path, mark = new_path(url, leave)
    data = request("GET", path, "accept-encoding: gzip")
    connection = server.ask(data, path, leave is close and server.completes)
    received = b""
    while not re.search(rb"\r\n\r\n[0-9a-f]+\r\n", received):
        piece = connection.recv(65536)
        assert piece, "the response has ended before its first chunk"
        received += piece
    check_wait(server, connection, leave, path, mark, NOTICED_WITHIN_S)
    return mark


@pytest.mark.needs("stream")
@each_way
def test_a_stream_that_waits_is_ended(server: Leaving, leave: Leave) -> None:
    check_stream(server, "/stream", leave)


@pytest.mark.needs("events")
@each_way
def test_events_that_wait_are_ended(server: Leaving, leave: Leave) -> None:
    check_stream(server, "/events", leave)


@pytest.mark.needs("background")
@each_way
def test_the_task_after_a_stream_runs(server: Leaving, leave: Leave) -> None:
    mark = check_stream(server, "/stream-with-task", leave)
    server.process.wait_for(f"(?m)^after {mark}$")


def check_file(server: Leaving, url: str) -> str:
    """The response of a file returns when its client has left in the middle: its mark."""
    path, mark = new_path(url, reset)
    connection = server.ask(request("GET", path), path)
    assert connection.recv(1) == b"H"
    reset(connection)
    server.check_end_of(path)
    return mark


@pytest.mark.needs("file")
def test_the_response_of_a_file_returns(server: Leaving) -> None:
    check_file(server, "/file")


@pytest.mark.needs("background")
def test_the_task_after_a_file_runs(server: Leaving) -> None:
    mark = check_file(server, "/file-with-task")
    server.process.wait_for(f"(?m)^after {mark}$")


@each_way
def test_an_upload_that_stops_is_let_go(application: Any, server: Leaving, leave: Leave) -> None:
    """What comes out of the application is the framework's, and still no error for the log."""
    path, _ = new_path("/echo", leave)
    connection = server.ask(request("POST", path, body=b"x" * 1000)[:-1], path)
    server.process.wait_for(f"(?m)^entered {path}$")
    leave(connection)
    assert server.end_of(path) == application.constants.get("RAISES")


# --- Clients that have said all and wait for the answers, as `nc -N` does ---


# What is sent, and what is to come back
SAID = {
    "get": (request("GET", "/plain/get"), [b"plain"]),
    "post": (request("POST", "/echo/post", body=b"small"), [b"small"]),
    "slow": (request("GET", "/slow/slow"), [b"slow"]),
    "two": (
        request("GET", "/slow/first") + request("POST", "/echo/second", body=b"small"),
        [b"slow", b"small"],
    ),
}


def bodies_of(data: bytes, count: int) -> list[bytes]:
    """The bodies of so many good responses, each complete, and nothing behind them but the end."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    client.receive_data(b"")
    bodies = []
    while len(bodies) < count:
        if bodies:
            client.start_next_cycle()
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        response = client.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == 200
        bodies.append(b"")
        while isinstance(event := client.next_event(), h11.Data):
            bodies[-1] += event.data
        assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", True)
    return bodies


def receive_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("said", SAID)
def test_a_client_that_sends_no_more_gets_all_answers(server: Leaving, said: str) -> None:
    data, bodies = SAID[said]
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert bodies_of(receive_all(connection), len(bodies)) == bodies


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["asgi", "starlette"])
def tls_server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Leaving]:
    pair = authority.issue("localhost")
    arguments = ["--timeout-keep-alive", "60", *pair.arguments, f"{request.param}_leaving:app"]
    process = ServerProcess(Path(__file__).parent / "apps", "--port", "0", *arguments)
    try:
        leaving = Leaving(process)
        yield leaving
        leaving.check_end()
    finally:
        process.close()


class TLSClient:
    """TLS over a socket. Unlike the ssl module's sockets it reads on after it has sent its close_notify."""

    def __init__(self, connection: socket.socket, authority: Authority) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=authority.path)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._call(self._tls.do_handshake)

    def say_all(self, data: bytes) -> None:
        """Data and close_notify, at once."""
        self._tls.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._send()

    def receive_all(self) -> bytes:
        """All until the server's close_notify."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while True:
                data += self._call(self._tls.read)
        return data

    def _call(self, function: Callable[[], Any]) -> Any:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                result = function()
                self._send()
                return result
            self._send()
            received = self._connection.recv(65536)
            assert received, "the server has closed without a close_notify"
            self._incoming.write(received)

    def _send(self) -> None:
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())


@pytest.mark.parametrize("ends_tcp", [False, True], ids=["close_notify", "and-fin"])
@pytest.mark.parametrize("said", ["get", "post", "two"])
def test_a_client_that_sends_no_more_over_tls_gets_all_answers(
    tls_server: Leaving, authority: Authority, said: str, ends_tcp: bool
) -> None:
    data, bodies = SAID[said]
    with tls_server.connect() as connection:
        client = TLSClient(connection, authority)
        client.say_all(data)
        if ends_tcp:
            connection.shutdown(socket.SHUT_WR)
        assert bodies_of(client.receive_all(), len(bodies)) == bodies
        assert receive_all(connection) == b""
