"""Files as HTTP/1.x responses: http.response.pathsend and http.response.zerocopysend."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from messages import body, sending, start, trailers
from wire import (
    CLOSE,
    GET,
    GET_1_0,
    SERVER_ERROR,
    error_records,
    in_each_loop,
    in_loop,
    request,
    respond,
    served,
    talk,
    traceback_of,
)

# --- http.response.pathsend ---


def pathsend(path: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


@pytest.fixture(params=["sendfile", "without sendfile"])
def sendfile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without sendfile":
        monkeypatch.delattr(os, "sendfile")
    return request.param


FILE = bytes(range(251)) * 10_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    return path


def open_files() -> list[str]:
    """What this process has open. Event loops keep /dev/null in reserve."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(link for link in links if link != "/dev/null")


@in_each_loop
async def test_pathsend(file: Path, sendfile: str) -> None:
    async with served(sending(start(), pathsend(file))) as server:
        client = await server.connect()
        before = open_files()
        for _ in range(3):
            response = await client.ask(request())
            assert response.body == FILE
            assert response.headers == [(b"content-length", b"%d" % len(FILE))]
        assert open_files() == before
        assert (await client.ask(request("HEAD / HTTP/1.1"), "HEAD")).status == 200
        assert (await client.ask(request())).body == FILE


@in_loop
async def test_pathsend_in_pipelined_responses(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/file":
            await send(start())
            await send(pathsend(file))
        else:
            await respond(send, scope["path"].encode())

    async with served(app) as server:
        client = await server.connect()
        for _ in range(3):
            for path in ("/a", "/file", "/b"):
                client.writer.write(request(f"GET {path} HTTP/1.1"))
        for _ in range(3):
            for expected in (b"/a", FILE, b"/b"):
                assert (await client.response()).body == expected


@in_loop
async def test_pathsend_of_an_empty_file(tmp_path: Path, sendfile: str) -> None:
    (tmp_path / "empty").touch()
    answer = await talk(sending(start(), pathsend(tmp_path / "empty")), request() + GET)
    assert answer == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


@in_loop
async def test_pathsend_to_http_1_0(file: Path, sendfile: str) -> None:
    answer = await talk(sending(start(), pathsend(file)), GET_1_0)
    length = b"content-length: %d" % len(FILE)
    assert answer == b"HTTP/1.1 200 OK\r\n" + length + b"\r\nconnection: close\r\n\r\n" + FILE


@in_loop
async def test_pathsend_keeps_the_content_length_of_the_application(file: Path) -> None:
    length = (b"Content-Length", b"%d" % len(FILE))
    async with served(sending(start(200, length), pathsend(file))) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert response.headers == [length]
    assert response.body == FILE


@pytest.mark.parametrize("length", [len(FILE) - 1, len(FILE) + 1])
@in_loop
async def test_pathsend_of_another_length(file: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = await talk(sending(start(200, (b"content-length", b"%d" % length)), pathsend(file)), GET)
    assert answer == SERVER_ERROR
    assert "Content-Length" in str(traceback_of(caplog))


@in_loop
async def test_pathsend_of_what_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(), pathsend(tmp_path / "none")), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), FileNotFoundError)


@in_loop
async def test_pathsend_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await talk(sending(start(), pathsend(tmp_path)), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), OSError)


@in_loop
async def test_pathsend_with_trailers(file: Path, sendfile: str) -> None:
    app = sending(start(trailers=True), pathsend(file), trailers((b"x-a", b"1")))
    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request())
    assert response.body == FILE
    assert response.trailers == [(b"x-a", b"1")]


