"""What the demo counts about its own traffic. Lives in the lifespan state: one for each worker process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TypedDict

from fastasgi.demo.request import Message, Receive, Send

SAMPLE_INTERVAL_S = 0.5
HISTORY_LENGTH = 121  # samples: one minute and its two ends


class Sample(TypedDict):
    """The counters at one moment."""

    time_s: float  # since the worker started
    served: int  # requests whose handler has ended
    in_flight: int  # the most that ran at once since the last sample
    received_bytes: int  # of request bodies, as far as they were read
    sent_bytes: int  # of response bodies
    requests_per_s: float  # over the time since the last sample
    websockets: int  # that are open now
    messages: int  # that came in WebSockets


class Traffic:
    """Counters of a running worker, and a minute of their history."""

    def __init__(self) -> None:
        self.closed = False
        self.websockets = 0
        self.messages = 0
        self.history: deque[Sample] = deque(maxlen=HISTORY_LENGTH)
        # Done at the next sample, or at the close; then replaced. Shared by all who wait.
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started_s = self._sampled_s = time.monotonic()
        self._served = self._sampled_served = 0
        self._in_flight = self._peak_in_flight = 0
        self._received_bytes = self._sent_bytes = 0

    def begin(self) -> None:
        """Count a request that starts."""
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)

    def end(self) -> None:
        """Count a request whose handler has ended, however it did."""
        self._in_flight -= 1
        self._served += 1

    def metered_receive(self, receive: Receive) -> Receive:
        """Wrap an ASGI `receive` so that body bytes are counted."""

        async def metered() -> Message:
            message = await receive()
            self._received_bytes += len(message.get("body", b""))
            return message

        return metered

    def metered_send(self, send: Send) -> Send:
        """Wrap an ASGI `send` so that body bytes are counted."""

        async def metered(message: Message) -> None:
            await send(message)
            self._sent_bytes += len(message.get("body", b""))

        return metered

    async def sample_forever(self) -> None:
        """Take a sample each `SAMPLE_INTERVAL_S`, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._take_sample()

    def close(self) -> None:
        """Tell those who follow the counters that no sample will come any more."""
        self.closed = True
        self._wake()

    def _take_sample(self) -> None:
        now_s = time.monotonic()
        rate = (self._served - self._sampled_served) / (now_s - self._sampled_s)
        self.history.append(
            Sample(
                time_s=round(now_s - self._started_s, 3),
                served=self._served,
                in_flight=self._peak_in_flight,
                received_bytes=self._received_bytes,
                sent_bytes=self._sent_bytes,
                requests_per_s=round(rate, 1),
                websockets=self.websockets,
                messages=self.messages,
            )
        )
        self._sampled_s, self._sampled_served, self._peak_in_flight = now_s, self._served, self._in_flight
        self._wake()

    def _wake(self) -> None:
        self.changed.set_result(None)
        self.changed = asyncio.get_running_loop().create_future()
