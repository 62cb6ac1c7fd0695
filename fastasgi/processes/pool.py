"""The workers of a supervisor: their slots, and the processes that come to be in them and leave.

Moves processes from state to state, as the tables in ``states`` say. Must not know: what an operator asks of
a supervisor, and why.
"""

import contextlib
import logging
import math
import selectors
import signal
import time
from collections.abc import Callable

from fastasgi.config import Config
from fastasgi.errors import STARTUP_FAILURE
from fastasgi.processes.failures import exit_code_for
from fastasgi.processes.longstarts import NOWHERE, tell_of_start
from fastasgi.processes.messages import HURRY, LIMIT, READY, RETIRE, SUCCEEDED
from fastasgi.processes.rows import Row, Rows
from fastasgi.processes.slot import Slot
from fastasgi.processes.states import State
from fastasgi.processes.workerlimits import FORCED_EXIT_S, exit_time_s, hang, is_too_old_or_large
from fastasgi.processes.workerprocess import WorkerProcess, describe_exit

logger = logging.getLogger("fastasgi.error")

START_ALONE_S = 2.0  # that the first worker has before the others start: most failures are then told once
STACKS_S = 0.5  # for a worker that hangs to write its stacks


class WorkerPool:
    """The slots of all workers, and their processes.

    start starts the process of a slot, given the slot's number and a row of its own; it raises OSError if the
    system can't start one. The selector's keys hold what to call when a process has said something.
    on_started is called once, when all slots have had a worker that serves; on_renewal_failed when the
    successor of a worker has not started.

    config is that of the processes that are started from now on; whoever reloads it replaces it here.
    """

    def __init__(
        self,
        config: Config,
        rows: Rows,
        selector: selectors.BaseSelector,
        start: Callable[[int, Row | None], WorkerProcess],
        on_started: Callable[[], None],
        on_renewal_failed: Callable[[], None],
    ) -> None:
        self.config = config
        self._rows = rows
        self._selector = selector
        self._start_process = start
        self._on_started = on_started
        self._on_renewal_failed = on_renewal_failed
        self.slots: list[Slot] = []
        self._leaving: list[WorkerProcess] = []  # processes of no slot, which have not ended yet
        self._generation = 0  # that of the newest code
        self._has_served = False  # a worker has been ready once
        self._has_started = False  # all workers have been ready once, which implies that one has
        self.failure_code = STARTUP_FAILURE  # the exit code for the last start of a worker that has failed

    # --- What is there ---

    def processes(self) -> list[WorkerProcess]:
        """All processes that have not ended."""
        return [process for slot in self.slots for process in slot.processes()] + self._leaving

    def _slot_of(self, process: WorkerProcess) -> Slot | None:
        return next((slot for slot in self.slots if process in slot.processes()), None)

    @property
    def has_failed(self) -> bool:
        """Whether a start has failed, and no worker has ever been ready."""
        return not self._has_served and any(slot.failures for slot in self.slots)

    @property
    def has_started(self) -> bool:
        """Whether all workers have been ready once."""
        return self._has_started

    @property
    def is_empty(self) -> bool:
        """Whether no slot has a process."""
        return not any(slot.processes() for slot in self.slots)

    @property
    def is_renewed(self) -> bool:
        """Whether each slot has a worker that serves with the newest code."""
        return all(
            slot.serving is not None and slot.serving.generation == self._generation for slot in self.slots
        )

    def due_times(self, now: float) -> list[float]:
        """When something is due, even if nothing happens until then."""
        due = [slot.start_at for slot in self.slots if not slot.processes()]
        due += [now + START_ALONE_S / 20] if not self._has_served else []
        due += [process.kill_at for process in self.processes() if process.kill_at is not None]
        return due

    # --- How many there are to be ---

    def resize(self, count: int) -> None:
        """Have `count` slots. The workers of those too many are let go."""
        while len(self.slots) > count:
            for process in self.slots.pop().dismiss():
                self._let_go(process)
        while len(self.slots) < count:
            self.slots.append(Slot(len(self.slots)))

    # --- Starts ---

    def fill(self, now: float) -> None:
        """Start a worker in each slot that has none and need not wait."""
        for slot in self.slots:
            if slot.processes() or now < slot.start_at or (slot.failures and not self._has_served):
                continue
            if self.config.reload and any(process.slot == slot.index for process in self._leaving):
                continue  # what the old code holds, the new code may need
            if slot.index and not self._has_served and now < self.slots[0].started_at + START_ALONE_S:
                continue
            self._start(slot)

    def outdate(self) -> None:
        """Have each worker succeeded by one that loads the code anew: see ``renew``."""
        self._generation += 1
        for slot in self.slots:
            slot.forgive()

    def keep_outdated(self) -> None:
        """Have no worker succeeded for the age of its code."""
        for slot in self.slots:
            for process in slot.processes():
                process.generation = self._generation

    def renew(self, now: float) -> None:
        """Start the successor of one worker that is to have one, unless another successor is starting."""
        if not any(slot.starting is not None and slot.starting.is_successor for slot in self.slots):
            outdated = (slot for slot in self.slots if slot.is_outdated(self._generation, now))
            slot = next(outdated, None)
            if slot is not None:
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        slot.started_at = time.monotonic()
        is_successor = slot.serving is not None
        row = self._rows.take(slot.index)
        try:
            process = self._start_process(slot.index, row)
        except OSError as error:
            self._rows.give_back(row, "")
            logger.error("A worker can't be started: %s", error)
            self._start_failed(slot, slot.started_at, is_successor)
            return
        process.row = row
        process.generation = self._generation
        process.is_successor = is_successor
        slot.starting = process
        self._selector.register(process.control, selectors.EVENT_READ, lambda: self._on_control(process))

    def _start_failed(self, slot: Slot, now: float, was_successor: bool) -> None:
        slot.back_off(now, None)
        if was_successor:
            self._on_renewal_failed()
        elif self.config.reload:
            slot.start_at = math.inf
            logger.info("Waiting for a change")

    # --- What processes say ---

    def _on_control(self, process: WorkerProcess) -> None:
        """A worker has said something, or has closed its end."""
        if process.control.fileno() < 0:
            return  # it has ended since select() returned
        try:
            said = process.hear()
        except BlockingIOError:
            return
        if said is None:
            self._drop_control(process)
            self.reap()
            return
        if not said:
            return
        process.heard_at = time.monotonic()
        process.stands_at = ""
        slot = self._slot_of(process)
        if READY in said:
            process.ready_at = process.heard_at
            if process.state is State.LEAVING and process.kill_at is not None:
                exit_s = exit_time_s(process, self.config, self.config.timeout_drain)
                process.kill_at = process.heard_at + exit_s
            if slot is not None and slot.starting is process:
                self._serve_in(slot)
        if (RETIRE in said or LIMIT in said) and slot is not None:
            if process.state is not State.RETIRING:
                logger.info("Worker [%d] asks for a successor", process.pid)
            self._retire(process, "limit" if LIMIT in said else "asked")

    def _serve_in(self, slot: Slot) -> None:
        """The process that was starting is ready."""
        former = slot.promote()
        self._has_served = True
        if former is not None:
            self._let_go(former)
        if not self._has_started and all(each.serving is not None for each in self.slots):
            self._has_started = True
            self._on_started()

    def _retire(self, process: WorkerProcess, end: str) -> None:
        """Have a worker succeeded, for this reason. It serves until then."""
        if process.state is State.SERVING:
            process.become(State.RETIRING)
            process.end = end

    # --- Ends ---

    def let_go_all(self, message: bytes = SUCCEEDED, drain_s: float = 0.0) -> None:
        """Tell the workers of all slots to end. They drain for drain_s first."""
        for process in self._dismiss_all():
            self._let_go(process, message, drain_s)

    def restart_all(self) -> None:
        """Let the workers of all slots go. Each slot gets another once its worker has ended."""
        for slot in self.slots:
            slot.forgive()
            for process in slot.dismiss():
                self._let_go(process)

    def hurry_all(self) -> None:
        """Have all processes end at once, also those that are leaving."""
        for process in self._dismiss_all():
            process.become(State.LEAVING)
            process.end = process.end or "asked"
            self._leaving.append(process)
        for process in self._leaving:
            process.signal(signal.SIGTERM)  # for one that does not listen yet
            process.tell(HURRY)
            process.kill_at = min(process.kill_at or math.inf, time.monotonic() + FORCED_EXIT_S)

    def _dismiss_all(self) -> list[WorkerProcess]:
        return [process for slot in self.slots for process in slot.dismiss()]

    def _let_go(self, process: WorkerProcess, message: bytes = SUCCEEDED, drain_s: float = 0.0) -> None:
        """Have a process end that its slot has dismissed."""
        if process.ready_at is None:
            process.signal(signal.SIGTERM)
        process.tell(message)  # it may be ready, without its READY having been heard
        process.become(State.LEAVING)
        process.end = process.end or "asked"
        process.kill_at = time.monotonic() + exit_time_s(process, self.config, drain_s)
        self._leaving.append(process)

    def reap(self) -> None:
        """See which processes have ended."""
        for process in self.processes():
            code = process.poll()
            if code is not None:
                self._drop_control(process)
                self._ended(process, code)

    def _drop_control(self, process: WorkerProcess) -> None:
        if process.control.fileno() >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(process.control)
            process.control.close()

    def _ended(self, process: WorkerProcess, code: int) -> None:
        now = time.monotonic()
        self._rows.give_back(process.row, process.reason_of_end(code))
        slot = self._slot_of(process)
        if slot is None:
            self._leaving.remove(process)
        elif slot.starting is process:
            slot.remove(process)
            logger.error("Worker [%d] did not start: %s", process.pid, describe_exit(code))
            self.failure_code = exit_code_for(code)
            self._start_failed(slot, now, process.is_successor)
        else:
            slot.remove(process)
            assert process.ready_at is not None
            logger.error("Worker [%d] has died: %s", process.pid, describe_exit(code))
            slot.back_off(now, now - process.ready_at)

    # --- Limits ---

    def retire_by_limits(self, now: float) -> None:
        """Have workers succeeded that are too old or too large."""
        for slot in self.slots:
            process = slot.serving
            if process is None or process.state is not State.SERVING:
                continue
            if is_too_old_or_large(process, self.config, now):
                self._retire(process, "limit")

    def judge(self, now: float) -> None:
        """Replace workers that hang, log long starts, and kill those that have had their time to end."""
        for slot in self.slots:
            for process in slot.processes():
                if process.state is State.STARTING:
                    tell_of_start(process, now)
                if (how := hang(process, self.config, now)) is not None:
                    self._condemn(slot, process, how, now)
        for process in self.processes():
            if process.kill_at is not None and now >= process.kill_at:
                if process.state is not State.CONDEMNED:
                    logger.error("Worker [%d] does not end and is killed", process.pid)
                    process.end = "overdue"
                process.kill_at = None
                process.signal(signal.SIGKILL)

    def _condemn(self, slot: Slot, process: WorkerProcess, how: str, now: float) -> None:
        """Replace a worker that hangs. It has a moment to write where."""
        logger.error(
            "Worker [%d] %s and is replaced: %s. Its stacks:", process.pid, how, process.stands_at or NOWHERE
        )
        process.signal(signal.SIGUSR2)
        process.become(State.CONDEMNED)
        process.end = "stall" if process.ready_at is not None else "not_started"
        process.kill_at = now + STACKS_S
        self._leaving.append(process)
        was_starting = slot.starting is process
        slot.remove(process)
        if was_starting:
            self._start_failed(slot, now, process.is_successor)
        else:
            slot.back_off(now, math.inf)

    def excuse(self, pause_s: float, now: float) -> None:
        """Hold against no process the time for which this one was suspended: they may have been, too."""
        for process in self.processes():
            process.excuse(pause_s, now)
