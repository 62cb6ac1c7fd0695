"""The bench's own parts: what it counts, how it sums up, what it does when a server fails. No figures are
made here.
"""

import asyncio
import contextlib
import errno
import http.client
import importlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastasgi

ROOT = Path(__file__).resolve().parent.parent.parent
if not (ROOT / "bench").is_dir():
    pytest.skip("bench/ is not here", allow_module_level=True)
# At the end: the checkout's own fastasgi has no compiled modules, and must not hide the installed one.
sys.path.append(str(ROOT))

from bench import accounting, charts, compare, database, guard, processes, report, run, websocket  # noqa: E402
from bench import results as store  # noqa: E402
from bench.accounting import CPUTime  # noqa: E402
from bench.charts import format_number, format_tick, format_time, nice_ceiling  # noqa: E402
from bench.command import build_parser, main  # noqa: E402
from bench.environment import Environment  # noqa: E402
from bench.errors import BenchError, MissingError, UnsupportedError, UsageError  # noqa: E402
from bench.figures import ratio_of_pairs, student_t_95  # noqa: E402
from bench.histogram import Histogram, bucket_of, latency_of  # noqa: E402
from bench.machine import Cores, share_cores  # noqa: E402
from bench.micro_frames import build_frame  # noqa: E402
from bench.probe import free_port  # noqa: E402
from bench.recorder import Recorder  # noqa: E402
from bench.responses import BodyLength, ResponseCounter, ResponseError  # noqa: E402
from bench.servers import SERVERS, Place, Server  # noqa: E402
from bench.turn import Clocks, CrashError, Setup, limit_of, merge, take_turn, work_out  # noqa: E402
from bench.workloads import WORKLOADS, Workload  # noqa: E402

WAIT_S = 20.0
WITH_BENCH = {**os.environ, "PYTHONPATH": str(ROOT)}
CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
CORES = Cores((CORE,), (CORE,), ())


def wait_until(holds: Callable[[], bool]) -> None:
    """Poll until it holds; fail after WAIT_S."""
    ends = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.002)


# Responses

SIMPLE = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nHello, World!"
RESPONSES = [
    pytest.param(SIMPLE, id="length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length:0\r\n\r\n", id="empty"),
    pytest.param(b"HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n", id="204"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", id="chunked"
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"a;x=y\r\n0123\r\n\r\n78\r\n01\r\n#\r\n0\r\nt: v\r\n\r\n",
        id="chunked with extension, line ends within, trailer",
    ),
    pytest.param(b"HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\n\r\n\r\n", id="a body of line ends"),
]


@pytest.mark.parametrize("response", RESPONSES)
def test_a_response_counts_when_its_last_byte_has_come(response: bytes) -> None:
    for split in range(len(response)):
        counter = ResponseCounter()
        assert counter.feed(response[:split]) == 0
        assert counter.feed(response[split:]) == 1
    counter = ResponseCounter()
    assert [counter.feed(response[i : i + 1]) for i in range(len(response))] == [0] * (len(response) - 1) + [
        1
    ]
    assert counter.close() == 0


@pytest.mark.parametrize("response", RESPONSES)
def test_what_follows_a_response_belongs_to_the_next(response: bytes) -> None:
    for size in range(len(SIMPLE)):
        counter = ResponseCounter()
        assert counter.feed(response + SIMPLE[:size]) == 1
        assert counter.feed(SIMPLE[size:]) == 1


def test_pipelined_responses_are_counted_at_every_split() -> None:
    several = b"".join(response.values[0] for response in RESPONSES) + SIMPLE * 5
    for split in range(len(several) + 1):
        counter = ResponseCounter()
        assert counter.feed(several[:split]) + counter.feed(several[split:]) == len(RESPONSES) + 5


def test_known_responses_in_whole_reads_are_counted_by_comparison() -> None:
    counter = ResponseCounter()
    assert counter.feed(SIMPLE) == 1
    assert [counter.feed(SIMPLE * n) for n in (16, 1, 3, 16)] == [16, 1, 3, 16]
    # The same length, another second: it must be read, not guessed.
    assert counter.feed(SIMPLE.replace(b"Hello", b"HELLO") * 2) == 2
    with pytest.raises(ResponseError, match="500"):
        counter.feed(SIMPLE + SIMPLE.replace(b"200 OK", b"500 NO"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([response.values[0] for response in RESPONSES]), min_size=1, max_size=12),
    st.data(),
)
def test_any_cut_of_any_responses_gives_their_number(responses: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(responses)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=10)))
    counter = ResponseCounter()
    pieces = [joined[a:b] for a, b in zip([0, *cuts], [*cuts, len(joined)], strict=True)]
    assert sum(map(counter.feed, pieces)) == len(responses)


@pytest.mark.parametrize("response", RESPONSES)
def test_h11_finds_the_same_end(response: bytes) -> None:
    # h11 takes an empty piece for the end of the connection.
    for size in range(1, len(response) + 1):
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(response[:size])
        ended = False
        while (event := connection.next_event()) is not h11.NEED_DATA and not ended:
            ended = isinstance(event, h11.EndOfMessage)
        assert ended == bool(ResponseCounter().feed(response[:size]))


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (EMPTY, "a body of 0 bytes, where others had 13"),
        (SIMPLE.replace(b"13", b"14") + b"!", "a body of 14 bytes"),
        (CHUNKED % b"", "a body of 0 bytes"),
        (CHUNKED % b"6\r\nHello,\r\n6\r\nWorld!\r\n", "a body of 12 bytes"),
    ],
)
def test_a_body_of_another_length_than_the_first_is_a_failure(response: bytes, message: str) -> None:
    length = BodyLength()
    assert ResponseCounter(length).feed(SIMPLE * 3) == 3
    # On this connection or on another, and alone or among others.
    for data in (response, SIMPLE * 2 + response):
        with pytest.raises(ResponseError, match=message):
            ResponseCounter(length).feed(data)
    assert ResponseCounter(length).feed(CHUNKED % b"6\r\nHello,\r\n7\r\n World!\r\n") == 1
    # Where bodies may differ, they do.
    assert ResponseCounter().feed(SIMPLE + response) == 2


def test_a_body_until_the_close_has_the_others_length_too() -> None:
    length = BodyLength()
    assert ResponseCounter(length).feed(SIMPLE) == 1
    for rest, complete in ((b"", False), (b"o, World!", True), (b"o, World!!", False)):
        counter = ResponseCounter(length)
        assert counter.feed(b"HTTP/1.0 200 OK\r\n\r\nHell") + counter.feed(rest) == 0
        if complete:
            assert counter.close() == 1
        else:
            with pytest.raises(ResponseError, match="where others had 13"):
                counter.close()


def test_a_response_without_length_ends_with_the_connection() -> None:
    counter = ResponseCounter()
    assert counter.feed(b"HTTP/1.0 200 OK\r\n\r\nsome") == 0
    assert counter.feed(b" more") == 0
    assert counter.close() == 1


