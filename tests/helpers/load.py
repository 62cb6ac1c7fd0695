"""Load on a server from many clients, while a test does things to it. Every failure is kept with its kind."""

import collections
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from serving import WAIT_S

PACE_S = 0.005  # between two requests of one client, so that the server has processor time left


class Load:
    """Clients that send GET after GET: kept says whether on kept connections or on a fresh one each time.

    By default half of them do the one and half the other. A kept connection is given up only where its server
    has announced the close (RFC 9112 section 9.6), so what goes wrong on an idle one is a failure too.
    `answers` counts bodies, `failures` counts what went wrong, such as ``kept: closed`` and
    ``fresh: ConnectionRefusedError``. `slowest_s` is the longest time to an answer.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        clients: int = 6,
        *,
        kept: bool | None = None,
        path: str = "/",
    ) -> None:
        self._connect = connect
        self._path = path
        self._changed = threading.Condition()
        self._is_over = False
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: collections.Counter[str] = collections.Counter()
        self.slowest_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0 if kept is None else kept,), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let running requests end, then return."""
        self._is_over = True
        for thread in self._threads:
            thread.join(2 * WAIT_S)
            assert not thread.is_alive(), "a client hangs"

    def wait_for_answers(self, count: int = 20, of: str = "") -> None:
        """Wait until `count` more answers have come whose body contains `of`."""

        def found() -> int:
            return sum(number for body, number in self.answers.items() if of in body)

        with self._changed:
            wanted = found() + count
            self._changed.wait_for(lambda: found() >= wanted, WAIT_S)
            assert found() >= wanted, f"too few answers with {of!r}: {self.answers}, {self.failures}"

    def _run(self, keeps: bool) -> None:
        client = _Client(self._connect, keeps, self._path)
        while not self._is_over:
            begin = time.monotonic()
            was_open = client.sock is not None
            answer = failure = None
            try:
                answer = client.get()
            except (OSError, ValueError) as error:
                failure = failure_of(error, was_open)
                client.close()
            self._note(answer, failure, begin)
            time.sleep(PACE_S)
        client.close()

    def _note(self, answer: str | None, failure: str | None, begin: float) -> None:
        """Count what came of a request that has begun at this time."""
        with self._changed:
            if answer is not None:
                self.answers[answer] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
            else:
                self.failures[str(failure)] += 1
            self._changed.notify_all()


def failure_of(error: Exception, was_open: bool) -> str:
    """What `failures` counts, on a connection that was open already or not."""
    name = str(error) if isinstance(error, ValueError) else type(error).__name__
    return f"{'kept' if was_open else 'fresh'}: {name}"


class _Client:
    """One client and its connection, if it has one."""

    def __init__(self, connect: Callable[[], socket.socket], keeps: bool, path: str) -> None:
        self._connect = connect
        fields = "" if keeps else "connection: close\r\n"
        self._request = f"GET {path} HTTP/1.1\r\nhost: x\r\n{fields}\r\n".encode()
        self.sock: socket.socket | None = None

    def get(self) -> str:
        """The body of an answer. Raises OSError, or ValueError for a wrong or incomplete answer."""
        if self.sock is None:
            self.sock = self._connect()
            self.sock.settimeout(WAIT_S)
        self.sock.sendall(self._request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive(self.sock, data)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.lower().decode("latin-1").split("\r\n")
        if not status.startswith("http/1.1 200"):
            raise ValueError(status)
        fields = dict(line.split(": ", 1) for line in lines)
        while len(body) < int(fields["content-length"]):
            body += self._receive(self.sock, data)
        if fields.get("connection") == "close":
            self.close()
        return body.decode()

    @staticmethod
    def _receive(sock: socket.socket, before: bytes) -> bytes:
        data = sock.recv(4096)
        if not data:
            raise ValueError("closed inside an answer" if before else "closed")
        return data

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
