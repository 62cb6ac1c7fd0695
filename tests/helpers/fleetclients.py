"""Clients of a fleet, which look closely: see fleet.

Each request is checked by its status and all of its body, and none is sent a second time. Connections are
kept: the next request goes on the same one, unless its end has been announced or has come.
"""

import asyncio
import collections
import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h11
import websockets.asyncio.client
from certificates import Authority
from fleet import ADDRESSES, CLIENTS, NAME, PROXY
from http2peer import ErrorCode, HTTP2Peer, http2_context
from netns import Network
from serving import WAIT_S, wait_until
from websockets.exceptions import ConnectionClosed, WebSocketException

PACE_S = 0.03  # between two requests of one client
ANSWER_S = 60  # for an answer at last; the proxies give up before
PIECE = 16384

# What a client sends, one after the other: a method, and how many bytes with it
ALL_METHODS = (
    ("GET", 0),
    ("POST", 40),
    ("PUT", 70_000),
    ("DELETE", 0),
    ("HEAD", 0),
    ("PATCH", 3_000),
    ("OPTIONS", 0),
    ("POST", 250_000),
)
GET_ALONE = (("GET", 0),)
SLOW_METHODS = (("POST", 40), ("GET", 0), ("POST", 40), ("PUT", 70_000))
Methods = Sequence[tuple[str, int]]


HTTP1, SLOW, HTTP2, LOCUST = "HTTP/1.1", "HTTP/1.1, slow", "HTTP/2", "locust"  # kinds of requests
WEBSOCKET, EVENTS = "WebSocket", "events"  # what else there is
UNSERVED = "not served, says HTTP/2"
STUCK = "begun, but not ended after GOAWAY"
CLOSED = "closed before the response"


class FailureError(Exception):
    """What has gone wrong with a request."""


class UnservedError(Exception):
    """HTTP/2's GOAWAY says that a request has not been looked at (RFC 9113 section 6.8)."""


@dataclass
class Asked:
    """A request, and what has come of it."""

    kind: str
    id: str
    method: str
    began_at: float
    ended_at: float = 0.0
    node: str = ""
    failure: str = ""
    was_kept: bool = False  # whether its connection had had a request before

    @property
    def took_s(self) -> float:
        return self.ended_at - self.began_at


class Tally:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: collections.Counter[tuple[str, str]] = collections.Counter()  # by kind and node
        self.closed: collections.Counter[str] = (
            collections.Counter()
        )  # WebSockets, by code or what else it was
        self.reconnected = 0  # WebSockets that have had an answer after that
        self.websockets: dict[object, str] = {}  # the node to which each leads, or led last
        self.messages = 0
        self.streams_ended = 0  # streams of events, in good order
        self.events = 0
        self.broken: list[str] = []  # streams of events that broke off, and handshakes that failed
        self.gaps: collections.defaultdict[str, float] = collections.defaultdict(float)  # longest, by kind

    @property
    def failed(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.failure]

    def note(self, asked: Asked) -> None:
        """A request is over."""
        if not asked.failure:
            self._answers[asked.kind, asked.node] += 1

    def answered(self, kind: str, node: str = "") -> int:
        """How many requests of a kind have been answered, by this node."""
        return sum(count for key, count in self._answers.copy().items() if key in ((kind, node or key[1]),))

    def slowest_s(self) -> float:
        return max((asked.took_s for asked in self.asked if not asked.failure), default=0.0)