@pytest.mark.parametrize("size", range(1, len(SIMPLE)))
def test_a_connection_that_closes_within_a_response_is_a_failure(size: int) -> None:
    counter = ResponseCounter()
    counter.feed(SIMPLE[:size])
    with pytest.raises(ResponseError, match="closed within"):
        counter.close()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP response"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n", "chunk size"),
    ],
)
def test_what_is_no_good_response_is_a_failure(response: bytes, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        ResponseCounter().feed(response)


# WebSocket


def unmasked(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    return bytes([first]) + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + payload


def test_messages_are_counted_at_every_split_and_pings_are_not() -> None:
    frames = unmasked(b"one") + unmasked(b"ping", 0x89) + unmasked(b"x" * 300, 0x82) + unmasked(b"")
    for split in range(len(frames) + 1):
        counter = websocket.MessageCounter()
        assert counter.feed(frames[:split]) + counter.feed(frames[split:]) == 3
    counter = websocket.MessageCounter()
    assert sum(counter.feed(frames[i : i + 1]) for i in range(len(frames))) == 3


@pytest.mark.parametrize("frame", [unmasked(b"", 0x88), unmasked(b"part", 0x01), build_frame(b"masked", 1)])
def test_other_frames_are_failures(frame: bytes) -> None:
    with pytest.raises(websocket.FrameError):
        websocket.MessageCounter().feed(frame)


def test_a_handshake_that_is_refused_is_not_supported() -> None:
    assert websocket.read_handshake(b"HTTP/1.1 101 Switching") is None
    with pytest.raises(UnsupportedError, match="200 OK"):
        websocket.read_handshake(SIMPLE)
    with pytest.raises(UnsupportedError, match="Accept"):
        websocket.read_handshake(b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: no\r\n\r\n")


def test_the_handshake_is_one_that_h11_and_the_key_of_the_rfc_agree_with() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(websocket.build_handshake("/ws", "Cookie: a=b\r\n"))
    headers = dict(connection.next_event().headers)
    assert headers[b"upgrade"] == b"websocket"
    assert headers[b"cookie"] == b"a=b"
    accepted = (
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: " + websocket._ACCEPT + b"\r\n\r\nrest"
    )
    assert websocket.read_handshake(accepted) == b"rest"


# Latencies


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_two_per_cent_of_the_sorted_value(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.02)
    assert histogram.total == len(values)


def test_buckets_hold_their_own_middle() -> None:
    assert all(bucket_of(latency_of(bucket)) == bucket for bucket in range(1200))
    assert bucket_of(0.0) == bucket_of(-1.0) == 0


def test_histograms_add_up_and_subtract() -> None:
    first, second = Histogram(), Histogram()
    first.add(0.001, 3)
    before = first.copy()
    second.add(0.001, 2)
    second.add(5.0)
    first.merge(second)
    assert first.difference(before).as_pairs() == second.as_pairs()
    assert Histogram(map(tuple, json.loads(json.dumps(first.as_pairs())))).counts == first.counts
    with pytest.raises(ValueError, match="empty"):
        Histogram().quantile(0.5)


def test_a_window_counts_what_came_within_it_and_what_is_overdue() -> None:
    recorder = Recorder()
    recorder.answered(0.5, 7, 100)
    recorder.failed("before")
    recorder.open()
    recorder.answered(0.001, 2, 50)
    recorder.failed("within")
    recorder.overdue = lambda: [recorder.opened_at - 1, recorder.opened_at, recorder.opened_at]
    figures = recorder.close()
    assert (figures["count"], figures["received_bytes"]) == (2, 50)
    assert figures["failures"] == {"within": 1}
    # The first was due before the window: it isn't the window's.
    assert figures["overdue"] == 2
    assert Histogram(map(tuple, figures["latencies"])).total == 4


# Statistics


def test_a_ratio_of_paired_rounds_has_students_interval() -> None:
    pairs = [(2.0, 1.0), (2.2, 1.0), (1.8, 1.0), (2.0, 1.0)]
    ratio = ratio_of_pairs(pairs)
    logarithms = [math.log(a / b) for a, b in pairs]
    half = 3.182 * statistics.stdev(logarithms) / 2
    assert ratio.value == pytest.approx(math.exp(statistics.fmean(logarithms)))
    assert ratio.low == pytest.approx(ratio.value * math.exp(-half))
    assert ratio.high == pytest.approx(ratio.value * math.exp(half))
    assert ratio.certain


def test_what_slows_both_of_a_pair_does_not_widen_the_interval() -> None:
    ratio = ratio_of_pairs([(100, 50), (10, 5), (1, 0.5)])
    assert ratio.low == pytest.approx(2)
    assert ratio.high == pytest.approx(2)


def test_a_ratio_that_may_be_1_or_has_a_single_pair_is_not_certain() -> None:
    assert not ratio_of_pairs([(1.1, 1), (0.9, 1), (1.05, 1)]).certain
    single = ratio_of_pairs([(3, 1)])
    assert (round(single.value, 6), single.low, single.high, single.certain) == (3, None, None, False)
    with pytest.raises(ValueError, match="no pairs"):
        ratio_of_pairs([])


def test_students_factor_falls_to_the_normal_distributions() -> None:
    factors = [student_t_95(degrees) for degrees in range(1, 400)]
    assert factors == sorted(factors, reverse=True)
    # From the tables of the distribution, which give three decimals.
    exact = {1: 12.706, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 25: 2.060}
    exact |= {30: 2.042, 40: 2.021, 60: 2.000, 100: 1.984, 120: 1.980, 10**6: 1.960}
    assert {degrees: round(student_t_95(degrees), 3) for degrees in exact} == exact


APART = Cores((0,), (1,), ())


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        ({"server": 0.97}, "server"),
        ({"server": 0.5, "generator": 0.95}, "generator"),
        ({"server": 0.5, "generator": 0.5}, "waiting"),
        ({"server": 0.5, "server_cores": 0.97}, "other processes"),
        ({"server": 0.5, "generator": 0.5, "generator_cores": 0.97}, "other processes"),
        ({"server": 0.6, "server_cores": 0.99, "cores": Cores((0,), (0,), ())}, "shared core"),
        ({"server": 0.97, "cores": Cores((0,), (1,), (), ((0, 1),))}, "shared core"),
        ({"server": 0.97, "cores": Cores((0,), (2,), (), ((0, 1), (2, 3)))}, "server"),
        ({"server": 0.5, "database": 0.95}, "database"),
        ({"lateness_s": 0.002, "work": WORKLOADS["rate-1000"], "rate": 1000}, "generator"),
        ({"generator": 1.0, "work": WORKLOADS["rate-1000"], "rate": 990}, "rate"),
        ({"server": 0.99, "work": WORKLOADS["rate-1000"], "rate": 600}, "server"),
        ({"server": 0.2, "work": WORKLOADS["events"], "rate": 4990}, "rate"),
        ({"server": 0.2, "work": WORKLOADS["events"], "rate": 2000}, "waiting"),
    ],
)
def test_a_figure_says_what_limited_it(shares: dict[str, Any], limit: str) -> None:
    given = {"work": WORKLOADS["hello"], "cores": APART, "rate": 1.0, "lateness_s": 0.0}
    given |= dict.fromkeys(("server", "server_cores", "generator", "generator_cores", "database"), 0.0)
    assert limit_of(**(given | shares)) == limit


def window(**changes: Any) -> dict[str, Any]:
    part = {"elapsed_s": 2.0, "count": 1000, "joined": 64, "received_bytes": 1 << 21, "overdue": 0}
    part |= {
        "busy": 0.5,
        "latencies": [[300, 1000]],
        "lateness": [],
        "failures": {},
        "failures_before": {},
        "steps": {},
        "refusal": "",
    }
    return part | changes


def figures_of(
    *parts: dict[str, Any],
    work: Workload = WORKLOADS["hello"],
    cores: Cores = APART,
    clocks: Clocks = Clocks(2.0, CPUTime(0.6, 0.4), 0.2, 1.5, 1.0),  # noqa: B008
) -> dict[str, Any]:
    return work_out(work, merge(list(parts)), clocks, cores=cores, memory_mib=50.0, resting_mib=30.0)


def test_figures_of_several_generators_add_up() -> None:
    figures = figures_of(window(), window(busy=0.95, latencies=[[300, 500], [400, 500]]))
    assert figures["rate"] == 1000
    assert figures["user_us"] == pytest.approx(300)
    assert figures["system_us"] == pytest.approx(200)
    assert figures["server_busy"] == pytest.approx(0.5)
    assert figures["generator_busy"] == 0.95
    assert figures["limit"] == "generator"
    assert figures["latencies"] == [[300, 1500], [400, 500]]


def test_cpu_time_counts_by_a_window_of_its_own() -> None:
    # The clocks ran for twice as long as the generator counted, at the same load.
    longer = figures_of(window(), clocks=Clocks(4.0, CPUTime(1.2, 0.8), 0.4, 3.0, 2.0))
    assert longer == figures_of(window())
    assert longer["database_us"] == pytest.approx(200)
    assert (longer["server_cores_used"], longer["generator_cores_used"]) == (0.75, 0.5)


def test_the_steps_of_locusts_users_add_up() -> None:
    def step(count: int, failures: int, *times_ms: list[int]) -> dict[str, Any]:
        return {"count": count, "failures": failures, "times_ms": times_ms}

    first = window(steps={"read": step(90, 1, [1, 30], [2, 60]), "chat": step(1, 0, [7, 1])})
    second = window(steps={"read": step(10, 0, [2, 5], [50, 4], [120, 1])})
    assert figures_of(first, second)["steps"] == {
        "chat": {"count": 1, "failures": 0, "median_s": 0.007, "p95_s": 0.007, "p99_s": 0.007},
        "read": {"count": 100, "failures": 1, "median_s": 0.002, "p95_s": 0.002, "p99_s": 0.05},
    }
    assert figures_of(window())["steps"] == {}


def test_a_window_without_answers_or_with_many_failures_is_no_figure() -> None:
    with pytest.raises(CrashError, match="nothing was answered: refused"):
        figures_of(window(count=0, failures={"refused": 3}))
    with pytest.raises(CrashError, match="20 failures beside 1000 answers: status 500"):
        figures_of(window(failures={"status 500": 15, "other": 5}))
    assert figures_of(window(failures={"status 500": 5}))["failures"] == {"status 500": 5}


def test_idle_connections_must_all_stand() -> None:
    idle = WORKLOADS["idle"]
    figures = figures_of(window(joined=idle.connections, count=0), work=idle)
    assert figures["connection_kib"] == pytest.approx(20 * 1024 / idle.connections)
    with pytest.raises(CrashError, match="9999 of 10000 connections had an answer: refused"):
        figures_of(window(joined=9999, failures_before={"refused": 1}), work=idle)
    with pytest.raises(CrashError, match="1 of 10000 connections did not stand: closed"):
        figures_of(window(joined=10000, failures={"closed": 1}), work=idle)


@pytest.mark.parametrize(
    ("groups", "workers", "database", "expected"),
    [
        ([(0,)], 1, False, Cores((0,), (0,), ())),
        ([(0,), (1,)], 1, False, Cores((0,), (1,), ())),
        ([(0,), (1,)], 1, True, Cores((0,), (1,), (1,))),
        ([(0,), (1,)], 2, False, Cores((0, 1), (1,), ())),
        ([(0,)], 2, True, Cores((0,), (0,), (0,))),
        ([(0, 1)], 1, False, Cores((0,), (1,), ())),
        ([(0, 1)], 2, False, Cores((0, 1), (1,), ())),
        ([(0, 1), (2, 3)], 1, False, Cores((0,), (2, 3), ())),
        ([(0, 1), (2, 3)], 2, False, Cores((0, 2), (1, 3), ())),
        ([(0, 1), (2, 3)], 2, True, Cores((0, 2), (1,), (3,))),
        ([(0, 1), (2, 3)], 3, False, Cores((0, 2, 1), (3,), ())),
        ([(0, 1), (2,)], 3, False, Cores((0, 2, 1), (1,), ())),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], 1, True, Cores((0,), (1, 5, 2, 6), (7,))),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], 2, False, Cores((0, 1), (2, 6, 3, 7), ())),
    ],
)
def test_server_generators_and_database_get_cores_of_their_own_where_there_are(
    groups: list[tuple[int, ...]], workers: int, database: bool, expected: Cores
) -> None:
    assert share_cores(groups, workers, database) == expected