@in_each_loop
async def test_nothing_else_is_sent_while_a_file_is(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(file, 50_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        sending = asyncio.ensure_future(send(pathsend(file)))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="while a file is being sent"):
            await send(body(b"abc"))
        await sending

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == FILE + bytes(50_000_000 - len(FILE))
    assert error_records(caplog) == []


@in_each_loop
async def test_a_client_that_leaves_a_file(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(file, 500_000_000)
    ended = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(pathsend(file))
        except BaseException as error:
            ended.set_exception(error)
            raise
        ended.set_result(None)

    before = open_files()
    async with served(app) as server:
        client = await server.connect()
        await client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        client.reset()
        await ended
    assert error_records(caplog) == []
    assert open_files() == before


# --- http.response.zerocopysend ---


def zerocopysend(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({}, slice(None)),
        ({"offset": 0}, slice(None)),
        ({"offset": 1000}, slice(1000, None)),
        ({"count": 1000}, slice(1000)),
        ({"offset": 1000, "count": 1000}, slice(1000, 2000)),
        ({"offset": 1000, "count": 2_000_000}, slice(1000, 2_001_000)),
        ({"offset": 1000, "count": len(FILE)}, slice(1000, None)),
        ({"offset": len(FILE)}, slice(0, 0)),
        ({"offset": len(FILE) + 1}, slice(0, 0)),
        ({"count": 0}, slice(0, 0)),
        ({"offset": None, "count": None}, slice(None)),
    ],
    ids=str,
)
@in_each_loop
async def test_zerocopysend(more: dict[str, Any], part: slice, file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            await send(zerocopysend(opened, **more))
            opened.seek(5)
            assert opened.read(5) == FILE[5:10]

    async with served(app) as server:
        client = await server.connect()
        before = open_files()
        for _ in range(2):
            response = await client.ask(request())
            assert response.body == FILE[part]
            assert response.headers == [(b"content-length", b"%d" % len(FILE[part]))]
        assert open_files() == before


@in_loop
async def test_zerocopysend_among_other_pieces(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            await send(body(b"begin", True))
            await send(zerocopysend(opened, offset=10, count=10, more_body=True))
            await send(zerocopysend(opened, offset=10, count=0, more_body=True))
            await send(body(b"middle", True))
            await send(zerocopysend(opened, offset=20, count=1_000_000, more_body=True))
            await send(body(b"end"))

    async with served(app) as server:
        client = await server.connect()
        for _ in range(2):
            response = await client.ask(request())
            assert response.chunks == [b"begin", FILE[10:20], b"middle", FILE[20:1_000_020], b"end"]


@in_loop
async def test_zerocopysend_first_with_more_to_come(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            length = (b"content-length", b"30")
            await send(start(200, length) if scope["path"] == "/length" else start())
            await send(zerocopysend(opened, offset=0, count=10, more_body=True))
            await send(zerocopysend(opened, offset=10, count=10, more_body=True))
            await send(zerocopysend(opened, offset=20, count=10))

    async with served(app) as server:
        client = await server.connect()
        response = await client.ask(request("GET /length HTTP/1.1"))
        assert response.body == FILE[:30]
        assert response.chunks is None
        response = await client.ask(request())
        assert response.chunks == [FILE[:10], FILE[10:20], FILE[20:30]]


@in_loop
async def test_zerocopysend_begins_at_the_files_position_and_moves_it(file: Path, sendfile: str) -> None:
    """As os.sendfile() without an offset, after which the message's fields are named."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb", buffering=0) as opened:
            opened.seek(100)
            await send(start())
            await send(zerocopysend(opened, count=10, more_body=True))
            await send(zerocopysend(opened, count=10))

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).chunks == [FILE[100:110], FILE[110:120]]


@in_each_loop
async def test_zerocopysend_waits_for_what_was_sent_before(file: Path, sendfile: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with file.open("rb") as opened:
            await send(start())
            sending.set()
            for _ in range(5):
                await asyncio.gather(
                    send(body(b"x" * 3_000_000, True)),
                    send(zerocopysend(opened, offset=0, more_body=True)),
                )
            await send(body())

    sending = asyncio.Event()
    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await sending.wait()
        assert (await client.response()).chunks == [b"x" * 3_000_000, FILE] * 5


@pytest.mark.parametrize("more", [{"count": -1}, {"offset": -1}, {"count": "1"}, {"offset": 2**70}], ids=str)
@in_loop
async def test_zerocopysend_of_no_part(
    more: dict[str, Any], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_files()
    with file.open("rb") as opened:
        assert await talk(sending(start(), zerocopysend(opened, **more)), GET) == SERVER_ERROR
    traceback_of(caplog)
    caplog.clear()
    assert open_files() == before


@in_loop
async def test_a_file_that_shrinks_while_it_is_sent(
    file: Path, sendfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client can tell that it has not all."""
    os.truncate(file, 100_000_000)
    async with served(sending(start(), pathsend(file))) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        assert b"content-length: 100000000\r\n" in await client.reader.readuntil(b"\r\n\r\n")
        os.truncate(file, 1000)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(2**20):
                received += len(piece)
    assert received < 100_000_000
    assert "of the 100000000 bytes" in str(traceback_of(caplog))


@in_each_loop
async def test_a_file_that_is_given_up(file: Path, sendfile: str, caplog: pytest.LogCaptureFixture) -> None:
    os.truncate(file, 100_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        async with asyncio.timeout(0.05):
            await send(pathsend(file))

    before = open_files()
    async with served(app) as server:
        client = await server.connect(limit=1000)
        await client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        while server.context.registry.exchange_count:
            await asyncio.sleep(0)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(2**20):
                received += len(piece)
        assert received < 100_000_000
    assert isinstance(traceback_of(caplog), TimeoutError)
    caplog.clear()
    assert open_files() == before


@in_loop
async def test_zerocopysend_takes_a_descriptor(file: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        descriptor = os.open(file, os.O_RDONLY)
        await send(start())
        await send(zerocopysend(descriptor))
        os.close(descriptor)

    async with served(app) as server:
        client = await server.connect()
        assert (await client.ask(request())).body == FILE


@in_loop
async def test_zerocopysend_of_a_closed_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = file.open("rb")
    opened.close()
    assert await talk(sending(start(), zerocopysend(opened)), GET) == SERVER_ERROR
    assert isinstance(traceback_of(caplog), ValueError)


@pytest.mark.parametrize("more", [{"count": -3}, {"offset": -1}, {"count": 3.0}, {"offset": 1.0}], ids=str)
@in_loop
async def test_zerocopysend_of_a_part_that_is_none(file: Path, more: dict[str, Any]) -> None:
    with file.open("rb") as opened:
        assert await talk(sending(start(), zerocopysend(opened, **more)), GET) == SERVER_ERROR


@in_loop
async def test_pathsend_of_a_pipe_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert await talk(sending(start(), pathsend(tmp_path / "pipe")), GET) == SERVER_ERROR


@in_loop
async def test_headers_that_change_their_message_while_they_are_read() -> None:
    def headers() -> Iterator[tuple[bytes, bytes]]:
        yield (b"x-a", b"1")
        message.clear()

    message = {"type": "http.response.start", "status": 200, "headers": headers(), "trailers": []}
    answer = await talk(sending(message, body(b"ok")), request("HEAD / HTTP/1.1", CLOSE))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n")
