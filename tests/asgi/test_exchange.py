"""One call of the application: its task, receive and send in every use, its client's leaving, its errors."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import asgiref.sync
import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from wire import (
    CLOSE,
    SERVER_ERROR,
    Reads,
    echo,
    error_records,
    in_each_loop,
    in_loop,
    read_body,
    request,
    respond,
    served,
    shift_clock,
    talk,
    traceback_of,
)

from fastasgi.asgi.exchange import ClientDisconnected

GET = request("GET / HTTP/1.1", CLOSE)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"ok"}
MORE = {"type": "http.response.body", "body": b"ok", "more_body": True}
DISCONNECT = {"type": "http.disconnect"}
UPLOAD = request("POST / HTTP/1.1", "content-length: 3")


class Oops(Exception):
    """What an application raises here."""


class Outcome:
    """What one call of an application came to: to be awaited where the call is made elsewhere."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Any:
        return self._future.__await__()

    @contextlib.contextmanager
    def set_by(self) -> Any:
        """The exception that leaves the block, or None."""
        try:
            yield
        except BaseException as error:
            self._future.set_result(error)
            raise
        else:
            self._future.set_result(None)


# --- The application's task ---


@in_each_loop
async def test_the_application_runs_in_a_task_of_its_own() -> None:
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
    assert (await talk(app, request() + GET)).endswith(OK)
    assert asyncio.current_task() is task
    first, second = seen
    assert first is not second
    assert first.done()
    assert not set(seen) & asyncio.all_tasks()


@in_each_loop
async def test_the_application_starts_inside_the_read_event_of_its_head(reads: Reads) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        reads.events.append("application")
        await respond(send, b"ok")
        reads.events.append("response sent")

    assert await talk(app, GET) == OK
    assert reads.events == ["read begins", "application", "response sent", "read ends"]


@in_each_loop
async def test_an_application_that_waits_goes_on_inside_the_read_event(reads: Reads) -> None:
    waits = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waits.set()
        reads.events.append((await receive())["body"])
        await respond(send, b"ok")

    async with served(app) as server:
        client = await server.connect()
        await client.write(UPLOAD)
        await waits.wait()
        await client.write(b"abc")
        await client.response()
    assert reads.events == ["read begins", "read ends", "read begins", b"abc", "read ends"]


@in_each_loop
async def test_asyncios_timeouts_and_task_groups_work() -> None:
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

    assert await talk(app, GET) == OK


@in_each_loop
async def test_anyio_works() -> None:
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

    assert await talk(app, GET) == OK


@in_loop
async def test_starlette_works(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = Request(scope, receive)
        body = await asked.body()

        async def pieces() -> Any:
            for piece in (b"got ", body):
                yield piece

        await StreamingResponse(pieces(), background=BackgroundTask(done.set))(scope, receive, send)

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request("POST / HTTP/1.1", "content-length: 3", body=b"abc"))
        assert response.body == b"got abc"
        await done.wait()
    assert error_records(caplog) == []


# --- Contexts ---

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@in_each_loop
async def test_a_request_sees_the_servers_context_and_no_other_requests() -> None:
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
    async with served(app) as server:
        variable.set("changed behind the server")
        client, other = await server.connect(), await server.connect()
        await client.ask(request("GET /a HTTP/1.1"))
        await client.write(request("GET /waits HTTP/1.1"))
        await waits.wait()
        await other.ask(request("GET /b HTTP/1.1"))
        go_on.set()
        await client.response()
        await client.write(request("GET /c HTTP/1.1") + request("GET /d HTTP/1.1"))
        await client.response()
        await client.response()
    assert variable.get() == "changed behind the server"
    assert seen == [
        "server", "/a", "server", "server", "/b", "/waits", "server", "/c", "server", "/d",
    ]  # fmt: skip


