"""In Python's development mode, warnings being errors: nothing deprecated is used, and nothing left open."""

import asyncio
import os
import signal

import pytest
from serving import HI_APP, ServerProcess, Start, fetch

ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}
FAILING = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
FILES = """
async def app(scope, receive, send):
    kind, _, rest = scope["path"].strip("/").partition("/")
    length = [(b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    with open(__file__, "rb") as file:
        await send({"type": "http.response." + kind, "path": __file__, "file": file})
"""


def assert_warned_of_nothing(server: ServerProcess) -> None:
    assert "Warning" not in server.log, server.log
    assert "Exception ignored" not in server.log, server.log


@pytest.mark.parametrize(
    "arguments",
    [
        "--loop asyncio",
        "--loop uvloop",
        "--admin 127.0.0.1:0",
        "--workers 2",
        "--workers 2 --preload --admin 127.0.0.1:0",
        "--reload",
    ],
)
def test_from_the_start_to_the_end(start: Start, arguments: str) -> None:
    server = start(HI_APP, "app:app", "--port", "0", *arguments.split(), environment=ENVIRONMENT)
    assert asyncio.run(fetch(server.port)).endswith(b"hi")
    assert server.end() in (0, -signal.SIGTERM)  # a single process ends as the signal says
    assert_warned_of_nothing(server)


@pytest.mark.parametrize("arguments", ["", "--workers 2"])
@pytest.mark.parametrize(("app", "code"), [("app:app", 3), ("app:none", 3), ("none:app", 3)])
def test_a_start_that_fails(start: Start, app: str, code: int, arguments: str) -> None:
    server = start(FAILING, app, "--port", "0", *arguments.split(), environment=ENVIRONMENT)
    assert server.wait() == code
    assert_warned_of_nothing(server)


def test_code_that_can_not_be_loaded_yet(start: Start) -> None:
    server = start(FAILING, "none:app", "--port", "0", "--reload", environment=ENVIRONMENT)
    server.wait_for("did not start")
    server.end(signal.SIGINT)
    assert_warned_of_nothing(server)


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_a_file_that_is_not_sent(start: Start, kind: str) -> None:
    server = start(FILES, "app:app", "--port", "0", environment=ENVIRONMENT)
    head = f"GET /{kind} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert b" 500 " in asyncio.run(fetch(server.port, head))
    server.wait_for("longer than Content-Length")
    assert server.end() in (0, -signal.SIGTERM)  # a single process ends as the signal says
    assert_warned_of_nothing(server)
