"""Coroutines that send when the collector throws them away."""

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from typing import Any


async def forgotten(send: Any, sent: list[str], messages: tuple[dict[str, Any], ...]) -> None:
    """Waits for ever. Thrown away, it sends, or is refused where a message of the same request is taken."""
    try:
        await asyncio.Event().wait()
    finally:
        for message in messages:
            try:
                await send(message)
                sent.append("a message")
            except (RuntimeError, OSError) as error:
                sent.append(str(error))


def forget(send: Any, sent: list[str], *messages: dict[str, Any]) -> None:
    """Begin that coroutine and leave it in a circle for the collector."""
    coroutine = forgotten(send, sent, messages)
    coroutine.send(None)
    circle: list[Any] = [coroutine]
    circle.append(circle)


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """The collector runs only where it is called meanwhile, and looks only at what is made meanwhile."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
