"""CPU time, memory and sockets of a process tree."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

from benchparts import CORE, linux

from bench import accounting, processes


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
