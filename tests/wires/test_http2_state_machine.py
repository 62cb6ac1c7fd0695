"""Any conversation of a client and applications over one HTTP/2 connection ends well.

The client is h2, which fails where the server breaks RFC 9113: a frame beyond a window, something behind
END_STREAM, a header block that cannot be decoded. The applications obey the test, call by call.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h2.stream
from fuzz.socket_peer import SocketPeer
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from h2.windows import WindowManager
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from watchedsinks import WatchedAcceptor
from wire import loop_factory

from fastasgi import Config
from fastasgi.core.contracts import WorkerContext
from fastasgi.wires.opening import Opening

STREAMS = 8  # http2_max_concurrent_streams
RESETS = 2 * STREAMS - 4  # of streams, by either side; a connection on which there are many more is ended
STREAM_WINDOW = 65_536  # http2_initial_stream_window_size
CONNECTION_WINDOW = 131_072  # http2_initial_connection_window_size
QUEUE_HIGH = 65_536  # bytes of a response that wait for a window, beyond which `send` waits
QUEUE_LOW = 16_384  # up to which it waits then
LARGE_WINDOW = 2**22
QUIET_TURNS = 6  # of the event loop, in which nothing happens
MAX_TURNS = 10_000
PATTERN = bytes(range(251)) * 1400  # no power of two: bytes that have moved are seen

NUMBERS = st.integers(0, 99)  # tells which one is picked
LENGTHS = st.sampled_from([0, 1, 100, 16_384, 16_385, 70_000, 300_000])

Command = Callable[[], Awaitable[None]]


def piece(offset: int, length: int) -> bytes:
    """A piece of a body."""
    start = offset % 251
    return PATTERN[start : start + length]


@dataclass
class Exchange:
    """A request and its response: what the test has both sides do, and what comes of it."""

    # The client
    sent: int = 0  # bytes of the request's body
    request_has_ended: bool = False
    was_reset: bool = False  # by the client, or by the server when it has answered
    is_refused: bool = False
    heads: int = 0
    got: int = 0  # bytes of the response's body
    trailers: int = 0
    ends: int = 0
    # The application, which obeys one command after the other, up to None
    commands: asyncio.Queue[Command | None] = field(default_factory=asyncio.Queue)
    receive: Callable[[], Awaitable[dict[str, Any]]] | None = None  # None: it has not been called
    send: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    has_returned: bool = False
    is_receiving: bool = False
    is_sending: bool = False
    received: int = 0
    has_whole_body: bool = False
    is_disconnected: bool = False
    given: int = 0  # bytes of the response's body that it has passed to `send`
    has_given_all: bool = False
    told: int = 0  # bytes of it in commands, up to now
    wants_trailers: bool = False
    has_begun: bool = False  # the response, or will by a command
    is_last: bool = False  # no further command comes

    @property
    def is_over(self) -> bool:
        """Neither side has anything to do any more on the stream."""
        return self.was_reset or self.is_refused or (self.request_has_ended and self.ends == 1)

    @property
    def occupies_server(self) -> bool:
        return not self.is_over or (self.receive is not None and not self.has_returned)

    async def hear(self) -> None:
        """Receive the next piece of the request's body."""
        if self.has_whole_body or self.is_disconnected:
            return
        self.is_receiving = True
        message = await self.receive()
        self.is_receiving = False
        if message["type"] == "http.disconnect":
            self.is_disconnected = True
            return
        assert message["body"] == piece(self.received, len(message["body"]))
        self.received += len(message["body"])
        self.has_whole_body = not message["more_body"]

    async def say(self, messages: list[dict[str, Any]]) -> None:
        """Send these. The body of the one that has one is `given` then."""
        self.is_sending = True
        with contextlib.suppress(OSError):
            for message in messages:
                self.given += len(message.get("body", b""))
                self.has_given_all |= not message.get("more_body", True)
                await self.send(message)
        self.is_sending = False


class Windows(WindowManager):
    """Takes an empty frame while a window is below 0: RFC 9113 section 6.9.1 allows it, and h2 does not."""

    def window_consumed(self, size: int) -> None:
        if size:
            super().window_consumed(size)


