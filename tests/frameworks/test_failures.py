"""Applications that raise under the middlewares that their framework is used with.

Whatever it is, the process serves on, and its log tells of it once. The application of a framework, in the
folder ``apps``, has these URLs; each ends in a mark, which the failure carries:

- GET /good/{mark}: "good", and "good {mark}" to stderr
- GET /raise/{kind}/{mark}: raises at once, by its kind: "error", "group", "cancelled" ("cancelled") or "exit"
- GET /raise-later/{kind}/{mark} ("later"): the same after a turn of the event loop
- GET /raise-in-thread/{kind}/{mark} ("thread"): the same in a thread
- GET /stream/{where}/{mark}: a body that raises at its "first" piece, in the "middle", or, "sized", in the
  middle of what its content-length says; compressed where the client takes it ("compression")
- GET /background/{mark} ("background"): "done"; what runs after the response raises
- WebSocket /websocket/{when}/{kind}/{mark} ("websocket"): raises "before" it accepts ("handshake"), or
  "after" it has accepted and sent "in"

Where the environment has ``FAILS_IN``, the start-up or the shutdown raises ("lifespan").

The names in brackets are features, which a framework may lack. Where it makes something of a failure that the
server alone would not, its module says so. ``ANSWERS`` has what the client sees instead, or all that it may
see, as versions of the framework differ; ``SILENT`` has what the framework may tell nobody. Both go by the
URL's path without the mark, with the coding behind a blank.
"""

import http.client
import itertools
import re
import signal
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from serving import WAIT_S, ServerProcess
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

APPLICATIONS = "*_failing.py"

KINDS = ["error", "group", pytest.param("cancelled", marks=pytest.mark.needs("cancelled")), "exit"]
STARTUP_FAILURE = 3

# Failures that were lost, or that Python or the event loop had to report. CPython 3.13 reports each GzipFile
# that Litestar leaves open where a body raises.
FORBIDDEN = re.compile(
    r"never retrieved|never awaited|[Ee]xception (?:was )?ignored(?! in: <gzip )"
    r"|Fatal Python error|Fatal error|Exception in (?:callback|the access log)|could not be handled"
)
TRACEBACK = r"(?:[A-Z]+: +)?(?:  \+ Exception Group )?Traceback \(most recent call last\):\n"
LINK = (
    r"(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\n"
)

numbers = itertools.count(1)


def chains(log: str) -> list[str]:
    """Each traceback with those of what the exception grew out of, and with what was logged after it."""
    return re.split(f"(?m)^{TRACEBACK}", re.sub(f"(?m)^{LINK}{TRACEBACK}", "", log))[1:]


def count_of(mark: str, log: str) -> int:
    """How many of them tell of an exception with the mark."""
    carrier = re.compile(rf"(?m)^[ |]*[\w.]+: {mark}(?: \(\d+ sub-exceptions?\))?$")
    return sum(carrier.search(chain) is not None for chain in chains(log))


def servers_own(log: str) -> list[str]:
    """The tracebacks that no frame of an application or a framework is in."""
    found = []
    for text in re.findall(r"Traceback \(most recent call last\):\n(?:[ |]*  .*\n)+[ |]*\w.*", log):
        files = re.findall(r'File "(.*?)"', text)
        if all(re.search("(?:^|/)(?:fastasgi|uvloop|asyncio)/", file) for file in files):
            found.append(text)
    return found


def traceback_of(error: Exception, cause: Exception | None = None) -> str:
    try:
        raise error from cause
    except Exception:
        return traceback.format_exc()


def test_tracebacks_are_counted_by_what_was_logged() -> None:
    group = ExceptionGroup("mark-1", [RuntimeError("mark-2")])
    traceback_of(group)
    error = ValueError("mark-3")
    first, second = traceback_of(error, group), traceback_of(ExceptionGroup("mark-4", [error]))
    log = f"INFO:     mark-1\nERROR:    Oops\n{first}mark-1\nOops\n{second}GET /raise/mark-2\n"
    assert [count_of(f"mark-{number}", log) for number in range(1, 6)] == [2, 2, 2, 1, 0]
    assert servers_own(log) == []


def test_a_traceback_of_the_server_is_told_from_one_that_it_has_logged() -> None:
    head = 'Traceback (most recent call last):\n  File "fastasgi/wires/http1.pyx", line 1, in read\n'
    assert len(servers_own(f"{head}AttributeError: no\n")) == 1
    assert len(servers_own(f'{head}  File "/x/uvloop/loop.pyx", line 2, in run\nAttributeError\n')) == 1
    assert servers_own(f'{head}  File "/x/app.py", line 2, in app\n    fail()\nRuntimeError: yes\n') == []


