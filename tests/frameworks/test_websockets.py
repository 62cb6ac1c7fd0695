"""WebSockets of each framework behind this server. Its application, in the folder ``apps``, has these URLs:

- /echo: send each message back; when the client has left, write "left with {code}" to stderr, or, as Quart
  tells it no code, "left"
- /greet/{name}?tag=: accept the last subprotocol that is offered, send JSON with ``name`` and ``tags``, close
  with 3001 and "done"
- /deny: not accepted, 403
- /refuse: denied with 401 and "who are you?"; Channels has no such response
- /room/{name}: send "in", then what each client says to all; write "out" to stderr when one has left
"""

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import WAIT_S, ServerProcess
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

FOLDER = Path(__file__).parent / "apps"


@pytest.fixture(scope="module", params=["starlette", "fastapi", "quart", "channels"])
def websocket_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """The application's server. When the tests are through, it and asyncio must have logged no failure."""
    process = ServerProcess(FOLDER, "--port", "0", f"{request.param}_websocket:app")
    try:
        process.wait_for("running on")
        yield process
        assert process.end() == -signal.SIGTERM, process.log
        assert not re.search("^(ERROR|CRITICAL):|never retrieved|never awaited", process.log, re.MULTILINE)
    finally:
        process.close()


def open_client(server: ServerProcess, path: str, **options: object) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None, open_timeout=WAIT_S, **options)


def test_messages_come_back(websocket_server: ServerProcess, request: pytest.FixtureRequest) -> None:
    with open_client(websocket_server, "/echo") as client:
        for message in ("", "żółw 🐢", "x" * 100_000, b"\0\xff", bytes(300_000)):
            client.send(message)
            assert client.recv(WAIT_S) == message
        client.close(3000, "bye")
    websocket_server.wait_for(
        r"(?m)^left$" if "quart" in request.node.callspec.id else r"(?m)^left with 3000$"
    )


def test_subprotocol_parameters_and_close(websocket_server: ServerProcess) -> None:
    with open_client(websocket_server, "/greet/Zoe?tag=a&tag=b%20c", subprotocols=["soap", "chat"]) as client:
        assert client.subprotocol == "chat"
        assert json.loads(client.recv(WAIT_S)) == {"name": "Zoe", "tags": ["a", "b c"]}
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(WAIT_S)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (3001, "done")


def test_a_denied_client(websocket_server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as caught, open_client(websocket_server, "/deny"):
        pass
    assert caught.value.response.status_code == 403


def test_a_denial_response(websocket_server: ServerProcess, request: pytest.FixtureRequest) -> None:
    if "channels" in request.node.callspec.id:
        pytest.skip("Channels sends no denial response")
    with pytest.raises(InvalidStatus) as caught, open_client(websocket_server, "/refuse"):
        pass
    assert (caught.value.response.status_code, caught.value.response.body) == (401, b"who are you?")


def test_clients_hear_each_other(websocket_server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(open_client(websocket_server, "/room/one")) for _ in range(5)]
        stranger = stack.enter_context(open_client(websocket_server, "/room/two"))
        for client in [*clients, stranger]:
            assert client.recv(WAIT_S) == "in"
        for number, client in enumerate(clients):
            client.send(f"hello from {number}")
            assert [other.recv(WAIT_S) for other in clients] == [f"hello from {number}"] * 5
        clients.pop().close()
        websocket_server.wait_for("(?m)^out$")
        clients[0].send("after one has left")
        assert [other.recv(WAIT_S) for other in clients] == ["after one has left"] * 4
        stranger.send("alone")
        assert stranger.recv(WAIT_S) == "alone"
