"""The inside of the process that answers at the admin listener.

It hears of its supervisor, line by line, what that has to report, and reads what workers count in memory. It
answers from the first report on, and ends when the supervisor says so or is gone. What it gets at the start
is ``AdminProcess._order``.
"""

import asyncio
import contextlib
import logging
import pickle
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

from fastasgi.admin.listener import PATIENCE_S, listener_config
from fastasgi.admin.report import Report
from fastasgi.admin.source import HeardSource
from fastasgi.config import Config
from fastasgi.processes.child import ORPHAN_LIFE_S, handle_signals, receive_order
from fastasgi.processes.failures import exit_with, owned_process
from fastasgi.processes.messages import ADMIN_END, ADMIN_SUCCEEDED, BEAT
from fastasgi.server import Server
from fastasgi.system.handlers import SignalHandlers
from fastasgi.system.identity import apply_process_settings
from fastasgi.system.orphan import end_orphan
from fastasgi.system.sharedmemory import map_shared
from fastasgi.system.sockets import inherited_socket

SUCCESSION_S = 2.0  # for a successor to start, while this process goes on


class AdminServer(Server):
    """Serves the listener, as a supervisor says over the control socket."""

    def __init__(self, config: Config, control: socket.socket, source: HeardSource) -> None:
        super().__init__(config)
        self._control = control
        self._source = source
        self._unread = b""  # the beginning of a line

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: a signal to all processes is the supervisor's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then listen to the supervisor."""
        await super().startup(sockets)
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._on_control)

    def on_beat(self) -> None:
        """Tell the supervisor that the event loop turns."""
        with contextlib.suppress(OSError):  # it is suspended, or gone, which _on_control sees
            self._control.send(BEAT, socket.MSG_DONTWAIT)

    def _on_control(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._on_line(line + b"\n")
        if not data:
            # Another server may be about to bind the address: whoever is still served is told
            self._source.note_end()
            self._stop()

    def _on_line(self, line: bytes) -> None:
        if line == ADMIN_END:
            self._stop()
        elif line == ADMIN_SUCCEEDED:
            self.is_succeeded = True
            asyncio.get_running_loop().call_later(SUCCESSION_S, self._stop)
        else:
            self._source.hear(Report.from_json(line.decode()))

    def _stop(self) -> None:
        if not self.should_exit:
            self.should_exit = True
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control)
            loop.call_later(PATIENCE_S, self._hurry)

    def _hurry(self) -> None:
        self.force_exit = True


def first_report(control: socket.socket) -> Report:
    """Wait for the first thing that the supervisor reports. Raises SystemExit if it has the process end."""
    # Unbuffered, so that what comes after the line is left for the event loop
    with control.makefile("rb", buffering=0) as stream:
        line = stream.readline()
    if not line.endswith(b"\n"):  # it has ended
        sys.exit(0)
    if line in (ADMIN_END, ADMIN_SUCCEEDED):
        sys.exit(0)
    return Report.from_json(line.decode())


def ignore_end(handlers: SignalHandlers) -> None:
    """Go on at signals that end the server: what becomes of it is to be told until it has ended."""
    handlers.set(signal.SIGTERM, _ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, and not SIG_IGN, which programs that are started from here would inherit."""


def main() -> None:
    """``python -m fastasgi.processes.adminchild FD SIGNAL...``, with signals to ignore."""
    descriptor, *ignored = map(int, sys.argv[1:])
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    handlers = handle_signals()
    ignore_end(handlers)
    with inherited_socket(descriptor) as control:
        serve(control)


def serve(control: socket.socket) -> None:
    """Answer until the supervisor says, over control, that it is the end, or is gone."""
    order = receive_order(control)
    sys.path[:] = order["sys_path"]
    sockets = [inherited_socket(fd) for fd in order["sockets"]]
    try:
        source = HeardSource(map_shared(order["memory"]) if order["memory"] >= 0 else None)
        config = listener_config(pickle.loads(order["settings"]), order["tls_files"], source)
        # Its start and its end are the supervisor's to tell
        logger = logging.getLogger("fastasgi.error")
        logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
        apply_process_settings(config, 0, "admin")
        end_orphan(ORPHAN_LIFE_S)
        source.hear(first_report(control))
        AdminServer(config, control, source).run(sockets)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        exit_with(error)


if __name__ == "__main__":
    with owned_process():
        main()
