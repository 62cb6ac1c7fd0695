"""Applications that fail: what their client gets, and what is logged."""

import asyncio
import contextlib
import gc
import logging
from typing import Any

import pytest
from anyclient import INTERNAL_ERROR, Request
from eachwire import Wire, answers, ask, each_wire, served
from exchanges import CUT_OFF, MORE, OK, START, Oops, Outcome
from wire import echo, error_records, in_each_loop, in_loop, respond, traceback_of

from fastasgi.asgi.exchange import ClientDisconnected

# --- Errors ---


@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
@each_wire
@in_each_loop
async def test_an_exception_before_the_start_is_a_500(
    wire: Wire, suspends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        raise Oops("why")

    assert await answers(app, wire, Request(), *wire.lost) == [INTERNAL_ERROR]
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
    """Can't be asked whether it is true, as the traceback module of CPython 3.11 to 3.13 does."""

    def __len__(self) -> int:
        raise AssertionError("asked for its length")


class Unreadable(Oops):
    """Can't be asked for what the traceback module reads of each exception."""

    @property
    def __suppress_context__(self) -> bool:
        raise AssertionError("asked for what it suppresses")


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


def unreadable_cause() -> BaseException:
    error = Oops("caused")
    error.__cause__ = Unreadable()
    return error


@pytest.mark.parametrize(
    "make",
    [
        circle,
        half_a_circle,
        shared_groups,
        deep_groups,
        long_chain,
        endless_groups,
        unsized_cause,
        unreadable_cause,
    ],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
@each_wire
@in_loop
async def test_an_exception_of_whatever_shape_is_logged_and_a_500(
    wire: Wire, suspends: bool, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it is too large for a whole traceback, the log has that of the outermost."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        if scope["path"] == "/":
            raise make()
        await respond(send, b"ok")

    async with served(app, wire) as server:
        assert await server.ask() == INTERNAL_ERROR
        assert await server.ask("GET", "/next") == OK
    text = caplog.handler.format(error_records(caplog)[-1])
    assert text.count("Exception in ASGI application") == 1
    assert "in app\n" in text
    assert "raise make()" in text
    if make is not unsized_cause:
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
@each_wire
@in_loop
async def test_whatever_can_not_be_logged_takes_no_response(
    wire: Wire, breaks: bool, ends: str, suspends: bool, monkeypatch: pytest.MonkeyPatch
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
    async with served(app, wire) as server:
        if breaks:
            monkeypatch.setattr(logging.getLogger("fastasgi.error"), "handlers", [BrokenHandler()])
        answer = await server.ask()
        monkeypatch.undo()
        await server.context.registry.wait_idle()
    if ends == "in the body":
        assert answer == CUT_OFF
    else:
        assert answer == INTERNAL_ERROR
    assert len(problems) == (1 if breaks else 0)
    assert all("ASGI" in problem and "Oops" in problem for problem in problems)


@each_wire
@in_loop
async def test_an_exception_behind_the_start_message_is_a_500(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """The start was held back; nothing of it is sent."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"x-secret", b"1"), (b"content-length", b"2")]})
        raise Oops

    assert await answers(app, wire, Request(), *wire.lost) == [INTERNAL_ERROR]
    assert isinstance(traceback_of(caplog), Oops)


@each_wire
@in_each_loop
async def test_an_exception_in_the_body_cuts_it_off(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """The client can tell that the body is not complete."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await go_on.wait()
        raise Oops

    go_on = asyncio.Event()
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request(), *wire.lost)
        await client.until(b"ok")
        go_on.set()
        assert await client.responses() == [CUT_OFF]
    assert isinstance(traceback_of(caplog), Oops)


@each_wire
@in_loop
async def test_an_exception_behind_the_response_is_logged_only(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")
        raise Oops

    async with served(app, wire) as server:
        client = await server.connect()
        assert (await client.ask()).body == b"ok"
        assert isinstance(traceback_of(caplog), Oops)
        caplog.clear()
        assert (await client.ask()).body == b"ok"
        assert isinstance(traceback_of(caplog), Oops)


@each_wire
@in_loop
async def test_an_application_that_returns_without_a_response(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    assert await answers(app, wire, Request(), *wire.lost) == [INTERNAL_ERROR]
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without starting response."


@pytest.mark.parametrize("messages", [[START], [START, MORE]], ids=["started", "in the body"])
@each_wire
@in_loop
async def test_an_application_that_returns_without_the_end_of_its_response(
    wire: Wire, messages: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    expected = INTERNAL_ERROR if messages == [START] else CUT_OFF
    assert await answers(app, wire, Request(), *wire.lost) == [expected]
    [record] = error_records(caplog)
    assert record.getMessage() == "ASGI callable returned without completing response."


@each_wire
@in_each_loop
async def test_a_task_that_the_application_leaves_behind_may_not_send(
    wire: Wire, caplog: pytest.LogCaptureFixture
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
    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request())
        assert await client.responses() == [INTERNAL_ERROR]
        go_on.set()
        assert await outcome is None
    assert len(error_records(caplog)) == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit], ids=lambda error: error.__name__)
@each_wire
@in_loop
async def test_other_exceptions_get_an_answer_too(
    wire: Wire, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async with served(app, wire) as server:
        client = await server.connect()
        await client.put(Request(), *wire.lost)
        assert await client.responses() == [INTERNAL_ERROR]
        assert await server.ask() == INTERNAL_ERROR
    assert len(error_records(caplog)) == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt], ids=lambda error: error.__name__)
@each_wire
@in_each_loop
async def test_an_application_that_exits_at_once_has_failed_in_its_request_only(
    wire: Wire, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async with served(app, wire) as server:
        assert await server.ask() == INTERNAL_ERROR
        assert await server.ask() == INTERNAL_ERROR
        assert server.context.registry.exchange_count == 0
    gc.collect()
    assert len(error_records(caplog)) == 2


@each_wire
@in_loop
async def test_an_application_that_cancels_itself_gets_an_answer(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.current_task().cancel()
        await receive()
        await asyncio.sleep(0)

    assert await answers(app, wire, Request()) == [INTERNAL_ERROR]
    assert len(error_records(caplog)) == 1


@pytest.mark.parametrize("kind", ["raises", "returns none", "returns a number"])
@each_wire
@in_loop
async def test_an_application_that_is_no_coroutine_function(
    wire: Wire, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    class App:
        """Calling it runs its code outside of any coroutine."""

        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            if kind == "raises":
                raise Oops
            return None if kind == "returns none" else 5

    async with served(App(), wire, interface="asgi3") as server:
        assert await server.ask() == INTERNAL_ERROR
    assert isinstance(traceback_of(caplog), Oops | TypeError)


@each_wire
@in_loop
async def test_an_application_whose_call_returns_a_coroutine(wire: Wire) -> None:
    def app(scope: Any, receive: Any, send: Any) -> Any:
        assert isinstance(asyncio.current_task(), asyncio.Task)
        return echo(scope, receive, send)

    assert (await ask(app, wire, interface="asgi3")).body == b"GET /? "


@each_wire
@in_loop
async def test_errors_are_logged_by_the_servers_error_logger(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Oops

    await ask(app, wire)
    [record] = error_records(caplog)
    assert (record.name, record.levelno) == ("fastasgi.error", logging.ERROR)