@pytest.mark.parametrize(
    ("groups", "workers", "shared", "beside"),
    [
        ([(0,), (1,)], 1, False, False),
        ([(0,), (1,)], 2, True, False),
        ([(0, 1), (2, 3)], 1, False, False),
        ([(0, 1), (2, 3)], 2, True, True),
        ([(0, 1)], 1, True, True),
        ([(0, 1)], 2, True, True),
    ],
)
def test_two_threads_of_a_physical_core_are_shared_too(
    groups: list[tuple[int, ...]], workers: int, shared: bool, beside: bool
) -> None:
    cores = share_cores(groups, workers, database=False)
    assert (cores.shared, cores.beside) == (shared, beside)
    assert set(cores.as_json()) == {"server", "generators", "database"}


# CPU accounting

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def test_a_process_name_may_hold_blanks_and_parentheses() -> None:
    line = "42 (a) b (c)) Z 7 42 40 0 -1 4194304 1 2 3 4 11 22 33 44 20 0 1 0 5 6 7"
    assert accounting.parse_stat(line) == accounting.ProcessStat(42, "Z", 7, 40, 11, 22, 33, 44)


def test_a_tree_is_descendants_and_session() -> None:
    def process(pid: int, parent: int, session: int) -> accounting.ProcessStat:
        return accounting.ProcessStat(pid, "S", parent, session, 0, 0, 0, 0)

    root, child, other_session, orphan = (
        process(10, 1, 10),
        process(11, 10, 10),
        process(12, 11, 12),
        process(13, 1, 10),
    )
    everybody = [process(1, 0, 1), orphan, other_session, child, root, process(20, 1, 20)]
    assert {found.pid for found in accounting.select_tree(everybody, 10)} == {10, 11, 12, 13}


@linux
def test_cpu_time_of_children_counts_while_they_run_and_after(tmp_path: Path) -> None:
    source = """
        import os, sys, time
        def burn(seconds):
            while sum(os.times()[:2]) < seconds: pass
        if os.fork() == 0:
            burn(0.15); os._exit(0)
        os.wait()
        if os.fork() == 0:
            burn(0.15)
            print("burnt", flush=True)
            sys.stdin.read(); os._exit(0)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with processes.Processes() as group:
        process = group.start(
            command, (CORE,), tmp_path / "log", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        # One child has ended and was waited for, the other still lives: 0.15 s each, the clock ticks 10 ms.
        assert accounting.tree_cpu(process.pid).total_s >= 0.28
        assert len(accounting.tree_pids(process.pid)) == 2
        assert accounting.tree_memory_mib(process.pid) > 1
    assert accounting.tree_pids(process.pid) == []


@linux
def test_whose_socket_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert accounting.tree_listens(os.getpid(), port)
        command = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        try:
            assert not accounting.tree_listens(child.pid, port)
        finally:
            child.communicate(b"\n")


@linux
def test_a_process_that_ignores_signals_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.1)
    source = """
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        os.write(1, b"%d\\n" % os.getpid())
        signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log", stdout=subprocess.PIPE)
        assert process.stdout is not None
        pids = {int(process.stdout.readline()), int(process.stdout.readline())}
        assert set(accounting.tree_pids(process.pid)) == pids
    assert not [found for found in accounting.read_processes() if found.pid in pids and found.state != "Z"]


# Turns with servers that fail. The load generator is a stand-in that speaks its protocol, or the real one.

SERVER = """
    import socket, sys
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            client = listener.accept()[0]
            with client:
                request = client.recv(65536)
                if b"LOAD" in request:
                    sys.exit("boom: out of luck")
                client.sendall(ANSWER)
""".replace("ANSWER", repr(SIMPLE))

GENERATOR = """
    import json, socket, sys
    job = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    if MODE in ("crash", "replace"):
        socket.create_connection((job["host"], job["port"])).sendall(b"LOAD")
    answer = b""
    while MODE == "replace" and not answer:
        # Only another process answers after LOAD.
        try:
            with socket.create_connection((job["host"], job["port"])) as client:
                client.sendall(b"GET")
                answer = client.recv(65536)
        except OSError:
            continue
    if MODE == "fail":
        sys.exit("generator: out of memory")
    sys.stdin.readline()
    print(json.dumps(FIGURES), flush=True)
    sys.stdin.read()
"""


class FakeEnvironment(Environment):
    """One in which nothing is installed: the interpreter is this one, the generator a stand-in."""

    def __init__(self, folder: Path, mode: str = "good", **changes: Any) -> None:
        super().__init__(folder)
        self.python = Path(sys.executable)
        code = (
            textwrap.dedent(GENERATOR).replace("MODE", repr(mode)).replace("FIGURES", repr(window(**changes)))
        )
        self.generator = (sys.executable, "-c", code)

    def prepare(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def versions(self) -> dict[str, str]:
        return {}


def fake_server(source: str = SERVER, name: str = "fake") -> Server:
    def command(work: Workload, place: Place) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(source), str(place.port)]

    return Server(name, name, "a stand-in", command)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(FakeEnvironment(tmp_path), [(CORE,)], seconds=0.05, warmup_s=0, logs=tmp_path)


def turn(setup: Setup, server: Server, workload: str = "hello") -> dict[str, Any]:
    """A turn, after which no process of it may be left."""
    before = set(accounting.tree_pids(os.getpid()))
    result = take_turn(setup, server, WORKLOADS[workload], CORES)
    assert set(accounting.tree_pids(os.getpid())) <= before
    return result


@linux
def test_a_good_turn_has_figures(setup: Setup) -> None:
    result = turn(setup, fake_server())
    assert result["status"] == "ok"
    assert result["rate"] == 500
    assert result["memory_mib"] > 1
    assert turn(setup, fake_server(), "start")["startup_s"] > 0


@linux
def test_servers_and_generators_take_no_settings_from_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("UVICORN_WORKERS", "GUNICORN_CMD_ARGS", "NODE_OPTIONS", "GRANIAN_LOOP", "WEB_CONCURRENCY")
    settings += ("FASTASGI_WORKERS", "PYTHONASYNCIODEBUG", "MALLOC_ARENA_MAX")
    kept = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/h", "LANG": "C", "TMPDIR": "/tmp"}
    for name, value in {**dict.fromkeys(settings, "1"), **kept}.items():
        monkeypatch.setenv(name, value)
    tell_all = "import json, os, sys; print(json.dumps(dict(os.environ)), file=sys.stderr, flush=True)"
    environment = FakeEnvironment(tmp_path)
    environment.generator = (*environment.generator[:2], f"{tell_all}\n{environment.generator[2]}")
    turn(
        Setup(environment, [(CORE,)], 0.05, 0, tmp_path),
        fake_server(f"{tell_all}\n{textwrap.dedent(SERVER)}"),
    )
    for log in ("fake.log", "generator.log"):
        variables = json.loads((tmp_path / log).read_text().splitlines()[0])
        assert kept.items() <= variables.items()
        assert not set(settings) & set(variables)


OPEN_FILES = """
    import resource, subprocess, sys
    from bench.machine import allow_open_files
    soft, hard, wanted = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        allow_open_files(wanted)
    except Exception as error:
        sys.exit(str(error))
    print(subprocess.check_output(["sh", "-c", "ulimit -n"], text=True))
"""


