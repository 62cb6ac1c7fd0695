"""One call of the application: its task, its context, its client's leaving, work behind the response."""

import asyncio
import contextvars
import gc
import sys
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyclient import Request
from eachwire import Wire, ask, each_wire, each_wire_in_turn, served
from exchanges import BODY, DISCONNECT, MORE, OK, START, Oops, Outcome
from starlette import requests
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from wire import Reads, error_records, in_each_loop, in_loop, respond, shift_clock, traceback_of

# --- The application's task ---


@each_wire
@in_each_loop
async def test_the_application_runs_in_a_task_of_its_own(wire: Wire) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert task in asyncio.all_tasks()
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        assert task in asyncio.all_tasks()
        await receive()
        assert asyncio.current_task() is task
        seen.append(task)
        await respond(send, b"ok")

    task = asyncio.current_task()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request(), Request())
        assert [await client.response(), await client.response()] == [OK, OK]
    assert asyncio.current_task() is task
    first, second = seen
    assert first is not second
    assert first.done()
    assert not set(seen) & asyncio.all_tasks()


@each_wire
@in_each_loop
async def test_the_application_starts_inside_the_read_event_of_its_head(wire: Wire, reads: Reads) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        reads.events.append("application")
        await respond(send, b"ok")
        reads.events.append("response sent")

    assert await ask(app, wire) == OK
    at = reads.events.index("application")
    assert reads.events[at - 1 : at + 3] == ["read begins", "application", "response sent", "read ends"]


@each_wire
@in_each_loop
async def test_an_application_that_waits_goes_on_inside_the_read_event(wire: Wire, reads: Reads) -> None:
    waits = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waits.set()
        reads.events.append((await receive())["body"])
        await respond(send, b"ok")

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3)
        await waits.wait()
        await client.send(b"abc")
        await client.response()
    at = reads.events.index(b"abc")
    assert reads.events[at - 2 : at + 2] == ["read ends", "read begins", b"abc", "read ends"]