@in_each_loop
async def test_an_application_goes_on_in_its_context_wherever_it_is_woken() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        variable.set(scope["path"])
        waits.set()
        while (await receive())["more_body"]:
            assert variable.get() == scope["path"]
            waits.set()
        assert variable.get() == scope["path"]
        await respond(send, b"ok")

    waits = asyncio.Event()
    async with served(app) as server:
        one, two = await server.connect(), await server.connect()
        for client, path in ((one, "/one"), (two, "/two")):
            waits.clear()
            await client.write(request(f"POST {path} HTTP/1.1", "content-length: 2"))
            await waits.wait()
        for client in (two, one):
            waits.clear()
            await client.write(b"a")
            await waits.wait()
        for client in (one, two):
            await client.write(b"b")
            assert (await client.response()).body == b"ok"


# --- receive ---


@in_loop
async def test_receive_and_send_return_awaitables() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for call in (receive(), send(START), send(MORE)):
            assert inspect.isawaitable(call)
            assert asyncio.iscoroutine(call)
        await send(BODY)

    answer = await talk(app, GET)
    assert answer.endswith(b"\r\n\r\n2\r\nok\r\n2\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize("wrap", [asyncio.create_task, asyncio.ensure_future, asyncio.gather, asyncio.shield])
@in_each_loop
async def test_receive_and_send_in_asyncios_wrappers(wrap: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages = []
        for _ in range(2):
            message = await wrap(receive())
            messages.append(message[0] if wrap is asyncio.gather else message)
        assert b"".join(message["body"] for message in messages) == b"abc"
        assert messages[-1]["more_body"] is False
        await wrap(send(START))
        await wrap(send(MORE))
        await wrap(send({"type": "http.response.body"}))

    async with served(app) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", "content-length: 3", body=b"a"))
        while server.context.registry.exchange_count == 0:
            await asyncio.sleep(0)
        await client.write(b"bc")
        assert (await client.response()).body == b"ok"


@in_loop
async def test_gather_of_all_calls_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message, *_ = await asyncio.gather(receive(), send(START), send(MORE), send(BODY))
        assert message == {"type": "http.request", "body": b"", "more_body": False}

    answer = await talk(app, GET)
    assert answer.endswith(b"\r\n\r\n2\r\nok\r\n2\r\nok\r\n0\r\n\r\n")


@in_each_loop
async def test_a_receive_that_is_given_up_loses_nothing() -> None:
    """By wait_for, by cancellation before and while it waits, and as a call that is never awaited."""
    gave_up = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
        unstarted = asyncio.create_task(receive())
        unstarted.cancel()
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        results = await asyncio.gather(unstarted, waiting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        receive()
        gave_up.set()
        assert await read_body(receive) == b"abc"
        await respond(send, b"ok")

    async with served(app) as server:
        client = await server.connect()
        await client.write(UPLOAD)
        await gave_up.wait()
        await client.write(b"abc")
        assert (await client.response()).body == b"ok"


@in_each_loop
async def test_a_receive_cancelled_as_its_message_comes_loses_nothing() -> None:
    """The message is there, the task is woken, and cancelled before it has run."""
    waits = asyncio.Event()
    receiving: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        receiving.append(asyncio.create_task(receive()))
        waits.set()
        (result,) = await asyncio.gather(*receiving, return_exceptions=True)
        body = b"" if isinstance(result, asyncio.CancelledError) else result["body"]
        await respond(
            send, b"ok" if body + (await read_body(receive) if not body else b"") == b"abc" else b""
        )

    async with served(app) as server:
        client = await server.connect()
        await client.write(UPLOAD)
        await waits.wait()
        client.writer.write(b"abc")
        for _ in range(20):
            receiving[0].cancel()
            await asyncio.sleep(0)
        assert (await client.response()).body == b"ok"


@in_each_loop
async def test_concurrent_receives_each_get_a_message_once() -> None:
    """The first to ask gets what comes first; in the end all are told that it is over."""
    waiting = asyncio.Event()
    results: dict[int, list[Any]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def read(number: int) -> None:
            results[number] = []
            while not results[number] or results[number][-1] != DISCONNECT:
                results[number].append(await receive())
                waiting.set()

        tasks = [asyncio.create_task(read(number)) for number in range(5)]
        await asyncio.sleep(0)
        waiting.set()
        await asyncio.gather(*tasks)

    async with served(app) as server:
        client = await server.connect()
        for piece in (UPLOAD, b"a", b"b", b"c"):
            await client.write(piece)
            await waiting.wait()
            waiting.clear()
        client.close()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert all(messages.pop() == DISCONNECT for messages in results.values())
    bodies = [message["body"] for messages in results.values() for message in messages]
    assert sorted(bodies) == [b"a", b"b", b"c"]


@in_each_loop
async def test_a_receive_that_is_woken_may_cancel_the_others() -> None:
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def read() -> Any:
            message = await receive()
            for task in tasks:
                if task is not asyncio.current_task():
                    task.cancel()
            return message

        tasks += [asyncio.create_task(read()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        got = [result for result in results if not isinstance(result, BaseException)]
        assert [message["body"] for message in got] == [b"abc"]
        assert [type(result) for result in results].count(asyncio.CancelledError) == 4
        await respond(send, b"ok")

    async with served(app) as server:
        client = await server.connect()
        await client.write(UPLOAD)
        await waiting.wait()
        await client.write(b"abc")
        assert (await client.response()).body == b"ok"


@in_loop
async def test_a_call_of_receive_is_awaited_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call = receive()
        await call
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await call
        await respond(send, b"ok")

    assert await talk(app, GET) == OK


@in_each_loop
async def test_receive_behind_the_body_waits_for_the_end_of_the_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        watching = asyncio.create_task(receive())
        await send(START)
        await send(MORE)
        await asyncio.sleep(0)
        assert not watching.done()
        await send({"type": "http.response.body"})
        assert await watching == DISCONNECT
        assert await receive() == DISCONNECT
        ended.set()

    ended = asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"ok"
        await ended.wait()


@in_loop
async def test_messages_are_the_applications_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")
        (await receive()).clear()
        assert await receive() == DISCONNECT

    assert await talk(app, request() + GET) is not None


# --- send ---


@in_each_loop
async def test_the_message_is_sent_when_the_call_is_made() -> None:
    """So that a call that is not awaited, or whose await is cancelled, has sent all of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        sending = asyncio.create_task(send(MORE))
        sending.cancel()
        await asyncio.wait([sending])
        send(MORE)
        await send(BODY)

    answer = await talk(app, GET)
    assert answer.endswith(b"\r\n\r\n" + b"2\r\nok\r\n" * 3 + b"0\r\n\r\n")


@in_each_loop
async def test_send_called_in_another_thread_sends_where_it_is_awaited() -> None:
    """As asgiref's async_to_sync() calls it, for Django Channels' synchronous consumers among others. The
    event loop lets other threads run before it reads a readable socket: none may close it meanwhile."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls = [await asyncio.to_thread(send, message) for message in (START, MORE, BODY)]
        late = await asyncio.to_thread(send, BODY)
        assert all(asyncio.iscoroutine(call) for call in calls)
        await send({**START, "status": 201})
        with pytest.raises(RuntimeError, match="Expected ASGI message 'http"):
            await calls.pop(0)
        for call in calls:
            await call
        with pytest.raises(RuntimeError, match="after response already completed"):
            await late

    answer = await talk(app, GET)
    assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
    assert answer.endswith(b"\r\n\r\n2\r\nok\r\n2\r\nok\r\n0\r\n\r\n")


@in_each_loop
async def test_receive_and_send_in_the_event_loop_of_another_thread() -> None:
    """As asgiref's async_to_sync() does in a thread that it has not started itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        def in_thread() -> None:
            async def serve() -> None:
                assert (await receive())["body"] == b"abc"
                await send(START)
                with pytest.raises(RuntimeError, match="Expected ASGI message"):
                    await send(START)
                await send(BODY)

            asyncio.run(serve())

        await asyncio.to_thread(in_thread)

    answer = await talk(app, UPLOAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\nabc"))
    assert answer.endswith(b"\r\n\r\nok")


@in_loop
async def test_a_thread_without_an_event_loop_can_await_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def in_thread() -> None:
            for call in (receive(), send(START), made_in_loop):
                with pytest.raises(RuntimeError, match="event loop"):
                    call.send(None)

        made_in_loop = receive()
        await asyncio.to_thread(in_thread)
        await respond(send, b"ok")

    assert await talk(app, GET) == OK


@pytest.mark.parametrize("place", ["headers", "links", "trailers", "body", "path", "type"])
@in_loop
async def test_a_send_out_of_a_message_that_is_being_taken_is_refused(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        def send_now() -> None:
            for message in (START, BODY):
                try:
                    send(message).send(None)
                except (RuntimeError, StopIteration) as error:
                    refused.append(error)

        def fields() -> Any:
            send_now()
            yield b"a", b"b"

        def links() -> Any:
            send_now()
            yield b"</a>"

        class Body(bytes):
            def __bytes__(self) -> bytes:
                send_now()
                return b"ok"

        class Location:
            def __fspath__(self) -> str:
                send_now()
                return str(tmp_path / "file")

        class Kind(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                send_now()
                return str.__eq__(self, other)

            __hash__ = str.__hash__

        if place == "links":
            await send({"type": "http.response.early_hint", "links": links()})
        await send(
            {
                **START,
                "type": Kind(START["type"]) if place == "type" else START["type"],
                "headers": fields() if place == "headers" else [],
                "trailers": place == "trailers",
            }
        )
        if place == "path":
            await send({"type": "http.response.pathsend", "path": Location()})
        else:
            await send({**BODY, "body": Body(b"ok") if place == "body" else b"ok"})
        if place == "trailers":
            await send({"type": "http.response.trailers", "headers": fields()})

    (tmp_path / "file").write_bytes(b"ok")
    answer = await talk(app, GET)
    assert b"HTTP/1.1 200 OK\r\n" in answer
    assert b"ok" in answer.partition(b"\r\n\r\n")[2]
    assert refused
    assert {str(error) for error in refused} == {
        "send() was called by what another message of this request holds"
    }
    assert error_records(caplog) == []


@pytest.mark.parametrize(
    "is_coroutine_function", [inspect.iscoroutinefunction, asgiref.sync.iscoroutinefunction]
)
@in_loop
async def test_receive_and_send_are_coroutine_functions(is_coroutine_function: Any) -> None:
    """Libraries warn of others, or run them in threads."""
    if is_coroutine_function is inspect.iscoroutinefunction and sys.version_info < (3, 12):
        pytest.skip("there inspect knows only functions written with async def")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert is_coroutine_function(receive)
        assert is_coroutine_function(send)
        await respond(send, b"ok")

    assert await talk(app, GET) == OK


@in_loop
async def test_errors_of_send_are_raised_where_it_is_awaited() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        [error] = await asyncio.gather(send(BODY), return_exceptions=True)
        assert isinstance(error, RuntimeError)
        task = asyncio.create_task(send({**START, "status": 5}))
        await asyncio.wait([task])
        assert isinstance(task.exception(), ValueError)
        call = send(BODY)
        with pytest.raises(RuntimeError, match="but got"):
            await call
        await respond(send, b"ok")

    assert await talk(app, GET) == OK


ORDER = {
    "body first": ([BODY], "Expected ASGI message 'http.response.start', but got 'http.response.body'."),
    "start twice": (
        [START, START], "Expected ASGI message 'http.response.body', but got 'http.response.start'.",
    ),
    "start in the body": (
        [START, MORE, START], "Expected ASGI message 'http.response.body', but got 'http.response.start'.",
    ),
    "unknown first": ([{"type": "http.x"}], "Expected ASGI message 'http.response.start', but got 'http.x'."),
    "unknown": (
        [START, {"type": "http.x"}], "Expected ASGI message 'http.response.body', but got 'http.x'.",
    ),
    "websocket": (
        [{"type": "websocket.accept"}],
        "Expected ASGI message 'http.response.start', but got 'websocket.accept'.",
    ),
    "early hint after the start": (
        [START, {"type": "http.response.early_hint", "links": []}],
        "Expected ASGI message 'http.response.body', but got 'http.response.early_hint'.",
    ),
    "trailers that were not promised": (
        [START, MORE, {"type": "http.response.trailers"}],
        "Expected ASGI message 'http.response.body', but got 'http.response.trailers'.",
    ),
    "body instead of trailers": (
        [{**START, "trailers": True}, BODY, BODY],
        "Expected ASGI message 'http.response.trailers', but got 'http.response.body'.",
    ),
    "body behind the end": (
        [START, BODY, BODY],
        "Unexpected ASGI message 'http.response.body' sent, after response already completed.",
    ),
    "start behind the end": (
        [START, BODY, START],
        "Unexpected ASGI message 'http.response.start' sent, after response already completed.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "text"), ORDER.values(), ids=ORDER)
@in_loop
async def test_a_message_out_of_order_says_which_was_expected(
    messages: list[Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with served(app) as server:
        client = await server.connect()
        await client.write(GET)
        answer = await client.rest()
    error = traceback_of(caplog)
    assert isinstance(error, RuntimeError)
    assert str(error) == text
    if "completed" in text:
        assert answer == OK
    elif MORE not in messages and len(messages) < 3:
        assert answer == SERVER_ERROR
    else:
        assert b"0\r\n\r\n" not in answer


@pytest.mark.parametrize("message", [{}, {"status": 200}, None, 5, "http.response.start"], ids=str)
@in_loop
async def test_a_message_that_is_none(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)

    assert await talk(app, GET) == SERVER_ERROR
    traceback_of(caplog)


@in_loop
async def test_messages_may_be_other_mappings() -> None:
    class Message(dict[str, Any]):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(Message(START))
        await send(Message(BODY))

    assert await talk(app, GET) == OK


@in_loop
async def test_messages_are_left_as_they_are() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [[b"transfer-encoding", b"chunked"], (b"content-length", b"2")]
        start, body = {**START, "status": 204, "headers": headers}, dict(BODY)
        await send(start)
        await send(body)
        assert start == {**START, "status": 204, "headers": headers}
        assert headers == [[b"transfer-encoding", b"chunked"], (b"content-length", b"2")]
        assert body == BODY

    answer = await talk(app, GET)
    assert answer == b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"


# --- The client leaves ---


@in_each_loop
async def test_the_rest_of_a_body_is_dropped_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            await left.wait()
            assert await receive() == DISCONNECT

    outcome = Outcome()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", "content-length: 10", body=b"abc"))
        client.close()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        left.set()
        assert await outcome is None
    assert error_records(caplog) == []


@in_each_loop
async def test_a_send_that_is_held_back_returns_when_the_client_leaves(
    caplog: pytest.LogCaptureFixture,
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
    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await begun.wait()
        client.reset()
        assert await outcome is None
    assert error_records(caplog) == []


@pytest.mark.parametrize("size", [2, 100_000])
@in_each_loop
async def test_a_response_to_a_client_whose_reset_was_not_seen(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """While a large body is not received nothing is read: it is the response that meets the reset."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await respond(send, bytes(size))

    async with served(app) as server:
        client = await server.connect()
        client.writer.write(request("POST / HTTP/1.1", "content-length: 1000000000") + bytes(5_000_000))
        await begun.wait()
        client.reset()
        await asyncio.sleep(0)
        go_on.set()
        await server.context.registry.wait_idle()
    assert error_records(caplog) == []


@in_loop
async def test_an_application_that_ignores_its_clients_leaving_is_let_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            waits.set()
            await go_on.wait()

    outcome = Outcome()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await waits.wait()
        client.reset()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        assert server.context.registry.exchange_count == 1
        go_on.set()
        assert await outcome is None
    assert error_records(caplog) == []


@pytest.mark.parametrize("spec_version", ["2.3", "2.5"])
@in_each_loop
async def test_no_traceback_where_the_client_of_a_stream_leaves(
    spec_version: str, caplog: pytest.LogCaptureFixture
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
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await client.reader.readuntil(b"piece")
        client.reset()
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        for _ in range(10):  # it sends on, to nobody
            await asyncio.sleep(0)
        shift_clock(5.0)
        await outcome
    assert error_records(caplog) == []


@pytest.mark.parametrize("kind", ["a cause", "a context", "a group"])
@in_loop
async def test_no_traceback_for_what_grew_out_of_the_clients_leaving(
    kind: str, caplog: pytest.LogCaptureFixture
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
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        client.reset()
        await dropped.wait()
        shift_clock(5.0)
        late.set()
        assert isinstance(await outcome, ExceptionGroup if kind == "a group" else Oops)
    assert error_records(caplog) == []


@pytest.mark.parametrize("kind", ["its own", "its own in a group"])
@in_loop
async def test_an_error_of_the_applications_is_logged_when_the_client_has_left(
    kind: str, caplog: pytest.LogCaptureFixture
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
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        client.close()
        error = await outcome
    assert traceback_of(caplog) is error


# --- Errors ---


@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
@in_each_loop
async def test_an_exception_before_the_start_is_a_500(
    suspends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        raise Oops("why")

    assert await talk(app, request() + GET) == SERVER_ERROR
    [record] = error_records(caplog)
    text = caplog.handler.format(record)
    assert "Exception in ASGI application" in text
    assert "Traceback (most recent call last)" in text
    assert f"in app\n    raise {Oops.__name__}" in text


def circle() -> BaseException:
    """As anyio's groups leave it under a middleware: what the group holds is raised out of its handling."""
    error = Oops("round")
    error.__context__ = ExceptionGroup("holds what it came from", [error])
    return error.__context__


def half_a_circle() -> BaseException:
    """One member leads back to the group, the other to a client that has left."""
    error = Oops("round")
    error.__context__ = ExceptionGroup("two", [error, ClientDisconnected()])
    return error.__context__


def shared_groups() -> BaseException:
    """Two to the power of 200 ways through 200 groups."""
    group: Exception = Oops("shared")
    for _ in range(200):
        group = ExceptionGroup("the same twice", [group, group])
    return group


def deep_groups() -> BaseException:
    group: Exception = Oops("deep")
    for _ in range(50_000):
        group = ExceptionGroup("one", [group])
    return group


def long_chain() -> BaseException:
    last = error = Oops("last")
    for _ in range(20_000):
        error.__context__ = Oops("before")
        error = error.__context__
    return last


class Unsized(Oops):
    """Can't be asked whether it is true, as the traceback module does."""

    def __len__(self) -> int:
        raise AssertionError("asked for its length")


class Endless(ExceptionGroup):
    """Each look at its members makes more of them."""

    @property
    def exceptions(self) -> Any:
        return (Endless("more", [Oops()]),)


def endless_groups() -> BaseException:
    return Endless("without end", [Oops()])


def unsized_cause() -> BaseException:
    error = Oops("caused")
    error.__cause__ = Unsized()
    return error


@pytest.mark.parametrize(
    "make",
    [circle, half_a_circle, shared_groups, deep_groups, long_chain, endless_groups, unsized_cause],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
@in_loop
async def test_an_exception_of_whatever_shape_is_logged_and_a_500(
    suspends: bool, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it is too large for a whole traceback, the log has that of the outermost."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        if scope["path"] == "/":
            raise make()
        await respond(send, b"ok")

    async with served(app) as server:
        assert await server.talk(GET) == SERVER_ERROR
        assert await server.talk(request("GET /next HTTP/1.1", CLOSE)) == OK
    text = caplog.handler.format(error_records(caplog)[-1])
    assert text.count("Exception in ASGI application") == 1
    assert "in app\n" in text
    assert "raise make()" in text
    whole = make in (circle, half_a_circle, long_chain)
    assert ("Not with all that it grew out of" in text) != whole


class Unfriendly(Oops):
    """Can't be looked at."""

    __traceback__ = property(lambda self: 1 / 0)
    __class__ = property(lambda self: 1 / 0)


class BrokenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise Oops("the log is broken")


@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("ends", ["raises", "unfriendly", "returns", "in the body"])
@pytest.mark.parametrize("breaks", [True, False], ids=["broken log", "good log"])
@in_loop
async def test_whatever_can_not_be_logged_takes_no_response(
    breaks: bool, ends: str, suspends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        if ends == "in the body":
            await send(START)
            await send(MORE)
        if ends in ("raises", "unfriendly"):
            raise Oops if ends == "raises" else Unfriendly

    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["message"]))
    async with served(app) as server:
        if breaks:
            monkeypatch.setattr(logging.getLogger("fastasgi.error"), "handlers", [BrokenHandler()])
        answer = await server.talk(GET)
        monkeypatch.undo()
        await server.context.registry.wait_idle()
    if ends == "in the body":
        assert answer.endswith(b"\r\n\r\n2\r\nok\r\n")
    else:
        assert answer == SERVER_ERROR
    assert len(problems) == (1 if breaks else 0)
    assert all("ASGI" in problem and "Oops" in problem for problem in problems)


@in_loop
async def test_an_exception_behind_the_start_message_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """The start was held back; nothing of it is sent."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"x-secret", b"1"), (b"content-length", b"2")]})
        raise Oops

    assert await talk(app, request() + GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), Oops)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@in_each_loop
async def test_an_exception_in_the_body_closes_the_connection(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client can tell that the body is not complete: by the missing last chunk, or by a reset."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await go_on.wait()
        raise Oops

    go_on = asyncio.Event()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request(f"GET / HTTP/{version}") + request())
        await client.reader.readuntil(b"ok")
        go_on.set()
        if version == "1.1":
            assert await client.rest() == b"\r\n"
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()
    assert isinstance(traceback_of(caplog), Oops)


@in_loop
async def test_an_exception_behind_the_response_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")
        raise Oops

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"ok"
        assert isinstance(traceback_of(caplog), Oops)
        caplog.clear()
        assert (await client.ask(request())).body == b"ok"
        assert isinstance(traceback_of(caplog), Oops)


@in_loop
async def test_an_application_that_returns_without_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    assert await talk(app, request() + GET) == SERVER_ERROR
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without starting response."


@pytest.mark.parametrize("messages", [[START], [START, MORE]], ids=["started", "in the body"])
@in_loop
async def test_an_application_that_returns_without_the_end_of_its_response(
    messages: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    answer = await talk(app, request() + GET)
    unended = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
    assert answer == (SERVER_ERROR if messages == [START] else unended)
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without completing response."


@in_each_loop
async def test_a_task_that_the_application_leaves_behind_may_not_send(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def later() -> None:
            with outcome.set_by(), contextlib.suppress(RuntimeError):
                await go_on.wait()
                await respond(send, b"smuggled")
                raise AssertionError

        tasks.append(asyncio.create_task(later()))

    go_on = asyncio.Event()
    outcome = Outcome()
    tasks: list[asyncio.Task[None]] = []
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        assert await client.rest() == SERVER_ERROR
        go_on.set()
        assert await outcome is None
    assert len(error_records(caplog)) == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit], ids=lambda error: error.__name__)
@in_loop
async def test_other_exceptions_get_an_answer_too(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async with served(app) as server:
        assert await server.talk(request() + GET) == SERVER_ERROR
        assert await server.talk(GET) == SERVER_ERROR
    assert len(error_records(caplog)) == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt], ids=lambda error: error.__name__)
@in_each_loop
async def test_an_application_that_exits_at_once_has_failed_in_its_request_only(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with served(app) as server:
        assert await server.talk(GET) == SERVER_ERROR
        assert await server.talk(GET) == SERVER_ERROR
        assert server.context.registry.exchange_count == 0
    gc.collect()
    assert len(error_records(caplog)) == 2


@in_loop
async def test_an_application_that_cancels_itself_gets_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.current_task().cancel()
        await receive()
        await asyncio.sleep(0)

    assert await talk(app, GET) == SERVER_ERROR
    assert len(error_records(caplog)) == 1


@pytest.mark.parametrize("kind", ["raises", "returns none", "returns a number"])
@in_loop
async def test_an_application_that_is_no_coroutine_function(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    class App:
        """Calling it runs its code outside of any coroutine."""

        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            if kind == "raises":
                raise Oops
            return None if kind == "returns none" else 5

    async with served(App(), interface="asgi3") as server:
        assert await server.talk(GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), Oops | TypeError)


@in_loop
async def test_an_application_whose_call_returns_a_coroutine() -> None:
    def app(scope: Any, receive: Any, send: Any) -> Any:
        assert isinstance(asyncio.current_task(), asyncio.Task)
        return echo(scope, receive, send)

    assert (await talk(app, GET, interface="asgi3")).endswith(b"\r\n\r\nGET /? ")


@in_loop
async def test_errors_are_logged_by_the_servers_error_logger(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Oops

    await talk(app, GET)
    [record] = error_records(caplog)
    assert (record.name, record.levelno) == ("fastasgi.error", logging.ERROR)


# --- Behind the response ---


@in_each_loop
async def test_work_behind_the_response_does_not_hold_up_the_next_request() -> None:
    go_on = asyncio.Event()
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, scope["path"].encode())
        if scope["path"] == "/a":
            await go_on.wait()
        done.append(scope["path"])

    async with served(app, timeout_graceful_shutdown=5) as server:
        client = await server.connect()
        for path in ("/a", "/b", "/c"):
            assert (await client.ask(request(f"GET {path} HTTP/1.1"))).body == path.encode()
        assert done == ["/b", "/c"]
        assert server.context.registry.exchange_count == 1
        go_on.set()
    assert done == ["/b", "/c", "/a"]


@in_loop
async def test_a_background_task_of_starlette() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        background = BackgroundTask(work) if scope["path"] == "/work" else None
        await PlainTextResponse("ok", background=background)(scope, receive, send)

    async with served(app, timeout_graceful_shutdown=5) as server:
        client = await server.connect()
        assert (await client.ask(request("GET /work HTTP/1.1"))).body == b"ok"
        assert (await client.ask(request())).body == b"ok"
        client.close()
        assert not done.is_set()
        go_on.set()
        await done.wait()


@in_loop
async def test_work_behind_the_response_outlives_the_connection() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with outcome.set_by():
            await respond(send, b"ok")
            await go_on.wait()
            assert await receive() == DISCONNECT

    outcome = Outcome()
    async with served(app) as server:
        assert await server.talk(GET) == OK
        while server.context.registry.connection_count:
            await asyncio.sleep(0)
        go_on.set()
        assert await outcome is None


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"ok")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="only CPython 3.11 starts tasks by hand")
@in_loop
async def test_what_a_finalizer_gives_the_loop_is_not_lost_in_a_start() -> None:
    called = []

    class Finalized:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            asyncio.get_running_loop().call_soon(called.append, 1)

    count = 300
    thresholds = gc.get_threshold()
    try:
        async with served(answering) as server:
            client = await server.connect()
            gc.set_threshold(1)
            for _ in range(count):
                Finalized()
                await client.ask(request())
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    await asyncio.sleep(0)
    assert len(called) == count


@in_each_loop
async def test_a_receive_call_is_an_iterator_that_gives_its_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(StopIteration) as stopped:
            receive().__next__()
        assert stopped.value.value == {"type": "http.request", "body": b"", "more_body": False}
        await respond(send, b"ok")

    assert await talk(app, GET) == OK


# --- Messages whose parts run code ---


class Clearing:
    """A key or a value that empties its message when it is compared, or asked whether it is true."""

    def __init__(self, message: dict[Any, Any], like: str) -> None:
        self._message = message
        self._hash = hash(like)

    def __hash__(self) -> int:
        return self._hash

    def _clear(self) -> None:
        self._message.clear()
        gc.collect()

    def __eq__(self, other: object) -> bool:
        self._clear()
        return False

    def __bool__(self) -> bool:
        self._clear()
        return False


class ClearingText(str):
    """The type of a message, which empties that when it is compared."""

    message: dict[Any, Any]

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        self.message.clear()
        gc.collect()
        return str.__eq__(self, other)


@pytest.mark.parametrize("like", ["trailers", "more_body"])
@pytest.mark.parametrize("part", ["key", "value", "type"])
@in_loop
async def test_a_message_may_change_while_it_is_read(part: str, like: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"x-%d" % i, b"v" * 50) for i in range(20)]
        start: dict[Any, Any] = {"type": "http.response.start", "status": 200, "headers": fields}
        body: dict[Any, Any] = {"type": "http.response.body", "body": b"".join([b"whole", b" body"])}
        for message in (start, body):
            if part == "type":
                kind = message["type"] = ClearingText(message["type"])
                kind.message = message
            else:
                clearing = Clearing(message, like)
                message[clearing if part == "key" else like] = 1 if part == "key" else clearing
        del fields, message
        await send(start)
        await send(body)
        cleared.append(start == {} or body == {})

    cleared: list[bool] = []
    answer = await talk(app, GET)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nx-0: " + b"v" * 50)
    assert answer.endswith(b"whole body")
    assert cleared == [True]
