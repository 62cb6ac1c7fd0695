"""Whose turn it is to send on an HTTP/2 connection (RFC 9218)."""

from typing import Any

import pytest
from http2peer import MAX_WINDOW, FrameType, HTTP2Peer, Setting, priority_update
from http2served import peer_of
from wire import in_loop

FRAME = 16375  # bytes of DATA that the server puts into one frame
SIZE = 4 * FRAME
WINDOW = 65535


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(int(scope["query_string"] or SIZE))})


class Turns:
    """Responses that all wait for the connection's window, which the test then gives in steps."""

    def __init__(self, peer: HTTP2Peer) -> None:
        self.peer = peer
        peer.returns_credit = False

    async def use_up_the_window(self) -> None:
        """Have a response, which is not looked at, take all of the window."""
        await self.peer.begin("GET", f"/?{WINDOW}", "priority: u=7, i", end_stream=True)
        await self.peer.until(lambda: self.peer.window == 0, "the end of the window")

    async def order(self) -> list[int]:
        """The streams of the DATA that comes, frame by frame, once all responses wait."""
        await self.peer.settle()
        before = len(self.peer.frames)
        await self.peer.credit(0, 100 * FRAME)
        streams = [n for n in self.peer.responses if n != 1]
        for stream in streams:
            await self.peer.response(stream)
        frames = self.peer.frames[before:]
        return [f.stream for f in frames if f.type == FrameType.DATA and f.payload and f.stream != 1]


async def asked(peer: HTTP2Peer, *priorities: str) -> list[int]:
    """The streams of requests with these priority fields; an empty one: without the field."""
    return [
        await peer.begin("GET", "/", *([f"priority: {value}"] if value else []), end_stream=True)
        for value in priorities
    ]


NO_PROXY = {"forwarded_allow_ips": ""}  # else the peer, whose address is trusted, counts as one
OPEN = (Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW)


@in_loop
async def test_urgent_responses_come_first() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        late, usual, soon = await asked(peer, "u=6", "", "u=0")
        assert await turns.order() == [soon] * 4 + [usual] * 4 + [late] * 4


@in_loop
async def test_responses_that_are_not_incremental_come_one_after_the_other() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        first, second = await asked(peer, "", "")
        assert await turns.order() == [first] * 4 + [second] * 4


@in_loop
async def test_incremental_responses_share() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        first, second = await asked(peer, "i", "i")
        assert await turns.order() == [first, second] * 4


@in_loop
async def test_the_two_kinds_alternate() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        alone, shared, shares = await asked(peer, "", "i", "i")
        order = await turns.order()
        assert order[:8] in (
            [alone, shared, alone, shares, alone, shared, alone, shares],
            [shared, alone, shares, alone, shared, alone, shares, alone],
        )


@pytest.mark.parametrize("field", ["", "via: 1.1 proxy", "x-forwarded-for: 192.0.2.1"])
@in_loop
async def test_clients_that_say_nothing_and_those_of_proxies_share(field: str) -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        lines = [field] if field else []
        if field:  # so does a client that has said something, if a proxy has sent it
            await turns.use_up_the_window()
        else:
            await peer.begin("GET", f"/?{WINDOW}", end_stream=True)
            await peer.until(lambda: peer.window == 0, "the end of the window")
        streams = [await peer.begin("GET", "/", *lines, end_stream=True) for _ in range(2)]
        assert await turns.order() == streams * 4


@in_loop
async def test_a_trusted_proxy_is_one() -> None:
    async with peer_of(app, OPEN, forwarded_allow_ips="127.0.0.1") as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        first, second = await asked(peer, "", "")
        assert await turns.order() == [first, second] * 4


@in_loop
async def test_an_update_changes_a_stream_that_waits() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        first, second = await asked(peer, "u=1", "u=2")
        await peer.write(priority_update(second, b"u=0"))
        assert await turns.order() == [second] * 4 + [first] * 4


@in_loop
async def test_an_update_may_come_before_its_stream() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        await peer.write(priority_update(5, b"u=0"))
        first, second = await asked(peer, "u=1", "")
        assert second == 5
        assert await turns.order() == [second] * 4 + [first] * 4


@in_loop
async def test_what_is_malformed_counts_for_nothing() -> None:
    async with peer_of(app, OPEN, **NO_PROXY) as (_, peer):
        turns = Turns(peer)
        await turns.use_up_the_window()
        odd, usual, soon = await asked(peer, "u=9, i=1,,", "u=4", "u=2")
        assert await turns.order() == [soon] * 4 + [odd] * 4 + [usual] * 4


@in_loop
async def test_a_stream_whose_window_is_shut_holds_nobody_up() -> None:
    async with peer_of(app, (Setting.INITIAL_WINDOW_SIZE, 0)) as (_, peer):
        Turns(peer)
        urgent, other = await asked(peer, "u=0", "u=7")
        await peer.credit(other, SIZE)
        assert (await peer.response(other)).length == SIZE
        assert peer.of(urgent).length == 0
        await peer.credit(0, WINDOW)
        await peer.credit(urgent, SIZE)
        assert (await peer.response(urgent)).length == SIZE
