"""WebSockets in bounded memory: backpressure both ways, floods, pings, what is left of many connections."""

import asyncio
import gc
import logging
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from backpressure import KERNEL_BYTES, MIB, STALL_S, until_stalled
from clientframes import BINARY, PING, PONG, TEXT, ClientDeflater, frame
from eachwire import Wire, each_carrier
from eachwire import served as served_on
from serving import WAIT_S, ServerProcess
from websocketwire import DEFLATE, WebSocket, accept, close_frame, echo, open_websocket
from wire import handshake, in_each_loop, in_loop, move_clock, served

KIB = 2**10


class Flood:
    """Sends one piece again and again, as far as the server takes it."""

    def __init__(self, websocket: WebSocket, piece: bytes, count: int) -> None:
        self.sent = 0
        self.task = asyncio.create_task(self._send(websocket, piece, count))

    async def _send(self, websocket: WebSocket, piece: bytes, count: int) -> None:
        for _ in range(count):
            await websocket.write(piece)
            self.sent += len(piece)


# --- Limits that are off ---


@pytest.mark.parametrize(
    "setting",
    [
        "ws_max_size",
        "ws_max_queue",
        "ws_ping_interval",
        "ws_ping_timeout",
        "limit_request_body",
        "timeout_write",
    ],
)
@each_carrier
@in_loop
async def test_a_limit_of_0_is_none(wire: Wire, setting: str) -> None:
    async with served_on(echo, wire, **{setting: 0}) as server:
        websocket = await open_websocket(server)
        for size in (0, 1, 20_000):
            await websocket.write(frame(BINARY, bytes(size)))
            assert await websocket.receive() == bytes(size)


# --- A slow client ---


@pytest.mark.parametrize("size", [100, 20_000, 5 * MIB])
@each_carrier
@in_each_loop
async def test_send_waits_for_a_client_that_does_not_read(wire: Wire, size: int) -> None:
    total = max(int((4 if size > 1000 else 1.5) * wire.window) // size, 2)
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await accept(receive, send)
        for _ in range(total):
            sent += 1
            await send({"type": "websocket.send", "bytes": bytes(size)})

    async with served_on(app, wire) as server:
        websocket = await open_websocket(server, limit=1000)
        assert await until_stalled(lambda: sent) * size < wire.window + size
        for _ in range(total):
            assert len(await websocket.receive()) == size
        assert await websocket.closing() == (1000, "")


@each_carrier
@in_each_loop
async def test_an_application_that_sends_without_end_lets_others_run(wire: Wire) -> None:
    """Though nothing holds it back, since the client reads."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        running = asyncio.create_task(others())
        for _ in range(10_000):
            await send({"type": "websocket.send", "text": "x"})
        running.cancel()
        await send({"type": "websocket.send", "text": str(turns)})

    async with served_on(app, wire) as server:
        websocket = await open_websocket(server)
        for _ in range(10_000):
            assert await websocket.receive() == "x"
        assert int(await websocket.receive()) >= 5


@each_carrier
@in_each_loop
async def test_only_the_last_ping_of_a_client_that_does_not_read_is_answered(wire: Wire) -> None:
    """RFC 6455 section 5.5.3. The others take no memory, and what else the client sends is received."""
    total = 100_000
    received = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        assert (await receive())["text"] == "behind the pings"
        received.set()
        await receive()

    async with served_on(app, wire) as server:
        websocket = await open_websocket(server, limit=1000)
        websocket.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        pings = [frame(PING, b"%0125d" % n) for n in range(total)]
        for place in range(0, total, 1000):
            await websocket.write(*pings[place : place + 1000])
        await websocket.send("behind the pings")
        await received.wait()
        answered = [int(await websocket.next(PONG))]
        while answered[-1] < total - 1:
            answered.append(int(await websocket.next(PONG)))
        assert answered == sorted(answered)
        assert len(answered) < total


@each_carrier
@in_loop
async def test_a_client_that_neither_reads_nor_answers_a_ping_is_cut_off(wire: Wire) -> None:
    """Also where the server reads nothing of it any more, because it doesn't take the pongs."""
    raised = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(MIB)})
        except OSError:
            raised.set()
            raise

    async with served_on(app, wire, ws_ping_interval=0.1, ws_ping_timeout=0.1) as server:
        websocket = await open_websocket(server, limit=1000)
        await websocket.write(*[frame(PING)] * 10)
        await raised.wait()


