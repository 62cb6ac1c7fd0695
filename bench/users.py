"""locust's users: what each kind does. Runs in the generator process only, under gevent.

A raw user is one connection, driven by callbacks of gevent's loop instead of a greenlet's waits. That is
several times cheaper, and the difference between a generator that a fast server outruns and one that it
doesn't.
"""

# mypy: allow-subclassing-any, disable-error-code="import-untyped, import-not-found, untyped-decorator"

import contextlib
import os
import socket
import ssl
import time
from collections import Counter, deque
from typing import Any, ClassVar

import gevent
import hpack
from gevent.event import Event
from locust import FastHttpUser, User, constant, task

from bench import http2, websocket
from bench.errors import UnsupportedError
from bench.recorder import Recorder
from bench.responses import BodyLength, ResponseCounter, ResponseError

READ_BYTES = 1 << 18
# After a failure a user waits so long before it connects again, so that a dead server isn't hammered.
RETRY_S = 0.1
MESSAGE = websocket.build_text(b"x" * 32)
TIMEOUT_S = 10
# So long the first connections wait for the last ones.
GATHER_S = 10
# And so long then for each, until the server has accepted it.
ACCEPT_S = 0.0005
# How late the loop's timers may be.
COARSE_S = 0.002
now = time.perf_counter


class Target:
    """The server under load, and the recorder of what comes of it. One for all users of the process."""

    def __init__(self, job: dict[str, Any], recorder: Recorder) -> None:
        self.host, self.port = job["address"]
        self.tls: ssl.SSLContext | None = None
        if job.get("tls"):
            # The certificate is the bench's own; what is measured is the server.
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
            if job["kind"] == "http2":
                self.tls.set_alpn_protocols(["h2"])
        self.request: bytes = job.get("request", "").encode("latin-1")
        self.depth: int = job.get("depth", 1)
        self.rate_per_s: float = job.get("rate", 0)
        self.path: str = job.get("path", "/")
        self._connections: int = job.get("connections", 1)
        self._waiting: list[RawUser] | None = []
        self.recorder = recorder
        self._sources = 0
        self._body_length = BodyLength() if job.get("fixed", True) else None

    def new_counter(self) -> ResponseCounter:
        """Counts the responses of one connection, those that may be answers to the request."""
        return ResponseCounter(self._body_length)

    def new_stream_counter(self) -> http2.StreamCounter:
        """Counts the responses of one HTTP/2 connection, whose first head the package hpack reads too."""
        return http2.StreamCounter(self._body_length, hpack.Decoder().decode)

    def new_http2_requests(self) -> http2.Requests:
        """The requests of one HTTP/2 connection."""
        return http2.Requests(self.path, tls=self.tls is not None)

    def begin(self, user: "RawUser") -> None:
        """The user's connection stands: begin with it once all users' do, or at last after GATHER_S.

        Those at work leave no time for others being made, here and in servers that accept one a turn.
        """
        if self._waiting is None:
            user.try_to_begin()
            return
        if not self._waiting:
            gevent.spawn_later(GATHER_S, self._begin_all)
        self._waiting.append(user)
        if len(self._waiting) >= self._connections:
            gevent.spawn_later(self._connections * ACCEPT_S, self._begin_all)

    def _begin_all(self) -> None:
        """Begin with all that wait; a second call finds none."""
        waiting, self._waiting = self._waiting or [], None
        for user in waiting:
            user.try_to_begin()

    def connect(self) -> socket.socket:
        """A connection that doesn't block, from one of many loopback addresses: ports don't run out."""
        self._sources += 1
        source = f"127.0.{os.getpid() % 200 + 1}.{self._sources % 250 + 1}"
        client = socket.socket()
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            client.bind((source, 0))
            client.settimeout(TIMEOUT_S)
            client.connect((self.host, self.port))
            if self.tls:
                client = self.tls.wrap_socket(client)
            client.setblocking(False)
        except BaseException:
            client.close()
            raise
        return client


class Link:
    """Moves bytes on one connection by callbacks of the loop. `on_data` and `on_lost` are the owner's."""

    def __init__(self, client: socket.socket, on_data: Any, on_lost: Any) -> None:
        self._client, self.on_data, self._on_lost = client, on_data, on_lost
        loop = gevent.get_hub().loop
        self._readable = loop.io(client.fileno(), 1)
        self._writable = loop.io(client.fileno(), 2)
        self._unsent = memoryview(b"")
        self._tls = isinstance(client, ssl.SSLSocket)
        self._readable.start(self._read)

    def _read(self) -> None:
        # Nothing may leave a callback of the loop: it would only be printed.
        try:
            data = self._read_records() if self._tls else os.read(self._client.fileno(), READ_BYTES)
            if not data:
                raise ConnectionError("connection closed by the server")
            self.on_data(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except Exception as error:
            self.close()
            self._on_lost(error)

    def _read_records(self) -> bytes:
        """What has come over TLS, whose library would keep the rest to itself; empty at the end.

        Nothing is answered in between: a server could go on like that for ever, and others would wait. Raises
        OSError.
        """
        records = [self._client.recv(READ_BYTES)]
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            while records[-1]:
                records.append(self._client.recv(READ_BYTES))
        return b"".join(records)

    def send(self, data: bytes) -> None:
        """Send all of it, what the kernel doesn't take at once as soon as it does. Raises OSError."""
        self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)
        self._write()

    def _write(self) -> None:
        try:
            if self._tls:
                sent = self._client.send(self._unsent)
            else:
                sent = os.write(self._client.fileno(), self._unsent)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            if self._writable.active:
                self._writable.stop()
        elif not self._writable.active:
            self._writable.start(self._write_more)

    def _write_more(self) -> None:
        try:
            self._write()
        except Exception as error:
            self.close()
            self._on_lost(error)

    def close(self) -> None:
        """End the connection; no callback follows."""
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self._client.close()


