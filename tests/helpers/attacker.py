"""A client that attacks a server process by HTTP/2: bytes made beforehand, over a plain socket."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import hpack
from backpressure import MIB
from http2peer import PREFACE, ErrorCode, Fields, Frame, FrameType, read_frames, request_fields, settings
from memory import Memory
from serving import WAIT_S, ServerProcess, wait_until
from supervised import processor_time_s

# What attacks may cost: bytes of resident memory, processor time, and the time another client waits
MOST_GROWTH = 16 * MIB
MOST_PROCESSOR_S = 1.0
ANSWER_S = 5.0
PAUSE_BYTES = MIB  # after so many bytes, and the first, the other client wants to be served
PATIENT = ("--timeout-keep-alive", "60")  # for the other client, which is idle meanwhile

# What the applications of these tests count: calls that run, the most that ran at once, all calls
APP = """
import asyncio

running = most = calls = 0
released = asyncio.Event()

async def app(scope, receive, send):
    global running, most, calls, released
    if scope["path"] == "/hello":
        await respond(send, b"hello")
    elif scope["path"] == "/counts":
        await respond(send, b"%d %d %d" % (running, most, calls))
    elif scope["path"] == "/release":
        released.set()
        released = asyncio.Event()
        await respond(send, b"")
    elif scope["path"] == "/forget":
        most, calls = running, 0
        await respond(send, b"")
    else:
        running += 1
        calls += 1
        most = max(most, running)
        try:
            await globals()[scope["path"][1:]](scope, receive, send)
        finally:
            running -= 1

async def answer(scope, receive, send):
    await respond(send, b"hello")