@each_carrier
@in_loop
async def test_a_slow_client_that_takes_something_is_not_cut_off(wire: Wire) -> None:
    """The ping stands behind much that it has to read first."""
    total = 40
    finished = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal finished
        await accept(receive, send)
        for _ in range(total):
            await send({"type": "websocket.send", "bytes": bytes(MIB)})
        finished = True
        await receive()

    async with served_on(app, wire, ws_ping_interval=0.4, ws_ping_timeout=0.4) as server:
        websocket = await open_websocket(server, limit=1000)
        for _ in range(total):
            received = await websocket.frame()
            while received.opcode == PING:
                received = await websocket.frame()
            assert len(received.payload) == MIB
            await asyncio.sleep(0.05)  # In all, several times the timeout
        assert finished


# --- A slow application ---


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 400_000), (1, 400_000), (MIB, 48), (3 * MIB, 16)],
    ids=["empty", "tiny", "1M", "3M"],
)
@each_carrier
@in_loop
async def test_the_socket_is_not_read_while_the_application_does_not_receive(
    wire: Wire, size: int, count: int
) -> None:
    go_on = asyncio.Event()
    received = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await accept(receive, send)
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            assert len(message["bytes"]) == size
            received += 1

    batch = 10_000 if size < 2 else 1
    async with served_on(app, wire) as server:
        websocket = await open_websocket(server)
        flood = Flood(websocket, frame(BINARY, bytes(size)) * batch, count // batch)
        stalled = await until_stalled(lambda: flood.sent)
        if size > 1:
            assert stalled < KERNEL_BYTES + 6 * MIB
        go_on.set()
        await flood.task
        assert await websocket.close() == (1000, "")
        await server.context.registry.wait_idle()
    assert received == count


@pytest.mark.parametrize("limit", [1, 2, 32])
@in_each_loop
async def test_no_more_messages_wait_than_the_queue_takes(limit: int) -> None:
    """What is behind is not looked at: a ping, or what breaks the protocol."""
    taken = []
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(message["text"])
        taken.append(message["code"])

    async with served(app, ws_max_queue=limit) as server:
        websocket = await open_websocket(server)
        messages = [frame(TEXT, b"%d" % i) for i in range(limit)]
        await websocket.write(
            *messages[1:], frame(PING, b"before"), messages[0], frame(PING, b"behind"), frame(3)
        )
        assert await websocket.next(PONG) == b"before"
        await asyncio.sleep(STALL_S)
        assert websocket.client.reader._buffer == b""  # type: ignore[attr-defined]
        go_on.set()
        assert await websocket.next(PONG) == b"behind"
        assert (await websocket.closed())[0] == 1002
        websocket.client.close()
        await server.context.registry.wait_idle()
    assert taken == [*map(str, range(1, limit)), "0", 1002]


@each_carrier
@in_each_loop
async def test_frames_behind_a_full_queue_are_received_in_order(wire: Wire) -> None:
    """However the reading is paused and taken up again."""
    total = 3000
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["text"])
            if len(received) % 7 == 0:
                await asyncio.sleep(0)

    async with served_on(app, wire, ws_max_queue=3) as server:
        websocket = await open_websocket(server)
        await websocket.write(*[frame(TEXT, b"%d" % i) for i in range(total)])
        assert await websocket.close() == (1000, "")
        await server.context.registry.wait_idle()
    assert received == [str(i) for i in range(total)]


