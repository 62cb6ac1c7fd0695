"""The deploy of docs/deploy/rolling.md: nodes are replaced one by one behind a proxy, and no client notices.

And what clients notice of a node that dies or is cut off. With DRILL there is more load, and each node is
replaced more often. Each test prints its line of that page's table.
"""

import collections
import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from netns import network, why_not
from serving import wait_until
from shipped import program

if sys.platform != "linux":
    pytest.skip("network namespaces are Linux's", allow_module_level=True)

from fleet import ADDRESSES, GRACE_S, Fleet, HAProxy, Nginx, Node
from fleetclients import (
    ALL_METHODS,
    EVENTS,
    GET_ALONE,
    HTTP2,
    LOCUST,
    SLOW,
    STUCK,
    WEBSOCKET,
    Asked,
    Clients,
    Locust,
    Methods,
    Tally,
)

DRILL = int(os.environ.get("DRILL", "1"))
SCALE = 1 if DRILL == 1 else 3
ROUNDS = 1 if DRILL == 1 else max(2, DRILL // 4)

# What is short here is long in the configurations. HAProxy gives up a lost node after `fall` checks: `inter`
# passes before each, and again until there should be an answer. nginx gives up a request after
# proxy_read_timeout.
HAPROXY_TIMES = {"inter 2s": "inter 300ms", "timeout connect 2s": "timeout connect 500ms"}
HAPROXY_LOST_S = 3 * (0.3 + 0.3)
NGINX_TIMES = {
    "fail_timeout=10s": "fail_timeout=1s",
    "proxy_connect_timeout 2s": "proxy_connect_timeout 500ms",
    "proxy_read_timeout 60s": "proxy_read_timeout 3s",
    "proxy_send_timeout 60s": "proxy_send_timeout 3s",
}
NGINX_LOST_S = 3 + 0.5
SLACK_S = 1.5  # for a machine that is busy

pytestmark = [pytest.mark.timeout(120 + 60 * DRILL), pytest.mark.usefixtures("alone")]


def table_line(proxy: str, scenario: str, tally: Tally) -> str:
    """What a table has of a scenario."""
    closed = ", ".join(f"{count} ({code})" for code, count in sorted(tally.closed.items())) or "0"
    broken = sum(text.startswith(EVENTS) for text in tally.broken)
    gaps = (tally.slowest_s(), tally.gaps[WEBSOCKET], tally.gaps[EVENTS])
    cells = [proxy, scenario, len(tally.asked), len(tally.failed), f"{closed}; {tally.reconnected}"]
    cells += [f"{tally.streams_ended}; {broken}", *[f"{gap_s:.2f} s" for gap_s in gaps]]
    return "| " + " | ".join(map(str, cells)) + " |"


class Scenario:
    """A fleet under load."""

    def __init__(self, fleet: Fleet, authority: Authority, folder: Path, name: str) -> None:
        self.fleet, self._authority, self._folder, self._name = fleet, authority, folder, name

    @contextlib.contextmanager
    def load(
        self, name: str, methods: Methods = ALL_METHODS, *, uploads_by_http2: bool = True
    ) -> Iterator[Clients]:
        """Clients of all kinds; they have ended afterwards, and what they have seen is told."""
        clients = Clients(
            self.fleet.network, self._authority, methods, uploads_by_http2=uploads_by_http2, scale=SCALE
        )
        with Locust(self.fleet.network, self._folder, clients.tally, methods, users=4 * SCALE), clients:
            clients.wait_for_answers(20 * SCALE)
            yield clients
        print("\n" + table_line(self._name, name, clients.tally))
        why = collections.Counter((asked.kind, asked.failure) for asked in clients.tally.failed)
        print(*[f"  {kind}: {failure}: {count}" for (kind, failure), count in why.items()], sep="\n")

    def replace_all(self, clients: Clients, *, marks: bool = True) -> None:
        """The rolling deploy. Each node serves again before it is the next one's turn."""
        for _ in range(ROUNDS):
            for node in self.fleet.nodes:
                look = functools.partial(self._expect_nothing_new, clients, node) if marks else None
                self.fleet.replace(node, look)
                clients.wait_for_answers(5 * SCALE, node.name)

    def _expect_nothing_new(self, clients: Clients, node: Node) -> None:
        """Requests go to other nodes, but for those that were on their way."""
        others = [other for other in self.fleet.nodes if other is not node]
        for other in others:
            clients.wait_for_answers(2 * SCALE, other.name)
        before = node.begun()
        clients.wait_for_answers(5 * SCALE)
        assert node.begun() == before, f"{node.name} still gets requests"

    def begun_by(self, asked: Asked) -> set[str]:
        """The nodes whose application has got a request."""
        return {name for name, ids in self.fleet.begun().items() if asked.id in ids}


@pytest.fixture(scope="module")
def no_network() -> str:
    return why_not()


# With DRILL, HAProxy also speaks HTTP/2 to the nodes
PROXIES = ["haproxy", "nginx"] if DRILL == 1 else ["haproxy", "haproxy, HTTP/2", "nginx"]
BY_HTTP2 = {"pool-purge-delay 1s": "pool-purge-delay 1s proto h2 check-proto h1"}


@pytest.fixture(scope="module", params=PROXIES)
def scenario(
    request: pytest.FixtureRequest, no_network: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenario]:
    if no_network:
        pytest.skip(no_network)
    name, _, by_http2 = request.param.partition(", ")
    program(name)
    folder = tmp_path_factory.mktemp(name)
    authority = Authority(folder)
    with network(ADDRESSES) as made:
        proxy: HAProxy | Nginx
        if name == "haproxy":
            times = HAPROXY_TIMES | (BY_HTTP2 if by_http2 else {})
            proxy = HAProxy(made, folder / "proxy", authority, times)
        else:
            proxy = Nginx(made, folder / "proxy", authority, NGINX_TIMES)
        # HAProxy needs some time to see what nginx is told
        fleet = Fleet(made, folder, proxy, drain_s=1.5 if name == "haproxy" else 0.5)
        try:
            fleet.start()
            yield Scenario(fleet, authority, folder, request.param)
        finally:
            fleet.close()


def lost_s(fleet: Fleet) -> float:
    return HAPROXY_LOST_S if isinstance(fleet.proxy, HAProxy) else NGINX_LOST_S


def assert_replaced(scenario: Scenario, tally: Tally) -> None:
    """What a rolling deploy leaves, apart from requests: everything went on, each request was served once."""
    assert tally.broken == []
    assert set(tally.closed) == {"1012"}
    # One that has just been closed may not have had an answer yet
    assert tally.closed.total() - 6 * SCALE <= tally.reconnected <= tally.closed.total()
    assert tally.streams_ended > 3
    times = sum(scenario.fleet.begun().values(), collections.Counter())
    answered = [asked.id for asked in tally.asked if not asked.failure]
    assert {asked: times[asked] for asked in answered if times[asked] != 1} == {}
    for node in scenario.fleet.nodes:
        assert tally.answered(LOCUST, node.name)


def test_nodes_are_replaced(scenario: Scenario) -> None:
    """All methods, with and without bodies: no request fails."""
    with scenario.load("replaced") as clients:
        scenario.replace_all(clients)
    assert clients.tally.failed == []
    assert_replaced(scenario, clients.tally)


def test_nodes_are_replaced_by_reloads(scenario: Scenario) -> None:
    """nginx's own way. Each reload ends the idle connections of clients, on which a request may be coming.

    Such a request reaches no node. nginx 1.22 may also stop reading an upload of HTTP/2 that is under way, so
    that there are such uploads in the drill alone. Nothing else fails.
    """
    if not isinstance(scenario.fleet.proxy, Nginx):
        pytest.skip("HAProxy needs no reload")
    scenario.fleet.proxy.reloads = True
    try:
        with scenario.load("replaced, by reloads", uploads_by_http2=DRILL > 1) as clients:
            scenario.replace_all(clients)
    finally:
        scenario.fleet.proxy.reloads = False
    assert [asked for asked in clients.tally.failed if not is_cut_by_reload(scenario, asked)] == []
    assert_replaced(scenario, clients.tally)


def is_cut_by_reload(scenario: Scenario, asked: Asked) -> bool:
    """Whether nginx has ended a connection just when a request was on its way, or reads an upload no more."""
    if asked.kind == HTTP2 and asked.method in ("POST", "PUT", "PATCH") and asked.took_s > GRACE_S:
        return asked.failure in (STUCK, "502")
    is_answer = re.match("[1-5][0-9][0-9]", asked.failure)
    return not is_answer and not scenario.begun_by(asked)


def test_nodes_are_replaced_without_a_word(scenario: Scenario) -> None:
    """nginx finds out by itself that a node has gone, and asks another one: that is enough for GET."""
    if not isinstance(scenario.fleet.proxy, Nginx):
        pytest.skip("HAProxy is not told in any case")
    with scenario.load("GET alone, nginx is not told", GET_ALONE) as clients:
        scenario.replace_all(clients, marks=False)
    assert clients.tally.failed == []
    assert clients.tally.broken == []
    assert set(clients.tally.closed) == {"1012"}


def wait_for_work(clients: Clients, node: Node) -> None:
    """Wait until a node has begun with a request that changes something, and a WebSocket leads to it."""

    def works() -> bool:
        begun, now = node.begun(), time.monotonic()
        return node.name in clients.tally.websockets.values() and any(
            asked.id in begun and not asked.ended_at and asked.began_at > now - 0.3
            for asked in clients.tally.asked[-50:]
            if (asked.kind, asked.method) == (SLOW, "POST")
        )

    wait_until(works, f"work on {node.name}")


def test_a_node_is_killed(scenario: Scenario) -> None:
    """What it had accepted fails, unless the proxy may and can send it to another node, and nothing else."""
    fleet, node = scenario.fleet, scenario.fleet.nodes[0]
    with scenario.load("killed") as clients:
        wait_for_work(clients, node)
        node.kill()
        killed_at = time.monotonic()
        fleet.proxy.see_lost(node)
        seen_at = time.monotonic()
        clients.wait_for_answers(20 * SCALE)
        node.start(fleet.proxy.configuration)
        node.wait_until_ready()
        clients.wait_for_answers(5 * SCALE, node.name)
    tally = clients.tally
    # When HAProxy gives up a node it may end a request that has just been sent on from there to another node
    late = [asked for asked in tally.failed if asked.began_at >= killed_at]
    assert all(asked.began_at < seen_at for asked in late), late
    assert len(late) <= 1, late
    for asked in tally.failed:
        assert asked in late or scenario.begun_by(asked) <= {node.name}, asked
        assert asked.method in ("POST", "PATCH", "PUT"), asked
    assert len(tally.failed) > len(late)
    assert not any(text.startswith(WEBSOCKET) for text in tally.broken)
    assert_websockets_return(tally)


def assert_websockets_return(tally: Tally) -> None:
    """WebSockets have ended as their node has, and lead to others since then."""
    assert tally.closed
    assert "1012" not in tally.closed
    assert tally.closed.total() - 6 * SCALE <= tally.reconnected <= tally.closed.total()


def test_a_node_is_cut_off(scenario: Scenario) -> None:
    """The others serve, and what the lost node works at ends in the time that rolling.md promises."""
    fleet, node = scenario.fleet, scenario.fleet.nodes[1]
    bound_s = lost_s(fleet) + SLACK_S
    with scenario.load("cut off") as clients:
        wait_for_work(clients, node)
        fleet.network.cut_off(node.name)
        cut_at = time.monotonic()
        for other in (fleet.nodes[0], fleet.nodes[2]):
            clients.wait_for_answers(5 * SCALE, other.name)
        before = [asked for asked in clients.tally.asked if asked.began_at < cut_at]
        wait_until(lambda: all(asked.ended_at for asked in before), "the end of what had begun")
        clients.wait_for_answers(20 * SCALE)
        fleet.network.mend(node.name)
        clients.wait_for_answers(5 * SCALE, node.name)
    tally = clients.tally
    for asked in tally.asked:
        assert asked.ended_at - max(asked.began_at, cut_at) < bound_s, asked
    for asked in tally.failed:
        assert asked.began_at < cut_at + bound_s, asked
    assert tally.failed
    assert max(tally.gaps.values()) < bound_s
    assert_websockets_return(tally)