async def wait(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass

async def work(scope, receive, send):
    await released.wait()
    await respond(send, b"released")

async def deaf(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await released.wait()

async def upload(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    await respond(send, b"uploaded")

async def large(scope, receive, send):
    size = int(scope["query_string"])
    await send({"type": "http.response.start", "status": 200})
    while size > 0:
        await send({"type": "http.response.body", "body": bytes(16384), "more_body": True})
        size -= 16384
    await send({"type": "http.response.body"})

async def drips(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    for _ in range(int(scope["query_string"])):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body"})

async def socket(scope, receive, send):
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass

async def fields(scope, receive, send):
    headers = [(b"x-%d-%d" % (calls, i), b"v" * 500) for i in range(8)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})

async def respond(send, body):
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def block(target: str = "/wait", *fields: str, method: str = "GET") -> bytes:
    """A request's header block that leaves the dynamic table as it is, so that it may be sent many times."""
    return encoded(request_fields(method, target, *fields))


def shake(target: str = "/socket") -> bytes:
    """The header block of a request for a WebSocket (RFC 8441), which may be sent many times too."""
    return block(target, ":protocol: websocket", "sec-websocket-version: 13", method="CONNECT")


def encoded(fields: Fields) -> bytes:
    """These fields as a header block that leaves the dynamic table as it is."""
    return hpack.Encoder().encode([(name, value, True) for name, value in fields])


def literal(name: bytes, value: bytes, *, index: bool = False) -> bytes:
    """A field as it stands, without Huffman code (RFC 7541 section 6.2); on demand for the dynamic table."""
    return b"".join([b"\x40" if index else b"\0", string(name), string(value)])


def string(data: bytes) -> bytes:
    """A string literal without Huffman code (RFC 7541 section 5.2)."""
    return integer(len(data), 7) + data


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of so many bits (RFC 7541 section 5.1); `first` are the bits above."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    parts = [first | most]
    value -= most
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


@dataclass
class Outcome:
    """What came of an attack: the server's frames, and whether it ended the connection."""

    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    sent: int = 0

    @property
    def code(self) -> ErrorCode | None:
        """The last GOAWAY's error code; None if there was none."""
        codes = [int.from_bytes(x.payload[4:8], "big") for x in self.frames if x.type == FrameType.GOAWAY]
        return ErrorCode(codes[-1]) if codes else None

    @property
    def resets(self) -> list[ErrorCode]:
        """The error codes of RST_STREAM frames, in order."""
        resets = [x for x in self.frames if x.type == FrameType.RST_STREAM]
        return [ErrorCode(int.from_bytes(x.payload, "big")) for x in resets]

    @property
    def statuses(self) -> list[int]:
        """The statuses of responses, in order."""
        decoder = hpack.Decoder()
        heads = [decoder.decode(x.payload, raw=True) for x in self.frames if x.type == FrameType.HEADERS]
        return [int(head[0][1]) for head in heads]


class Attacked:
    """A server process with APP, and another client of it, which wants to be served during attacks."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.port = process.port
        self._bystander = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        for path in ("/hello", "/answer") * 2:
            self.get(path)
        self._memory = Memory(process.process.pid)
        self._resident = self._memory.resident

    def close(self) -> None:
        self._bystander.close()

    def get(self, path: str) -> bytes:
        """What the server answers to the bystander, who must not wait for long."""
        begun_at = time.monotonic()
        self._bystander.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        [length] = [int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")]
        while len(body) < length:
            body += self._receive()
        waited_s = time.monotonic() - begun_at
        assert waited_s < ANSWER_S, f"waited {waited_s:.1f} s to be served"
        return body

    def _receive(self) -> bytes:
        data = self._bystander.recv(65536)
        assert data, "the bystander was cut off"
        return data

    @property
    def counts(self) -> tuple[int, int, int]:
        """Calls of the application that run, the most that ever did at once, and all."""
        running, most, calls = map(int, self.get("/counts").split())
        return running, most, calls

    def until_running(self, count: int) -> None:
        """Return when so many calls of the application run."""
        wait_until(lambda: self.counts[0] == count, f"{count} calls that run")

    @contextlib.contextmanager
    def within_bounds(
        self, growth: int = MOST_GROWTH, processor_s: float = MOST_PROCESSOR_S
    ) -> Iterator[None]:
        """What is done in the block costs the server no more time, and no error.

        Nor does it cost more memory, together with all attacks before it. Counts begin with the block, and
        at its end calls are released that wait for that.
        """
        self.get("/forget")
        before_s = processor_time_s(self.process.process.pid)
        with self._memory.grows_by_less_than(growth, before=self._resident):
            try:
                yield
            finally:
                self.get("/release")
            self.until_running(0)
        spent_s = processor_time_s(self.process.process.pid) - before_s
        assert spent_s < processor_s, f"{spent_s:.2f} s of processor time"
        assert "Traceback" not in self.process.log, self.process.log

    def connect(self) -> socket.socket:
        """A socket connected with the server, that does not block."""
        sock = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        sock.setblocking(False)
        return sock

    def attack(
        self,
        pieces: Iterable[bytes],
        *,
        until: Callable[[Outcome], object] = lambda outcome: outcome.ended,
        reads: bool = True,
        opening: bytes = PREFACE + settings(),
    ) -> Outcome:
        """Send the preface, and what the pieces are, as fast as the server takes it; read what it answers.

        Returns when the condition is true, or the connection has ended. Fails if that is not within WAIT_S,
        or if another client is not served meanwhile. With `reads` false nothing is read, and it returns when
        all is sent or the server takes no more.
        """
        left = iter(pieces)
        outcome, came = Outcome(), bytearray()
        data, served_at = opening + next(left, b""), 0
        deadline = time.monotonic() + WAIT_S
        with contextlib.closing(self.connect()) as sock:
            while not outcome.ended and not until(outcome):
                assert time.monotonic() < deadline, f"{outcome.sent} bytes sent, {outcome.frames[-8:]}"
                readable, writable, _ = select.select(
                    [sock] if reads else [], [sock] if data else [], [], 0.5
                )
                if not reads and not writable:
                    break
                try:
                    if writable:
                        sent = sock.send(data)
                        outcome.sent += sent
                        data = data[sent:] or next(left, b"")
                    if readable:
                        came += (piece := sock.recv(2**18))
                        outcome.ended = not piece
                        outcome.frames += read_frames(came)
                except ConnectionError:
                    outcome.frames += read_frames(came + _rest(sock))
                    outcome.ended = True
                if outcome.sent >= served_at:
                    served_at = outcome.sent + PAUSE_BYTES
                    assert self.get("/hello") == b"hello"
        return outcome


def _rest(sock: socket.socket) -> bytes:
    """What had come before a connection was reset."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := sock.recv(2**18):
            data += piece
    return data


@contextlib.contextmanager
def attacked(folder: Path, *arguments: str) -> Iterator[Attacked]:
    """A server process with APP and these arguments, in this folder."""
    (folder / "app.py").write_text(APP)
    process = ServerProcess(folder, "app:app", "--port", "0", "--no-access-log", *PATIENT, *arguments)
    with contextlib.closing(process), contextlib.closing(Attacked(process)) as server:
        yield server