@each_carrier
@in_loop
async def test_many_frames_in_one_read_let_other_connections_have_their_turn(wire: Wire) -> None:
    order = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        while (await receive())["type"] == "websocket.receive":
            order.append(scope["path"])

    async with served_on(app, wire) as server:
        many = await open_websocket(server, target="/many")
        one = await open_websocket(server, target="/one")
        await many.write(frame(TEXT) * 20_000)
        await one.write(frame(TEXT))
        await many.ping()
        await one.ping()
    assert "/one" in order[:15_000]


@pytest.mark.parametrize("size", [1, MIB])
@in_loop
async def test_a_client_that_sends_before_the_accept_is_held_back(size: int) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    async with served(app) as server:
        client = await server.connect()
        await client.write(handshake())
        websocket = WebSocket(client, None)  # type: ignore[arg-type]
        flood = Flood(websocket, frame(BINARY, bytes(MIB)) if size > 1 else frame(BINARY, b"x") * 1000, 40)
        stalled = await until_stalled(lambda: flood.sent)
        if size > 1:
            assert stalled < KERNEL_BYTES + MIB
        go_on.set()
        assert (await client.response()).status == 101
        for _ in range(40 if size > 1 else 40_000):
            assert len(await websocket.receive()) == size


@pytest.mark.parametrize("ending", ["reset", "close", "violation"])
@in_each_loop
async def test_clients_that_leave_amid_traffic(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """Much is under way in both directions when the client goes in one way or another."""
    came = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal came
        await accept(receive, send)
        size = int(scope["path"][1:])

        async def speak() -> None:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(size)})

        speaking = asyncio.create_task(speak())
        while (await receive())["type"] == "websocket.receive":
            came += 1
        with pytest.raises(OSError, match="disconnected"):
            await speaking

    async def leave(number: int) -> None:
        client = await server.connect(limit=1000)
        await client.write(handshake(target=f"/{[1, 1000, 100_000, MIB][number % 4]}"))
        websocket = WebSocket(client, await client.response())
        flood = Flood(websocket, frame(TEXT, b"x" * (number % 300)) * 50 + frame(PING), 200)
        for _ in range(number % 7):
            await websocket.frame()
        await asyncio.sleep(number % 5 / 100)
        flood.task.cancel()
        if ending == "violation":
            client.writer.write(frame(3))
            await asyncio.sleep(0)
        elif ending == "close":
            client.writer.write(close_frame())
            client.writer.write_eof()
            await client.rest()
        client.reset()

    async with served(app) as server:
        await asyncio.gather(*[leave(number) for number in range(20)])
        await server.context.registry.wait_idle()
        assert server.context.registry.exchange_count == 0
    assert came > 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- Pings ---


@each_carrier
@in_each_loop
async def test_a_client_that_answers_pings_stays(wire: Wire) -> None:
    async with served_on(echo, wire, ws_ping_interval=0.05, ws_ping_timeout=5) as server:
        websocket = await open_websocket(server)
        for _ in range(3):
            await websocket.write(frame(PONG, await websocket.next(PING)))
        assert await websocket.close() == (1000, "")


