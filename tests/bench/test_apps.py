"""The applications do the same in Python and in Node."""

import asyncio
import http.client
import importlib
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchparts import CORE, ROOT, WAIT_S, linux
from serving import wait_until

from bench import accounting, processes
from bench.probe import check_answer, free_port
from bench.workloads import WORKLOADS

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


def listens(path: Path) -> bool:
    """Whether a server answers at a Unix socket: its file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@linux
@pytest.mark.skipif(not shutil.which("node"), reason="no Node")
def test_node_works_as_long_as_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench" / "apps")
    plain = importlib.import_module("plain")
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    socket_path = tmp_path / "socket"
    command = ["node", str(ROOT / "bench" / "apps" / "server.js"), "1.1", str(socket_path), "1"]
    with processes.Processes() as group:
        group.start(command, (CORE,), tmp_path / "log")
        wait_until(lambda: listens(socket_path))
        for path, least_s in (("/busy", 130e-6), ("/slow", 5e-3)):
            messages.clear()
            started = time.perf_counter()
            asyncio.run(plain.app({"type": "http", "path": path}, None, send))
            assert time.perf_counter() - started >= least_s
            started = time.perf_counter()
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(WAIT_S)
                client.connect(str(socket_path))
                client.sendall(request)
                answer = client.recv(65536)
            assert time.perf_counter() - started >= least_s
            assert answer.endswith(b"\r\n\r\n" + messages[-1]["body"])


@linux
@pytest.mark.skipif(not shutil.which("node"), reason="no Node")
def test_nodes_loop_turns_between_the_pieces_of_a_stream(tmp_path: Path) -> None:
    port, counter = free_port(), tmp_path / "count.js"
    counter.write_text(COUNT_TURNS)
    program = str(ROOT / "bench" / "apps" / "server.js")
    command = ["node", "--require", str(counter), program, "1.1", str(port), "1"]
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log")
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        client.request("GET", "/stream")
        assert client.getresponse().read() == b"y" * 65536
        client.close()
    turns = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(set(turns)) == len(turns) == 64


@linux
@pytest.mark.skipif(not shutil.which("node"), reason="no Node")
def test_node_answers_the_same_over_http2(tmp_path: Path) -> None:
    port = free_port()
    command = ["node", str(ROOT / "bench" / "apps" / "server.js"), "2", str(port), "1"]
    with processes.Processes() as group:
        process = group.start(command, (CORE,), tmp_path / "log")
        wait_until(lambda: accounting.tree_listens(process.pid, port))
        check_answer(("127.0.0.1", port), WORKLOADS["h2c"])
        check_answer(("127.0.0.1", port), replace(WORKLOADS["h2c"], path="/big", expect=b"x" * 16384))


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
