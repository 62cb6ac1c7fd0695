"""Whole HTTP/2 connections: what the applications see of them, and what the clients get."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fuzz.connections import COMPLETING, DEFAULTS, REPERTOIRES, STEADY, Client, Connections, Server
from fuzz.http1_invariants import describe, described_call
from fuzz.http2_inputs import Script, split
from fuzz.http_applications import PUSHING, Call
from fuzz.socket_peer import SocketPeer
from http2peer import WINDOW, ErrorCode, FrameType, HTTP2Peer, Response, read_frames

VARIANTS: list[dict[str, Any]] = [
    {},
    {"root_path": "/root", "http2": "only"},
    # Those that refuse requests
    {"limit_request_line": 100, "limit_request_head": 300, "limit_request_fields": 6},
    {"limit_request_body": 900, "header_underscores": "refuse", "http2_max_concurrent_streams": 3},
    {"timeout_keep_alive": 0.0, "header_underscores": "drop"},
    {"limit_concurrency": 2, "http2_initial_stream_window_size": 65_535},
]
PLAIN = 2  # the first of them
COMPLETING_NAMES = {application.__name__ for application in COMPLETING["http"] + PUSHING}
PUSHING_REPERTOIRES = [{**one, "http": one["http"] + PUSHING} for one in REPERTOIRES]


class Answers:
    """In the place of a peer's StreamWriter: what it would send."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data


@dataclass
class HTTP2Client(Client):
    """A client that judges what comes, and answers it behind what it has to send."""

    script: Script = field(default_factory=Script)

    def __post_init__(self) -> None:
        self._answers = Answers()
        self._came = bytearray()
        self._seen_bytes = 0
        self.judge = HTTP2Peer(None, self._answers)  # type: ignore[arg-type]
        self.judge.returns_credit = False
        self._taken: Counter[int] = Counter()
        self.judge.checks_windows = self.script.is_valid
        if self.script.is_valid:
            for values in self.script.settings:
                self.judge.encode_settings(*values.items())
            for stream, increment in self.script.credit.items():
                self.judge.encode_credit(stream, increment)

    def poll(self) -> None:
        super().poll()
        self._came += self.peer.output[self._seen_bytes :]
        self._seen_bytes = len(self.peer.output)
        for frame in read_frames(self._came):
            self.judge.take(frame)
            if frame.type == FrameType.DATA:
                self._taken[frame.stream] += len(frame.payload)
                self._taken[0] += len(frame.payload)
        self._give_credit()
        if self._answers.data and self.peer.can_send:
            self.parts.append(bytes(self._answers.data))
        self._answers.data.clear()

    def _give_credit(self) -> None:
        """Give window where half of it is used up: many small steps would be an attack."""
        for stream, taken in list(self._taken.items()):
            half = (self.judge.initial_window if stream else WINDOW) // 2
            if taken >= half and not (stream and self.judge.of(stream).is_over):
                self._answers.write(self.judge.encode_credit(stream, taken))
                del self._taken[stream]


class HTTP2Connections(Connections):
    """Runs cases of HTTP/2."""

    variants = VARIANTS
    repertoires = PUSHING_REPERTOIRES

    def new_client(self, room: int | None, port: int, parts: list[bytes]) -> HTTP2Client:
        return HTTP2Client(SocketPeer(room), port, parts, script=self._scripts[port])

    def check_steady(self, rng: Random, script: Script) -> None:
        """The applications see just the requests of the script, and nothing depends on how it is split."""
        loop = self._loops[rng.random() < 0.3]
        server = self._server(rng, loop, PLAIN)
        seed = rng.getrandbits(32)
        outcomes = []
        for parts in ([script.data], split(rng, script.frames)):
            server.stage.reset(Random(seed), STEADY)
            self._scripts = [script]
            waits = rng.random() < 0.5
            outcomes.append(loop.run_until_complete(self._run_steady(server, parts, waits)))
        expected = [describe(request, server.settings) for request in script.requests.values()]
        for calls, responses in outcomes:
            assert [described_call(call) for call in calls] == expected
            assert list(responses) == list(script.requests)
            assert all(response.is_whole and response.reset is None for response in responses.values())
        assert outcomes[0][1] == outcomes[1][1]

    async def _run_steady(
        self, server: Server, parts: list[bytes], waits: bool
    ) -> tuple[list[Call], dict[int, Response]]:
        """The calls; what the client got on each stream.

        The first part waits on the socket when the connection is accepted, or not.
        """
        client = await self._connect(server, 0, parts, None, waits)
        await self._feed_all(client)
        await self._settle(server, [client])
        leaves = client.script.leaves
        assert [one.code for one in client.judge.goaways] == [ErrorCode.NO_ERROR] * leaves
        assert client.peer.has_ended == leaves
        await self._end(server, [client], resets=False)
        responses = dict(sorted(client.judge.responses.items()))
        for response in responses.values():
            # Whether a body is asked for depends on what of it has come
            response.informational.clear()
        return server.stage.calls, responses

    def check_scripts(self, rng: Random, scripts: Sequence[Script]) -> None:
        """Whatever clients, applications and a shutdown do, each client gets responses or a close."""
        self._scripts = list(scripts)
        self.check_chaos(rng, [split(rng, script.frames) for script in scripts])

    def check_client(self, server: Server, client: Client) -> None:
        assert isinstance(client, HTTP2Client)
        script, judge = client.script, client.judge
        calls = [call for call in server.stage.calls if call.scope["client"][1] == client.port]
        if not script.is_valid:
            return
        called = {}
        for call in calls:
            if call.scope["path"].endswith("/pushed"):
                continue
            number = dict(call.scope["headers"])[b"n"]
            request = script.requests[int(number)]
            assert int(number) not in called, "a request that was seen twice"
            called[int(number)] = call
            *seen, body = described_call(call)
            *expected, fields, sent = describe(request, server.settings)
            if server.settings["header_underscores"] == "drop":
                fields = [pair for pair in fields if b"_" not in pair[0]]
            assert seen == [*expected, fields]
            assert sent.startswith(body)
            assert not call.has_whole_body or body == sent
        is_plain = server.settings in [{**DEFAULTS, **variant} for variant in VARIANTS[:PLAIN]]
        if not is_plain or client.is_disturbed or client.was_reset:
            return
        assert all(one.code == ErrorCode.NO_ERROR for one in judge.goaways), judge
        assert script.requests.keys() - called.keys() <= script.given_up
        for stream, call in called.items():
            is_whole = call.scope["type"] == "http" and call.name in COMPLETING_NAMES
            if is_whole and stream not in script.given_up:
                assert judge.of(stream).is_whole, f"no whole response from {call.name}"