class Clients:
    """Runs clients of all kinds, in a thread on a machine of their own, until it is stopped."""

    def __init__(
        self,
        network: Network,
        authority: Authority,
        methods: Methods = ALL_METHODS,
        *,
        uploads_by_http2: bool = True,
        scale: int = 1,
    ) -> None:
        self.tally = Tally()
        self._http2_methods = [pair for pair in methods if uploads_by_http2 or not pair[1]]
        self._network, self._methods = network, methods
        self._slow_methods = SLOW_METHODS if methods == ALL_METHODS else methods
        self._tls = authority.client()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._http2 = http2_context(authority)
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex()
        self._bodies = {size: os.urandom(size) for _, size in methods}
        self._digests = {size: hashlib.sha256(body).hexdigest() for size, body in self._bodies.items()}
        self._scale = scale
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let what is under way end, and return then."""
        self._stopped.set()
        self._thread.join(ANSWER_S + WAIT_S)
        assert not self._thread.is_alive(), "a client hangs"
        if self._error is not None:
            raise self._error

    def wait_for_answers(self, count: int = 40, node: str = "") -> None:
        """Wait until so many more answers of each kind of request have come, and some messages and events."""
        tally = self.tally
        kinds = (HTTP1, HTTP2)
        wanted = {kind: tally.answered(kind, node) + count for kind in kinds}
        messages, events = tally.messages + 5, tally.events + 5

        def have_come() -> bool:
            assert self._error is None, repr(self._error)
            return (
                all(tally.answered(kind, node) >= wanted[kind] for kind in kinds)
                and tally.messages >= messages
                and tally.events >= events
            )

        wait_until(have_come, lambda: f"{count} answers more: {[x.failure for x in tally.failed][-5:]}")

    def _run(self) -> None:
        try:
            self._network.enter(CLIENTS)
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error

    async def _serve(self) -> None:
        n = self._scale
        async with asyncio.TaskGroup() as group:
            for number in range(3 * n):
                group.create_task(self._ask_http1(HTTP1, self._methods, number))
                group.create_task(self._ask_http1(SLOW, self._slow_methods, number, wait_s=0.4))
                group.create_task(self._converse(of_messages=20))
                group.create_task(self._converse())
            for _ in range(2 * n):
                group.create_task(self._follow_events())
            for _ in range(n):
                group.create_task(self._ask_http2())

    # Requests

    def _begin(self, kind: str, method: str) -> Asked:
        asked = Asked(kind, f"{self._prefix}-{next(self._numbers)}", method, time.monotonic())
        self.tally.asked.append(asked)
        return asked

    def _check(self, asked: Asked, size: int, status: int, told: bytes) -> None:
        """Check an answer. `told` is its body, or the header of the same contents."""
        if status != 200:
            raise FailureError(str(status))
        found = json.loads(told)
        asked.node = found.pop("node")
        expected = {
            "id": asked.id,
            "method": asked.method,
            "path": "/echo",
            "size": size,
            "digest": self._digests[size],
            "client": ADDRESSES[CLIENTS],
        }
        if found != expected:
            raise FailureError(f"{found} instead of {expected}")

    @contextlib.asynccontextmanager
    async def _noted(self, asked: Asked) -> AsyncIterator[None]:
        """Note how a request ends."""
        try:
            async with asyncio.timeout(ANSWER_S):
                yield
        except UnservedError:
            asked.failure = UNSERVED
        except (OSError, EOFError, FailureError, h11.ProtocolError, AssertionError, ValueError) as error:
            asked.failure = f"{error}"[:300] or type(error).__name__
        finally:
            asked.ended_at = time.monotonic()
            self.tally.note(asked)

    async def _ask_http1(self, kind: str, methods: Methods, first: int, wait_s: float = 0) -> None:
        connection: Http1 | None = None
        for method, size in itertools.islice(itertools.cycle(methods), first, None):
            if self._stopped.is_set():
                break
            if connection is not None and connection.is_over:
                await connection.close()
                connection = None
            asked = self._begin(kind, method)
            async with self._noted(asked):
                if connection is None:
                    connection = await Http1.connect(self._tls)
                else:
                    asked.was_kept = True
                status, told = await connection.ask(asked, self._bodies[size], wait_s)
                self._check(asked, size, status, told)
            if asked.failure and connection is not None:
                await connection.close()
                connection = None
            await asyncio.sleep(PACE_S)
        if connection is not None:
            await connection.close()

    async def _ask_http2(self) -> None:
        """One connection with several requests at a time, and a stream of events, until a GOAWAY."""
        while not self._stopped.is_set():
            try:
                async with asyncio.timeout(WAIT_S):
                    peer = HTTP2Peer(*await _connect(self._http2))
                    await peer.open()
            except (OSError, AssertionError) as error:
                is_closed = "the connection ended" in str(error)
                self._begin(HTTP2, "connect").failure = CLOSED if is_closed else repr(error)
                await asyncio.sleep(PACE_S)
                continue
            following = asyncio.ensure_future(_read_all(peer))
            try:
                asking = [self._ask_on(peer, number) for number in range(3)]
                await asyncio.gather(*asking, self._follow_events_on(peer))
            finally:
                peer.close()
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, AssertionError):
                    await following

    async def _ask_on(self, peer: HTTP2Peer, number: int) -> None:
        for method, size in itertools.islice(itertools.cycle(self._http2_methods), number, None):
            if self._stopped.is_set() or peer.goaways or peer.end:
                return
            asked = self._begin(HTTP2, method)
            asked.was_kept = peer.next_stream > 1
            async with self._noted(asked):
                fields = [f"x-id: {asked.id}"] + ([f"content-length: {size}"] if size else [])
                stream = await peer.begin(method, "/echo", *fields, end_stream=not size)
                try:
                    if size:
                        await peer.send(stream, self._bodies[size], end_stream=True)
                    response = await peer.response(stream)
                except (OSError, AssertionError):  # the end of the connection, see HTTP2Peer.until
                    response = peer.of(stream)
                if not response.is_whole:
                    refused = response.reset == ErrorCode.REFUSED_STREAM  # RFC 9113 section 8.7
                    if refused or (peer.goaways and stream > peer.goaways[-1].last_stream):
                        raise UnservedError
                    if response.reset is not None:
                        raise FailureError(f"reset with {response.reset}")
                    raise FailureError(CLOSED if peer.end else STUCK if peer.goaways else str(peer))
                told = response[b"x-told"] if response.status == 200 else b""
                if response.status == 200 and method != "HEAD" and told != response.body:
                    raise FailureError("another body")
                self._check(asked, size, response.status, told)
            await asyncio.sleep(PACE_S)

    # WebSockets

    async def _converse(self, of_messages: int = 0) -> None:
        """Send messages on a WebSocket, so many, or until it is closed, and then on another one."""
        seen_at, is_lost, key = 0.0, False, object()
        while not self._stopped.is_set():
            try:
                async with websockets.asyncio.client.connect(
                    f"wss://{NAME}/chat",
                    host=ADDRESSES[PROXY],
                    ssl=self._tls,
                    proxy=None,
                    open_timeout=ANSWER_S,
                    close_timeout=1,
                ) as websocket:
                    for number in itertools.count():
                        if self._stopped.is_set():
                            return
                        if number == of_messages > 0:
                            break
                        await websocket.send(str(number))
                        node, answer = str(await websocket.recv()).split()
                        if answer != str(number):
                            raise FailureError(f"{answer} instead of {number}")
                        self.tally.messages += 1
                        self.tally.websockets[key] = node
                        self._note_gap(WEBSOCKET, seen_at)
                        self.tally.reconnected += is_lost
                        seen_at, is_lost = time.monotonic(), False
                        await asyncio.sleep(PACE_S)
            except ConnectionClosed as error:
                is_lost = True
                self.tally.closed[str(error.rcvd.code if error.rcvd else "no Close frame")] += 1
            except (OSError, FailureError, WebSocketException) as error:
                self.tally.broken.append(f"{WEBSOCKET}: {error!r}")
                await asyncio.sleep(PACE_S)

    def _note_gap(self, kind: str, seen_at: float) -> None:
        """Something has come, and what came before was seen then; 0 for the first."""
        if seen_at:
            self.tally.gaps[kind] = max(self.tally.gaps[kind], time.monotonic() - seen_at)

    # Events

    async def _follow_events(self) -> None:
        """Read a stream of events, and begin another one behind its last event when it has ended."""
        last, seen_at = 0, 0.0
        while not self._stopped.is_set():
            connection: Http1 | None = None
            try:
                connection = await Http1.connect(self._tls)
                async for event in connection.events(last):
                    number = int(event.partition(b"id: ")[2].split()[0])
                    if number != last + 1:
                        raise FailureError(f"event {number} after {last}")
                    last = number
                    self._note_gap(EVENTS, seen_at)
                    seen_at = time.monotonic()
                    self.tally.events += 1
                self.tally.streams_ended += 1
            except (OSError, EOFError, FailureError, h11.ProtocolError) as error:
                self.tally.broken.append(f"{EVENTS}: {type(error).__name__}: {error}")
                await asyncio.sleep(PACE_S)
            if connection is not None:
                await connection.close()

    async def _follow_events_on(self, peer: HTTP2Peer) -> None:
        """The same on a connection of HTTP/2, until a GOAWAY. What has come is looked at as a stream ends."""
        last = 0
        while not (self._stopped.is_set() or peer.goaways or peer.end):
            try:
                stream = await peer.request("GET", "/events", f"last-event-id: {last}")
                response = await peer.response(stream)
            except (OSError, AssertionError):
                response = peer.of(stream)
            if peer.goaways and stream > peer.goaways[-1].last_stream:
                return
            numbers = [int(number) for number in re.findall(rb"id: (\d+)", bytes(response.body))]
            if not response.is_whole or response.status != 200:
                self.tally.broken.append(f"{EVENTS}: status {response.status}, {peer.end}")
            elif numbers != list(range(last + 1, last + 1 + len(numbers))):
                self.tally.broken.append(f"{EVENTS}: {numbers} after {last}")
            else:
                self.tally.streams_ended += 1
            self.tally.events += len(numbers)
            last += len(numbers)


async def _read_all(peer: HTTP2Peer) -> None:
    """Read what comes as soon as it comes, so that a GOAWAY is known at once."""
    await peer.until(lambda: peer.end, "the end", limit_s=None)


async def _connect(context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(ADDRESSES[PROXY], 443, ssl=context, server_hostname=NAME)


class Http1:
    """A kept connection of HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, context: ssl.SSLContext) -> "Http1":
        return cls(*await _connect(context))

    @property
    def is_over(self) -> bool:
        """Whether its end has come, or has been announced."""
        return self._state.our_state is not h11.IDLE or self._reader.at_eof()

    async def ask(self, asked: Asked, body: bytes, wait_s: float) -> tuple[int, bytes]:
        """The status of an answer, and its body, or of HEAD the header that says the same."""
        fields = [("host", NAME), ("x-id", asked.id), ("x-wait", str(wait_s))]
        if body:
            # One of two methods with a body says its length beforehand
            is_chunked = asked.method == "PUT"
            fields.append(
                ("transfer-encoding", "chunked") if is_chunked else ("content-length", str(len(body)))
            )
        await self._send(h11.Request(method=asked.method, target="/echo", headers=fields))
        for start in range(0, len(body), PIECE):
            await self._send(h11.Data(data=body[start : start + PIECE]))
        await self._send(h11.EndOfMessage())
        response = await self._next()
        if not isinstance(response, h11.Response):
            raise FailureError(f"{response!r} instead of a response")
        told = b"".join([piece async for piece in self._body()])
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        header = dict(response.headers).get(b"x-told", b"")
        if response.status_code == 200 and asked.method != "HEAD" and told != header:
            raise FailureError("another body")
        return response.status_code, header

    async def events(self, last: int) -> AsyncIterator[bytes]:
        """The events behind the one of this number, up to the end of the stream, which has to be whole."""
        fields = [("host", NAME), ("accept", "text/event-stream"), ("last-event-id", str(last))]
        await self._send(h11.Request(method="GET", target="/events", headers=fields))
        await self._send(h11.EndOfMessage())
        response = await self._next()
        if not isinstance(response, h11.Response) or response.status_code != 200:
            raise FailureError(repr(response))
        data = b""
        async for piece in self._body():
            data += piece
            *events, data = data.split(b"\n\n")
            for event in events:
                yield event
        if data:
            raise FailureError(f"ends within {data!r}")

    async def _send(self, event: Any) -> None:
        self._writer.write(self._state.send(event) or b"")
        await self._writer.drain()

    async def _next(self) -> Any:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(65536)
            if not data and self._state.their_state is h11.SEND_RESPONSE:
                raise EOFError(CLOSED)
            self._state.receive_data(data)
        return event

    async def _body(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise FailureError(f"{event!r} within a body")

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


# What locust's users do: the same checks as above. geventhttpclient would send a request once more if its
# kept connection has ended; here it may not. A line for each request says what has come of it.
LOCUSTFILE = """
import hashlib, itertools, json, os, time
import geventhttpclient.client
from locust import FastHttpUser, constant, task

geventhttpclient.client._may_retry_after_send_error = lambda method: False
METHODS = json.loads(os.environ["METHODS"])
numbers = itertools.count(1)
told = open(os.environ["TOLD"], "w", buffering=1)

class User(FastHttpUser):
    wait_time = constant(float(os.environ["WAIT"]))
    insecure = True
    max_retries = 0
    network_timeout = connection_timeout = float(os.environ["ANSWER"])

    def on_start(self):
        self.methods = itertools.cycle(METHODS)

    @task
    def ask(self):
        method, size = next(self.methods)
        body = os.urandom(size)
        asked = {"kind": os.environ["KIND"], "id": f"locust-{os.getpid()}-{next(numbers)}", "method": method}
        asked["began_at"] = time.monotonic()
        with self.client.request(
            method, "/echo", data=body, headers={"x-id": asked["id"]}, catch_response=True
        ) as response:
            asked |= self.judge(asked, body, response)
            if asked["failure"]:
                response.failure(asked["failure"])
        asked["ended_at"] = time.monotonic()
        told.write(json.dumps(asked) + "\\n")

    def judge(self, asked, body, response):
        if response.status_code != 200:
            return {"failure": f"{response.status_code} {response.error}"}
        try:
            found = json.loads(response.headers["x-told"])
            content = b"" if asked["method"] == "HEAD" else response.headers["x-told"].encode()
            expected = {"id": asked["id"], "method": asked["method"], "path": "/echo", "size": len(body)}
            expected |= {"digest": hashlib.sha256(body).hexdigest(), "client": os.environ["CLIENT"]}
            node = found.pop("node")
            is_right = found == expected and response.content == content
            return {"node": node, "failure": "" if is_right else f"{found} {response.content!r}"}
        except Exception as error:
            return {"failure": repr(error)}
"""


class Locust:
    """locust's load, on the clients' machine; what its users have seen is added to a tally when it ends."""

    def __init__(
        self, network: Network, folder: Path, tally: Tally, methods: Methods = ALL_METHODS, users: int = 4
    ) -> None:
        (folder / "locustfile.py").write_text(LOCUSTFILE)
        self._tally, self._folder, self._path = tally, folder, folder / "told.json"
        self._path.unlink(missing_ok=True)
        self._log = (folder / "locust.log").open("w")
        self._process = subprocess.Popen(
            network.command(
                CLIENTS,
                *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log"),
                *("-u", str(users), "-r", str(users), "--stop-timeout", str(ANSWER_S)),
                *("--host", f"https://{ADDRESSES[PROXY]}"),
            ),
            cwd=folder,
            env={
                **os.environ,
                "KIND": LOCUST,
                "TOLD": str(self._path),
                "METHODS": json.dumps(methods),
                "WAIT": str(2 * PACE_S),
                "ANSWER": str(ANSWER_S),
                "CLIENT": ADDRESSES[CLIENTS],
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        def has_begun() -> bool:
            assert self._process.poll() is None, (self._folder / "locust.log").read_text()
            return self._path.exists() and bool(self._path.read_text())

        wait_until(has_begun, lambda: (self._folder / "locust.log").read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(2 * ANSWER_S)
        self._log.close()
        for line in self._path.read_text().splitlines():
            self._tally.asked.append(Asked(**json.loads(line)))
            self._tally.note(self._tally.asked[-1])
