"""``Server.serve()`` cancelled in each way that asyncio and anyio know, and what is left of it."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyclient import Request, Response
from eachwire import HTTP1, Wire, each_wire
from serving import WAIT_S
from wire import in_each_loop

from fastasgi import Config, shutdown
from fastasgi.application import lifespan


class App:
    """Its requests wait until they are released. ``events`` tells what has happened to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        self.begun.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.events.append("request cancelled")
            raise
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"released"})
        self.events.append("answered")

    async def live(self, receive: Any, send: Any) -> None:
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            await getattr(self, phase)()
            self.events.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})

    async def startup(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass


class Served:
    """A server whose requests have all the time of the world, and whose port is known before it listens."""

    def __init__(self, app: App, wire: Wire = HTTP1, **settings: Any) -> None:
        self.app = app
        self.wire = wire
        self.ready = asyncio.Event()
        self.on_ready: Callable[[], object] = lambda: None
        config = Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            timeout_graceful_shutdown=10 * WAIT_S,
            callback_notify=self._notify,
            timeout_notify=10 * WAIT_S,
            **settings,
        )
        self.server = wire.server_type(config)
        self.sockets = config.bind_sockets() + config.bind_sockets()
        self.ports = [sock.getsockname()[1] for sock in self.sockets]
        self.requests: list[asyncio.Task[list[Response]]] = []

    async def _notify(self) -> None:
        self.ready.set()
        self.on_ready()

    async def serve(self) -> None:
        await self.server.serve(self.sockets)

    async def start(self) -> "asyncio.Task[None]":
        """The task of ``serve``, once connections are accepted."""
        task = asyncio.create_task(self.serve())
        await self.ready.wait()
        return task

    async def request(self) -> "asyncio.Task[list[Response]]":
        """A request that has reached the application; what comes up to the server's end of its connection."""
        self.requests.append(asyncio.create_task(self._request()))
        await self.app.begun.wait()
        return self.requests[-1]

    async def _request(self) -> list[Response]:
        client = self.wire.client_type(*await asyncio.open_connection("127.0.0.1", self.ports[0]))
        client.writer.write(client.preface)
        await client.put(Request())
        async with asyncio.timeout(WAIT_S):
            responses = await client.responses()
        client.close()
        return responses

    def refuses(self) -> bool:
        """Whether nobody listens."""
        refused = 0
        for port in self.ports:
            try:
                socket.create_connection(("127.0.0.1", port), WAIT_S).close()
            except ConnectionRefusedError:
                refused += 1
        return refused == len(self.ports)


@asynccontextmanager
async def nothing_left(served: Served, *events: str) -> AsyncIterator[None]:
    """After the block nobody listens, the application has seen these events, and no task is left over.

    The test's own task is not being cancelled then: a scope in the block takes that back, and the test's time
    is not over. What nobody has retrieved the loop tells its exception handler, that ``in_each_loop`` sets.
    """
    before = asyncio.all_tasks()
    descriptors = [sock.fileno() for sock in served.sockets]
    yield
    assert asyncio.current_task().cancelling() == 0
    assert not any(map(asyncio.get_running_loop().remove_reader, descriptors))
    left = asyncio.all_tasks() - before - set(served.requests)
    assert not left
    assert served.app.events == list(events)
    assert served.refuses()
    await asyncio.gather(*served.requests)
    gc.collect()


# Once, and again


@each_wire
@in_each_loop
async def test_a_cancelled_server_stops_listening_at_once_and_lets_requests_end(wire: Wire) -> None:
    served = Served(App(), wire, timeout_drain=10 * WAIT_S)
    async with nothing_left(served, "startup", "answered", "shutdown"):
        task = await served.start()
        request = await served.request()
        task.cancel()
        await asyncio.sleep(0)
        assert served.refuses()
        assert not request.done()
        served.app.release.set()
        [response] = await request
        assert (response.status, response.body, response.is_whole) == (200, b"released", True)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1


@each_wire
@in_each_loop
async def test_cancelled_again_it_waits_for_nothing(wire: Wire) -> None:
    served = Served(App(), wire)
    async with nothing_left(served, "startup", "request cancelled", "shutdown"):
        task = await served.start()
        await served.request()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 2