h2.stream.WindowManager = Windows  # type: ignore[misc]


class Conversation(RuleBasedStateMachine):
    """One connection: its client, its applications, and what must hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: dict[int, Exchange] = {}
        self.problems: list[Any] = []
        self.pings = 0
        self.pongs = 0
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        self.unsent = b""
        self.loop = loop_factory("auto")()
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        config = Config(
            self._app,
            log_config=None,
            http2_max_concurrent_streams=STREAMS,
            http2_initial_stream_window_size=STREAM_WINDOW,
            http2_initial_connection_window_size=CONNECTION_WINDOW,
        )
        config.load()
        self.context = WorkerContext(
            self.loop,
            self._app,
            config,
            state={},
            logger=logging.getLogger("fastasgi.error"),
            access_log=None,
        )
        self.context.opener = Opening(self.context, config)
        self.acceptor = WatchedAcceptor(self.context, None)
        self.peer = SocketPeer(None)
        self.loop.call_soon(self.peer.open, self.acceptor, 0)
        self.run()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = self.exchanges[int(scope["path"][1:])]
        exchange.receive, exchange.send = receive, send
        try:
            while (command := await exchange.commands.get()) is not None:
                await command()
        except Exception as error:
            self.problems.append(error)
        finally:
            exchange.has_returned = True

    def run(self) -> None:
        """Exchange bytes, and let the loop run until nothing more happens."""
        self.loop.run_until_complete(self._settle())
        assert self.problems == []

    async def _settle(self) -> None:
        quiet = 0
        before: Any = None
        for _ in range(MAX_TURNS):
            self.unsent = self.peer.feed(self.unsent + self.client.data_to_send())
            await asyncio.sleep(0)
            self.peer.poll()
            output, self.peer.output = bytes(self.peer.output), bytearray()
            for event in self.client.receive_data(output) if output else ():
                self._take(event)
            now = (self.peer.read_bytes, [(one.received, one.given) for one in self.exchanges.values()])
            quiet = 0 if output or self.unsent or now != before else quiet + 1
            if quiet > QUIET_TURNS:
                return
            before = now
        raise AssertionError("the server does not come to rest")

    def _take(self, event: events.Event) -> None:
        """Note what has come from the server."""
        match event:
            case events.ResponseReceived():
                assert dict(event.headers)[b":status"] == b"200"
                self.exchanges[event.stream_id].heads += 1
            case events.DataReceived():
                exchange = self.exchanges[event.stream_id]
                assert event.data == piece(exchange.got, len(event.data))
                exchange.got += len(event.data)
            case events.TrailersReceived():
                assert event.headers == [(b"x-trailer", b"1")]
                self.exchanges[event.stream_id].trailers += 1
            case events.StreamEnded():
                self.exchanges[event.stream_id].ends += 1
            case events.StreamReset():
                self._take_reset(self.exchanges[event.stream_id], event.error_code)
            case events.PingAckReceived():
                assert event.ping_data == b"%8d" % self.pongs
                self.pongs += 1
            case events.ConnectionTerminated():
                raise AssertionError(f"GOAWAY with code {event.error_code}")

    def _take_reset(self, exchange: Exchange, code: int) -> None:
        if code == ErrorCodes.REFUSED_STREAM:
            assert not exchange.heads
            exchange.is_refused = True
        else:
            # RFC 9113 section 8.1: the response is whole, and the rest of the request is not wanted
            assert (code, exchange.ends) == (ErrorCodes.NO_ERROR, 1)
            exchange.was_reset = True

    def pick(self, which: int, condition: Callable[[Exchange], bool]) -> list[tuple[int, Exchange]]:
        """One of the exchanges for which the condition holds, if there is any."""
        found = [pair for pair in self.exchanges.items() if condition(pair[1])]
        return [found[which % len(found)]] if found else []

    @property
    def resets_left(self) -> int:
        return RESETS - sum(one.was_reset or one.is_refused for one in self.exchanges.values())

    # --- What the client does ---

    @precondition(lambda self: self.resets_left > 0)
    @rule(ends=st.booleans(), count=st.integers(1, 3))
    def ask(self, ends: bool, count: int) -> None:
        """Begin requests. They are refused while so many calls run."""
        free = STREAMS - sum(one.occupies_server for one in self.exchanges.values())
        count = min(count, STREAMS - self.client.open_outbound_streams)
        asked = []
        for _ in range(count):
            number = self.client.get_next_available_stream_id()
            path = (":path", f"/{number}")
            self.client.send_headers(
                number, [(":method", "POST"), (":scheme", "http"), (":authority", "x"), path], end_stream=ends
            )
            self.exchanges[number] = Exchange(request_has_ended=ends)
            asked.append(self.exchanges[number])
        self.run()
        assert [one.is_refused for one in asked] == [i >= free for i in range(count)]
        assert [one.receive is None for one in asked] == [i >= free for i in range(count)]

    @rule(
        which=NUMBERS,
        length=st.integers(0, 70_000),
        padding=st.sampled_from([None, 0, 200]),
        end=st.sampled_from(["", "", "END_STREAM", "trailers"]),
    )
    def send_body(self, which: int, length: int, padding: int | None, end: str) -> None:
        """Send so much of a request's body, as far as the windows allow, and maybe its end."""
        for number, exchange in self.pick(which, lambda one: not (one.is_over or one.request_has_ended)):
            while length:
                room = min(self.client.max_outbound_frame_size, self.client.local_flow_control_window(number))
                size = min(length, room - (0 if padding is None else 1 + padding))
                if size <= 0:
                    break
                self.client.send_data(number, piece(exchange.sent, size), pad_length=padding)
                exchange.sent += size
                length -= size
            if end == "trailers":
                self.client.send_headers(number, [("x-trailer", "1")], end_stream=True)
            elif end:
                self.client.end_stream(number)
            exchange.request_has_ended = bool(end)
        self.run()

    @rule(which=NUMBERS, increment=st.integers(1, 200_000))
    def give_window(self, which: int, increment: int) -> None:
        """Give window for a response."""
        for number, _ in self.pick(which, lambda one: not (one.is_over or one.ends)):
            self.client.increment_flow_control_window(increment, number)
            self.client.increment_flow_control_window(increment)
        self.run()

    @rule(size=st.sampled_from([0, 1, 1000, 65_535, 200_000]))
    def set_window(self, size: int) -> None:
        """Change the window that streams begin with, and so that of all streams."""
        self.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        self.run()

    @rule()
    def ping(self) -> None:
        """Ask for an answer."""
        self.client.ping(b"%8d" % self.pings)
        self.pings += 1
        self.run()

    @precondition(lambda self: self.resets_left > 0)
    @rule(which=NUMBERS)
    def reset(self, which: int) -> None:
        """Give a request up, or its response."""
        for number, exchange in self.pick(which, lambda one: not one.is_over):
            self.client.reset_stream(number, ErrorCodes.CANCEL)
            exchange.was_reset = True
        self.run()

    # --- What the applications do ---

    @rule(which=NUMBERS)
    def hear(self, which: int) -> None:
        """Receive a message."""
        for _, exchange in self.pick(which, lambda one: not one.is_last and not one.is_refused):
            exchange.commands.put_nowait(exchange.hear)
        self.run()

    @rule(which=NUMBERS, length=LENGTHS, ends=st.booleans(), wants_trailers=st.booleans())
    def answer(self, which: int, length: int, ends: bool, wants_trailers: bool) -> None:
        """Send a piece of a response, and what has to stand before and behind it."""
        for _, exchange in self.pick(which, lambda one: not one.is_last and not one.is_refused):
            self.tell(exchange, length, ends, wants_trailers)
        self.run()

    def tell(self, exchange: Exchange, length: int, ends: bool, wants_trailers: bool) -> None:
        """Have the application send so much, and return behind the end."""
        messages: list[dict[str, Any]] = []
        if not exchange.has_begun:
            exchange.has_begun, exchange.wants_trailers = True, wants_trailers
            messages.append({"type": "http.response.start", "status": 200, "trailers": wants_trailers})
        body = piece(exchange.told, length)
        exchange.told += length
        messages.append({"type": "http.response.body", "body": body, "more_body": not ends})
        if ends and exchange.wants_trailers:
            messages.append({"type": "http.response.trailers", "headers": [(b"x-trailer", b"1")]})
        exchange.commands.put_nowait(functools.partial(exchange.say, messages))
        if ends:
            self.dismiss(exchange)

    def dismiss(self, exchange: Exchange) -> None:
        """Have the application return, when it has obeyed all commands before."""
        exchange.is_last = True
        exchange.commands.put_nowait(None)

    @rule(which=NUMBERS)
    def leave(self, which: int) -> None:
        """Let an application return whose client has given up."""
        for _, exchange in self.pick(which, lambda one: one.was_reset and not one.is_last):
            self.dismiss(exchange)
        self.run()

    # --- What holds whenever nothing more happens ---

    @invariant()
    def each_response_has_one_head_and_one_end(self) -> None:
        for exchange in self.exchanges.values():
            assert exchange.heads <= 1
            assert exchange.ends <= exchange.heads
            if exchange.ends:
                assert exchange.got == exchange.given == exchange.told
                assert exchange.is_last
                assert exchange.trailers == exchange.wants_trailers

    @invariant()
    def a_response_waits_only_for_its_window(self) -> None:
        for number, exchange in self.exchanges.items():
            if exchange.is_over or exchange.ends:
                continue
            waiting = exchange.given - exchange.got
            assert waiting == 0 or self.client.remote_flow_control_window(number) <= 0
            assert waiting or not exchange.has_returned
            assert waiting <= QUEUE_HIGH or exchange.is_sending or exchange.has_given_all
            assert waiting > QUEUE_LOW or not exchange.is_sending

    @invariant()
    def an_application_waits_only_for_what_has_not_been_sent(self) -> None:
        for exchange in self.exchanges.values():
            if exchange.is_receiving and not exchange.is_over:
                assert exchange.received == exchange.sent
                assert not exchange.request_has_ended
            assert not (exchange.is_receiving and exchange.was_reset)

    @invariant()
    def a_body_that_is_received_gets_window(self) -> None:
        kept = sum(
            one.sent - one.received
            for one in self.exchanges.values()
            if not (one.is_over or one.has_returned)
        )
        for number, exchange in self.exchanges.items():
            if exchange.is_over or exchange.request_has_ended:
                continue
            if exchange.received == exchange.sent or exchange.has_returned:
                least = min(STREAM_WINDOW // 2, CONNECTION_WINDOW // 2 - kept)
                assert self.client.local_flow_control_window(number) >= least

    @invariant()
    def each_ping_is_answered(self) -> None:
        assert self.pongs == self.pings

    # --- The end ---

    def teardown(self) -> None:
        """Let all exchanges end, and the client leave."""
        try:
            for number, exchange in self.exchanges.items():
                if not exchange.is_over and not exchange.request_has_ended:
                    self.client.end_stream(number)
                    exchange.request_has_ended = True
            self.run()
            for number in self.exchanges:
                self._finish(number)
            for exchange in self.exchanges.values():
                assert exchange.is_over
                assert exchange.receive is None or exchange.has_returned
            assert self.context.registry.exchange_count == 0
            assert self.context.registry.connection_count == 1
            self.loop.call_soon(self.peer.feed_eof)
            self.run()
            assert self.peer.has_ended
            assert self.context.registry.connection_count == 0
        finally:
            self.acceptor.close()
            self.loop.close()

    def _finish(self, number: int) -> None:
        """Have the application of an exchange end its response, and give all windows that this takes."""
        exchange = self.exchanges[number]
        if exchange.is_refused:
            return
        if not exchange.is_last:
            self.tell(exchange, 0, ends=True, wants_trailers=False)
        self.run()
        while not exchange.is_over:
            got = exchange.got
            self.client.increment_flow_control_window(LARGE_WINDOW, number)
            self.client.increment_flow_control_window(LARGE_WINDOW)
            self.run()
            assert exchange.is_over or exchange.got > got


TestConversation = Conversation.TestCase
# Shrinking an example would take minutes: each runs a server
TestConversation.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
