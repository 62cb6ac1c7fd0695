"""One turn: what its figures say, and what is told of servers and generators that fail.

The load generator is a stand-in that speaks the protocol of the real one."""

import json
import os
import socket
import textwrap
from pathlib import Path
from typing import Any

import pytest
from benchparts import (
    APART,
    CORE,
    SERVER,
    WAIT_S,
    FakeEnvironment,
    fake_server,
    figures_of,
    linux,
    turn,
    window,
)

from bench.accounting import CPUTime
from bench.machine import Cores
from bench.servers import SERVERS
from bench.turn import Clocks, CrashError, Setup, limit_of
from bench.workloads import WORKLOADS


@pytest.mark.parametrize(
    ("shares", "limit"),
    [
        ({"server_busy": 0.97}, "server"),
        ({"server_busy": 0.5, "generator_busy": 0.95}, "generator"),
        ({"server_busy": 0.5, "generator_busy": 0.5}, "waiting"),
        ({"server_busy": 0.5, "server_cores_used": 0.97}, "other processes"),
        ({"server_busy": 0.5, "generator_busy": 0.5, "generator_cores_used": 0.97}, "other processes"),
        ({"server_busy": 0.6, "server_cores_used": 0.99, "cores": Cores((0,), (0,), ())}, "shared core"),
        ({"server_busy": 0.97, "cores": Cores((0,), (1,), (), ((0, 1),))}, "shared core"),
        ({"server_busy": 0.97, "cores": Cores((0,), (2,), (), ((0, 1), (2, 3)))}, "server"),
        ({"server_busy": 0.5, "database_busy": 0.95}, "database"),
        ({"lateness_s": 0.002, "work": WORKLOADS["rate-1000"], "rate": 1000}, "generator"),
        ({"generator_busy": 1.0, "work": WORKLOADS["rate-1000"], "rate": 990}, "rate"),
        ({"server_busy": 0.99, "work": WORKLOADS["rate-1000"], "rate": 600}, "server"),
        ({"server_busy": 0.2, "work": WORKLOADS["rate-1000"], "rate": 400}, "waiting"),
    ],
)
def test_a_figure_says_what_limited_it(shares: dict[str, Any], limit: str) -> None:
    given = {"work": WORKLOADS["hello"], "cores": APART, "rate": 1.0, "lateness_s": 0.0}
    for who in (
        "server_busy",
        "server_cores_used",
        "generator_busy",
        "generator_cores_used",
        "database_busy",
    ):
        given[who] = 0.0
    assert limit_of(**(given | shares)) == limit


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


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(FakeEnvironment(tmp_path), [(CORE,)], seconds=0.05, warmup_s=0, logs=tmp_path)


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
@pytest.mark.parametrize("name", ["tls", "h2c"])
@pytest.mark.parametrize(
    "source",
    [
        "import sys; print('No such option: --ssl', file=sys.stderr); sys.exit(2)",
        "raise SystemExit('TLS is not supported')",
    ],
)
def test_a_server_that_refuses_settings_does_not_support_them(setup: Setup, source: str, name: str) -> None:
    assert turn(setup, fake_server(source), name)["status"] == "unsupported"
    assert turn(setup, fake_server(source), "hello")["status"] == "failed"


@linux
def test_a_server_that_answers_a_handshake_with_a_page_does_not_support_websockets(setup: Setup) -> None:
    result = turn(setup, fake_server(), "ws-echo")
    assert result["status"] == "unsupported"
    assert (
        result["reason"] == "not supported by this server: it answers the WebSocket handshake with '200 OK'"
    )


@linux
@pytest.mark.parametrize("name", ["h2c", "h2c-one"])
def test_a_server_that_answers_with_http1_does_not_support_http2(setup: Setup, name: str) -> None:
    result = turn(setup, fake_server(), name)
    assert result["status"] == "unsupported"
    assert "it answers the preface of HTTP/2 with b'HTTP/1.1 200 OK" in result["reason"]


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