@each_carrier
@in_each_loop
async def test_a_client_that_does_not_answer_a_ping_is_closed_with_1011(wire: Wire) -> None:
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        received.append(await receive())

    async with served_on(app, wire, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server:
        websocket = await open_websocket(server)
        await websocket.next(PING)
        assert await websocket.closed() == (1011, "keepalive ping timeout")
        websocket.client.close()
        await server.context.registry.wait_idle()
    assert received == [{"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}]


@each_carrier
@in_loop
async def test_pings_come_at_their_interval(wire: Wire) -> None:
    async with served_on(echo, wire, ws_ping_interval=20, ws_ping_timeout=20) as server:
        websocket = await open_websocket(server)
        await move_clock(server, 19)
        assert await websocket.ping(b"none yet") == b"none yet"
        await move_clock(server, 23)
        assert await websocket.next(PING) == b""


@pytest.mark.parametrize("settings", [{"ws_ping_interval": 0}, {"ws_ping_interval": None}], ids=str)
@each_carrier
@in_loop
async def test_no_pings(wire: Wire, settings: dict[str, Any]) -> None:
    async with served_on(echo, wire, **settings) as server:
        websocket = await open_websocket(server)
        await move_clock(server, 10_000)
        assert await websocket.ping(b"first") == b"first"


@each_carrier
@in_loop
async def test_without_a_timeout_nobody_is_cut_off(wire: Wire) -> None:
    async with served_on(echo, wire, ws_ping_interval=1, ws_ping_timeout=0) as server:
        websocket = await open_websocket(server)
        for n in range(1, 6):
            await move_clock(server, 10 * n)
            assert await websocket.next(PING) == b""
        await websocket.send("here")
        while (received := await websocket.frame()).opcode == PING:
            pass
        assert received.payload == b"here"


@each_carrier
@in_loop
async def test_a_client_whose_pong_waits_behind_a_full_queue_is_not_cut_off(wire: Wire) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await accept(receive, send)
        await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with served_on(app, wire, ws_ping_interval=20, ws_ping_timeout=20, ws_max_queue=1) as server:
        websocket = await open_websocket(server, behind=frame(TEXT, b"a") * 3)
        for n in range(1, 6):
            await move_clock(server, 100 * n)
            assert await websocket.next(PING) == b""
        go_on.set()
        assert await websocket.ping(b"here") == b"here"


# --- Memory ---

APP = """
async def app(scope, receive, send):
    if scope["path"] == "/deny":
        await send({"type": "websocket.close"})
        return
    await receive()
    if scope["path"] == "/raise":
        raise ConnectionError
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""
OPTIONS = ("app:app", "--port", "0", "--lifespan", "off", "--no-access-log", "--ws-max-size", "100000")


def resident_bytes(process: ServerProcess) -> int:
    with open(f"/proc/{process.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")


@pytest.fixture
def server(start: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    return start(APP, *OPTIONS)


def open_socket(port: int, data: bytes, host: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    """A connection on which this was sent, and the head of the response."""
    connection = socket.create_connection(("127.0.0.1", port), WAIT_S, source_address=(host, 0))
    connection.sendall(data)
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
        head += piece
    return connection, head


def end_of(connection: socket.socket) -> bytes:
    """What comes up to the end of the connection."""
    parts = []
    while piece := connection.recv(65536):
        parts.append(piece)
    return b"".join(parts)


BOMB = ClientDeflater()(bytes(MIB))

ABUSES = {
    "closes": (handshake(), close_frame()),
    "closes at once": (handshake() + frame(TEXT, b"a") + close_frame(), b""),
    "no mask": (handshake(), frame(TEXT, b"a", key=None)),
    "not UTF-8": (handshake(), frame(TEXT, b"abc", fin=False) + frame(0, b"\xff" * 100)),
    "too large": (handshake(), frame(BINARY, b"", length=2**40)),
    "half a frame": (handshake(), frame(BINARY, b"x" * 1000)[:500]),
    "not deflated": (handshake(DEFLATE), frame(BINARY, b"\xff" * 1000, rsv=0x40)),
    "deflated": (handshake(DEFLATE), frame(TEXT, ClientDeflater()(b"x" * 2000), rsv=0x40) + close_frame()),
    "bomb": (handshake(DEFLATE), frame(BINARY, BOMB, rsv=0x40)),
    "half a handshake": (handshake()[:50], b""),
    "bad handshake": (handshake("sec-websocket-version: 8"), b""),
    "denied": (handshake(target="/deny"), b""),
    "application fails": (handshake(target="/raise"), b""),
}


def abuse(port: int, number: int) -> None:
    name = list(ABUSES)[number % len(ABUSES)]
    opening, rest = ABUSES[name]
    # Addresses of many clients, so that their ports do not run out
    host = f"127.0.0.{2 + number % 200}"
    if name == "half a handshake":
        connection = socket.create_connection(("127.0.0.1", port), WAIT_S, source_address=(host, 0))
        connection.sendall(opening)
    else:
        connection, head = open_socket(port, opening, host)
        assert head.startswith(b"HTTP/1.1 "), (name, head)
        connection.sendall(rest)
    with connection:
        if number % 3 == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif name in ("half a frame", "half a handshake"):
            connection.shutdown(socket.SHUT_WR)
            end_of(connection)
        else:
            end_of(connection)


@needs_proc
def test_ten_thousand_abused_connections_leave_nothing(server: ServerProcess) -> None:
    port = server.port
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: abuse(port, number), range(2000)))
        before = resident_bytes(server)
        list(pool.map(lambda number: abuse(port, number), range(2000, 10_000)))
    assert resident_bytes(server) < before + 3 * MIB
    descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    assert descriptors < 40


@pytest.mark.parametrize("name", list(ABUSES))
@in_each_loop
async def test_an_abused_connection_leaves_no_object(name: str) -> None:
    """Without the garbage collector: no cycles are left behind."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/deny":
            await send({"type": "websocket.close"})
        elif scope["path"] == "/raise":
            await send({"type": "websocket.nonsense"})
        else:
            await echo(scope, receive, send)

    def objects() -> dict[str, int]:
        kinds = (
            "WebSocketExchange",
            "WebSocketConnection",
            "HTTP1Connection",
            "HTTP1Handshake",
            "SocketSink",
        )
        names = [type(item).__name__ for item in gc.get_objects()]
        return {kind: names.count(kind) for kind in kinds}

    opening, rest = ABUSES[name]
    gc.collect()
    async with served(app, ws_max_size=100_000) as server:
        # pytest would keep the traceback, and that what its frames know
        logging.getLogger("fastasgi.error").setLevel(logging.CRITICAL + 1)
        gc.disable()
        try:
            before = objects()
            client = await server.connect()
            await client.write(opening + rest)
            if name == "half a handshake":
                client.reset()
            else:
                await client.reader.read(100)
                client.close()
            await asyncio.sleep(0)
            await server.context.registry.wait_idle()
            await asyncio.sleep(0)
            assert objects() == before
        finally:
            gc.enable()


def idle_cost(server: ServerProcess, *fields: str, message: bytes = b"") -> float:
    """Bytes of the server's memory for each open WebSocket that has nothing to do."""
    port = server.port
    count = 800
    opened = []

    def open_many() -> None:
        for _ in range(count):
            connection, head = open_socket(port, handshake(*fields))
            assert head.startswith(b"HTTP/1.1 101")
            if message:
                connection.sendall(message)
                assert connection.recv(65536)
            opened.append(connection)

    try:
        open_many()
        before = resident_bytes(server)
        open_many()
        return (resident_bytes(server) - before) / count
    finally:
        for connection in opened:
            connection.close()


@needs_proc
def test_an_idle_websocket_takes_little_memory(server: ServerProcess) -> None:
    assert idle_cost(server) < 6 * KIB


@needs_proc
def test_an_idle_websocket_with_deflate_takes_little_until_it_is_used(server: ServerProcess) -> None:
    assert idle_cost(server, DEFLATE) < 7 * KIB


@needs_proc
def test_a_bomb_is_refused_in_bounded_memory(start: Callable[..., ServerProcess]) -> None:
    server = start(APP, *OPTIONS)
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = (stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)) * 512
    connection, _ = open_socket(server.port, handshake(DEFLATE + "; client_max_window_bits=12"))
    before = resident_bytes(server)
    with connection:
        connection.sendall(frame(BINARY, bomb, rsv=0x40))
        answer = end_of(connection)
    assert answer[2:4] == (1009).to_bytes(2, "big")
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [peak] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(peak.split()[1]) * KIB < before + 8 * MIB