class RawUser(User):
    """One connection, held for as long as the user lives and made again if it is lost."""

    abstract = True
    target: ClassVar[Target]
    link: Link
    joined = False
    open_requests = 0
    """Those that have no answer yet, and fail if the connection is lost."""

    @task
    def drive(self) -> None:
        """The user's one task. locust collects tasks from base classes too: override `work`, not this."""
        self.work()

    def work(self) -> None:
        """Keep a connection at work, without end."""
        while True:
            self.lost = Event()
            self.reset()
            try:
                self.link = Link(self.target.connect(), self.on_first_data, self.on_lost)
            except OSError as error:
                self.target.recorder.failed(f"connecting: {error}")
                gevent.sleep(RETRY_S)
                continue
            try:
                self.target.begin(self)
                self.lost.wait()
            finally:
                self.link.close()
            gevent.sleep(RETRY_S)

    def try_to_begin(self) -> None:
        """Begin, unless the connection is lost already, or fails now."""
        try:
            if not self.lost.is_set():
                self.begin()
        except OSError as error:
            self.on_lost(error)

    def reset(self) -> None:
        """A connection is about to be made: forget the last one, as far as it matters before `begin`."""

    def begin(self) -> None:
        """The connection stands: forget the last one and send what is first. Raises OSError."""
        raise NotImplementedError

    def on_first_data(self, data: bytes) -> None:
        """The connection's first bytes came; `on_data` takes them and all that follow.

        The user has joined unless it refuses them.
        """
        self.link.on_data = self.on_data
        self.on_data(data)
        self.join()

    def join(self) -> None:
        """The user has had an answer, its first one perhaps."""
        if not self.joined:
            self.joined = True
            self.target.recorder.joined += 1

    def on_data(self, data: bytes) -> None:
        """Bytes came. Whatever this raises ends the connection as a failure."""
        raise NotImplementedError

    def on_lost(self, error: Exception) -> None:
        """The connection has failed and is closed."""
        if isinstance(error, UnsupportedError):
            self.target.recorder.refused(str(error))
        self.target.recorder.failed(str(error), max(1, self.open_requests))
        self.open_requests = 0
        self.lost.set()


class RequestUser(RawUser):
    """Sends prebuilt requests, `depth` at once, then waits for all answers.

    A depth of 1 is keep-alive, more is pipelining.
    """

    def begin(self) -> None:
        self.counter = self.target.new_counter()
        self.requests = self.target.request * self.target.depth
        self.send()

    def send(self) -> None:
        """Send a batch of requests."""
        self.open_requests, self.received_bytes = self.target.depth, 0
        self.sent_at = now()
        self.link.send(self.requests)

    def on_data(self, data: bytes) -> None:
        self.received_bytes += len(data)
        count = self.counter.feed(data)
        if count:
            self.target.recorder.answered(now() - self.sent_at, count, self.received_bytes)
            self.received_bytes = 0
            self.open_requests -= count
            if self.open_requests < 0:
                raise ResponseError("more responses than requests")
            if not self.open_requests:
                self.send()


class HTTP2User(RawUser):
    """Keeps `depth` streams open: a new request takes the place of each that was answered."""

    def reset(self) -> None:
        self.counter, self.requests = self.target.new_stream_counter(), self.target.new_http2_requests()
        self.received_bytes = 0
        # When each open stream was opened, by its identifier.
        self.opened_at: dict[bytes, float] = {}

    def begin(self) -> None:
        self.open_requests = self.target.depth
        self.link.send(http2.build_preface() + self.counter.take_replies() + self.open(self.target.depth))

    def open(self, count: int) -> bytes:
        """The frames of so many new requests."""
        streams, frames = self.requests.open(count)
        self.opened_at.update(dict.fromkeys(streams, now()))
        return frames

    def on_first_data(self, data: bytes) -> None:
        # It may be the server's settings alone: the first answer is not here yet.
        self.link.on_data = self.on_data
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        streams = self.counter.feed(data)
        self.received_bytes += len(data)
        if streams:
            self.note(streams)
            self.join()
        # The server's settings may come before the client has begun.
        if self.open_requests:
            frames = self.counter.take_replies() + (self.open(len(streams)) if streams else b"")
            if frames:
                self.link.send(frames)

    def note(self, streams: list[bytes]) -> None:
        """These streams have been answered. Raises ResponseError if one of them wasn't open."""
        try:
            # Most were opened at the same moment.
            opened = Counter(map(self.opened_at.pop, streams))
        except KeyError:
            raise ResponseError("a response on a stream that is not open") from None
        answered_at = now()
        for opened_at, count in opened.items():
            self.target.recorder.answered(answered_at - opened_at, count, self.received_bytes)
            self.received_bytes = 0


