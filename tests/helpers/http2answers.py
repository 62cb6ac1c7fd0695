"""A small server of HTTP/2 for tests of clients, made with h2."""

import asyncio
import contextlib
from collections.abc import Callable

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

BODY = b"Hello, World!"


def answer_hello(connection: H2Connection, stream: int) -> None:
    """A response as most are: a head, and a body that ends it."""
    connection.send_headers(stream, [(":status", "200"), ("content-length", "13"), ("date", "today")])
    connection.send_data(stream, BODY, end_stream=True)


class HTTP2Answers:
    """Serves connections, for `benchparts.listening`."""

    def __init__(self, answer: Callable[[H2Connection, int], None] = answer_hello, at_once: int = 1) -> None:
        self.answer, self.at_once = answer, at_once
        """Requests wait until so many are open on their connection, and are answered the last one first."""
        self.most_open = 0
        self.requests: list[dict[bytes, bytes]] = []
        self.pings = 0
        """Those that were acknowledged; each connection is sent one."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        connection.ping(b"are you?")
        opened: list[int] = []
        # The client ends the connection when it likes, and the test this task.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self.requests.append(dict(event.headers))
                        opened.append(event.stream_id)
                        self.most_open = max(self.most_open, len(opened))
                    self.pings += isinstance(event, h2.events.PingAckReceived)
                while len(opened) >= self.at_once:
                    self.answer(connection, opened.pop())
                writer.write(connection.data_to_send())
                await writer.drain()
        writer.close()
