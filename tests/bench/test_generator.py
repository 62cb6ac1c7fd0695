"""The real load generator, against sockets of the test's own and a real server."""

import contextlib
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchparts import CORE, EMPTY, ROOT, SIMPLE, WAIT_S, FakeEnvironment, linux, listening, turn
from certificates import Authority
from h2.connection import H2Connection
from http2answers import HTTP2Answers, answer_hello
from serving import wait_until

import fastasgi
from bench import processes
from bench.histogram import Histogram
from bench.servers import Place, Server
from bench.turn import Setup
from bench.workloads import WORKLOADS, Workload


@pytest.fixture
def plain_server() -> Server:
    """fastasgi with the bench's own application."""

    def command(work: Workload, place: Place) -> list[str]:
        app = ["plain:app", "--app-dir", str(ROOT / "bench" / "apps")]
        return [sys.executable, "-m", "fastasgi", *app, "--port", str(place.port), "--no-access-log"]

    return Server("fastasgi", "fastasgi", "x", command, needs_fastasgi=True)


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
    job = {"address": ["127.0.0.1", port], "kind": "request", "joins": False, "warmup_s": 0} | job
    job = {"connections": 1, "request": WORKLOADS["hello"].request.decode()} | job
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


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


@linux
@pytest.mark.parametrize(
    ("answer", "joined", "failure"),
    [(SIMPLE, 3, None), (SIMPLE.replace(b"200 OK", b"503 No"), 0, "answered with status 503")],
    ids=["answer", "503"],
)
def test_a_user_has_joined_when_it_has_a_good_answer(
    answer: bytes, joined: int, failure: str | None, tmp_path: Path
) -> None:
    found = window_of_real_generator(itertools.repeat(answer), tmp_path, connections=3, joins=True)
    assert found["joined"] == joined
    assert {*found["failures"], *found["failures_before"]} == ({failure} if failure else set())


@linux
@pytest.mark.parametrize("kind", ["request", "rated"])
@pytest.mark.parametrize("fixed", [True, False])
def test_raw_users_look_at_the_length_of_bodies(kind: str, fixed: bool, tmp_path: Path) -> None:
    answers = itertools.chain([SIMPLE], itertools.repeat(EMPTY))
    # The third is asked for when the second has been looked at.
    found = window_of_real_generator(answers, tmp_path, answered=3, kind=kind, rate=1000, fixed=fixed)
    reasons = {*found["failures"], *found["failures_before"]}
    assert reasons == ({"a body of 0 bytes, where others had 13"} if fixed else set())


def window_of_http2(
    server: HTTP2Answers, folder: Path, *, answered: int, tls: ssl.SSLContext | None = None, **job: Any
) -> dict[str, Any]:
    """What the real generator says of a server of HTTP/2 that has had so many requests in the window."""
    with processes.Processes() as group, listening(server.serve, tls=tls) as (_, port):
        job = {"kind": "http2", "tls": tls is not None, "depth": 4, "joins": True} | job
        process = start_generator(group, port, folder / "log", **job)
        assert hear(process) == "ready"
        tell(process, "go")
        before = len(server.requests)
        wait_until(lambda: len(server.requests) >= before + answered)
        tell(process, "stop")
        found: dict[str, Any] = json.loads(hear(process))
    return found


@linux
@pytest.mark.parametrize("secure", [False, True], ids=["h2c", "h2tls"])
def test_connections_of_http2_keep_their_streams_open(secure: bool, tmp_path: Path) -> None:
    tls = None
    if secure:
        pair = Authority(tmp_path).issue()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pair.cert, pair.key)
        tls.set_alpn_protocols(["h2"])
    # It answers none before so many are open.
    server = HTTP2Answers(at_once=4)
    found = window_of_http2(server, tmp_path, answered=40, tls=tls, connections=3)
    assert server.most_open == 4
    assert server.requests[-1][b":scheme"] == (b"https" if secure else b"http")
    assert server.pings == found["joined"] == 3
    assert found["failures"] == found["failures_before"] == {}
    assert 0 < found["count"] == sum(count for _, count in found["latencies"])
    assert found["received_bytes"] > 13 * found["count"]


def reset(connection: H2Connection, stream: int) -> None:
    connection.reset_stream(stream, 7)


def end_connection(connection: H2Connection, stream: int) -> None:
    connection.close_connection(11)


def answer_503(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "503")], end_stream=True)


def answer_twice(connection: H2Connection, stream: int) -> None:
    """h2 would refuse: its last two frames are repeated."""
    before = len(connection._data_to_send)
    answer_hello(connection, stream)
    connection._data_to_send += connection._data_to_send[before:]


@linux
@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (answer_503, "answered with status 503"),
        (reset, "stream reset with REFUSED_STREAM"),
        (answer_twice, "a response on a stream that is not open"),
        (end_connection, "connection ended with ENHANCE_YOUR_CALM b''"),
    ],
)
def test_a_connection_that_is_lost_fails_all_its_requests(
    answer: Callable[[H2Connection, int], None], failure: str, tmp_path: Path
) -> None:
    server = HTTP2Answers(answer)
    found = window_of_http2(server, tmp_path, answered=8, joins=False)
    failures = Counter(found["failures"]) + Counter(found["failures_before"])
    assert found["joined"] == found["count"] == 0
    assert failures.keys() == {failure}
    assert failures[failure] >= 4
    assert failures[failure] % 4 == 0


@linux
def test_a_server_without_http2_is_told_from_one_that_fails(tmp_path: Path) -> None:
    found = window_of_real_generator(itertools.repeat(SIMPLE), tmp_path, kind="http2")
    assert "it answers the preface of HTTP/2 with b'HTTP/1.1 200 OK" in found["refusal"]


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


@linux
@pytest.mark.parametrize(
    "workload", ["hello", "pipeline", "reconnect", "client", "rate-1000", "download1m", "h2c"]
)
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