@linux
def test_open_files_are_allowed_for_all_connections_or_the_limit_is_named() -> None:
    def run_with(*limits: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(OPEN_FILES), *map(str, limits)]
        return subprocess.run(command, env=WITH_BENCH, capture_output=True, text=True)

    assert run_with(64, 500, 300).stdout.strip() == "500"
    done = run_with(64, 200, 300)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "it takes 300 open files, and this shell allows 200: raise its hard limit (ulimit -n)"
    )


@linux
def test_a_turn_with_more_connections_than_open_files_fails_with_the_reason(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 1024))
    result = turn(setup, fake_server(), "idle")
    assert result["status"] == "failed"
    assert "it takes 10200 open files, and this shell allows 1024" in result["reason"]


@linux
def test_a_server_that_is_not_installed_is_missing(setup: Setup) -> None:
    result = turn(setup, SERVERS["uvicorn"])
    assert result["status"] == "missing"
    assert "uvicorn is not installed" in result["reason"]


@linux
def test_an_occupied_port_is_named(setup: Setup, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = turn(Setup(setup.environment, [(CORE,)], 0.05, 0, tmp_path, port), fake_server())
    assert result["status"] == "failed"
    assert f"port {port} is occupied" in result["reason"]


@linux
def test_a_server_that_ends_at_its_start_says_why(setup: Setup) -> None:
    result = turn(setup, fake_server("import sys; sys.exit('no module named app')"))
    assert result == {
        "status": "failed",
        "reason": "ended at its start with exit code 1: no module named app",
    }


@linux
@pytest.mark.parametrize(
    "source",
    [
        "import sys; print('No such option: --ssl', file=sys.stderr); sys.exit(2)",
        "raise SystemExit('TLS is not supported')",
    ],
)
def test_a_server_that_refuses_tls_settings_does_not_support_them(setup: Setup, source: str) -> None:
    assert turn(setup, fake_server(source), "tls")["status"] == "unsupported"
    assert turn(setup, fake_server(source), "hello")["status"] == "failed"


@linux
def test_a_server_that_answers_a_handshake_with_a_page_does_not_support_websockets(setup: Setup) -> None:
    result = turn(setup, fake_server(), "ws-echo")
    assert result["status"] == "unsupported"
    assert (
        result["reason"] == "not supported by this server: it answers the WebSocket handshake with '200 OK'"
    )


@linux
def test_a_server_that_answers_something_else_is_not_measured(setup: Setup) -> None:
    result = turn(setup, fake_server(SERVER.replace("Hello", "Howdy")))
    assert result["status"] == "failed"
    assert "without b'Hello, World!'" in result["reason"]
    result = turn(setup, fake_server(SERVER.replace("200 OK", "500 No")))
    assert result["reason"] == "/: answered with status 500"


@linux
def test_a_server_that_crashes_under_load_is_reported_and_cleaned_up(tmp_path: Path) -> None:
    setup = Setup(FakeEnvironment(tmp_path, "crash"), [(CORE,)], seconds=WAIT_S, warmup_s=0, logs=tmp_path)
    result = turn(setup, fake_server())
    assert result["status"] == "failed"
    assert (
        result["reason"] == "the server crashed in the middle of the run with exit code 1: boom: out of luck"
    )


@linux
def test_a_worker_that_crashes_under_load_is_reported_though_another_takes_its_place(tmp_path: Path) -> None:
    master = """
        import os, sys
        while True:
            if os.fork() == 0:
                break
            os.wait()
            print("a worker has died", file=sys.stderr, flush=True)
    """
    worker = textwrap.dedent(SERVER).replace("boom: out of luck", "boom")
    result = turn(
        Setup(FakeEnvironment(tmp_path, "replace"), [(CORE,)], seconds=0.05, warmup_s=0, logs=tmp_path),
        fake_server(textwrap.dedent(master) + worker),
    )
    assert result == {
        "status": "failed",
        "reason": "1 of the server's 2 processes ended in the middle of the run: a worker has died",
    }


@linux
def test_a_generator_that_fails_is_reported(tmp_path: Path) -> None:
    setup = Setup(FakeEnvironment(tmp_path, "fail"), [(CORE,)], seconds=0.05, warmup_s=0, logs=tmp_path)
    assert turn(setup, fake_server())["reason"] == "the load generator ended: generator: out of memory"


@linux
def test_a_refusal_under_load_is_not_supported(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path, count=0, refusal="it closes WebSockets")
    result = turn(Setup(environment, [(CORE,)], 0.05, 0, tmp_path), fake_server())
    assert result == {"status": "unsupported", "reason": "not supported by this server: it closes WebSockets"}


def test_a_package_that_cannot_be_installed_leaves_the_others(tmp_path: Path) -> None:
    class Unlucky(FakeEnvironment):
        installed: list[str] = []  # noqa: RUF012

        def _pip(self, *arguments: str) -> None:
            if "granian" in arguments:
                raise BenchError("pip install: no matching distribution")
            self.installed += arguments

    environment = Unlucky(tmp_path)
    environment._install_packages()
    assert environment.notes == ["granian is missing: pip install: no matching distribution"]
    assert {"locust", "uvicorn", "hypercorn", "daphne", "gunicorn"} <= set(Unlucky.installed)
    # It is tried again the next time.
    assert not (tmp_path / "installed.txt").exists()


@linux
def test_an_environment_whose_interpreter_has_gone_or_changed_is_made_anew(tmp_path: Path) -> None:
    class Bare(Environment):
        """With an empty pip, since to install the real one takes seconds."""

        def _run(self, command: list[str], what: str, cwd: Path | None = None) -> str:
            if "venv" not in command:
                return super()._run(command, what, cwd)
            said = super()._run([*command, "--without-pip"], what, cwd)
            pip = next(self.folder.glob("lib/*/site-packages")) / "pip"
            pip.mkdir()
            (pip / "__init__.py").touch()
            return said

        def _pip(self, *arguments: str) -> None:
            pass

    environment = Bare(tmp_path)
    environment._lock()
    environment._install_packages()
    assert environment.python_version() == platform.python_version()
    stamp = (tmp_path / "installed.txt").read_text()
    assert os.path.realpath(environment.python) in stamp.splitlines()[0]
    for spoil in (
        lambda: (environment.python.unlink(), environment.python.symlink_to("/nonexistent/python3")),
        lambda: (tmp_path / "installed.txt").write_text("3 10 1 final 0 /usr/bin/python3.10\n"),
        lambda: shutil.rmtree(next(tmp_path.glob("lib/*/site-packages/pip"))),
    ):
        (tmp_path / "builds").mkdir()
        spoil()
        environment._install_packages()
        assert environment._run([str(environment.python), "-c", "import pip"], "pip") == ""
        assert (tmp_path / "installed.txt").read_text() == stamp
        # A build is for one interpreter.
        assert not (tmp_path / "builds").exists()
    environment._install_packages()


@linux
def test_a_folder_with_other_files_is_not_taken_for_an_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with pytest.raises(BenchError, match="it holds other files"):
        Environment(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@linux
def test_the_results_name_the_python_of_the_environment(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.python = tmp_path / "python"
    environment.python.write_text("#!/bin/sh\necho 3.99.1\n")
    environment.python.chmod(0o755)
    found = run.carry_out(plan(fake_server(), rounds=1), environment, tmp_path)
    assert found["machine"]["python"] == "3.99.1"


@linux
def test_a_command_that_fails_is_told_by_its_error_and_not_by_advice(tmp_path: Path) -> None:
    source = """
        import sys
        sys.exit("WARNING: slow\\nERROR: no matching distribution\\nERROR: gave up\\nfor help visit x")
    """
    environment = Environment(tmp_path)
    with pytest.raises(BenchError, match=r"^pip install: ERROR: no matching distribution$"):
        environment._run([sys.executable, "-c", textwrap.dedent(source)], "pip install")
    with pytest.raises(BenchError, match=r"^it: last$"):
        environment._run([sys.executable, "-c", "import sys; sys.exit('first\\nlast')"], "it")
    with pytest.raises(BenchError, match=r"^it: exit code 3$"):
        environment._run([sys.executable, "-c", "import sys; sys.exit(3)"], "it")


@linux
def test_a_silent_initdb_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_program", lambda name: shutil.which("false"))
    with pytest.raises(BenchError, match=r"^initdb failed: exit code 1$"), database.running((CORE,)):
        pass


@linux
def test_two_runs_do_not_share_an_environment(tmp_path: Path) -> None:
    first, second = Environment(tmp_path), Environment(tmp_path)
    first._lock()
    with pytest.raises(BenchError, match="another bench uses it"):
        second._lock()


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = False
    try:
        with processes.interrupts_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            done = True
    except KeyboardInterrupt:
        assert done
    else:
        pytest.fail("the interrupt was lost")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the bench's process, for the length of a test."""
    # The suite itself may run under nohup, or in the background, where they are ignored.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in processes.INTERRUPTS}
    processes.take_interrupts()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_interrupt_ends_and_others_do_not_disturb_that(interrupt: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(interrupt)
    for number in processes.INTERRUPTS:
        signal.raise_signal(number)
        with processes.interrupts_deferred():
            signal.raise_signal(number)


def raise_deferred(*numbers: signal.Signals) -> None:
    with processes.interrupts_deferred():
        for number in numbers:
            signal.raise_signal(number)


def test_a_signal_that_was_to_be_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        processes.take_interrupts()
        with pytest.raises(KeyboardInterrupt):
            raise_deferred(signal.SIGHUP, signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        for number, handler in interrupt.items():
            signal.signal(number, handler)


@linux
@pytest.mark.usefixtures("handlers")
def test_an_interrupted_command_of_the_environment_leaves_nothing(tmp_path: Path) -> None:
    """As pip's build of fastasgi: with children, one of which ignores signals, and temporary files."""
    source = f"""
        import os, signal, tempfile
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        made = tempfile.mkdtemp()
        pid = os.fork()
        if pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with open({str(tmp_path / "made")!r}, "w") as file:
                file.write(f"{{made}} {{pid}} {{os.getpid()}}")
            os.kill({os.getpid()}, signal.SIGTERM)
        signal.pause()
    """
    environment = Environment(tmp_path / "environment")
    with pytest.raises(KeyboardInterrupt):
        environment._run([sys.executable, "-c", textwrap.dedent(source)], "building")
    made, *pids = (tmp_path / "made").read_text().split()
    assert Path(made).is_relative_to(environment.folder)
    assert list(environment.folder.iterdir()) == []
    running = {process.pid for process in accounting.read_processes() if process.state not in "ZX"}
    assert not running & set(map(int, pids))


@linux
@pytest.mark.skipif(not shutil.which("psql"), reason="no PostgreSQL")
def test_interrupts_without_end_leave_nothing_of_the_database() -> None:
    source = f"""
        import signal
        from bench import database, processes
        processes.take_interrupts()
        try:
            with database.running(({CORE},)) as running:
                print(running.sockets, running._process.pid, flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("ended", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, env=WITH_BENCH, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder, pid = process.stdout.readline().split()
        assert accounting.tree_pids(int(pid))
        ends = time.monotonic() + WAIT_S
        while process.poll() is None:
            assert time.monotonic() < ends
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert process.stdout.read() == "ended\n"
    assert not Path(folder).exists()
    assert accounting.tree_pids(int(pid)) == []


def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    source = """
        import os, runpy, signal, sys
        class Interrupter:
            def find_spec(self, name, *rest):
                if name == "bench.errors":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupter())
        sys.argv = ["bench", "list"]
        runpy.run_module("bench", run_name="__main__", alter_sys=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], env=WITH_BENCH, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "bench: interrupted\n")


def plan(*servers: Server, rounds: int = 2, workloads: tuple[str, ...] = ("hello",)) -> run.Plan:
    return run.Plan(servers, tuple(WORKLOADS[name] for name in workloads), 0.05, rounds, 0.0)


@linux
def test_a_run_keeps_what_others_gave_when_one_fails(tmp_path: Path) -> None:
    servers = fake_server(), fake_server("raise SystemExit('broken')", "broken"), SERVERS["daphne"]
    found = run.carry_out(plan(*servers), FakeEnvironment(tmp_path), tmp_path)
    assert found == store.load(tmp_path)
    assert [(turn["server"], turn["round"], turn["status"]) for turn in found["turns"]] == [
        ("fake", 0, "ok"),
        ("broken", 0, "failed"),
        ("daphne", 0, "missing"),
        ("fake", 1, "ok"),
        ("broken", 1, "failed"),
    ]


@linux
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_its_results(tmp_path: Path, interrupt: signal.Signals) -> None:
    before = set(accounting.tree_pids(os.getpid()))
    interrupter = fake_server(f"import os; os.kill({os.getpid()}, {int(interrupt)}); input()", "interrupter")
    assert threading.current_thread() is threading.main_thread()
    found = run.carry_out(plan(fake_server(), interrupter), FakeEnvironment(tmp_path), tmp_path)
    assert found["interrupted"]
    assert [turn["status"] for turn in store.load(tmp_path)["turns"]] == ["ok"]
    assert set(accounting.tree_pids(os.getpid())) <= before
    assert "interrupted" in report.build_page(found)


# Reports


def results_of(*turns: dict[str, Any], rounds: int = 3, **changes: Any) -> dict[str, Any]:
    names = ("fastasgi", "uvicorn", "node", "floor")
    machine = {
        "processor": "<Chip> & Co",
        "cores": 2,
        "memory_gib": 8.0,
        "system": "Linux 6",
        "architecture": "x86_64",
    }
    machine |= {
        "python": "3.11.1",
        "commit": "0123456789abcdef",
        "changed": False,
        "date": "2026-11-21T10:00:00+00:00",
    }
    found = {
        "format": store.FORMAT,
        "machine": machine,
        "versions": {"locust": "2"},
        "settings": {"seconds": 1.0, "rounds": rounds, "warmup_s": 0.5},
        "servers": {name: {"title": SERVERS[name].title, "settings": "x", "versions": "1"} for name in names},
        "workloads": {turn["workload"]: run._describe(WORKLOADS[turn["workload"]]) for turn in turns},
        "notes": [],
        "interrupted": False,
        "turns": list(turns),
    }
    return found | changes


def good_turn(
    server: str, rate: float, number: int = 0, workload: str = "hello", **changes: Any
) -> dict[str, Any]:
    figures = figures_of(window(count=round(rate * 2)), cores=APART) | {"limit": "server"}
    return {"workload": workload, "server": server, "round": number, "status": "ok", **figures, **changes}


def full_results() -> dict[str, Any]:
    turns = []
    for number in range(3):
        turns += [
            good_turn("fastasgi", 3000 + 10 * number, number),
            good_turn("uvicorn", 1000 + 5 * number, number),
        ]
        turns += [good_turn("floor", 9000, number, limit="generator")]
        turns += [good_turn(name, 1000, number, "rate-1000", limit="rate") for name in ("fastasgi", "node")]
        for name in ("fastasgi", "uvicorn"):
            turns.append(
                {"workload": "idle", "server": name, "round": number, "status": "ok"}
                | {"memory_mib": 50 + number, "resting_mib": 20, "connection_kib": 3.0 + number}
            )
            turns.append(
                {"workload": "start", "server": name, "round": number, "status": "ok"}
                | {"startup_s": 0.1 + number / 100, "memory_mib": 20.0, "cpu_s": 0.1}
            )
    turns.append(
        {
            "workload": "ws-echo",
            "server": "node",
            "round": 0,
            "status": "failed",
            "reason": "<b>boom</b> & bang",
        }
    )
    return results_of(*turns)


class Checker(HTMLParser):
    """Sees to it that tags are closed in order, and notes what would be loaded from elsewhere."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "srcset", "data")]
        self.loads += [
            value or "" for name, value in attributes if name == "href" and not (value or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(results: dict[str, Any]) -> str:
    page = report.build_page(results)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.loads == []
    # A brace behind the style sheet is a text that was meant to be filled in.
    assert "{" not in checker.text[checker.text.index("Python web servers") :]
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"\b(nan|inf|None)\b", checker.text)
    return checker.text


def test_the_report_is_one_page_that_loads_nothing() -> None:
    text = check_page(full_results())
    assert "<Chip> & Co" in text
    assert "failed: <b>boom</b> & bang" in text
    assert "≥ 9\u202f000" in text
    assert "C epoll floor: a load generator used up its core, or was late: the server could do more." in text
    # 3000 to 1000, 3010 to 1005, 3020 to 1010.
    assert "3.002.98 to 3.01" in text
    assert "5.0 KiB" not in text
    assert "4.00 KiB" not in text
    assert "4.0 KiB" in text


def ratio_rows(results: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of the ratio table, without their intervals, by the workload's title."""
    rows = re.findall(r"<tr><td><a [^>]*>(.*?)</a></td>(.*?)</tr>", report._ratio_table(results))
    cells = {title: re.findall("<td>(.*?)</td>", rest) for title, rest in rows}
    return {
        title: [re.sub("<small>.*?</small>|<.*?>", "", cell) for cell in row] for title, row in cells.items()
    }


def test_what_the_load_fixes_has_no_ratio_of_rates() -> None:
    turns = []
    for number in range(3):
        turns += [good_turn("fastasgi", 5000, number, "events", limit="rate", user_us=100.0, system_us=0.0)]
        turns += [good_turn("uvicorn", 5000, number, "events", limit="rate", user_us=250.0, system_us=0.0)]
    results = results_of(*turns)
    assert list(ratio_rows(results).values()) == [["—", "2.50", "", ""]]
    text = check_page(results)
    assert "—: the load fixed the rate" in text
    assert "events a second: as many as the load asks for" in text


def test_a_figure_that_the_database_held_back_is_a_lower_bound() -> None:
    turns = [
        good_turn(server, rate, number, limit=limit)
        for number in range(3)
        for server, rate, limit in (("fastasgi", 3000, "database"), ("uvicorn", 1000, "server"))
    ]
    results = results_of(*turns)
    assert next(iter(ratio_rows(results).values()))[0] == "≥ 3.00"
    text = check_page(results)
    assert "≥ 3\u202f000" in text
    assert "PostgreSQL used up its core: the server could do more." in text


@pytest.mark.parametrize(
    ("ours", "theirs", "rates", "cell"),
    [
        ("server", "server", (3000, 1000), '<span class="up">3.00'),
        ("generator", "server", (3000, 1000), '<span class="up">≥ 3.00'),
        ("server", "generator", (3000, 1000), '<span class="">≤ 3.00'),
        ("server", "generator", (500, 1000), '<span class="down">≤ 0.50'),
        ("generator", "server", (500, 1000), '<span class="">≥ 0.50'),
        ("generator", "generator", (3000, 1000), '<span class="">? 3.00'),
    ],
)
def test_a_ratio_has_a_colour_only_where_its_side_of_1_is_known(
    ours: str, theirs: str, rates: tuple[float, float], cell: str
) -> None:
    turns = []
    for number in range(3):
        turns += [good_turn("fastasgi", rates[0], number, limit=ours)]
        turns += [good_turn("uvicorn", rates[1], number, limit=theirs)]
    assert cell in report._ratio_table(results_of(*turns))


def test_nodes_cluster_stands_for_node_with_two_workers() -> None:
    turns = []
    for workload, server in (("hello", "node"), ("workers-2", "node-cluster")):
        turns += [good_turn("fastasgi", 3000, 0, workload), good_turn(server, 1500, 0, workload)]
    results = results_of(*turns)
    results["servers"]["node-cluster"] = {"title": "Node cluster", "settings": "x"}
    assert [row[2] for row in ratio_rows(results).values()] == ["2.00", "2.00"]
    assert "With 2 workers Node is its cluster module." in check_page(results)


def test_the_legend_names_only_what_is_in_the_table() -> None:
    turns = [good_turn("fastasgi", 3000), good_turn("uvicorn", 1000)]
    legend = check_page(results_of(*turns))
    for absent in ("interval", "≥:", "≤:", "?:", "—:", "cluster module"):
        assert absent not in legend
    assert "the interval that holds the true ratio" in check_page(full_results())


def test_a_commit_that_is_unknown_has_no_changes() -> None:
    results = results_of()
    results["machine"] |= {"commit": "unknown", "changed": True}
    assert "changes" not in check_page(results)
    results["machine"]["commit"] = "0123456789abcdef"
    assert "commit 0123456789 and changes that are not committed" in check_page(results)


def test_a_quantile_needs_ten_answers_beyond_it() -> None:
    # 1500 answers: 99 % leaves 15, 99.9 % one.
    turns = [good_turn("fastasgi", 1000, 0, "rate-1000", latencies=[[300, 1500]])]
    page = report.build_page(results_of(*turns))
    (row,) = re.findall("<tr><td>fastasgi</td>(.*?)</tr>", page.split('id="settings"')[0])
    assert [bool(cell) for cell in re.findall("<td>(.*?)</td>", row)[:4]] == [True, True, True, False]
    # The axis ends where the last curve does.
    ticks = re.findall('text-anchor="middle">([0-9.]+)</text>', page)
    assert ticks == ["0", "50", "90", "99"]


def test_labels_of_curves_do_not_touch() -> None:
    wanted = [100.0, 101.0, 299.0, 300.0, 99.0, 298.0]
    heights = charts._spread_labels(wanted)
    order = sorted(heights)
    assert all(below - above >= charts._LABEL_HEIGHT for above, below in itertools.pairwise(order))
    assert sorted(range(6), key=heights.__getitem__) == sorted(range(6), key=wanted.__getitem__)
    assert order[-1] <= charts._HEIGHT


def test_shared_cores_are_told_and_no_others() -> None:
    results = results_of(good_turn("fastasgi", 1000))
    work = results["workloads"]["hello"]
    work["cores"] = Cores((0,), (1,), (1,)).as_json()
    text = check_page(results)
    assert "server on core 0; load from core 1; database on core 1, shared" in text
    assert "on cores that the load doesn't use, and stopped" in text
    work["cores"] = Cores((0, 1), (1,), ()).as_json()
    text = check_page(results)
    assert "server on cores 0, 1; load from core 1, shared with the server" in text
    assert "as far as there are enough" in text


def test_the_steps_of_a_mixed_workload_are_shown() -> None:
    def steps(p50_s: float) -> dict[str, Any]:
        logins = {"count": 2000, "failures": 0, "median_s": p50_s, "p95_s": 0.02, "p99_s": 0.03}
        return {"<log in>": logins, "rare": logins | {"count": 100, "failures": 2}}

    turns = [
        good_turn("fastasgi", 1000, number, "mixed", steps=steps(p50_s))
        for number, p50_s in enumerate((0.001, 0.009, 0.002))
    ]
    results = results_of(*turns, good_turn("uvicorn", 500, 0, "mixed"))
    check_page(results)
    table = report._step_table(results, "mixed")
    assert "<th>&lt;log in&gt;</th><th>rare</th>" in table
    assert re.findall("<tr><td>.*?</tr>", table) == [
        "<tr><td>fastasgi</td><td>2 ms<small>30 ms</small></td><td>2 ms<small>6 failed</small></td></tr>"
    ]
    assert report._step_table(results_of(good_turn("fastasgi", 1000)), "hello") == ""


def test_a_report_of_nothing_but_failures_can_be_made() -> None:
    turns = [
        {"workload": name, "server": "fastasgi", "round": 0, "status": "failed", "reason": "no luck"}
        for name in ("hello", "idle", "start", "rate-1000", "events")
    ]
    results = results_of(*turns, rounds=1, interrupted=True)
    text = check_page(results)
    assert text.count("failed: no luck") == 5
    assert "was interrupted" in text
    assert "Fewer than three rounds" in text
    assert report.build_chart(results) == ""
    check_page(results_of())


def test_a_server_without_cpu_time_does_not_break_the_report() -> None:
    turns = [
        good_turn(name, 100, number, user_us=0.0, system_us=0.0)
        for name in ("fastasgi", "uvicorn")
        for number in range(3)
    ]
    check_page(results_of(*turns))


def test_the_readmes_chart_is_svg_with_every_server(tmp_path: Path) -> None:
    store.save(tmp_path, full_results())
    assert report.write(tmp_path) == tmp_path / "report.html"
    root = xml.etree.ElementTree.parse(tmp_path / "chart.svg").getroot()
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in ("fastasgi", "uvicorn", "C epoll floor")] == [
        "fastasgi",
        "uvicorn",
        "C epoll floor",
    ]
    texts = " ".join(words)
    # Rate and CPU time of each, of whom and when.
    assert "≥ 9\u202f000" in texts
    assert texts.count(" µs") == 3
    assert "<Chip> & Co, 2 cores, one worker each; 2026-11-21" in texts
    assert "≥: something else than the server was used up" in texts


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    store.save(tmp_path, results_of(format=99))
    with pytest.raises(ValueError, match="format 99"):
        store.load(tmp_path)
    assert main(["report", str(tmp_path)]) == 1


def test_numbers_are_short_and_have_units() -> None:
    assert [format_number(x) for x in (0.5, 9.996, 99.96, 1234567)] == [
        "0.50",
        "10.0",
        "100",
        "1\u202f234\u202f567",
    ]
    assert [format_tick(x) for x in (0, 250.0, 1500, 250000, 1.5e6)] == ["0", "250", "1.5k", "250k", "1.5M"]
    assert [format_time(x) for x in (1e-6, 0.00025, 0.001, 0.0123, 1, 12.34)] == [
        "1 µs",
        "250 µs",
        "1 ms",
        "12.3 ms",
        "1 s",
        "12.3 s",
    ]
    assert [nice_ceiling(x) for x in (0, 1, 1.1, 7, 9, 12000)] == [1, 1, 1.5, 8, 10, 15000]


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quick", "--servers", "nginx"], "--servers: there is no 'nginx'"),
        (["quick", "-w", "hello,hi"], "--workloads: there is no 'hi'"),
        (["full", "--seconds", "0"], "--seconds 0.0"),
        (["full", "--rounds", "0"], "--rounds 0"),
        (["full", "--port", "70000"], "--port 70000"),
        (
            ["full", "--results", "/dev/null/x"],
            "--results /dev/null/x: Not a directory; choose another folder",
        ),
        (["prepare", "--environment", "/dev/null/x"], "--environment /dev/null/x: Not a directory; choose"),
        (["compare", "HEAD", "-w", "hello,start"], "--workloads start: it has no rate to compare"),
        (["compare", "HEAD", "-w", "hello,te-db"], "--workloads te-db: compare starts no PostgreSQL"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--environment", str(tmp_path / "never"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_the_environment_can_be_named_before_the_command_and_behind_it() -> None:
    parser = build_parser()
    for arguments in (["--environment", "x", "prepare"], ["prepare", "--environment", "x"]):
        assert parser.parse_args(arguments).environment == Path("x")
    assert parser.parse_args(["full"]).environment == ROOT / ".venv-bench"


def test_an_environment_of_another_user_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "lock"))

    monkeypatch.setattr(os, "open", refuse)
    assert main(["--environment", str(tmp_path), "prepare"]) == 2
    assert (
        capsys.readouterr().err
        == f"bench: --environment {tmp_path}: Permission denied; choose another folder\n"
    )


def test_an_output_that_nobody_reads_is_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "list"],
        env=WITH_BENCH,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "bench: nobody reads the output any more\n"
    assert process.returncode == 1


