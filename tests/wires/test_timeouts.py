"""Times and limits: slow heads, idle connections, large bodies, many requests."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from jumpingloop import in_jumping_loop
from wire import (
    CLOSE,
    Client,
    Reads,
    Served,
    chunked,
    echo,
    error_records,
    hello,
    in_each_loop,
    in_loop,
    in_turn_of_its_own,
    now,
    read_body,
    request,
    respond,
    served,
    shift_clock,
    talk,
)

SHORT_S = 0.2
LONG_S = 5.0

TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 15\r\nconnection: close\r\n\r\nRequest Timeout"
)
TOO_LARGE = b"HTTP/1.1 413 "


def short_head(app: Any, **settings: Any) -> Any:
    return served(app, timeout_request_head=SHORT_S, timeout_keep_alive=LONG_S, **settings)


def short_idle(app: Any, **settings: Any) -> Any:
    return served(app, timeout_keep_alive=SHORT_S, timeout_request_head=LONG_S, **settings)


async def dribble(client: Client, data: bytes, duration_s: float) -> None:
    """Send byte by byte for that long, as far as the server takes them."""
    for index in range(len(data)):
        client.writer.write(data[index : index + 1])
        await asyncio.sleep(duration_s / len(data))


# --- The time to receive a head ---


@pytest.mark.parametrize(
    "begun", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n\r\nG"], ids=repr
)
@in_each_loop
async def test_a_head_that_does_not_end_in_time_is_answered_with_408(begun: bytes) -> None:
    async with short_head(echo) as server:
        begun_at = now()
        assert await server.talk(begun) == TIMEOUT
        assert now() - begun_at >= SHORT_S
        assert server.context.registry.request_count == 0


@in_each_loop
async def test_bytes_one_by_one_do_not_prolong_the_time_of_a_head() -> None:
    """Slowloris."""
    async with short_head(echo) as server:
        client = await server.connect()
        begun_at = now()
        dribbling = asyncio.create_task(dribble(client, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000, 10.0))
        assert await client.rest() == TIMEOUT
        assert now() - begun_at < LONG_S
        dribbling.cancel()


@pytest.mark.parametrize("begun", [b"GET / ", b"\r\n\r\nGET / "], ids=repr)
@in_jumping_loop
async def test_a_later_head_has_its_time_too(begun: bytes) -> None:
    async with short_head(hello) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"hello"
        await client.write(begun)
        assert await client.rest() == TIMEOUT


@in_jumping_loop
async def test_a_head_request_that_is_late_gets_no_body() -> None:
    async with short_head(hello) as server:
        assert await server.talk(b"HEAD / ") == TIMEOUT.partition(b"Request Timeout")[0] + TIMEOUT[13:-15]


@in_jumping_loop
async def test_a_head_that_is_held_back_has_its_time_once_it_is_due() -> None:
    """What comes behind a running request isn't looked at before its response is complete."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await respond(send, b"ok")

    async with short_head(app) as server:
        client = await server.connect()
        await client.write(request() + b"GET / ")
        await asyncio.sleep(2 * SHORT_S)
        go_on.set()
        assert (await client.response()).body == b"ok"
        await client.write(b"HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.response()).body == b"ok"
        await client.write(b"GET / ")
        assert await client.rest() == TIMEOUT


@in_jumping_loop
async def test_a_slow_body_is_no_slow_head() -> None:
    async with served(echo, timeout_request_head=SHORT_S, timeout_keep_alive=SHORT_S) as server:
        for fields, body in (
            (["content-length: 20"], b"x" * 20),
            (["transfer-encoding: chunked"], chunked(b"abc", b"def")),
        ):
            client = await server.connect()
            await client.write(request("POST / HTTP/1.1", *fields))
            await dribble(client, body, 2 * SHORT_S)
            assert (await client.response()).status == 200


@in_jumping_loop
async def test_a_slow_application_is_no_slow_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(2 * SHORT_S)
        await respond(send, b"ok")

    async with served(app, timeout_request_head=SHORT_S, timeout_keep_alive=SHORT_S) as server:
        assert (await server.talk(request("GET / HTTP/1.1", CLOSE))).endswith(b"\r\n\r\nok")


@in_jumping_loop
async def test_head_time_0_is_any() -> None:
    async with served(hello, timeout_request_head=0, timeout_keep_alive=SHORT_S) as server:
        clients = [await server.connect() for _ in range(2)]
        await clients[0].write(b"GET / ")
        await asyncio.sleep(2 * SHORT_S)
        await clients[0].write(b"HTTP/1.1\r\nhost: x\r\n\r\n")
        await clients[1].write(request())
        for client in clients:
            assert (await client.response()).body == b"hello"


# --- Idle connections ---


@in_each_loop
async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with short_idle(hello) as server:
        client = await server.connect()
        for _ in range(3):
            assert (await client.ask(request())).body == b"hello"
            answered_at = now()
        assert await client.rest() == b""
        assert SHORT_S <= now() - answered_at < LONG_S
        await server.context.registry.wait_idle()


@in_jumping_loop
async def test_a_connection_that_never_asks_is_closed_without_a_word() -> None:
    async with short_head(hello) as server:
        client = await server.connect()
        assert await client.rest() == b""


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("blank", [b"\r\n", b"\r"], ids=repr)
@in_jumping_loop
async def test_empty_lines_are_no_use_of_a_connection(blank: bytes, asked: int) -> None:
    """RFC 9112 section 2.2 has them ignored: they neither renew its time nor have that of a head."""
    short = short_idle if asked else short_head
    async with short(hello) as server:
        client = await server.connect()
        for _ in range(asked):
            assert (await client.ask(request())).body == b"hello"
        begun_at = now()
        dribbling = asyncio.create_task(dribble(client, blank * (1000 // len(blank)), 2 * LONG_S))
        assert await client.rest() == b""
        assert SHORT_S <= now() - begun_at < LONG_S
        dribbling.cancel()


@pytest.mark.parametrize("blank", [b"\r\n" * 3, b"\r\n\r"], ids=repr)
@in_jumping_loop
async def test_empty_lines_do_not_hold_a_shutdown(blank: bytes, reads: Reads) -> None:
    async with served(hello) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == b"hello"
        await client.write(blank)
        await reads.until(len(request() + blank))
        server.context.drain()
        assert await client.rest() == b""


@pytest.mark.parametrize("keeps_idle", [True, False])
@in_jumping_loop
async def test_a_connection_that_asks_for_nothing_does_not_hold_a_shutdown(keeps_idle: bool) -> None:
    """Though no connection is kept: a worker with a successor waits a moment for each one's first request."""
    async with served(hello, timeout_keep_alive=0) as server:
        client = await server.connect()
        while not server.context.registry.connection_count:
            await asyncio.sleep(0)
        server.context.drain(keeps_idle=keeps_idle)
        begun_at = now()
        assert await client.rest() == b""
        assert now() - begun_at < LONG_S


@in_jumping_loop
async def test_a_connection_in_use_is_not_idle() -> None:
    async with short_idle(hello) as server:
        client = await server.connect()
        for _ in range(8):
            assert (await client.ask(request())).body == b"hello"
            await asyncio.sleep(SHORT_S / 4)


@in_each_loop
async def test_a_response_that_is_not_yet_read_is_not_cut_off() -> None:
    """The client is slow, not idle."""
    body = bytes(20_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, body)

    async with short_idle(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await asyncio.sleep(2 * SHORT_S)
        assert (await client.response()).body == body


@in_jumping_loop
async def test_a_refused_client_that_does_not_close_is_not_waited_for_for_ever() -> None:
    async with short_idle(hello) as server:
        client = await server.connect()
        await client.write(b"\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        async with asyncio.timeout(LONG_S):
            await server.context.registry.wait_idle()


# --- The time between two pieces of a body ---


BEGUN_BODIES = [
    request("POST / HTTP/1.1", "content-length: 4"),
    request("POST / HTTP/1.1", "content-length: 4", body=b"abc"),
    request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"3\r\nabc\r\n"),
]


@pytest.mark.parametrize("begun", BEGUN_BODIES, ids=["head", "length", "chunks"])
@in_each_loop
async def test_a_body_that_stops_coming_is_answered_with_408(
    begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not received or received[-1]["type"] == "http.request":
            received.append(await receive())

    async with served(app, timeout_request_body=SHORT_S) as server:
        begun_at = now()
        assert await server.talk(begun) == TIMEOUT
        assert now() - begun_at >= SHORT_S
        assert received[-1] == {"type": "http.disconnect"}
        assert server.context.registry.exchange_count == 0
    assert error_records(caplog) == []


@pytest.mark.parametrize(
    ("fields", "body"),
    [(["content-length: 20"], b"x" * 20), (["transfer-encoding: chunked"], chunked(b"abc", b"def", b"ghi"))],
    ids=["length", "chunks"],
)
@in_jumping_loop
async def test_a_body_that_comes_slowly_has_its_time(fields: list[str], body: bytes) -> None:
    async with served(echo, timeout_request_body=SHORT_S) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", *fields))
        await dribble(client, body, 3 * SHORT_S)
        assert (await client.response()).status == 200


@in_jumping_loop
async def test_a_body_that_the_application_does_not_take_has_its_time() -> None:
    """Reading is paused meanwhile; or the client waits for 100 Continue."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3 * SHORT_S)
        await echo(scope, receive, send)

    async with served(app, timeout_request_body=SHORT_S) as server:
        body = bytes(2**20)
        client = await server.connect()
        answer = await client.ask(request("POST / HTTP/1.1", f"content-length: {2**20}", body=body))
        assert answer.body.endswith(body)
        asked = await client.ask(request("POST / HTTP/1.1", "expect: 100-continue", "content-length: 2"))
        assert asked.status == 100
        assert (await client.ask(b"ok")).body.endswith(b"ok")


@in_jumping_loop
async def test_a_body_beside_its_response_has_any_time() -> None:
    """The client may wait for what the application sends before it goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"go on", "more_body": True})
        body = await read_body(receive)
        await send({"type": "http.response.body", "body": body})

    async with served(app, timeout_request_body=SHORT_S) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", "content-length: 2"))
        await asyncio.sleep(3 * SHORT_S)
        await client.write(b"ok")
        assert (await client.response()).chunks == [b"go on", b"ok"]


# --- The time in which a client takes nothing ---


async def send_without_end(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})


async def send_all_at_once(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, bytes(2**26))


def send_file(path: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return app


@pytest.mark.parametrize("kind", ["pieces", "whole", "file"])
@in_each_loop
async def test_a_client_that_takes_nothing_is_cut_off(
    kind: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(bytes(2**26))
    app = {"pieces": send_without_end, "whole": send_all_at_once, "file": send_file(tmp_path / "file")}[kind]
    async with served(app, timeout_write=SHORT_S) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        async with asyncio.timeout(LONG_S):
            while server.context.registry.connection_count:
                await asyncio.sleep(SHORT_S / 10)
        while (
            server.context.registry.exchange_count
        ):  # what an application goes on sending is dropped for a while
            shift_clock(0.5)
            await asyncio.sleep(0)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.response()
    assert error_records(caplog) == []


@pytest.mark.parametrize("kind", ["pieces", "whole", "file"])
@in_loop
async def test_what_a_client_takes_first_does_not_double_its_time(kind: str, tmp_path: Any) -> None:
    """Its system has room for megabytes, and takes them a moment after the response has begun to wait."""
    limit_s, step_s = 60.0, 1.0
    (tmp_path / "file").write_bytes(bytes(2**26))
    app = {"pieces": send_without_end, "whole": send_all_at_once, "file": send_file(tmp_path / "file")}[kind]
    async with served(app, timeout_write=limit_s, timeout_keep_alive=100) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await client.reader.readexactly(2**20)
        spent_s = 0.0
        while server.context.registry.connection_count:
            shift_clock(step_s)
            spent_s += step_s
            await in_turn_of_its_own(server.context.tick)
            assert spent_s < 1.5 * limit_s, "it takes nothing any more"
            await asyncio.sleep(0.02)  # the systems still pass on what is on its way
        assert spent_s >= limit_s
        while server.context.registry.exchange_count:
            shift_clock(step_s)
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["pieces", "whole", "file"])
@in_each_loop
async def test_a_client_that_has_just_taken_all_there_is_is_not_cut_off(kind: str, tmp_path: Any) -> None:
    """The server looks before its event loop has told it that the socket takes more."""
    size = 2**26
    (tmp_path / "file").write_bytes(bytes(size))
    app = {"pieces": send_without_end, "whole": send_all_at_once, "file": send_file(tmp_path / "file")}[kind]

    async with served(app, timeout_write=LONG_S) as server:
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, request())
            taken = 0

            def take_all() -> None:
                nonlocal taken
                with contextlib.suppress(BlockingIOError):
                    while data := client.recv(2**20):
                        taken += len(data)
                server.context.tick()

            async with asyncio.timeout(LONG_S):
                while taken < size:
                    for _ in range(100):  # until nothing more fits between the two
                        await asyncio.sleep(0)
                    await in_turn_of_its_own(take_all)


@pytest.mark.parametrize("kind", ["pieces", "file"])
@in_loop
async def test_a_client_that_takes_something_now_and_then_is_not_cut_off(kind: str, tmp_path: Any) -> None:
    size, piece = 2**25, 2**22
    (tmp_path / "file").write_bytes(bytes(size))

    async def pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(size // 2**20):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        await send({"type": "http.response.body"})

    app = pieces if kind == "pieces" else send_file(tmp_path / "file")
    async with served(app, timeout_write=SHORT_S) as server:
        client = await server.connect(limit=1000)
        await client.write(request("GET / HTTP/1.1", CLOSE))
        taken = 0
        while data := await client.reader.read(piece):
            if taken // piece != (taken + len(data)) // piece:
                await asyncio.sleep(SHORT_S / 2)
            taken += len(data)
        assert taken > size


@pytest.mark.parametrize("kind", ["pieces", "whole", "file"])
@in_each_loop
async def test_a_client_that_takes_a_little_at_a_time_is_not_cut_off(kind: str, tmp_path: Any) -> None:
    """So little that the kernel, which holds megabytes, takes nothing more of the response meanwhile."""
    (tmp_path / "file").write_bytes(bytes(2**26))
    app = {"pieces": send_without_end, "whole": send_all_at_once, "file": send_file(tmp_path / "file")}[kind]
    async with served(app, timeout_write=SHORT_S) as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            await loop.sock_sendall(client, request())
            ends = loop.time() + 5 * SHORT_S
            while loop.time() < ends:
                assert len(await loop.sock_recv(client, 2**15)) > 0
                await asyncio.sleep(SHORT_S / 10)


# --- The body's size ---


@pytest.mark.parametrize("size", [0, 9, 10])
@in_loop
async def test_a_body_up_to_the_limit(size: int) -> None:
    body = b"x" * size
    data = request("POST / HTTP/1.1", f"content-length: {size}", body=body)
    data += request("POST / HTTP/1.1", "transfer-encoding: chunked", body=chunked(*[b"x"] * size))
    async with served(echo, limit_request_body=10) as server:
        client = await server.connect()
        await client.write(data)
        for _ in range(2):
            assert (await client.response()).body == b"POST /? " + body


@in_loop
async def test_a_content_length_beyond_the_limit() -> None:
    async with served(echo, limit_request_body=10) as server:
        for size in (11, 2**62):
            answer = await server.talk(request("POST / HTTP/1.1", f"content-length: {size}") + b"x" * 11)
            assert answer.startswith(TOO_LARGE)
            assert b"\r\nconnection: close\r\n" in answer
        assert server.context.registry.request_count == 0


@in_loop
async def test_a_content_length_beyond_the_limit_gets_no_100() -> None:
    data = request("POST / HTTP/1.1", "content-length: 11", "expect: 100-continue")
    assert (await talk(echo, data, limit_request_body=10)).startswith(TOO_LARGE)


@in_each_loop
async def test_a_chunked_body_beyond_the_limit() -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        while not messages or messages[-1]["type"] != "http.disconnect":
            messages.append(await receive())
        ended.set()

    begun, ended = asyncio.Event(), asyncio.Event()
    async with served(app, limit_request_body=10) as server:
        client = await server.connect()
        await client.write(request("POST / HTTP/1.1", "transfer-encoding: chunked"))
        await begun.wait()
        await client.write(b"5\r\nabcde\r\n")
        await client.write(b"6\r\nabcdef\r\n0\r\n\r\n" + request())
        assert (await client.rest()).startswith(TOO_LARGE)
        await ended.wait()
        assert server.context.registry.request_count == 1
    received = b"".join(message["body"] for message in messages[:-1])
    assert len(received) <= 10
    assert b"abcdeabcdef".startswith(received)


@in_loop
async def test_a_chunked_body_beyond_the_limit_that_comes_at_once() -> None:
    async with served(echo, limit_request_body=10) as server:
        data = request("POST / HTTP/1.1", "transfer-encoding: chunked", body=chunked(b"x" * 11))
        assert (await server.talk(data + request())).startswith(TOO_LARGE)


@in_loop
async def test_a_chunk_that_announces_too_much() -> None:
    """It need not come."""
    async with served(echo, limit_request_body=10) as server:
        client = await server.connect()
        await client.write(
            request("POST / HTTP/1.1", "transfer-encoding: chunked", body=b"ffff\r\n" + b"x" * 11)
        )
        assert (await client.rest()).startswith(TOO_LARGE)


@in_loop
async def test_there_is_no_limit_by_default() -> None:
    async with served(echo) as server:
        client = await server.connect()
        body = bytes(3_000_000)
        response = await client.ask(request("POST / HTTP/1.1", f"content-length: {len(body)}", body=body))
        assert response.body == b"POST /? " + body


# --- Concurrent requests ---


@in_each_loop
async def test_requests_beyond_the_concurrency_limit(caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        if len(paths) == 2:
            begun.set()
        if scope["path"] == "/wait":
            await go_on.wait()
        await respond(send, b"ok")

    async with served(app, limit_concurrency=2) as server:
        waiting = [await server.connect() for _ in range(2)]
        for client in waiting:
            await client.write(request("GET /wait HTTP/1.1"))
        await begun.wait()
        for _ in range(3):
            answer = await server.talk(request("GET /refused HTTP/1.1") + request("GET /refused HTTP/1.1"))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            fields = head.split(b"\r\n")
            assert {b"connection: close", b"retry-after: 1"} < set(fields)
            assert body == b"Service Unavailable"
        go_on.set()
        for client in waiting:
            assert (await client.response()).body == b"ok"
            assert (await client.ask(request("GET /later HTTP/1.1"))).body == b"ok"
    assert paths == ["/wait", "/wait", "/later", "/later"]
    assert error_records(caplog) == []


@in_loop
async def test_idle_connections_do_not_count() -> None:
    async with served(hello, limit_concurrency=1) as server:
        clients = [await server.connect() for _ in range(5)]
        for client in clients:
            assert (await client.ask(request())).body == b"hello"


# --- Requests before the exit ---


async def ended(server: Served) -> None:
    """Return when the server has stopped by itself."""
    while not server.context.draining:
        await asyncio.sleep(0.001)
    await server.context.registry.wait_idle()


@in_each_loop
async def test_the_last_request_and_those_that_run_are_answered() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            begun.set()
            await go_on.wait()
            await respond(send, await read_body(receive))
        else:
            await respond(send, b"ok")

    async with served(app, limit_max_requests=3, timeout_graceful_shutdown=LONG_S) as server:
        waiting, client, idle = [await server.connect() for _ in range(3)]
        await waiting.write(request("POST /wait HTTP/1.1", "content-length: 3", body=b"a"))
        await begun.wait()
        assert (await client.ask(request())).body == b"ok"
        assert not server.context.draining
        assert (await client.ask(request())).body == b"ok"
        assert await client.rest() == b""
        assert await idle.rest() == b""
        go_on.set()
        await waiting.write(b"bc")
        response = await waiting.response()
        assert response.body == b"abc"
        assert response[b"connection"] == b"close"
        waiting.close()
        await ended(server)
        with pytest.raises(OSError, match=r"onnect"):
            await server.connect()
