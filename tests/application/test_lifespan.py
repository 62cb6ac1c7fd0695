import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from fastasgi.application import lifespan
from fastasgi.application.lifespan import Lifespan


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "fastasgi.error")
    return caplog


def lifespan_of(app: Any, mode: str = "auto") -> Lifespan:
    return Lifespan(SimpleNamespace(loaded=True, loaded_app=app, lifespan=mode, asgi_version="3.0"))


def run(app: Any, mode: str = "auto") -> Lifespan:
    """Start and, where it goes well, stop an application."""

    async def main() -> Lifespan:
        protocol = lifespan_of(app, mode)
        await protocol.startup()
        if not protocol.should_exit:
            await protocol.shutdown()
        return protocol

    return asyncio.run(main())


def answering(startup: str = "complete", shutdown: str = "complete") -> Any:
    async def app(scope, receive, send):
        for answer in (startup, shutdown):
            phase = (await receive())["type"]
            await send({"type": f"{phase}.{answer}", "message": "because"})
            if answer == "failed":
                return

    return app


def test_the_application_is_told_of_start_and_end(log: pytest.LogCaptureFixture) -> None:
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["asgi"])
        scope["state"]["pool"] = 7
        for _ in range(2):
            seen.append((await receive())["type"])
            await send({"type": f"{seen[-1]}.complete"})

    protocol = run(app)
    assert seen == [{"version": "3.0", "spec_version": "2.0"}, "lifespan.startup", "lifespan.shutdown"]
    assert protocol.state == {"pool": 7}
    assert log.messages == [
        "Waiting for application startup.",
        "Application startup complete.",
        "Waiting for application shutdown.",
        "Application shutdown complete.",
    ]


def test_off_never_calls_the_application(log: pytest.LogCaptureFixture) -> None:
    assert run(None, "off").state == {}
    assert log.messages == []


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_failed_startup_is_logged_with_its_message(mode: str, log: pytest.LogCaptureFixture) -> None:
    assert run(answering(startup="failed"), mode).should_exit
    assert log.messages[1:] == ["because", "Application startup failed. Exiting."]


def test_the_raise_that_follows_a_failed_startup_is_not_logged(log: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.failed"})
        raise ValueError("again")

    assert run(app, "on").should_exit
    assert log.messages[1:] == ["Application startup failed. Exiting."]


async def unaware(scope, receive, send):
    raise AssertionError("only http")


def test_auto_goes_on_without_an_application_that_raises(log: pytest.LogCaptureFixture) -> None:
    assert not run(unaware).should_exit
    assert log.messages == [
        "Waiting for application startup.",
        "ASGI 'lifespan' protocol appears unsupported.",
        "The application's answer to the lifespan scope:",
        "Application startup complete.",
    ]
    assert [record.levelname for record in log.records] == ["INFO", "INFO", "DEBUG", "INFO"]


def test_on_fails_where_the_application_raises(log: pytest.LogCaptureFixture) -> None:
    assert run(unaware, "on").should_exit
    assert "Exception in 'lifespan' protocol" in log.messages
    assert "AssertionError: only http" in log.text
    assert log.messages[-1] == "Application startup failed. Exiting."


def test_an_application_may_return_at_once(log: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        return

    assert not run(app).should_exit
    assert log.messages[-1] == "Application shutdown complete."


def test_a_failed_shutdown_is_logged_with_its_message(log: pytest.LogCaptureFixture) -> None:
    run(answering(shutdown="failed"))
    assert log.messages[-2:] == ["because", "Application shutdown failed. Exiting."]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_exception_in_shutdown_is_logged_with_traceback(mode: str, log: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("at the end")

    run(app, mode)
    assert "ValueError: at the end" in log.text
    assert "unsupported" not in log.text


@pytest.mark.parametrize(
    "messages",
    [
        ["lifespan.startup"],
        ["http.response.start"],
        ["lifespan.shutdown.complete"],
        ["lifespan.startup.complete", "lifespan.startup.complete"],
    ],
)
def test_a_message_out_of_order_is_named(messages: list[str]) -> None:
    caught = []

    async def app(scope, receive, send):
        await receive()
        try:
            for message in messages:
                await send({"type": message})
        except RuntimeError as error:
            caught.append(str(error))

    run(app)
    assert len(caught) == 1
    assert caught[0].startswith(f"unexpected lifespan message {messages[-1]!r}: ")


def test_code_after_the_last_message_still_runs() -> None:
    ended = []

    async def app(scope, receive, send):
        await answering()(scope, receive, send)
        await asyncio.sleep(0)
        ended.append(True)

    run(app)
    assert ended == [True]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_an_application_that_never_answers_can_be_cancelled(
    phase: str, log: pytest.LogCaptureFixture
) -> None:
    cancelled = []

    async def app(scope, receive, send):
        await receive()
        try:
            if phase == "shutdown":
                await send({"type": "lifespan.startup.complete"})
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def main() -> None:
        protocol = lifespan_of(app)
        if phase == "shutdown":
            await protocol.startup()
        call = asyncio.create_task(protocol.startup() if phase == "startup" else protocol.shutdown())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    assert cancelled == [True]
    assert "Exception" not in log.text


def test_an_application_that_does_not_return_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "RETURN_TIMEOUT_S", 0.01)
    cancelled = []

    async def app(scope, receive, send):
        await answering()(scope, receive, send)
        try:
            await receive()
        finally:
            cancelled.append(True)

    run(app)
    assert cancelled == [True]