@each_wire
@in_each_loop
async def test_asyncios_timeouts_and_task_groups_work(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        assert (await receive())["more_body"] is False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
        with pytest.raises(ExceptionGroup):
            await in_a_group(receive(), fail())
        await in_a_group(send(START))
        await in_a_group(send(BODY))

    async def in_a_group(*calls: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)

    async def fail() -> None:
        raise Oops

    assert await ask(app, wire) == OK


@each_wire
@in_each_loop
async def test_anyio_works(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert anyio.get_current_task().id == id(asyncio.current_task())
        assert await anyio.to_thread.run_sync(lambda: 5) == 5
        with anyio.move_on_after(0.001) as moved_on:
            await anyio.sleep_forever()
        assert moved_on.cancelled_caught
        await receive()
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await anyio.sleep(0)
            group.cancel_scope.cancel()
        with anyio.CancelScope() as scope, anyio.fail_after(10):
            scope.cancel()
            await receive()
        assert scope.cancelled_caught
        await respond(send, b"ok")

    assert await ask(app, wire) == OK


@each_wire
@in_loop
async def test_starlette_works(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = requests.Request(scope, receive)
        body = await asked.body()

        async def pieces() -> Any:
            for piece in (b"got ", body):
                yield piece

        await StreamingResponse(pieces(), background=BackgroundTask(done.set))(scope, receive, send)

    async with served(app, wire) as server:
        client = await server.connect()
        response = await client.ask("POST", body=b"abc")
        assert response.body == b"got abc"
        await done.wait()
    assert error_records(caplog) == []


# --- Contexts ---

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@each_wire
@in_each_loop
async def test_a_request_sees_the_servers_context_and_no_other_requests(wire: Wire) -> None:
    seen = []
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get("none"))
        variable.set(scope["path"])
        if scope["path"] == "/waits":
            waits.set()
            await go_on.wait()
        await receive()
        seen.append(variable.get())
        await respond(send, b"ok")
        assert variable.get() == scope["path"]

    variable.set("server")
    async with served(app, wire) as server:
        variable.set("changed behind the server")
        client, other = await server.connect(), await server.connect()
        await client.ask("GET", "/a")
        await client.put(Request("GET", "/waits"))
        await waits.wait()
        await other.ask("GET", "/b")
        go_on.set()
        await client.response()
        await client.put(Request("GET", "/c"), Request("GET", "/d"))
        await client.response()
        await client.response()
    assert variable.get() == "changed behind the server"
    assert seen == [
        "server", "/a", "server", "server", "/b", "/waits", "server", "/c", "server", "/d",
    ]  # fmt: skip


@each_wire
@in_each_loop
async def test_an_application_goes_on_in_its_context_wherever_it_is_woken(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        variable.set(scope["path"])
        waits.set()
        while (await receive())["more_body"]:
            assert variable.get() == scope["path"]
            waits.set()
        assert variable.get() == scope["path"]
        await respond(send, b"ok")

    waits = asyncio.Event()
    async with served(app, wire) as server:
        one, two = await server.connect(), await server.connect()
        for client, path in ((one, "/one"), (two, "/two")):
            waits.clear()
            await client.begin("POST", f"{path}", length=2)
            await waits.wait()
        for client in (two, one):
            waits.clear()
            await client.send(b"a")
            await waits.wait()
        for client in (one, two):
            await client.send(b"b")
            assert (await client.response()).body == b"ok"


# --- The client leaves ---


@each_wire
@in_each_loop
async def test_the_rest_of_a_body_is_dropped_with_its_client(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            begun.set()
            await left.wait()
            assert await receive() == DISCONNECT

    outcome = Outcome()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=10, body=b"abc")
        await begun.wait()
        client.close()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        left.set()
        assert await outcome is None
    assert error_records(caplog) == []


@each_wire
@in_each_loop
async def test_a_send_that_is_held_back_returns_when_the_client_leaves(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            await send(START)
            for _ in range(1000):
                sending = asyncio.ensure_future(send({**MORE, "body": bytes(2**20)}))
                if not (await asyncio.wait([sending], timeout=0.1))[0]:
                    begun.set()
                    await sending
                    return
                await sending

    outcome = Outcome()
    async with served(app, wire) as server:
        client = await server.connect(limit=1000)
        await client.put(Request())
        await begun.wait()
        client.reset()
        assert await outcome is None
    assert error_records(caplog) == []


@pytest.mark.parametrize("size", [2, 100_000])
@each_wire_in_turn
@in_each_loop
async def test_a_response_to_a_client_whose_reset_was_not_seen(
    wire: Wire, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """While a large body is not received nothing is read: it is the response that meets the reset."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await respond(send, bytes(size))

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=1_000_000_000)
        for _ in range(50):
            client.writer.write(client.piece(bytes(100_000)))
        await begun.wait()
        client.reset()
        await asyncio.sleep(0)
        go_on.set()
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


@each_wire
@in_loop
async def test_an_application_that_ignores_its_clients_leaving_is_let_run(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            waits.set()
            await go_on.wait()

    outcome = Outcome()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await waits.wait()
        client.reset()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        assert server.context.registry.exchange_count == 1
        go_on.set()
        assert await outcome is None
    assert error_records(caplog) == []


@pytest.mark.parametrize("spec_version", ["2.3", "2.5"])
@each_wire
@in_each_loop
async def test_no_traceback_where_the_client_of_a_stream_leaves(
    wire: Wire, spec_version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette watches receive by a task group for 2.3, and lets send raise for 2.4 and later."""

    async def pieces() -> Any:
        while True:
            yield b"piece"
            await asyncio.sleep(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["asgi"] = {"version": "3.0", "spec_version": spec_version}
        with outcome.set_by():
            await StreamingResponse(pieces())(scope, receive, send)

    outcome = Outcome()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        await client.until(b"piece")
        client.reset()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        for _ in range(10):  # it sends on, to nobody
            await asyncio.sleep(0)
        shift_clock(5.0)
        await outcome
    assert error_records(caplog) == []


@pytest.mark.parametrize("kind", ["a cause", "a context", "a group"])
@each_wire
@in_loop
async def test_no_traceback_for_what_grew_out_of_the_clients_leaving(
    wire: Wire, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            while (await receive())["type"] != "http.disconnect":
                pass
            await send(START)
            dropped.set()
            await late.wait()
            if kind == "a group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(start(send))
            try:
                await send(START)
            except OSError as error:
                raise Oops from error if kind == "a cause" else None

    async def start(send: Any) -> None:
        await send(START)

    outcome = Outcome()
    dropped, late = asyncio.Event(), asyncio.Event()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        client.reset()
        await dropped.wait()
        shift_clock(5.0)
        late.set()
        assert isinstance(await outcome, ExceptionGroup if kind == "a group" else Oops)
    assert error_records(caplog) == []


@pytest.mark.parametrize("kind", ["its own", "its own in a group"])
@each_wire
@in_loop
async def test_an_error_of_the_applications_is_logged_when_the_client_has_left(
    wire: Wire, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            while (await receive())["type"] != "http.disconnect":
                pass
            if kind == "its own":
                raise ConnectionResetError("to the database")
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(send))
                group.create_task(fail(None))

    async def fail(send: Any) -> None:
        if send is None:
            raise Oops
        await send(START)

    outcome = Outcome()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        client.close()
        error = await outcome
    assert traceback_of(caplog) is error


# --- Behind the response ---


@each_wire
@in_each_loop
async def test_work_behind_the_response_does_not_hold_up_the_next_request(wire: Wire) -> None:
    go_on = asyncio.Event()
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["path"].encode())
        if scope["path"] == "/a":
            await go_on.wait()
        done.append(scope["path"])

    async with served(app, wire, timeout_graceful_shutdown=5) as server:
        client = await server.connect()
        for path in ("/a", "/b", "/c"):
            assert (await client.ask("GET", path)).body == path.encode()
        assert done == ["/b", "/c"]
        assert server.context.registry.exchange_count == 1
        go_on.set()
    assert done == ["/b", "/c", "/a"]


@each_wire
@in_loop
async def test_a_background_task_of_starlette(wire: Wire) -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        background = BackgroundTask(work) if scope["path"] == "/work" else None
        await PlainTextResponse("ok", background=background)(scope, receive, send)

    async with served(app, wire, timeout_graceful_shutdown=5) as server:
        client = await server.connect()
        assert (await client.ask("GET", "/work")).body == b"ok"
        assert (await client.ask()).body == b"ok"
        client.close()
        assert not done.is_set()
        go_on.set()
        await done.wait()


@each_wire
@in_loop
async def test_work_behind_the_response_outlives_the_connection(wire: Wire) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            await respond(send, b"ok")
            await go_on.wait()
            assert await receive() == DISCONNECT

    outcome = Outcome()
    async with served(app, wire) as server:
        assert await server.ask() == OK
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        go_on.set()
        assert await outcome is None


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"ok")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="only CPython 3.11 starts tasks by hand")
@each_wire
@in_loop
async def test_what_a_finalizer_gives_the_loop_is_not_lost_in_a_start(wire: Wire) -> None:
    called = []

    class Finalized:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            asyncio.get_running_loop().call_soon(called.append, 1)

    count = 300
    thresholds = gc.get_threshold()
    try:
        async with served(answering, wire) as server:
            client = await server.connect()
            gc.set_threshold(1)
            for _ in range(count):
                Finalized()
                await client.ask()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    await asyncio.sleep(0)
    assert len(called) == count


@each_wire
@in_each_loop
async def test_a_receive_call_is_an_iterator_that_gives_its_message(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(StopIteration) as stopped:
            receive().__next__()
        assert stopped.value.value == {"type": "http.request", "body": b"", "more_body": False}
        await respond(send, b"ok")

    assert await ask(app, wire) == OK
