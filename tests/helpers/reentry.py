"""What tests have happen while the server is in the middle of something."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from nestingloop import turn_until
from wire import Client, Response, Served, loop_factory, request

BODY = "http.response.body"
OK = request("GET /ok HTTP/1.1")
Act = Callable[[], object]


def leave(server: Served, client: Client) -> None:
    """Have a client leave, and the event loop turned until the server has noticed."""
    count = server.context.registry.connection_count
    client.reset()
    turn_until(lambda: server.context.registry.connection_count < count)


def ask_within(client: Client, data: bytes) -> "asyncio.Task[Response]":
    """Ask, and turn the event loop until there is an answer."""
    asking = asyncio.ensure_future(client.ask(data))
    turn_until(asking.done)
    return asking


async def assert_serves(server: Served, **options: Any) -> None:
    """A new client gets its answer."""
    client = await server.connect(**options)
    assert (await client.ask(OK)).body == b"ok"


class OnLine(logging.Handler):
    """Acts once, where a line with this text is logged by the server."""

    def __init__(self, text: str, act: Act) -> None:
        super().__init__()
        self._text = text
        self._act = act
        self._is_due = True
        self.acted = asyncio.Event()
        logging.getLogger("fastasgi").addHandler(self)  # the fixture restore_loggers takes it away

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_due and self._text in record.getMessage():
            self._is_due = False
            self._act()
            self.acted.set()


def run_on(loop: str, test: Callable[[], Any]) -> int:
    """Run a test in such an event loop, and go on with that after each SystemExit, as Server.run() does.

    Returns how many there were.
    """
    exits = 0
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        task = runner.get_loop().create_task(test())
        runner.get_loop().call_later(20, task.cancel)
        while not task.done():
            try:
                runner.get_loop().run_until_complete(task)
            except SystemExit:
                exits += 1
        task.result()
    return exits


def exit_at_refusal() -> None:
    """Have whoever logs the next refusal leave the loop there, inside the event of what is refused."""

    def exit_now() -> None:
        raise SystemExit(3)

    OnLine("refused with 400", exit_now)
