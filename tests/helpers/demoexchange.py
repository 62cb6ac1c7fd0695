"""Calls of the demo application by hand."""

import asyncio
from typing import Any

from serving import WAIT_S

from fastasgi.demo import app


class Exchange:
    """One call of the application, with its messages in two queues."""

    def __init__(self, send: Any = None, **scope: Any) -> None:
        defaults = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(app(defaults | scope, self.incoming.get, send or self.outgoing.put))

    async def expect(self, kind: str) -> Any:
        """The next message that the application sends."""
        message = await asyncio.wait_for(self.outgoing.get(), WAIT_S)
        assert message["type"] == kind
        return message


async def no_other_task_stays() -> bool:
    """Whether every other task of the loop ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return not others or not (await asyncio.wait(others, timeout=1))[1]


async def ended_without_a_trace(task: asyncio.Task[None]) -> bool:
    """Whether the task returns, and leaves no other task running."""
    await asyncio.wait_for(task, WAIT_S)
    return await no_other_task_stays()
