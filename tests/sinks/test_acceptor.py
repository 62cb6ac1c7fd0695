"""What a worker does at its listening sockets: addresses, deferring, the end."""

import asyncio
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Start
from waiting import BLOCKING_APP, answers_to_waiting, read_all
from watching import Peer
from wire import CLOSE, Served, error_records, hello, in_each_loop, request, respond, served

linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")
DEFER_COUNT = 64  # connections, within 0.128 s, from which on further ones are deferred
RUNNING = r"running on https?://.*"


async def ends(scope: Any, receive: Any, send: Any) -> None:
    """Answers with both ends of the connection."""
    await respond(send, repr((scope["client"], scope["server"])).encode())


def ends_in(answer: bytes) -> Any:
    """(client, server) as `ends` has answered."""
    return eval(answer.partition(b"\r\n\r\n")[2])


async def until(condition: Any) -> None:
    """Turn the event loop until a condition holds; the test's time bounds it."""
    while not condition():
        await asyncio.sleep(0)


def listening(host: str, family: int = socket.AF_INET, *, dual: bool = False) -> socket.socket:
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    try:
        sock.bind((host, 0))
    except OSError as error:
        sock.close()
        pytest.skip(f"{host}: {error}")
    return sock


async def ends_told(server: Served, sock: socket.socket, address: Any) -> tuple[Any, Any, Any]:
    """The client's own address, and what `ends` answers there."""
    sock.connect(address)
    own = sock.getsockname()
    peer = Peer(sock)
    peer.send(request("GET / HTTP/1.1", CLOSE))
    return own, *ends_in(await peer.rest())


# --- Addresses ---


@in_each_loop
async def test_the_address_that_a_socket_is_bound_to() -> None:
    async with served(ends) as server:
        own, client, at = await ends_told(server, socket.socket(), ("127.0.0.1", server.port))
    assert client == own
    assert at == ("127.0.0.1", server.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
@linux
@in_each_loop
async def test_the_address_that_the_client_used_where_all_are_listened_on(host: str) -> None:
    async with served(ends, host="0.0.0.0") as server:
        own, client, at = await ends_told(server, socket.socket(), (host, server.port))
    assert client == own
    assert at == (host, server.port)


@in_each_loop
async def test_ipv6() -> None:
    listening("::1", socket.AF_INET6).close()
    for host in ("::1", "::"):
        async with served(ends, host=host) as server:
            own, client, at = await ends_told(server, socket.socket(socket.AF_INET6), ("::1", server.port))
            assert client == own[:2]
            assert at == ("::1", server.port)


@linux
@in_each_loop
async def test_the_zone_of_a_link_local_address() -> None:
    found = re.findall(r"(fe80\w{28}) (\w+) \w+ 20 \w+ +(\w+)", Path("/proc/net/if_inet6").read_text())
    if not found:
        pytest.skip("no interface has a link-local address")
    number, index, name = found[0]
    plain = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))
    async with served(ends, host="::") as server:
        sock = socket.socket(socket.AF_INET6)
        address = (plain, server.port, 0, int(index, 16))
        own, client, at = await ends_told(server, sock, address)
        assert client == (f"{plain}%{name}", own[1])
        assert at == (f"{plain}%{name}", server.port)


@in_each_loop
async def test_both_families_at_one_socket() -> None:
    """A client of IPv4 has a mapped address (RFC 4291 section 2.5.5.2), as asyncio tells it."""
    sock = listening("::", socket.AF_INET6, dual=True)
    sock.listen()
    async with served(ends, fd=sock.fileno()) as server:
        own, client, at = await ends_told(server, socket.socket(), ("127.0.0.1", server.port))
        assert client == (f"::ffff:{own[0]}", own[1])
        assert at == ("::ffff:127.0.0.1", server.port)
        own, client, at = await ends_told(server, socket.socket(socket.AF_INET6), ("::1", server.port))
        assert client == own[:2]
        assert at == ("::1", server.port)
    sock.close()


@pytest.mark.parametrize("named", [False, True])
@in_each_loop
async def test_a_unix_socket(named: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with served(ends, uds=path) as server:
        sock = socket.socket(socket.AF_UNIX)
        if named:
            sock.bind(str(tmp_path / "client"))
        _, client, at = await ends_told(server, sock, path)
    assert client is None
    assert at == (path, None)


# --- Listeners ---


@in_each_loop
async def test_a_listener_and_its_end() -> None:
    async with served(hello) as server:
        [listener] = server.server.servers
        [sock] = listener.sockets
        assert sock.getsockname() == ("127.0.0.1", server.port)
        assert listener.is_serving()
        kept = await server.connect()
        assert (await kept.ask(request())).status == 200
        for _ in range(2):
            listener.close()
            assert not listener.is_serving()
            assert listener.sockets == ()
            assert sock.fileno() == -1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        assert (await kept.ask(request())).status == 200


@in_each_loop
async def test_listeners_of_a_server_that_has_ended() -> None:
    async with served(hello) as server:
        [listener] = server.server.servers
    assert server.server.servers == [listener]
    assert not listener.is_serving()
    assert listener.sockets == ()
    listener.close()


@in_each_loop
async def test_one_listener_is_closed_and_another_goes_on(tmp_path: Path) -> None:
    async with served(hello, host="127.0.0.1") as one:
        other = listening("127.0.0.1")
        other.listen()
        address = other.getsockname()
        listener = one.server._acceptor.listen(other)
        one.server.servers[0].close()
        peer = Peer(socket.create_connection(address))
        peer.send(request("GET / HTTP/1.1", CLOSE))
        assert (await peer.rest()).endswith(b"hello")
        listener.close()


@linux
@in_each_loop
async def test_a_socket_that_another_process_has_shut_down_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """What was accepted there before goes on, and so do other sockets."""
    async with served(hello) as server:
        first, other = server.server.servers[0], listening("127.0.0.1")
        other.listen()
        second = server.server._acceptor.listen(other)
        kept = await server.connect()
        assert (await kept.ask(request())).status == 200
        [sock] = first.sockets
        with sock.dup() as same:
            same.shutdown(socket.SHUT_RDWR)
        await until(lambda: not first.is_serving())
        assert (await kept.ask(request())).status == 200
        peer = Peer(socket.create_connection(other.getsockname()))
        peer.send(request("GET / HTTP/1.1", CLOSE))
        assert (await peer.rest()).endswith(b"hello")
        second.close()
    [record] = error_records(caplog)
    assert record.getMessage() == "Can't accept connections any more: Invalid argument"


# --- TCP_DEFER_ACCEPT ---


def deferring_s(server: Served) -> int:
    """For how many seconds a connection is deferred."""
    [sock] = server.server.servers[0].sockets
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)


