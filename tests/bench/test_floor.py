"""The C program that stands for what the kernel allows."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from benchparts import CORE, ROOT, WAIT_S, linux
from serving import wait_until

from bench import accounting, processes
from bench.probe import free_port
from bench.responses import ResponseCounter
from bench.workloads import WORKLOADS


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
