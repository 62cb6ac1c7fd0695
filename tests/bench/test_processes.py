"""Processes of which none outlives the bench, whenever an interrupt comes."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from benchparts import CORE, linux

from bench import accounting, processes


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