@linux
def test_a_run_whose_output_nobody_reads_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(run, "print", broken, raising=False)
    with pytest.raises(BrokenPipeError):
        run.carry_out(plan(fake_server()), FakeEnvironment(tmp_path), tmp_path)
    found = store.load(tmp_path)
    assert [turn["status"] for turn in found["turns"]] == ["ok"]
    assert found["interrupted"]


def test_the_readme_counts_servers_and_workloads() -> None:
    text = (ROOT / "bench" / "README.md").read_text()
    assert f"{len(WORKLOADS)} workloads, {len(SERVERS)} servers" in text


def test_every_server_makes_a_command_for_every_workload_or_says_why_not(tmp_path: Path) -> None:
    for program in ("python", "uvicorn", "granian", "hypercorn", "daphne", "gunicorn", "floor"):
        (tmp_path / program).touch()
    place = Place(
        free_port(), tmp_path, tmp_path / "floor", "/usr/bin/node", tmp_path / "key", tmp_path / "certificate"
    )
    for server in SERVERS.values():
        for work in WORKLOADS.values():
            if server.takes_part(work):
                try:
                    command = server.command(work, place)
                except UnsupportedError:
                    continue
                assert str(place.port) in " ".join(command)
                assert not work.tls or str(place.certificate) in " ".join(command)