async def connect_quickly(server: Served, count: int) -> None:
    """Have so many connections accepted at once, and close them."""
    peers = [Peer.connect(server) for _ in range(count)]
    for peer in peers:
        peer.send(request("GET / HTTP/1.1", CLOSE))
    for peer in peers:
        await peer.rest()


@linux
@in_each_loop
async def test_many_connections_are_deferred_and_few_are_not() -> None:
    async with served(hello, backlog=2048) as server:
        await connect_quickly(server, DEFER_COUNT - 1)
        assert deferring_s(server) == 0
        await connect_quickly(server, 2 * DEFER_COUNT)
        assert deferring_s(server) > 0
        begin = asyncio.get_running_loop().time()
        while deferring_s(server):
            assert asyncio.get_running_loop().time() < begin + 4
            await asyncio.sleep(0.05)
        silent = Peer.connect(server)
        await until(lambda: server.context.registry.connection_count == 1)
        silent.close()


@linux
@in_each_loop
async def test_a_client_that_says_nothing_is_accepted_soon_while_others_are_deferred() -> None:
    """The system gives it to the server after a second or two."""
    async with served(hello, backlog=2048) as server:
        await connect_quickly(server, 3 * DEFER_COUNT)
        assert deferring_s(server) > 0
        silent = Peer.connect(server)
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.context.registry.connection_count == 0
        late = Peer.connect(server)
        await asyncio.sleep(0)
        late.send(request("GET / HTTP/1.1", CLOSE))
        assert (await late.rest()).endswith(b"hello")
        async with asyncio.timeout(8):
            await until(lambda: server.context.registry.connection_count == 1)
        silent.send(request("GET / HTTP/1.1", CLOSE))
        assert (await silent.rest()).endswith(b"hello")


@linux
@in_each_loop
async def test_a_request_that_is_under_way_at_the_end_is_answered() -> None:
    """Its client has connected before, while connections were deferred."""
    async with served(hello, backlog=2048, timeout_graceful_shutdown=5) as server:
        await connect_quickly(server, 3 * DEFER_COUNT)
        assert deferring_s(server) > 0
        late = Peer.connect(server)
        server.server.should_exit = True
        await asyncio.sleep(0.2)
        late.send(request("GET / HTTP/1.1", CLOSE))
        assert (await late.rest()).endswith(b"hello")


# --- What waits at the end ---


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_clients_that_wait_when_the_server_is_stopped_are_served(
    loop: str, start: Start, tmp_path: Path
) -> None:
    server = start(BLOCKING_APP, "app:app", "--port", "0", "--loop", loop)
    answers = answers_to_waiting(server.port, server.process.terminate, tmp_path)
    assert [answer for answer in answers if not answer.endswith(b"hi")] == []
    server.wait()


# --- System calls ---

STRACE = shutil.which("strace")


@contextlib.contextmanager
def traced(pid: int, file: Path) -> Iterator[None]:
    """Write the system calls of a process meanwhile."""
    if STRACE is None:
        pytest.skip("no strace")
    tracer = subprocess.Popen(
        [STRACE, "-f", "-p", str(pid), "-o", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    with tracer.stderr:
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.wait()
            pytest.skip(line)
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)


@linux
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_connection_costs_four_system_calls(loop: str, start: Start, tmp_path: Path) -> None:
    """Beside those that wait for events, which many connections share."""
    count = 200
    server = start(
        """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"hi"})
        """,
        *("app:app", "--port", "0", "--loop", loop, "--no-access-log"),
    )
    address = ("127.0.0.1", server.port)
    with traced(server.process.pid, tmp_path / "calls"):
        for _ in range(count):
            with socket.create_connection(address, 20) as sock:
                sock.sendall(request("GET / HTTP/1.1", CLOSE))
                assert read_all(sock).endswith(b"hi")
    calls = re.findall(r"^\d+ +(\w+)\((.*)", (tmp_path / "calls").read_text(), re.M)
    of: dict[str, int] = {}
    for name, rest in calls:
        if "resumed" not in name and not re.search(r"= -1 EAGAIN", rest):
            of[name] = of.get(name, 0) + 1
    print(of)
    assert of["accept4"] == count
    for name in ("recvfrom", "sendto", "sendmsg", "close", "shutdown"):
        assert of.get(name, 0) <= count + 5, name
    assert sum(of.get(name, 0) for name in ("accept4", "recvfrom", "sendto", "close")) <= 4 * count + 10
    for name in ("getpeername", "getsockname", "setsockopt", "getsockopt", "fcntl", "ioctl"):
        assert of.get(name, 0) <= 5, name
