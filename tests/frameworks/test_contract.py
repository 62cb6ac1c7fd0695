"""What each framework does behind this server. Its application, in the folder ``apps``, has these URLs:

- GET /items/{id}?tag=: JSON with ``id``, a whole number, and ``tags``, a list
- GET /names/{name}: JSON with ``name``, percent-decoded
- POST /box/{name}: put the request's body, a text, into a box; 204
- GET /box/{name}: wait for the next text in a box and take it
- POST /upload: JSON with ``bytes`` and ``sha256`` of the request's body, read as a stream; also of a body
  without a length ("chunked upload")
- POST /form ("form"): JSON with ``note``, a field, and ``filename``, ``bytes``, ``sha256`` of ``file``
- GET /download: 4 MiB, streamed in 64 pieces
- GET /stream/{name}: each text that comes into the box as a piece, until "end"
- GET /events/{name} ("events"): each text that comes into the box as a server-sent event; "left" into the box
  {name}.status when the handler ends: where it has to send for that, ("watching") is lacking
- GET /poll/{name}: "waiting" into the box {name}.status, then the next text in the box as answer; "left" into
  {name}.status where the client leaves before ("leaving a poll")
- POST /task/{name} ("background"): 202, and after the response move a text from the box to {name}.done
- GET /started ("lifespan"): "started", which a start-up hook has set; a shutdown hook writes "stopped" to
  stderr

The names in quotes are features, which a framework may lack.
"""

import hashlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import httpx
import pytest
from serving import WAIT_S, ServerProcess

LARGE = bytes(range(256)) * 24 * 1024  # 6 MiB


def open_client(server: ServerProcess, **settings: Any) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", timeout=WAIT_S, trust_env=False, **settings
    )


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with open_client(server) as client:
        yield client


def put(client: httpx.Client, name: str, text: str) -> None:
    response = client.post(f"/box/{name}", content=text, headers={"content-type": "text/plain"})
    assert (response.status_code, response.content) == (204, b"")


def take(client: httpx.Client, name: str) -> str:
    response = client.get(f"/box/{name}")
    assert response.status_code == 200
    return response.text


def report_of(body: bytes) -> dict[str, Any]:
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def local_port(response: httpx.Response) -> int:
    return response.extensions["network_stream"].get_extra_info("client_addr")[1]


def test_path_and_query_reach_the_handler(client: httpx.Client) -> None:
    response = client.get("/items/7", params={"tag": ["a", "b c&d"]})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == {"id": 7, "tags": ["a", "b c&d"]}


def test_a_path_is_percent_decoded(client: httpx.Client) -> None:
    assert client.get("/names/%C5%BC%C3%B3%C5%82w%20100%25").json() == {"name": "żółw 100%"}


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
    assert client.get("/nowhere/at/all").status_code == 404


def test_a_large_body_is_received(client: httpx.Client) -> None:
    response = client.post("/upload", content=LARGE, headers={"content-type": "application/octet-stream"})
    assert response.json() == report_of(LARGE)


@pytest.mark.needs("chunked upload")
def test_a_large_chunked_body_is_received(client: httpx.Client) -> None:
    pieces = (LARGE[i : i + 100_000] for i in range(0, len(LARGE), 100_000))
    response = client.post("/upload", content=pieces, headers={"content-type": "application/octet-stream"})
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.json() == report_of(LARGE)


@pytest.mark.needs("form")
def test_a_form_with_a_large_file_is_received(client: httpx.Client) -> None:
    response = client.post("/form", data={"note": "żółw"}, files={"file": ("large.bin", LARGE)})
    assert response.json() == {"note": "żółw", "filename": "large.bin", **report_of(LARGE)}


def test_a_large_response_is_streamed(client: httpx.Client) -> None:
    response = client.get("/download")
    assert response.headers["transfer-encoding"] == "chunked"
    assert report_of(response.content) == report_of(b"".join(bytes([i]) * 65536 for i in range(64)))


def test_each_piece_of_a_stream_arrives_before_the_next_is_made(client: httpx.Client) -> None:
    put(client, "pieces", "one")  # ASGI has the head wait for the first piece
    with client.stream("GET", "/stream/pieces") as response:
        pieces = response.iter_text()
        assert next(pieces) == "one"
        for piece in ("two", "three"):
            put(client, "pieces", piece)
            assert next(pieces) == piece
        put(client, "pieces", "end")
        assert list(pieces) == []


def read_events(response: httpx.Response) -> Iterator[str]:
    """The data of each server-sent event."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


@pytest.mark.needs("events")
def test_events_arrive_one_by_one_until_the_client_leaves(application: Any, client: httpx.Client) -> None:
    put(client, "news", "one")
    with client.stream("GET", "/events/news") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = read_events(response)
        assert next(events) == "one"
        for event in ("two", "three"):
            put(client, "news", event)
            assert next(events) == event
    with ThreadPoolExecutor() as pool:
        status = pool.submit(take, client, "news.status")
        # send() drops what nobody takes, but not for ever
        while "watching" in application.lacks and not status.done():
            put(client, "news", "unread")
            wait({status}, timeout=0.1)
        assert status.result(WAIT_S) == "left"


def test_a_waiting_request_is_answered_by_another(client: httpx.Client) -> None:
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(client.get, "/poll/answered")
        assert take(client, "answered.status") == "waiting"
        assert not poll.done()
        put(client, "answered", "here")
        assert poll.result(WAIT_S).text == "here"


@pytest.mark.needs("leaving a poll")
def test_a_waiting_request_notices_that_its_client_leaves(
    server: ServerProcess, client: httpx.Client
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /poll/left HTTP/1.1\r\nhost: x\r\n\r\n")
        assert take(client, "left.status") == "waiting"
    assert take(client, "left.status") == "left"


def test_clients_that_leave_midway_hold_nothing_up(server: ServerProcess, client: httpx.Client) -> None:
    download = b"GET /download HTTP/1.1\r\nhost: x\r\n\r\n"
    upload = b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + LARGE[:100_000]
    for _ in range(12):  # more than there are threads for WSGI
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(download)
            assert connection.recv(1) == b"H"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(upload)
    assert client.get("/items/1", params={"tag": "a"}).json() == {"id": 1, "tags": ["a"]}


@pytest.mark.needs("background")
def test_a_task_goes_on_after_its_response_while_the_connection_serves(server: ServerProcess) -> None:
    with open_client(server, limits=httpx.Limits(max_connections=1)) as client:
        accepted = client.post("/task/work")
        assert accepted.status_code == 202
        item = client.get("/items/1", params={"tag": "a"})
        assert item.json() == {"id": 1, "tags": ["a"]}
        put(client, "work", "worked")
        assert take(client, "work.done") == "worked"
        assert local_port(item) == local_port(accepted)


@pytest.mark.needs("lifespan")
def test_hooks_run_at_start_and_end(application: Any) -> None:
    process = application.serve()
    try:
        with open_client(process) as client:
            assert client.get("/started").text == "started"
        process.end()
        assert re.search("^stopped$", process.log, re.MULTILINE)
    finally:
        process.close()
