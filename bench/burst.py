"""Many connections at once to a server that standing ones keep busy: how long do both wait?"""

import math
import time
from typing import Any

from bench.clients import Client, Clients, now
from bench.errors import BenchError
from bench.histogram import Histogram

BEFORE_S = 1.0
JOIN_S = 30.0
ANSWER_S = 60.0
# After so many new connections the standing ones have their turn. The server has a request of most of them
# meanwhile.
STRIDE = 64


class Burst:
    """The load: `connections` standing ones, each with a request open always; then `arrivals` new ones."""

    def __init__(self, clients: Clients, job: dict[str, Any]) -> None:
        self._clients = clients
        self._connections: int = job["connections"]
        self._arrivals: int = job["arrivals"]
        self._warmup_s: float = job["warmup_s"]
        self._joined = self._settled = 0
        self._ended_at = math.inf
        self._standing = Histogram()
        self._first = Histogram()

    def measure(self) -> dict[str, Any]:
        """The figures, in seconds.

        `median_s`, `p90_s` and `worst_s` are from a new connection's connect() to its first answer.
        `standing_before_s` is what 99 % of the standing connections' answers took at most in the second
        before the burst, `standing_during_s` is that of the requests which were open at any time from its
        begin to its last answer, and `standing_ratio` is the second divided by the first. `generator_busy`
        is this process's share of a core during the burst. Raises BenchError if a connection had no answer.
        """
        for _ in range(self._connections):
            self._clients.open(self._join)
        self._clients.turn_until(now() + JOIN_S, lambda: self._are_answered(self._joined, self._connections))
        self._check(self._joined, self._connections, "standing", JOIN_S)
        self._clients.turn_until(now() + self._warmup_s)
        self._take_standing()
        self._clients.turn_until(now() + BEFORE_S)
        before = self._take_standing()
        began, cpu_s = now(), time.process_time()
        for number in range(self._arrivals):
            self._clients.open(self._note_first)
            if number % STRIDE == STRIDE - 1:
                self._clients.turn(0)
        self._clients.turn_until(
            began + ANSWER_S, lambda: self._are_answered(self._first.total, self._arrivals)
        )
        self._ended_at = now()
        busy = (time.process_time() - cpu_s) / (self._ended_at - began)
        self._check(self._first.total, self._arrivals, "new", ANSWER_S)
        # Left out, the requests that are open now would make a long wait look good.
        self._clients.turn_until(
            now() + ANSWER_S, lambda: self._are_answered(self._settled, self._connections)
        )
        self._check(self._settled, self._connections, "standing", ANSWER_S)
        during = self._take_standing()
        if not before.counts:
            raise BenchError("no standing connection had an answer in the second before the burst")
        before_s, during_s = before.quantile(0.99), during.quantile(0.99)
        return {
            "median_s": self._first.quantile(0.5),
            "p90_s": self._first.quantile(0.9),
            "worst_s": self._first.quantile(1),
            "standing_before_s": before_s,
            "standing_during_s": during_s,
            "standing_ratio": during_s / before_s,
            "generator_busy": busy,
        }

    def _join(self, client: Client) -> None:
        self._joined += 1
        client.on_answer = self._ask_again
        self._ask_again(client)

    def _ask_again(self, client: Client) -> None:
        at = now()
        if client.asked_at <= self._ended_at:
            self._standing.add(at - client.asked_at)
            self._settled += at > self._ended_at
        self._clients.ask(client, at)

    def _note_first(self, client: Client) -> None:
        self._first.add(now() - client.asked_at)

    def _take_standing(self) -> Histogram:
        """The latencies of the standing connections since the last time."""
        taken, self._standing = self._standing, Histogram()
        return taken

    def _are_answered(self, answered: int, connections: int) -> bool:
        """Whether so many connections have had an answer, or will not, since one has failed."""
        return answered >= connections or bool(self._clients.failures)

    def _check(self, answered: int, connections: int, which: str, limit_s: float) -> None:
        """Raise BenchError if not all connections had an answer within this time."""
        failures = self._clients.failures
        if failures or answered < connections:
            reason = max(failures, key=lambda name: failures[name], default=f"none within {limit_s:.0f} s")
            raise BenchError(f"{answered} of {connections} {which} connections had an answer: {reason}")