def test_each_workload_has_a_request_that_h11_reads() -> None:
    for work in WORKLOADS.values():
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(work.request)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        assert request.target == work.path.encode()
        length = 0
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            length += len(event.data)
        assert length == work.body_bytes
        assert work.workers <= 2


def test_the_guard_fails_on_growth_and_on_what_is_not_counted_any_more() -> None:
    changes = guard.compare(
        {"a": 100, "b": 100, "c": 100, "d": 100}, {"a": 102.9, "b": 103.1, "c": 50, "e": 7}
    )
    assert {change.name: change.fails for change in changes} == {
        "a": False,
        "b": True,
        "c": False,
        "d": True,
        "e": False,
    }
    lines = dict(zip("abcde", map(guard.describe, changes), strict=True))
    assert "FAILED: more than 3%" in lines["b"]
    assert "record anew" in lines["c"]
    assert "not counted any more" in lines["d"]
    assert "not recorded yet" in lines["e"]


def test_callgrinds_total_is_read(tmp_path: Path) -> None:
    dump = tmp_path / "counts.2"
    dump.write_text("version: 1\nevents: Ir\n\nfn=(1) x\n1 5\n\nsummary: 12345\n\ntotals: 12345\n")
    assert guard.read_total(dump) == 12345
    dump.write_text("version: 1\n")
    with pytest.raises(BenchError, match="no total"):
        guard.read_total(dump)
    with pytest.raises(BenchError, match="wrote no"):
        guard.read_total(tmp_path / "counts.3")