class IdleUser(RawUser):
    """Makes one request and then holds the connection."""

    def begin(self) -> None:
        self.counter = self.target.new_counter()
        self.sent_at = now()
        self.link.send(self.target.request)

    def on_data(self, data: bytes) -> None:
        if self.counter.feed(data):
            self.target.recorder.answered(now() - self.sent_at, 1, len(data))


class ReconnectUser(RawUser):
    """A connection for each request, which the server closes after its response."""

    def work(self) -> None:
        while True:
            try:
                self.exchange()
            except (OSError, ResponseError) as error:
                self.target.recorder.failed(str(error))
                gevent.sleep(RETRY_S)

    def exchange(self) -> None:
        """Connect, ask, read to the end. Raises OSError or ResponseError."""
        counter, count, received_bytes, started = self.target.new_counter(), 0, 0, now()
        with self.target.connect() as client:
            client.settimeout(TIMEOUT_S)
            client.sendall(self.target.request)
            while data := client.recv(READ_BYTES):
                received_bytes += len(data)
                count += counter.feed(data)
            count += counter.close()
        if count != 1:
            raise ResponseError(f"{count} responses on a connection")
        self.target.recorder.answered(now() - started, 1, received_bytes)


class WebSocketUser(RawUser):
    """Sends a text message of 32 bytes when the last one has come back."""

    def begin(self) -> None:
        self.counter = websocket.MessageCounter()
        self.open, self.answer = False, b""
        self.link.send(websocket.build_handshake(self.target.path))

    def send(self) -> None:
        """Send the next message."""
        self.sent_at = now()
        self.link.send(MESSAGE)

    def on_data(self, data: bytes) -> None:
        if not self.open:
            self.answer += data
            rest = websocket.read_handshake(self.answer)
            if rest is None:
                return
            self.open, data = True, rest
            self.send()
        count = self.counter.feed(data)
        if count:
            self.target.recorder.answered(now() - self.sent_at, count, len(data))
            self.send()


class RatedUser(RawUser):
    """All connections of a load at a fixed rate: one user that holds them.

    A request has its time in the plan and goes out then, or, if its connection is still busy, as soon as
    that is free. Latency counts from the planned time, so that a stall of the server shows in all requests
    that it held up and not only in the one that met it (coordinated omission).
    """

    connections: ClassVar[int] = 1

    def work(self) -> None:
        lanes = [Lane(self.target) for _ in range(self.connections)]
        self.target.recorder.overdue = lambda: [due for lane in lanes for due in lane.waiting]
        interval = 1 / self.target.rate_per_s
        started, number = now(), 0
        try:
            while True:
                due = started + number * interval
                wait = due - now()
                if wait > COARSE_S:
                    gevent.sleep(wait - COARSE_S)
                elif wait > 0:
                    # A turn of the loop with a look at the sockets. sleep(0) looks at them 5 ms later.
                    gevent.idle()
                else:
                    lanes[number % len(lanes)].ask(due)
                    number += 1
                    if number % 16 == 0:
                        gevent.idle()
        finally:
            for lane in lanes:
                lane.close()


class Lane:
    """One connection of a load at a fixed rate, with the planned times of what is not answered yet."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.waiting: deque[float] = deque()
        self._link: Link | None = None
        self._counter = target.new_counter()

    def ask(self, due: float) -> None:
        """A request is due."""
        self.waiting.append(due)
        if len(self.waiting) == 1:
            self._target.recorder.lateness.add(max(0.0, now() - due))
            self._send()

    def _send(self) -> None:
        try:
            if self._link is None:
                self._counter = self._target.new_counter()
                self._link = Link(self._target.connect(), self._on_data, self._on_lost)
            self._link.send(self._target.request)
        except OSError as error:
            self._on_lost(error)

    def _on_data(self, data: bytes) -> None:
        count = self._counter.feed(data)
        if count > len(self.waiting):
            raise ResponseError("more responses than requests")
        for _ in range(count):
            self._target.recorder.answered(now() - self.waiting.popleft(), 1, len(data))
            if self.waiting:
                self._send()

    def _on_lost(self, error: Exception) -> None:
        self.close()
        for _ in self.waiting:
            self._target.recorder.failed(str(error))
        self.waiting.clear()

    def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None


class ClientUser(FastHttpUser):
    """locust's own fast client: what a real HTTP client does, cookies and all."""

    target: ClassVar[Target]
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """One request."""
        self.client.get(self.target.path)


KINDS: dict[str, Any] = {
    "request": RequestUser,
    "http2": HTTP2User,
    "idle": IdleUser,
    "reconnect": ReconnectUser,
    "websocket": WebSocketUser,
    "rated": RatedUser,
    "client": ClientUser,
}
