"""receive and send in every use, and the order of messages."""

import asyncio
import gc
import inspect
import sys
from pathlib import Path
from typing import Any

import asgiref.sync
import pytest
from anyclient import INTERNAL_ERROR, Request, Response
from eachwire import Wire, answers, ask, each_wire, served
from exchanges import BODY, DISCONNECT, MORE, OK, START
from wire import error_records, in_each_loop, in_loop, read_body, respond, traceback_of

# --- receive ---


@each_wire
@in_loop
async def test_receive_and_send_return_awaitables(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for call in (receive(), send(START), send(MORE)):
            assert inspect.isawaitable(call)
            assert asyncio.iscoroutine(call)
        await send(BODY)

    assert await ask(app, wire) == Response(200, body=b"okok")


@pytest.mark.parametrize("wrap", [asyncio.create_task, asyncio.ensure_future, asyncio.gather, asyncio.shield])
@each_wire
@in_each_loop
async def test_receive_and_send_in_asyncios_wrappers(wire: Wire, wrap: Any) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3, body=b"a")
        while server.context.registry.exchange_count == 0:
            await asyncio.sleep(0)
        await client.send(b"bc")
        assert (await client.response()).body == b"ok"


@each_wire
@in_loop
async def test_gather_of_all_calls_at_once(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message, *_ = await asyncio.gather(receive(), send(START), send(MORE), send(BODY))
        assert message == {"type": "http.request", "body": b"", "more_body": False}

    assert await ask(app, wire) == Response(200, body=b"okok")


@each_wire
@in_each_loop
async def test_a_receive_that_is_given_up_loses_nothing(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3)
        await gave_up.wait()
        await client.send(b"abc")
        assert (await client.response()).body == b"ok"


@each_wire
@in_each_loop
async def test_a_receive_cancelled_as_its_message_comes_loses_nothing(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3)
        await waits.wait()
        client.writer.write(client.piece(b"abc"))
        for _ in range(20):
            receiving[0].cancel()
            await asyncio.sleep(0)
        assert (await client.response()).body == b"ok"


@each_wire
@in_each_loop
async def test_concurrent_receives_each_get_a_message_once(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3)
        await waiting.wait()
        waiting.clear()
        for piece in (b"a", b"b", b"c"):
            await client.send(piece)
            await waiting.wait()
            waiting.clear()
        client.close()
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
    assert all(messages.pop() == DISCONNECT for messages in results.values())
    bodies = [message["body"] for messages in results.values() for message in messages]
    assert sorted(bodies) == [b"a", b"b", b"c"]


@each_wire
@in_each_loop
async def test_a_receive_that_is_woken_may_cancel_the_others(wire: Wire) -> None:
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

    async with served(app, wire) as server:
        client = await server.connect()
        await client.begin(length=3)
        await waiting.wait()
        await client.send(b"abc")
        assert (await client.response()).body == b"ok"


@each_wire
@in_loop
async def test_a_call_of_receive_is_awaited_once(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call = receive()
        await call
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await call
        await respond(send, b"ok")

    assert await ask(app, wire) == OK


@each_wire
@in_each_loop
async def test_receive_behind_the_body_waits_for_the_end_of_the_response(wire: Wire) -> None:
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
    async with served(app, wire) as server:
        client = await server.connect()
        assert (await client.ask()).body == b"ok"
        await ended.wait()


@each_wire
@in_loop
async def test_messages_are_the_applications_own(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")
        (await receive()).clear()
        assert await receive() == DISCONNECT

    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request(), Request())
        assert [await client.response(), await client.response()] == [OK, OK]


# --- send ---


@each_wire
@in_each_loop
async def test_the_message_is_sent_when_the_call_is_made(wire: Wire) -> None:
    """So that a call that is not awaited, or whose await is cancelled, has sent all of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        sending = asyncio.create_task(send(MORE))
        sending.cancel()
        await asyncio.wait([sending])
        send(MORE)
        await send(BODY)

    assert await ask(app, wire) == Response(200, body=b"ok" * 3)


@each_wire
@in_each_loop
async def test_send_called_in_another_thread_sends_where_it_is_awaited(wire: Wire) -> None:
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

    assert await ask(app, wire) == Response(201, body=b"okok")


@each_wire
@in_each_loop
async def test_receive_and_send_in_the_event_loop_of_another_thread(wire: Wire) -> None:
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

    assert await ask(app, wire, "POST", body=b"abc") == OK


@each_wire
@in_loop
async def test_a_thread_without_an_event_loop_can_await_nothing(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def in_thread() -> None:
            for call in (receive(), send(START), made_in_loop):
                with pytest.raises(RuntimeError, match="event loop"):
                    call.send(None)

        made_in_loop = receive()
        await asyncio.to_thread(in_thread)
        await respond(send, b"ok")

    assert await ask(app, wire) == OK


class Intruder:
    """Has values for a message which send messages of the same request while that one is taken."""

    def __init__(self, send: Any, refused: list[BaseException]) -> None:
        self._send, self._refused = send, refused

    def send_now(self) -> None:
        for message in (START, BODY):
            try:
                self._send(message).send(None)
            except (RuntimeError, StopIteration) as error:
                self._refused.append(error)

    def each(self, value: Any) -> Any:
        self.send_now()
        yield value

    def body(self) -> bytes:
        class Body(bytes):
            def __bytes__(_) -> bytes:
                self.send_now()
                return b"ok"

        return Body(b"ok")

    def path(self, path: Path) -> Any:
        class Location:
            def __fspath__(_) -> str:
                self.send_now()
                return str(path)

        return Location()

    def kind(self, text: str) -> str:
        class Kind(str):
            __slots__ = ()

            def __eq__(kind, other: object) -> bool:
                self.send_now()
                return str.__eq__(kind, other)

            __hash__ = str.__hash__

        return Kind(text)


@pytest.mark.parametrize("place", ["headers", "links", "trailers", "body", "path", "type"])
@each_wire
@in_loop
async def test_a_send_out_of_a_message_that_is_being_taken_is_refused(
    wire: Wire, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "path" and "http.response.pathsend" not in wire.extensions:
        pytest.skip("no files on this wire")
    refused: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        intruder = Intruder(send, refused)
        if place == "links":
            await send({"type": "http.response.early_hint", "links": intruder.each(b"</a>")})
        await send(
            {
                **START,
                "type": intruder.kind(START["type"]) if place == "type" else START["type"],
                "headers": intruder.each((b"a", b"b")) if place == "headers" else [],
                "trailers": place == "trailers",
            }
        )
        if place == "path":
            await send({"type": "http.response.pathsend", "path": intruder.path(tmp_path / "file")})
        else:
            await send({**BODY, "body": intruder.body() if place == "body" else b"ok"})
        if place == "trailers":
            await send({"type": "http.response.trailers", "headers": intruder.each((b"a", b"b"))})

    (tmp_path / "file").write_bytes(b"ok")
    answer = await ask(app, wire)
    assert (answer.status, answer.body, answer.is_whole) == (200, b"ok", True)
    assert refused
    assert {str(error) for error in refused} == {
        "send() was called by what another message of this request holds"
    }
    assert error_records(caplog) == []


@pytest.mark.parametrize(
    "is_coroutine_function", [inspect.iscoroutinefunction, asgiref.sync.iscoroutinefunction]
)
@each_wire
@in_loop
async def test_receive_and_send_are_coroutine_functions(wire: Wire, is_coroutine_function: Any) -> None:
    """Libraries warn of others, or run them in threads."""
    if is_coroutine_function is inspect.iscoroutinefunction and sys.version_info < (3, 12):
        pytest.skip("there inspect knows only functions written with async def")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert is_coroutine_function(receive)
        assert is_coroutine_function(send)
        await respond(send, b"ok")

    assert await ask(app, wire) == OK


@each_wire
@in_loop
async def test_errors_of_send_are_raised_where_it_is_awaited(wire: Wire) -> None:
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

    assert await ask(app, wire) == OK


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
@each_wire
@in_loop
async def test_a_message_out_of_order_says_which_was_expected(
    wire: Wire, messages: list[Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    answer = await ask(app, wire)
    error = traceback_of(caplog)
    assert isinstance(error, RuntimeError)
    assert str(error) == text
    if "completed" in text:
        assert answer == OK
    elif MORE not in messages and len(messages) < 3:
        assert answer == INTERNAL_ERROR
    else:
        assert not answer.is_whole


@pytest.mark.parametrize("message", [{}, {"status": 200}, None, 5, "http.response.start"], ids=str)
@each_wire
@in_loop
async def test_a_message_that_is_none(wire: Wire, message: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)

    assert await answers(app, wire, Request()) == [INTERNAL_ERROR]
    traceback_of(caplog)


@each_wire
@in_loop
async def test_messages_may_be_other_mappings(wire: Wire) -> None:
    class Message(dict[str, Any]):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(Message(START))
        await send(Message(BODY))

    assert await ask(app, wire) == OK


@each_wire
@in_loop
async def test_messages_are_left_as_they_are(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [[b"transfer-encoding", b"chunked"], (b"content-length", b"2")]
        start, body = {**START, "status": 204, "headers": headers}, dict(BODY)
        await send(start)
        await send(body)
        assert start == {**START, "status": 204, "headers": headers}
        assert headers == [[b"transfer-encoding", b"chunked"], (b"content-length", b"2")]
        assert body == BODY

    assert await ask(app, wire) == Response(204)


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
@each_wire
@in_loop
async def test_a_message_may_change_while_it_is_read(wire: Wire, part: str, like: str) -> None:
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
    answer = await ask(app, wire)
    assert answer == Response(200, [(b"x-%d" % i, b"v" * 50) for i in range(20)], b"whole body")
    assert cleared == [True]