def test_a_comparison_of_commits_shows_ratios_and_failures() -> None:
    pairs = [(good_turn("fastasgi", 1000 + n), good_turn("fastasgi", 1100 + 2 * n)) for n in range(5)]
    text = compare.describe(compare.Comparison(WORKLOADS["hello"], pairs, ["base: no luck", "base: no luck"]))
    assert text.count("base: no luck") == 1
    assert "rate x 1.102 [1.100 to 1.104]" in text
    assert "CPU time a request x 0.908" in text


def test_commits_are_compared_where_turns_took_no_cpu_time_or_had_a_fixed_rate() -> None:
    idle = good_turn("fastasgi", 100, user_us=0.0, system_us=0.0, limit="rate")
    text = compare.describe(compare.Comparison(WORKLOADS["hello"], [(idle, idle)], []))
    assert "rate fixed by the load   CPU time a request too little to measure" in text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose only commit has neither README.md nor LICENSE."""
    root = tmp_path / "checkout"
    (root / "fastasgi").mkdir(parents=True)
    (root / "fastasgi" / "__init__.py").write_text("")
    (root / "setup.py").write_text("")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    monkeypatch.setattr("bench.environment.ROOT", root)
    return root


@linux
@pytest.mark.usefixtures("repository")
def test_a_commit_without_some_of_the_sources_can_be_built(tmp_path: Path) -> None:
    class Builder(Environment):
        def _build(self, sources: Path, build: Path, stamp: str) -> Path:
            assert sorted(path.name for path in sources.iterdir()) == ["fastasgi", "setup.py"]
            return build

    environment = Builder(tmp_path / "environment")
    assert re.fullmatch("[0-9a-f]{40}", environment.build_revision("HEAD").name)


@linux
@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("revision", ["nowhere", "--all", "HEAD^"])
def test_an_unknown_commit_is_named(tmp_path: Path, revision: str) -> None:
    with pytest.raises(UsageError, match=f"there is no commit '{re.escape(revision)}'"):
        Environment(tmp_path / "environment").build_revision(revision)


@linux
def test_where_there_is_no_repository_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.environment.ROOT", tmp_path)
    with pytest.raises(BenchError, match="git: fatal: not a git repository"):
        Environment(tmp_path / "environment").build_revision("HEAD")


# Real programs


@linux
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_floor_answers_each_blank_line_wherever_reads_are_cut(tmp_path: Path) -> None:
    floor, port = tmp_path / "floor", free_port()
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    subprocess.run(["cc", "-O1", *warnings, str(ROOT / "bench" / "floor.c"), "-o", str(floor)], check=True)
    requests = WORKLOADS["hello"].request + b"GET / HTTP/1.1\r\nx: \r\r\n\r\n" + WORKLOADS["hello"].request
    with processes.Processes() as group:
        process = group.start([str(floor), str(port)], (CORE,), tmp_path / "log")
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        for split in range(1, len(requests)):
            with socket.create_connection(("127.0.0.1", port), WAIT_S) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                counter, count = ResponseCounter(), 0
                client.sendall(requests[:split])
                client.sendall(requests[split:])
                while count < 3:
                    data = client.recv(65536)
                    assert data, "closed early"
                    count += counter.feed(data)
                assert count == 3


@pytest.fixture
def statements() -> Iterator[tuple[Path, Callable[[], list[tuple[str, str]]]]]:
    """The folder of a PostgreSQL's socket, and a function that says what clients have asked of it since the
    last call.
    """
    try:
        with database.running((CORE,)) as running:
            settings = "ALTER DATABASE bench SET log_min_duration_statement = 0"
            psql = [database.find_program("psql"), "-h", str(running.sockets), "-U", "bench", "bench"]
            subprocess.run([*psql, "-q", "-c", settings], check=True)
            log, read = running.sockets / "log", 0

            def asked() -> list[tuple[str, str]]:
                nonlocal read
                text = log.read_text()[read:]
                read += len(text)
                return re.findall(r"duration: \S+ ms  (parse|bind|execute|statement)[^:]*: (.*)", text)

            yield running.sockets, asked
    except MissingError as error:
        pytest.skip(str(error))


@linux
@pytest.mark.parametrize("name", ["starlette", "node"])
def test_the_database_is_asked_the_same_by_each_application(
    name: str, statements: tuple[Path, Callable[[], list[tuple[str, str]]]], tmp_path: Path
) -> None:
    folder, asked = statements
    port, apps = free_port(), ROOT / "bench" / "apps"
    node_modules = ROOT / ".venv-bench" / "node" / "node_modules"
    if name == "node":
        if not shutil.which("node") or not (node_modules / "pg").is_dir():
            pytest.skip("the bench's environment has no Node with pg")
        command = ["node", str(apps / "server.js"), str(port), "1"]
    else:
        for module in ("asyncpg", "jinja2", "starlette"):
            pytest.importorskip(module)
        command = [sys.executable, "-m", "fastasgi", "techempower:app", "--app-dir", str(apps)]
        command += ["--port", str(port)]
    variables = {
        **os.environ,
        "NODE_PATH": str(node_modules),
        "BENCH_DATABASE": str(folder),
        "BENCH_POOL": "1",
    }
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log", env=variables)
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        found = []
        for path in ("/db", "/queries?queries=3", "/db", "/fortunes", "/fortunes"):
            client.request("GET", path)
            response = client.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            found.append(asked())
        client.close()
    row = [
        (step, "SELECT id, randomnumber FROM world WHERE id = $1") for step in ("parse", "bind", "execute")
    ]
    fortunes = [(step, "SELECT id, message FROM fortune") for step in ("parse", "bind", "execute")]
    # Each statement is prepared once on a connection, and nothing but the statements is asked.
    assert found == [row, row[1:] * 3, row[1:], fortunes, fortunes[1:]]


@pytest.fixture
def plain_server() -> Server:
    """fastasgi with the bench's own application."""

    def command(work: Workload, place: Place) -> list[str]:
        app = ["plain:app", "--app-dir", str(ROOT / "bench" / "apps")]
        return [sys.executable, "-m", "fastasgi", *app, "--port", str(place.port), "--no-access-log"]

    return Server("fastasgi", "fastasgi", "x", command, needs_fastasgi=True)


