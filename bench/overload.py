"""More requests than a server can answer: how much of its capacity goes into answers that come in time?"""

from typing import Any

from bench.clients import Client, Clients, now
from bench.errors import BenchError
from bench.histogram import Histogram

IN_TIME_S = 1.0
# The capacity is the best of so many windows, each a tenth of the load's. One alone may be disturbed.
CAPACITY_WINDOWS = 3
# So many arrivals that are late go out before the sockets are looked at.
STRIDE = 32
# epoll's time is rounded up to a millisecond, so the rest of a wait is spent looking.
COARSE_S = 0.001


class Overload:
    """The load: requests arrive by a schedule, at a multiple of the rate that the server can answer.

    An arrival takes the idle connection that was used last, as clients' pools do, or opens a new one if none
    is idle. Nothing waits for anything: a server whose queue is full doesn't slow the arrivals. No client
    gives up. Latency counts from the planned time.
    """

    def __init__(self, clients: Clients, job: dict[str, Any]) -> None:
        self._clients = clients
        self._connections: int = job["connections"]
        self._times_capacity: float = job["times_capacity"]
        self._warmup_s: float = job["warmup_s"]
        self._window_s: float = job["window_s"]
        self._idle: list[Client] = []
        self._answers = 0
        self._in_time = 0
        self._lateness = Histogram()

    def measure(self) -> dict[str, Any]:
        """The figures.

        `goodput` is the number of answers within IN_TIME_S of the planned arrival, as a share of what the
        server can answer in that time. `capacity` is that in a second, `arrivals` and `opened` count requests
        and connections, `lost` counts requests whose connection broke, `failures` says by which reasons, and
        `lateness_p99_s` is how late the generator was with 1 % of the arrivals or more. Raises
        BenchError if nothing is answered.
        """
        capacity = self._capacity()
        self._answers = self._in_time = 0
        arrivals = self._arrive(self._times_capacity * capacity)
        return {
            "goodput": self._in_time / (capacity * self._window_s),
            "capacity": capacity,
            "arrivals": arrivals,
            "answers": self._answers,
            "opened": self._clients.opened,
            "lateness_p99_s": self._lateness.quantile(0.99),
            "lost": self._clients.failures.total(),
            "failures": dict(self._clients.failures),
        }

    def _capacity(self) -> float:
        """Answers a second to a few connections with a request open always, which are idle then."""
        clients = [self._clients.open(self._ask_again) for _ in range(self._connections)]
        self._clients.turn_until(now() + self._warmup_s)
        rates = []
        for _ in range(CAPACITY_WINDOWS):
            began, answers = now(), self._answers
            self._clients.turn_until(began + self._window_s / 10)
            rates.append((self._answers - answers) / (now() - began))
        if not max(rates) or self._clients.failures:
            reason = next(iter(self._clients.failures), "too slow")
            raise BenchError(f"nothing was answered before the overload: {reason}")
        for client in clients:
            client.on_answer = self._idle.append
        self._clients.turn_until(now() + IN_TIME_S, lambda: len(self._idle) == len(clients))
        return max(rates)

    def _ask_again(self, client: Client) -> None:
        self._answers += 1
        self._clients.ask(client, now())

    def _arrive(self, rate: float) -> int:
        """Carry out the schedule and wait until no answer can be in time any more; how many arrived."""
        began = now()
        planned = int(rate * self._window_s)
        ends_at = began + self._window_s + IN_TIME_S
        arrived = 0
        while (at := now()) < ends_at:
            for _ in range(STRIDE):
                due = began + arrived / rate
                if arrived >= planned or due > at:
                    break
                arrived += 1
                self._begin(due)
            next_at = began + arrived / rate if arrived < planned else ends_at
            self._clients.turn(max(0.0, next_at - now() - COARSE_S))
        return arrived

    def _begin(self, due: float) -> None:
        self._lateness.add(now() - due)
        while self._idle:
            client = self._idle.pop()
            if client.is_open:
                client.on_answer = self._note_answer
                self._clients.ask(client, due)
                return
        self._clients.open(self._note_answer, due)

    def _note_answer(self, client: Client) -> None:
        self._answers += 1
        if now() - client.asked_at <= IN_TIME_S:
            self._in_time += 1
        self._idle.append(client)
