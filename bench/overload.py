"""More requests than a server can answer: how much of its capacity goes into answers that come in time?"""

from collections import deque
from typing import Any

from bench.clients import Client, Clients, now
from bench.errors import BenchError
from bench.histogram import Histogram

IN_TIME_S = 1.0
# The capacity is the best of so many windows. One alone may be disturbed.
CAPACITY_WINDOWS = 3
CAPACITY_S = 1.0
# A pool's connections are opened at this share of the capacity.
FILL_SHARE = 0.5
# So many arrivals that are late go out before the sockets are looked at.
STRIDE = 32
# epoll's time is rounded up to a millisecond, so the rest of a wait is spent looking.
COARSE_S = 0.001


class Overload:
    """The load: requests arrive by a schedule, at a multiple of the rate that the server can answer.

    An arrival takes the idle connection that was used last, as clients' pools do. If none is idle it opens a
    new one; or, with a `pool` of so many connections, as proxies have, it waits for one of them. Nothing else
    waits for anything: a server whose queue is full doesn't slow the arrivals. No client gives up, and none
    comes again after a refusal, which is an answer of status 503. Latency counts from the planned time.
    """

    def __init__(self, clients: Clients, job: dict[str, Any]) -> None:
        self._clients = clients
        self._connections: int = job["connections"]
        self._times_capacity: float = job["times_capacity"]
        self._pool: int = job.get("pool", 0)
        self._most: int = job.get("most", 0)
        self._warmup_s: float = job["warmup_s"]
        self._window_s: float = job["window_s"]
        self._idle: list[Client] = []
        self._waiting: deque[float] = deque()  # the planned times of arrivals that wait for a connection
        self._answers = 0
        self._refused = 0
        self._in_time = 0
        self._latencies = Histogram()
        self._lateness = Histogram()

    def measure(self) -> dict[str, Any]:
        """The figures.

        `goodput` is the number of answers within IN_TIME_S of the planned arrival, as a share of what the
        server can answer in that time. `capacity` is that in a second, `answered_p99_s` the latency that 99 %
        of the answers had at most, or the longest possible if there were none, `arrivals` and `opened` count
        requests and connections, `refused` the answers of status 503, `lost` counts requests whose connection
        broke or could not be made, `failures` says by which reasons, and `lateness_p99_s` is how late the
        generator was with 1 % of the arrivals or more. Raises BenchError if nothing is answered.
        """
        capacity = self._capacity()
        if self._pool:
            self._fill_pool(FILL_SHARE * capacity)
        self._answers = self._refused = self._in_time = 0
        self._latencies = Histogram()
        self._lateness = Histogram()
        arrivals = self._arrive(self._times_capacity * capacity, self._window_s)
        longest_s = self._window_s + IN_TIME_S
        return {
            "goodput": self._in_time / (capacity * self._window_s),
            "capacity": capacity,
            "answered_p99_s": self._latencies.quantile(0.99) if self._answers else longest_s,
            "arrivals": arrivals,
            "answers": self._answers,
            "refused": self._refused,
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
            while self._idle:
                self._clients.ask(self._idle.pop(), began)
            self._clients.turn_until(began + min(CAPACITY_S, self._window_s / 10))
            rates.append((self._answers - answers) / (now() - began))
        if not max(rates) or self._clients.failures:
            reason = next(iter(self._clients.failures), "too slow")
            raise BenchError(f"nothing was answered before the overload: {reason}")
        for client in clients:
            client.on_answer = self._idle.append
        self._clients.turn_until(now() + IN_TIME_S, lambda: len(self._idle) == len(clients))
        return max(rates)

    def _ask_again(self, client: Client) -> None:
        """Ask again, or, after a refusal, in the next window."""
        if client.is_refused:
            self._idle.append(client)
            return
        self._answers += 1
        self._clients.ask(client, now())

    def _fill_pool(self, rate: float) -> None:
        """Open the pool's other connections, each with a request, so slowly that this is no overload."""
        for _ in range(self._pool - self._clients.open_count):
            self._clients.open(self._note_answer)
            self._clients.turn_until(now() + 1 / rate)
        self._clients.turn_until(now() + IN_TIME_S, lambda: len(self._idle) == self._pool)

    def _arrive(self, rate: float, window_s: float) -> int:
        """Carry out the schedule and wait until no answer can be in time any more; how many arrived."""
        began = now()
        planned = int(rate * window_s)
        ends_at = began + window_s + IN_TIME_S
        arrived = 0
        while (at := now()) < ends_at:
            for _ in range(STRIDE):
                due = began + arrived / rate
                if arrived >= planned or due > at:
                    break
                arrived += 1
                self._lateness.add(now() - due)
                self._begin(due)
            next_at = began + arrived / rate if arrived < planned else ends_at
            self._clients.turn(max(0.0, next_at - now() - COARSE_S))
        return arrived

    def _begin(self, due: float) -> None:
        while self._idle:
            client = self._idle.pop()
            if client.is_open:
                client.on_answer = self._note_answer
                self._clients.ask(client, due)
                return
        if self._pool and self._clients.open_count >= self._pool:
            self._waiting.append(due)
        elif 0 < self._most <= self._clients.open_count:
            self._clients.failures["too many connections"] += 1
        else:
            self._clients.open(self._note_answer, due)

    def _note_answer(self, client: Client) -> None:
        if client.is_refused:
            self._refused += 1
        else:
            self._answers += 1
            latency_s = now() - client.asked_at
            self._latencies.add(latency_s)
            if latency_s <= IN_TIME_S:
                self._in_time += 1
        self._idle.append(client)
        if self._waiting:
            self._begin(self._waiting.popleft())
