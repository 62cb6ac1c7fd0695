"""Many connections to one server, driven by one epoll loop without blocking.

For loads that open connections all the time: it takes a third of the CPU time of gevent's loop, and what it
measures is not held up by other users' work. Needs the standard library only.
"""

import errno
import os
import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable

from bench.responses import BodyLength, ResponseCounter, ResponseError

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
READ_BYTES = 1 << 16
# So long a connection waits that a Unix socket's full queue refused, and the loop at most meanwhile.
RETRY_S = 0.001
now = time.perf_counter


class Client:
    """One connection with one request open at most, whose answer goes to `on_answer`."""

    __slots__ = ("asked_at", "connection", "counter", "descriptor", "on_answer", "step", "waiting", "wanted")

    def __init__(
        self, connection: socket.socket, counter: ResponseCounter, on_answer: Callable[["Client"], None]
    ) -> None:
        self.connection, self.counter, self.on_answer = connection, counter, on_answer
        self.descriptor = connection.fileno()
        self.asked_at = 0.0
        """When the open request was asked for, by `now`; of a first one, before the connection was made."""
        self.waiting = False
        """Whether a request is open."""
        self.step: Callable[[Client], None]
        """What to do when the connection is ready for it."""
        self.wanted = 0
        """The events that the loop looks for."""

    @property
    def is_open(self) -> bool:
        """Whether the connection is not lost."""
        return self.connection.fileno() >= 0

    @property
    def is_refused(self) -> bool:
        """Whether the last answer was a refusal, of status 503."""
        return self.counter.refused


class Clients:
    """The connections to one server. `turn` does what can be done now."""

    def __init__(
        self, address: Address, request: bytes, *, tls: bool = False, takes_refusals: bool = False
    ) -> None:
        self._address, self._request, self._takes_refusals = address, request, takes_refusals
        self._context: ssl.SSLContext | None = None
        if tls:
            # The certificate is the bench's own; what is measured is the server.
            self._context = ssl.create_default_context()
            self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._queued: list[Client] = []
        self._body_length = BodyLength()
        self.opened = 0
        """How many were made."""
        self.failures: Counter[str] = Counter()
        """The requests that were lost with their connection, by the reason."""

    def open(self, on_answer: Callable[[Client], None], asked_at: float | None = None) -> Client:
        """Make a connection and send a request as soon as it stands.

        The request was asked for at `asked_at`, which is now if it isn't given.
        """
        if isinstance(self._address, str):
            connection = socket.socket(socket.AF_UNIX)
        else:
            connection = socket.socket()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # From one of many loopback addresses: ports don't run out.
            connection.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            connection.bind((f"127.0.{os.getpid() % 200 + 1}.{self.opened % 250 + 1}", 0))
        connection.setblocking(False)
        self.opened += 1
        counter = ResponseCounter(self._body_length, takes_refusals=self._takes_refusals)
        client = Client(connection, counter, on_answer)
        client.waiting = True
        client.asked_at = now() if asked_at is None else asked_at
        self._connect(client)
        return client

    def ask(self, client: Client, asked_at: float) -> None:
        """Send a request, which was asked for at `asked_at`, on a connection without an open one."""
        client.asked_at, client.waiting = asked_at, True
        try:
            self._send(client)
        except OSError as error:
            self._lose(client, error)

    def turn(self, timeout_s: float) -> None:
        """Wait until some connections are ready, and do what they are ready for.

        The kernel rounds the time up to a millisecond.
        """
        if self._queued:
            queued, self._queued = self._queued, []
            for client in queued:
                self._connect(client)
            timeout_s = min(timeout_s, RETRY_S)
        for descriptor, _ in self._epoll.poll(timeout_s):
            client = self._clients[descriptor]
            try:
                client.step(client)
            except (OSError, ResponseError) as error:
                self._lose(client, error)

    def turn_until(self, ends_at: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Turn until that time, by `now`, or until it is enough."""
        while (left := ends_at - now()) > 0 and not enough():
            self.turn(min(left, 0.05))

    @property
    def open_count(self) -> int:
        """How many are open, or about to be."""
        return len(self._clients) + len(self._queued)

    def close(self) -> None:
        """End all connections."""
        for client in [*self._clients.values(), *self._queued]:
            client.connection.close()
        self._clients.clear()
        self._epoll.close()

    def _connect(self, client: Client) -> None:
        code = client.connection.connect_ex(self._address)
        if code == errno.EAGAIN:
            # A Unix socket whose queue is full.
            self._queued.append(client)
            return
        client.step, client.wanted = self._stand, select.EPOLLOUT
        self._clients[client.descriptor] = client
        self._epoll.register(client.descriptor, client.wanted)
        if code not in (0, errno.EINPROGRESS):
            self._lose(client, OSError(code, os.strerror(code)))

    def _stand(self, client: Client) -> None:
        """The connection stands, or was refused."""
        if code := client.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        if self._context is None:
            self._send_first(client)
            return
        client.connection = self._context.wrap_socket(client.connection, do_handshake_on_connect=False)
        client.step = self._shake_hands
        self._shake_hands(client)

    def _shake_hands(self, client: Client) -> None:
        assert isinstance(client.connection, ssl.SSLSocket)
        try:
            client.connection.do_handshake()
        except ssl.SSLWantReadError:
            self._want(client, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._want(client, select.EPOLLOUT)
        else:
            self._send_first(client)

    def _send_first(self, client: Client) -> None:
        client.step = self._read
        self._want(client, select.EPOLLIN)
        self._send(client)

    def _send(self, client: Client) -> None:
        # A request is far smaller than the kernel's buffer, which is empty: it takes all.
        if client.connection.send(self._request) != len(self._request):
            raise OSError("a request was sent in part")

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        if not data:
            raise ConnectionError("connection closed by the server")
        if client.counter.feed(data):
            if not client.waiting:
                raise ResponseError("more responses than requests")
            client.waiting = False
            client.on_answer(client)

    def _want(self, client: Client, events: int) -> None:
        if client.wanted != events:
            client.wanted = events
            self._epoll.modify(client.descriptor, events)

    def _lose(self, client: Client, error: Exception) -> None:
        """The connection is of no use any more. What the server ends between requests is no failure."""
        del self._clients[client.descriptor]
        client.connection.close()
        if client.waiting:
            client.waiting = False
            self.failures[str(error)] += 1
