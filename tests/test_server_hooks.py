"""Server's hooks: what a subclass of a server may count on."""

import asyncio
import signal
import threading
from typing import Any

from recorder import hello
from serving import WAIT_S, fetch, port_of
from wire import in_each_loop

from fastasgi import Config, Server
from fastasgi.core.contracts import WorkerContext
from fastasgi.system.stalls import Stall


class HookedServer(Server):
    """Notes the calls of its hooks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(Config(hello, port=0, lifespan="off", **settings))
        self.calls: list[str] = []
        self.up = asyncio.Event()
        self.beaten = asyncio.Event()

    def note(self, call: str) -> None:
        if call not in self.calls:
            self.calls.append(call)

    async def startup(self, sockets: Any = None) -> None:
        assert self.context is None
        await super().startup(sockets)
        assert self.context is not None
        self.note("startup")
        self.up.set()

    async def shutdown(self, sockets: Any = None) -> None:
        self.note("shutdown")
        await super().shutdown(sockets)

    def on_context(self, context: WorkerContext) -> None:
        assert context is self.context
        assert not self.servers
        self.note("context")

    def on_beat(self) -> None:
        self.note("beat")
        self.beaten.set()

    def on_max_requests(self) -> None:
        self.note("max requests")
        super().on_max_requests()

    def stop_signals(self) -> list[int]:
        self.note("stop signals")
        return [signal.SIGWINCH]

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.note(signal.Signals(sig).name)
        super().handle_exit(sig, frame)


@in_each_loop
async def test_hooks_are_called_from_the_start_to_the_end() -> None:
    server = HookedServer(limit_max_requests=1)
    serving = asyncio.create_task(server.serve())
    await server.up.wait()
    await server.beaten.wait()
    await fetch(port_of(server))
    await asyncio.wait_for(serving, WAIT_S)
    assert server.calls == ["stop signals", "context", "startup", "beat", "max requests", "shutdown"]


@in_each_loop
async def test_a_subclass_says_which_signals_stop_it() -> None:
    server = HookedServer()
    serving = asyncio.create_task(server.serve())
    await server.up.wait()
    signal.raise_signal(signal.SIGWINCH)
    await asyncio.wait_for(serving, WAIT_S)
    assert "SIGWINCH" in server.calls


@in_each_loop
async def test_a_stall_is_told_again_each_second_in_another_thread() -> None:
    told = []

    class StalledServer(HookedServer):
        def on_stall(self, stall: Stall) -> None:
            told.append((stall.is_new, stall.is_over, "blocks" in stall.text, threading.current_thread()))
            if len(told) == 2:
                release.set()
            if stall.is_over:
                over.set()

    release, over = threading.Event(), threading.Event()

    def blocks() -> None:
        assert release.wait(WAIT_S)

    server = StalledServer()
    serving = asyncio.create_task(server.serve())
    await server.up.wait()
    await server.beaten.wait()
    blocks()
    server.should_exit = True
    await asyncio.wait_for(serving, WAIT_S)
    assert over.wait(WAIT_S)
    assert [said for *said, _ in told] == [[True, False, True], [False, False, True], [False, True, True]]
    assert threading.current_thread() not in [thread for *_, thread in told]
