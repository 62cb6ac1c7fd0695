"""The lifespan protocol: tells the application of the server's start and end.

ASGI lifespan specification 2.0. Knows no sockets and no requests.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, Protocol

logger = logging.getLogger("fastasgi.error")

RETURN_TIMEOUT_S = 2.0  # for the application to return after its last message


class LifespanSettings(Protocol):
    """What a Lifespan reads: the application once it is loaded, and whether it is told of start and end."""

    lifespan: str
    loaded: bool
    loaded_app: Any
    asgi_version: str

    def load(self) -> None:
        """Make ``loaded_app``."""


class Lifespan:
    """One lifespan call of the application.

    ``state`` is what the application keeps for its requests. ``should_exit`` is True after a failed start-up.
    """

    def __init__(self, config: LifespanSettings) -> None:
        if not config.loaded:
            config.load()
        self.state: dict[str, Any] = {}
        self.should_exit = False
        self._config = config
        self._mode = config.lifespan
        self._task: asyncio.Task[None] | None = None
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._startup_answered = asyncio.Event()
        self._shutdown_answered = asyncio.Event()
        self._failed = False
        self._raised = False
        self._given_up = False

    @property
    def is_running(self) -> bool:
        """Whether the application's lifespan call has begun and not returned."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> Any:
        """The coroutine of the lifespan call; None if it does not run."""
        return self._task.get_coro() if self._task is not None and not self._task.done() else None

    async def startup(self) -> None:
        """Start the application and return when it is ready, has failed, or does not know the protocol."""
        if self._mode == "off":
            return
        logger.info("Waiting for application startup.")
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._startup_answered.wait()
        except asyncio.CancelledError:
            await self._end_task(timeout_s=0)
            raise
        if self._has_failed():
            logger.error("Application startup failed. Exiting.")
            self.should_exit = True
            await self._end_task(RETURN_TIMEOUT_S)
        else:
            logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Tell the application to end and return when it has. Without effect if it isn't running.

        A cancelled call cancels the application's lifespan and waits a bounded time for it.
        """
        if self._task is None or self._raised or self._failed:
            return
        logger.info("Waiting for application shutdown.")
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        try:
            await self._shutdown_answered.wait()
        except asyncio.CancelledError:
            await self._end_task(timeout_s=0)
            raise
        await self._end_task(RETURN_TIMEOUT_S)
        if self._has_failed():
            logger.error("Application shutdown failed. Exiting.")
        else:
            logger.info("Application shutdown complete.")

    def _has_failed(self) -> bool:
        return self._failed or (self._raised and self._mode == "on")

    async def _end_task(self, timeout_s: float) -> None:
        """Wait so long for the application to return, then cancel it and wait once more."""
        assert self._task is not None
        for wait_s in (timeout_s, RETURN_TIMEOUT_S):
            done, _ = await asyncio.wait({self._task}, timeout=wait_s)
            if done:
                return
            self._given_up = True
            self._task.cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._config.loaded_app(scope, self._messages.get, self._send)
        except SystemExit as error:
            logger.error("The application's lifespan ended by sys.exit(%r).", error.code)
            self._raised = self._failed = True
        except (Exception, asyncio.CancelledError) as error:
            self._raised = True
            self._log(error)
        finally:
            self._startup_answered.set()
            self._shutdown_answered.set()

    def _log(self, error: BaseException) -> None:
        if self._failed or self._given_up:
            return  # the application has said why in its message, or was cancelled here
        if self._mode == "auto" and not self._startup_answered.is_set():
            logger.info("ASGI 'lifespan' protocol appears unsupported.")
            logger.debug("The application's answer to the lifespan scope:", exc_info=error)
        else:
            logger.error("Exception in 'lifespan' protocol", exc_info=error)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        phase, _, outcome = kind.removeprefix("lifespan.").partition(".")
        answered = {"startup": self._startup_answered, "shutdown": self._shutdown_answered}.get(phase)
        if answered is None or outcome not in ("complete", "failed") or not kind.startswith("lifespan."):
            raise RuntimeError(
                f"unexpected lifespan message {kind!r}: send lifespan.startup.complete or .failed, "
                "then lifespan.shutdown.complete or .failed"
            )
        if answered.is_set() or (phase == "shutdown" and not self._startup_answered.is_set()):
            raise RuntimeError(
                f"unexpected lifespan message {kind!r}: each answer is sent once, startup's first"
            )
        if outcome == "failed":
            self._failed = True
            if message.get("message"):
                logger.error(message["message"])
        answered.set()