# Loaded into Node before server.js: writes the number of the loop's turn at each piece of a response.
COUNT_TURNS = """
    const http = require('http');
    let turns = 0;
    (function turn() { turns++; setImmediate(turn).unref(); })();
    const write = http.ServerResponse.prototype.write;
    http.ServerResponse.prototype.write = function (...arguments) {
      console.log(turns);
      return write.apply(this, arguments);
    };
"""


@linux
@pytest.mark.skipif(not shutil.which("node"), reason="no Node")
def test_nodes_loop_turns_between_the_pieces_of_a_stream(tmp_path: Path) -> None:
    port, counter = free_port(), tmp_path / "count.js"
    counter.write_text(COUNT_TURNS)
    command = ["node", "--require", str(counter), str(ROOT / "bench" / "apps" / "server.js"), str(port), "1"]
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log")
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        client.request("GET", "/stream")
        assert client.getresponse().read() == b"y" * 65536
        client.close()
    turns = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(set(turns)) == len(turns) == 64


def test_asyncios_loop_turns_between_the_pieces_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench" / "apps")
    plain = importlib.import_module("plain")
    turns, sent_at = 0, []

    async def send(message: dict[str, Any]) -> None:
        if message.get("more_body"):
            sent_at.append(turns)

    async def main() -> None:
        nonlocal turns
        streaming = asyncio.ensure_future(plain.app({"type": "http", "path": "/stream"}, None, send))
        while not streaming.done():
            turns += 1
            await asyncio.sleep(0)
        await streaming

    asyncio.run(main())
    assert len(set(sent_at)) == len(sent_at) == 64


def start_generator(group: processes.Processes, port: int, log: Path, **job: Any) -> subprocess.Popen[str]:
    """The real generator with a job, at work: it waits for ``go``."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = group.start(
        [sys.executable, "-m", "bench.generator"],
        (CORE,),
        log,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    job = {"host": "127.0.0.1", "port": port, "kind": "request", "joins": False, "warmup_s": 0} | job
    job = {"connections": 1, "request": WORKLOADS["hello"].request.decode()} | job
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def serve_answers(listener: socket.socket, answers: Iterator[bytes], given: list[bytes]) -> None:
    """Give each request that comes on any connection the next answer, and note it in `given`, until the
    listener closes.
    """

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while client.recv(65536):
                answer = next(answers)
                client.sendall(answer)
                given.append(answer)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def window_of_real_generator(
    answers: Iterator[bytes], folder: Path, *, answered: int = 1, **job: Any
) -> dict[str, Any]:
    """What the real generator says of a server that gives these answers, and has given so many of them."""
    given: list[bytes] = []
    with processes.Processes() as group, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_answers, args=(listener, answers, given), daemon=True).start()
        process = start_generator(group, listener.getsockname()[1], folder / "log", **job)
        assert hear(process) == "ready"
        tell(process, "go")
        wait_until(lambda: len(given) >= answered)
        tell(process, "stop")
        found: dict[str, Any] = json.loads(hear(process))
        # Ends the blocking accept.
        listener.shutdown(socket.SHUT_RDWR)
    return found


STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"12\r\ndata: 1.000000\n\n\r\n"


@linux
@pytest.mark.parametrize(
    ("answer", "joined", "failure"),
    [
        (STREAM + EVENT, 3, None),
        (STREAM, 3, None),
        (STREAM[:-2], 0, None),
        (STREAM + EVENT + b"0\r\n\r\n", 0, "the stream of events ended"),
        (STREAM.replace(b"200 OK", b"503 No") + EVENT, 0, "answered with status 503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\ndata: 1.000000\n\n", 0, "not with a stream"),
    ],
    ids=["event", "head", "part of a head", "end", "503", "no stream"],
)
def test_a_client_of_events_has_joined_when_a_stream_has_begun(
    answer: bytes, joined: int, failure: str | None, tmp_path: Path
) -> None:
    found = window_of_real_generator(
        itertools.repeat(answer),
        tmp_path,
        kind="events",
        connections=3,
        joins=failure is not None or joined > 0,
    )
    assert found["joined"] == joined
    reasons = [*found["failures"], *found["failures_before"]]
    assert any(failure in reason for reason in reasons) if failure else not reasons


@linux
@pytest.mark.parametrize("kind", ["request", "rated"])
@pytest.mark.parametrize("fixed", [True, False])
def test_raw_users_look_at_the_length_of_bodies(kind: str, fixed: bool, tmp_path: Path) -> None:
    answers = itertools.chain([SIMPLE], itertools.repeat(EMPTY))
    # The third is asked for when the second has been looked at.
    found = window_of_real_generator(answers, tmp_path, answered=3, kind=kind, rate=1000, fixed=fixed)
    reasons = {*found["failures"], *found["failures_before"]}
    assert reasons == ({"a body of 0 bytes, where others had 13"} if fixed else set())


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@linux
def test_the_load_goes_on_after_the_window_until_the_server_has_been_looked_at(tmp_path: Path) -> None:
    with processes.Processes() as group, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        process = start_generator(group, listener.getsockname()[1], tmp_path / "log")
        with listener.accept()[0] as client:
            client.settimeout(WAIT_S)
            assert hear(process) == "ready"
            for line in ("go", "stop"):
                tell(process, line)
            assert json.loads(hear(process))["failures"] == {}
            for _ in range(1000):
                assert client.recv(65536)
                client.sendall(SIMPLE)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(WAIT_S) == 0


# The clock of a rated user ticks when it is read, once for each turn of its loop, and not with time: a
# latency is a number of turns. Answers are there as soon as a request is sent.
RATED = """
    from bench import users  # patches for gevent: first
    import json, socket
    from bench.recorder import Recorder

    ticks, mine = 0, []
    def now():
        global ticks
        ticks += 1
        return ticks / 1e5

    class Target(users.Target):
        def connect(self):
            client, server = socket.socketpair()
            client.setblocking(False)
            mine.append(server)
            return client

    class Link(users.Link):
        def send(self, data):
            super().send(data)
            mine[-1].recv(65536)
            mine[-1].sendall(ANSWER)

    class Counting(Recorder):
        def answered(self, latency_s, *rest):
            super().answered(latency_s, *rest)
            latencies.append(round(latency_s * 1e5))

    latencies = []
    users.now, users.Link = now, Link
    users.RatedUser.target = Target({"host": "", "port": 0, "rate": 500, "request": "GET"}, Counting())
    user = users.gevent.spawn(users.RatedUser.work, users.RatedUser(None))
    while len(latencies) < 20:
        users.gevent.sleep(0.01)
    print(json.dumps(latencies))
""".replace("ANSWER", repr(SIMPLE))


@linux
def test_at_a_fixed_rate_an_answer_is_seen_in_the_next_turn_of_the_loop() -> None:
    command = [sys.executable, "-c", textwrap.dedent(RATED)]
    done = subprocess.run(command, env=WITH_BENCH, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    # Some readings of the clock are the sending's own.
    assert max(json.loads(done.stdout)) < 10


@linux
@pytest.mark.parametrize("workload", ["hello", "pipeline", "reconnect", "client", "rate-1000", "download1m"])
def test_the_real_generator_drives_a_real_server(workload: str, plain_server: Server, tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.generator = (sys.executable, "-m", "bench.generator")
    installed = Path(fastasgi.__path__[0]).parent
    setup = Setup(environment, [(CORE,)], 0.3, 0.1, tmp_path, fastasgi=installed)
    result = turn(setup, plain_server, workload)
    assert result["status"] == "ok", result
    assert result["failures"] == {}
    latencies = Histogram(map(tuple, result["latencies"]))
    assert latencies.total >= result["count"] > 10
    if workload == "rate-1000" and max(result["lateness_p99_s"], latencies.quantile(1)) < 0.02:
        # What a busy machine held up before the window is answered in it, at a higher rate than planned.
        assert result["rate"] == pytest.approx(1000, rel=0.2)
    # locust's statistics are of the window, as the recorder's are.
    steps = {"/": result["count"]} if workload == "client" else {}
    assert {name: step["count"] for name, step in result["steps"].items()} == steps
