"""Whole HTTP/1 connections: what the applications see of them, and what the clients get."""

from random import Random
from typing import Any

from fuzz.connections import STEADY, Client, Connections, Server
from fuzz.http1_invariants import (
    check_conversation,
    check_whole,
    describe,
    described_call,
    last_request,
    whole_requests,
)
from fuzz.http1_model import Stream, read_messages, read_stream
from fuzz.http1_responses import read_responses
from fuzz.http_applications import Call

VARIANTS: list[dict[str, Any]] = [
    {},
    {},
    {"http": "httptools"},
    {"limit_request_line": 100, "limit_request_head": 300, "limit_request_fields": 6},
    {"limit_request_line": 1000, "limit_request_head": 100, "header_underscores": "refuse"},
    {"limit_request_body": 900, "header_underscores": "drop"},
    {"timeout_keep_alive": 0.0, "root_path": "/root"},
    {"limit_concurrency": 2},
]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HTTP1Connections(Connections):
    """Runs cases of HTTP/1."""

    variants = VARIANTS

    def check_steady(self, rng: Random, data: bytes, parts: list[bytes]) -> None:
        """The applications see just the requests in the data, and nothing depends on how it is split."""
        loop = self._loops[rng.random() < 0.3]
        server = self._server(rng, loop)
        seed = rng.getrandbits(32)
        outcomes = []
        for pieces in ([data], parts):
            server.stage.reset(Random(seed), STEADY)
            waits = rng.random() < 0.5
            outcomes.append(loop.run_until_complete(self._run_steady(server, pieces, waits)))
        stream = whole_requests(data, server.settings)
        last = last_request(server.stage.calls, server.settings)
        if last < len(stream.requests):
            stream = Stream(stream.requests[: last + 1], set())
        expected = [describe(request, server.settings) for request in stream.requests]
        methods = [request.method for request in stream.requests]
        for calls, output, _ in outcomes:
            assert [described_call(call) for call in calls] == expected
            for call, request in zip(calls, stream.requests, strict=True):
                assert call.heard == (read_messages(request.frames) if call.is_open else [])
            responses = read_responses(output, [*methods, stream.refused_method], True)
            assert all(response.is_whole for response in responses)
            statuses = {response.status for response in responses[len(methods) :]}
            assert len(responses) == len(methods) + bool(stream.refusals)
            assert statuses <= stream.refusals
        if len(stream.refusals) < 2:
            assert outcomes[0][1:] == outcomes[1][1:]

    async def _run_steady(
        self, server: Server, parts: list[bytes], waits: bool
    ) -> tuple[list[Call], bytes, bool]:
        """The calls that have seen a whole request; what the client got; whether that had an end.

        The first part waits on the socket when the connection is accepted, or not.
        """
        client = await self._connect(server, 0, parts, None, waits)
        await self._feed_all(client)
        await self._settle(server, [client])
        has_ended = client.peer.has_ended
        await self._end(server, [client], resets=False)
        calls = [call for call in server.stage.calls if call.has_whole_body]
        return calls, bytes(client.peer.output).replace(CONTINUE, b""), has_ended

    def check_client(self, server: Server, client: Client) -> None:
        calls = [call for call in server.stage.calls if call.scope["client"][1] == client.port]
        sent, got = bytes(client.sent), bytes(client.peer.output)
        responses = check_conversation(sent, calls, got, server.settings, client.was_reset)
        if not client.is_disturbed and not client.was_reset:
            check_whole(responses, calls, read_stream(sent, server.settings).requests)