@each_wire
@in_each_loop
async def test_cancelled_while_it_stops_it_waits_for_nothing_more(wire: Wire) -> None:
    served = Served(App(), wire)
    async with nothing_left(served, "startup", "request cancelled", "shutdown"):
        task = await served.start()
        await served.request()
        served.server.should_exit = True
        while not served.server.is_draining:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class ShutsDownSlowly(App):
    async def shutdown(self) -> None:
        await asyncio.sleep(0.1)


@in_each_loop
async def test_the_application_is_shut_down_however_often_its_server_is_cancelled() -> None:
    served = Served(ShutsDownSlowly())
    async with nothing_left(served, "startup", "shutdown"):
        task = await served.start()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)


# By whom


@in_each_loop
async def test_a_timeout_around_it_times_out() -> None:
    served = Served(App())

    async def serve() -> None:
        async with asyncio.timeout(None) as timeout:
            served.on_ready = lambda: timeout.reschedule(0)
            await served.serve()

    async with nothing_left(served, "startup", "shutdown"):
        with pytest.raises(TimeoutError):
            await serve()


@in_each_loop
async def test_a_task_group_ends_it_where_another_task_fails() -> None:
    served = Served(App())

    async def fail() -> None:
        await served.ready.wait()
        raise ValueError

    async def serve() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(served.serve())
            group.create_task(fail())

    async with nothing_left(served, "startup", "shutdown"):
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.create_task(serve())  # CPython 3.11 leaves its own cancellation with the task
        assert [type(error) for error in caught.value.exceptions] == [ValueError]


@each_wire
@in_each_loop
@pytest.mark.parametrize("has_request", [False, True])
async def test_an_anyio_scope_ends_it(wire: Wire, has_request: bool) -> None:
    served = Served(App(), wire)
    ended = ["request cancelled"] if has_request else []
    async with nothing_left(served, "startup", *ended, "shutdown"):
        with anyio.move_on_after(10 * WAIT_S) as scope:

            async def end() -> None:
                await served.ready.wait()
                if has_request:
                    await served.request()
                scope.deadline = 0

            ending = asyncio.create_task(end())
            await served.serve()
        await ending
        assert scope.cancelled_caught
        await asyncio.sleep(0)  # not cancelled any more


@in_each_loop
async def test_an_anyio_deadline_fails() -> None:
    served = Served(App())

    async def serve() -> None:
        with anyio.fail_after(10 * WAIT_S) as scope:
            served.on_ready = lambda: setattr(scope, "deadline", 0)
            await served.serve()

    async with nothing_left(served, "startup", "shutdown"):
        with pytest.raises(TimeoutError):
            await serve()


@each_wire
@in_each_loop
async def test_an_anyio_task_group_ends_it(wire: Wire) -> None:
    served = Served(App(), wire)
    expected = nothing_left(served, "startup", "request cancelled", "shutdown")
    async with expected, anyio.create_task_group() as group:
        group.start_soon(served.serve)
        await served.ready.wait()
        await served.request()
        group.cancel_scope.cancel()


# While it starts


class StartsForever(App):
    """``starting`` is set once its start-up waits, which it does until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.starting = asyncio.Event()

    async def startup(self) -> None:
        self.starting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.events.append("startup cancelled")
            raise


@in_each_loop
async def test_cancelled_while_the_application_starts_it_breaks_that_off() -> None:
    app = StartsForever()
    served = Served(app)
    async with nothing_left(served, "startup cancelled"):
        task = asyncio.create_task(served.serve())
        await app.starting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not served.server.started


@in_each_loop
async def test_an_anyio_scope_breaks_the_start_of_the_application_off() -> None:
    app = StartsForever()
    served = Served(app)
    async with nothing_left(served, "startup cancelled"), anyio.create_task_group() as group:
        group.start_soon(served.serve)
        await app.starting.wait()
        group.cancel_scope.cancel()


class IgnoresCancellation(StartsForever):
    async def startup(self) -> None:
        self.starting.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.events.append("ignored")


@in_each_loop
async def test_a_start_that_ignores_cancellation_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifespan, "RETURN_TIMEOUT_S", 0.05)
    monkeypatch.setattr(shutdown, "FORCED_LIFESPAN_TIMEOUT_S", 0.1)
    app = IgnoresCancellation()
    served = Served(app)
    task = asyncio.create_task(served.serve())
    await app.starting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.current_task().cancelling() == 0, "the test's time is over"
    assert set(app.events) == {"ignored"}
    assert served.refuses()
    app.release.set()