class Failing:
    """The server of an application, and the marks of the failures that its log has to tell of."""

    def __init__(self, application: Any, process: ServerProcess) -> None:
        self.application, self.process, self.port = application, process, process.port
        self._marks: dict[str, bool] = {}  # each with whether it may be missing

    def check_answer(self, answer: int | str, case: str, usual: int | str) -> None:
        allowed = self.application.constants.get("ANSWERS", {}).get(case, usual)
        assert answer in (allowed if isinstance(allowed, set) else {allowed})

    def check(self, case: str, mark: str, kept: http.client.HTTPConnection | None = None) -> None:
        """The log tells of the case's failure, and the server serves on, also on a connection it kept."""
        self._marks[mark] = is_silent = case in self.application.constants.get("SILENT", ())
        if kept is not None:
            self.check_good(kept, mark)
        fresh = self.connect()
        self.check_good(fresh, mark)
        fresh.close()
        if not is_silent:
            self.process.wait_for(f": {mark}\\b")
        # What stands before these lines is here, and a second report would be too
        self.process.wait_for(f"(?m)^good {mark}$")
        assert self._misreported({mark: is_silent}) == {}, self.process.log

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.auto_open = False
        connection.connect()
        return connection

    def check_good(self, connection: http.client.HTTPConnection, mark: str) -> None:
        connection.request("GET", f"/good/{mark}")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"good")

    def check_end(self) -> None:
        """The process ends as it should, and nothing more has come into its log."""
        last = self.connect()
        self.check_good(last, "last")
        last.close()
        assert self.process.end() == -signal.SIGTERM, self.process.log
        assert self._misreported(self._marks) == {}, self.process.log
        check_log(self.process.log)

    def _misreported(self, marks: dict[str, bool]) -> dict[str, int]:
        """How often the log tells of a failure, where that isn't once."""
        counts = {mark: count_of(mark, self.process.log) for mark in marks}
        return {mark: n for mark, n in counts.items() if n != 1 and not (n == 0 and marks[mark])}


def check_log(log: str) -> None:
    assert FORBIDDEN.findall(log) == []
    assert servers_own(log) == []


@pytest.fixture(scope="module")
def server(application: Any) -> Iterator[Failing]:
    process = application.serve()
    try:
        failing = Failing(application, process)
        yield failing
        failing.check_end()
    finally:
        process.close()


def check_get(server: Failing, path: str, usual: str, coding: str = "identity") -> http.client.HTTPResponse:
    """The answer to a GET is what it has to be, a status, "cut off" or "whole"; then Failing.check()."""
    mark = f"mark-{next(numbers)}"
    case = path if coding == "identity" else f"{path} {coding}"
    connection = server.connect()
    try:
        # Without an origin a CORS middleware only passes on
        headers = {"accept-encoding": coding, "origin": "http://elsewhere.example"}
        connection.request("GET", f"{path}/{mark}", headers=headers)
        response = connection.getresponse()
        closes = response.will_close
        try:
            response.read()
        except http.client.IncompleteRead:
            closes, answer = True, "cut off"
        else:
            answer = "whole" if response.status == 200 else str(response.status)
        server.check_answer(answer, case, usual)
        server.check(case, mark, None if closes else connection)
    finally:
        connection.close()
    return response


@pytest.mark.needs("http")
@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_that_raises(server: Failing, kind: str) -> None:
    check_get(server, f"/raise/{kind}", "500")


@pytest.mark.needs("later")
@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_that_raises_later(server: Failing, kind: str) -> None:
    check_get(server, f"/raise-later/{kind}", "500")


@pytest.mark.needs("thread")
@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_that_raises_in_a_thread(server: Failing, kind: str) -> None:
    check_get(server, f"/raise-in-thread/{kind}", "500")


# What a body's first piece raises is still answered with a 500, since the head waits for that piece
STREAMS = [("first", "500"), ("middle", "cut off"), ("sized", "cut off")]


@pytest.mark.needs("http")
@pytest.mark.parametrize(("where", "answer"), STREAMS)
def test_a_body_that_raises(server: Failing, where: str, answer: str) -> None:
    check_get(server, f"/stream/{where}", answer)


@pytest.mark.needs("compression")
@pytest.mark.parametrize(("where", "answer"), STREAMS)
def test_a_compressed_body_that_raises(server: Failing, where: str, answer: str) -> None:
    response = check_get(server, f"/stream/{where}", answer, "gzip")
    if where != "first":
        assert response.headers["content-encoding"] == "gzip"


@pytest.mark.needs("background")
def test_what_runs_after_the_response_raises(server: Failing) -> None:
    """The response was whole, so its connection serves on: check_get() finds out."""
    assert not check_get(server, "/background", "whole").will_close


@pytest.mark.needs("websocket")
@pytest.mark.needs("handshake")
@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_that_raises_before_it_is_accepted(server: Failing, kind: str) -> None:
    case, mark = f"/websocket/before/{kind}", f"mark-{next(numbers)}"
    with pytest.raises(InvalidStatus) as caught, open_websocket(server, case, mark):
        pass
    server.check_answer(caught.value.response.status_code, case, 500)
    server.check(case, mark)


@pytest.mark.needs("websocket")
@pytest.mark.parametrize("kind", KINDS)
def test_a_websocket_that_raises_after_it_is_accepted(server: Failing, kind: str) -> None:
    case, mark = f"/websocket/after/{kind}", f"mark-{next(numbers)}"
    with open_websocket(server, case, mark) as client:
        assert client.recv(WAIT_S) == "in"
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(WAIT_S)
    assert caught.value.rcvd is not None
    server.check_answer(caught.value.rcvd.code, case, 1011)
    server.check(case, mark)


def open_websocket(server: Failing, path: str, mark: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}/{mark}", proxy=None, open_timeout=WAIT_S)


@pytest.mark.needs("lifespan")
def test_a_startup_that_raises(application: Any) -> None:
    process = application.serve(FAILS_IN="startup")
    try:
        assert process.wait() == STARTUP_FAILURE, process.log
        assert count_of("mark-startup", process.log) == len(chains(process.log)) == 1
        assert "running on" not in process.log
        check_log(process.log)
    finally:
        process.close()


@pytest.mark.needs("lifespan")
def test_a_shutdown_that_raises(application: Any) -> None:
    process = application.serve(FAILS_IN="shutdown")
    try:
        process.wait_for("running on")
        assert process.end() == -signal.SIGTERM, process.log
        assert count_of("mark-shutdown", process.log) == len(chains(process.log)) == 1
        assert "Finished server process" in process.log
        check_log(process.log)
    finally:
        process.close()
