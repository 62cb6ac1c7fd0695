"""The states of a worker's process and the phases of its supervisor: what each event does in which.

A process is in one state, and moves down this table only:

    STARTING    its slot's ``starting``: it has not said READY
    SERVING     its slot's ``serving``
    RETIRING    its slot's ``serving``; a successor is starting beside it, or is about to be started
    LEAVING     of no slot: it is told to end
    CONDEMNED   of no slot: it hangs, and has a moment to write its stacks

What happens to a process at an event (``-``: nothing, or the event can't come):

    event                          STARTING       SERVING        RETIRING       LEAVING     CONDEMNED
    it says READY                  SERVING (1)    -              -              (2)         (2)
    it says RETIRE                 -              RETIRING       -              -           -
    it is too old or too large     -              RETIRING       -              -           -
    its code is outdated           -              (3)            (3)            -           -
    its successor is READY         -              let go (4)     let go         -           -
    no READY or no BEAT in time    CONDEMNED (5)  CONDEMNED (6)  CONDEMNED (6)  -           -
    it has ended                   (5)            (7)            (7)            forgotten   forgotten
    its slot is removed            let go         let go         let go         -           -
    all workers are withdrawn      let go         let go         let go         -           -
    files change (``reload``)      let go (6)     let go (6)     let go (6)     -           -
    another supervisor takes over  let go         let go         let go         -           -
    stop                           LEAVING (8)    LEAVING (8)    LEAVING (8)    -           -
    stop at once                   LEAVING (9)    LEAVING (9)    LEAVING (9)    (9)         (9)
    ``kill_at`` is over            -              -              -              killed      killed

(1) It takes its slot. The process that served there, if there is one, is let go.
(2) Its time to end is counted from now.
(3) A successor is started, if no other successor is starting. So it is for a process that is RETIRING.
(4) It becomes LEAVING, is told SUCCEEDED, and is killed if it takes longer than ``workerlimits`` gives it.
    One that has not said READY may not listen yet, so that it gets SIGTERM too; and so with (8).
(5) A failed start: its slot backs off. If it was a successor, the worker that it was to succeed stays, and a
    reload under way is given up. Otherwise, with the setting ``reload``, the slot waits for files to change;
    without it, and if no worker has ever been READY, the slot stays empty, and the supervisor ends once all
    slots are.
(6) The slot gets another process: at once, or if files have changed once the old process has ended.
(7) The slot gets another process: at once if this one has served for STEADY_S, otherwise it backs off.
(8) It is told STOP.
(9) It is told HURRY, gets SIGTERM, and is killed if it takes longer than FORCED_EXIT_S.

The supervisor is in one of three phases, of which STOPPING is the last. What else it remembers:

    fact                              RUNNING              WITHDRAWN            STOPPING
    the number of workers             is kept              none has a slot      none has a slot
    a predecessor in charge (10)      until all are READY  it stays in charge   it stays in charge
    a replacement that starts (10)    may take over        may take over        is ended
    a replacement that has succeeded  -                    -                    goes on alone
    a reload under way                renews the slots     waits for RUNNING    is forgotten

(10) Never both: what is to take another's place starts no replacement before it has.
"""

from enum import Enum, auto


class State(Enum):
    """The state of a worker's process. The first table above says what each is."""

    STARTING = auto()
    SERVING = auto()
    RETIRING = auto()
    LEAVING = auto()
    CONDEMNED = auto()


# The states that may follow on each
MOVES = {
    State.STARTING: {State.SERVING, State.LEAVING, State.CONDEMNED},
    State.SERVING: {State.RETIRING, State.LEAVING, State.CONDEMNED},
    State.RETIRING: {State.LEAVING, State.CONDEMNED},
    State.LEAVING: set[State](),
    State.CONDEMNED: set[State](),
}


class Phase(Enum):
    """The phase of a supervisor."""

    RUNNING = auto()
    WITHDRAWN = auto()  # no workers until SIGHUP or SIGTTIN (by SIGWINCH)
    STOPPING = auto()  # no new workers: it ends with the last one
