"""The gunicorn worker class, in gunicorn processes: what is logged, and where."""

import re
import signal
import socket
from pathlib import Path

import pytest
from gunicornprocess import ACCESS_APP, Start, custom, exchange, write_module
from serving import WAIT_S, wait_until

# Logs


@pytest.mark.parametrize(
    ("loggers", "prefix"),
    [
        ("{}", r"\[.*\] \[INFO\] "),
        ("{'fastasgi.error': {'handlers': ['own'], 'propagate': False}}", "own "),
    ],
)
def test_the_servers_lines_go_to_gunicorns_log_or_to_handlers_of_their_own(
    start: Start, loggers: str, prefix: str
) -> None:
    conf = f"""
        logconfig_dict = {{
            "version": 1,
            "formatters": {{"own": {{"format": "own %(message)s"}}}},
            "handlers": {{"own": {{"class": "logging.StreamHandler", "formatter": "own"}}}},
            "loggers": {loggers},
            "root": {{"handlers": ["own"]}},
        }}
    """
    gunicorn = start(conf=conf)
    gunicorn.workers()
    [line] = gunicorn.matches(".*Application startup complete.*")
    assert re.fullmatch(prefix + r"Application startup complete\.", line)


class Access:
    """A gunicorn that writes one file of access lines, in this format."""

    def __init__(self, start: Start, line_format: str, *arguments: str, **sources: str) -> None:
        self.file = None
        arguments = ("--access-logfile", "access", "--access-logformat", line_format, *arguments)
        self.gunicorn = start(*arguments, app=ACCESS_APP, **sources)
        self.gunicorn.workers()
        self.file = self.gunicorn.folder / "access"

    def lines(self, count: int) -> list[str]:
        """All lines, once there are so many."""
        return wait_until(lambda: len(found := self.file.read_text().splitlines()) >= count and found)

    def send(self, data: bytes) -> bytes:
        """Send bytes on a connection of its own, read to its end."""
        with self.gunicorn.connect() as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def ask(self, path: str, method: str = "GET", fields: str = "") -> bytes:
        return self.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n".encode())


def test_access_log_as_gunicorn_has_it(start: Start) -> None:
    gunicorn = start("--access-logfile", "-", app=ACCESS_APP)
    credentials = {"authorization": "Basic dXNlcjpzZWNyZXQ=", "referer": "http://r/", "user-agent": 'a"b'}
    assert exchange(gunicorn.port, "/ok/%41?c=d", credentials)[0] == 200
    day = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    gunicorn.wait_for(rf'^127\.0\.0\.1 - user {day} "GET /ok/%41\?c=d HTTP/1\.1" 200 5 "http://r/" "a\\"b"$')


def test_no_access_log_unless_asked_for(start: Start) -> None:
    gunicorn = start(app=ACCESS_APP)
    assert exchange(gunicorn.port, "/ok")[0] == 200
    assert gunicorn.end() == 0
    assert not gunicorn.matches("/ok.*200")


ATOMS = "%(m)s %(U)s %(q)s %(s)s %(B)s %(b)s %(H)s %({x-req}i)s %({x-res}o)s %({http_x_req}e)s %({raw_uri}e)s"


def test_atoms(start: Start) -> None:
    access = Access(start, ATOMS + " %(p)s %(T)s %(M)s %(D)s %(L)s %({remote_port}e)s")
    access.ask("/ok/%C3%A4?c=d", fields="X-Req: in\r\n")
    [line] = access.lines(1)
    [worker] = access.gunicorn.workers()
    expected = (
        rf"GET /ok/ä c=d 200 5 5 HTTP/1\.1 in out in /ok/%C3%A4\?c=d <{worker}> 0 \d+ \d+ 0\.\d{{6}} \d+"
    )
    assert re.fullmatch(expected, line), line


def test_each_response_is_logged_once_with_what_was_sent(start: Start) -> None:
    access = Access(start, "%(m)s %(U)s %(s)s %(B)s %(b)s")
    for path in ("/ok", "/length", "/empty", "/fail", "/start", "/nothing", "/cut", "/refused"):
        access.ask(path, method="HEAD" if path == "/length" else "GET")
    for path in ("/pathsend", "/zerocopysend", "/trailers", "/background"):
        access.ask(path)
    access.gunicorn.wait_for("background: logged")
    assert access.gunicorn.end() == 0
    assert access.lines(12) == [
        "GET /ok 200 5 5",
        "HEAD /length 200 0 0",
        "GET /empty 204 0 0",
        "GET /fail 500 None -",
        "GET /start 500 None -",
        "GET /nothing 500 None -",
        "GET /cut 200 3 3",
        "GET /refused 201 1 1",
        "GET /pathsend 200 None -",
        "GET /zerocopysend 200 7 7",
        "GET /trailers 200 2 2",
        "GET /background 200 1 1",
    ]


def test_what_nobody_took_is_logged_so(start: Start) -> None:
    access = Access(start, "%(U)s %(s)s")
    gunicorn = access.gunicorn
    for path in ("/leave", "/leave/send", "/blind", "/download"):
        with gunicorn.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            gunicorn.wait_for(f"^begins {path}$")
            if path == "/download":
                assert client.recv(65536)
    access.ask("/ok")  # by now the worker has noticed that they left
    (gunicorn.folder / "release").touch()
    gunicorn.wait_for("blind: sent")
    with gunicorn.connect() as client:
        client.sendall(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n")
        gunicorn.wait_for("^begins /forever$")
        assert gunicorn.end(signal.SIGINT) == 0
    gunicorn.wait_for("forever: cancelled")
    # To a client that has closed in order a first write succeeds: it might only have ended its sending side.
    # What the end of the server cuts off is not logged.
    assert sorted(access.lines(3)) == ["/blind 200", "/download 499", "/ok 200"]
    assert not gunicorn.matches("Traceback")


def test_no_request_writes_a_line_of_its_own(start: Start) -> None:
    access = Access(start, "%(U)s %(q)s %({x-req}i)s")
    access.send(
        "GET /ok/%0aFORGED%1b[0m?%0a HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-req: \x85\r\n\r\n".encode(
            "latin-1"
        )
    )
    assert access.lines(1) == [r"/ok/\x0aFORGED\x1b[0m %0a \x85"]


def test_refusals_of_long_fields_are_logged(start: Start) -> None:
    access = Access(start, "%(U)s %(s)s %(B)s", "--limit-request-field_size", "50")
    access.ask("/ok", fields=f"name: {'x' * 50}\r\n")
    assert access.lines(1) == ["/ok 431 31"]


def test_a_unix_socket_has_no_address_to_log(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    access = Access(start, "%(h)s %({server_name}e)s %(s)s", "-b", f"unix:{path}")
    assert exchange(path, "/ok")[0] == 200
    assert access.lines(1) == [f"- {path} 200"]


def test_the_servers_own_access_log_takes_the_place_of_gunicorns(start: Start) -> None:
    conf = custom("{'access_log': True, 'access_log_format': '{method} {path} {status}'}")
    access = Access(start, "gunicorn's", "-k", "custom.Custom", conf=conf)
    access.ask("/ok")
    assert access.lines(1) == ["GET /ok 200"]
    assert access.gunicorn.end() == 0
    assert access.lines(1) == ["GET /ok 200"]


LOGGERS = """
    import logging
    from gunicorn.glogging import Logger

    class OwnAtoms(Logger):
        def atoms(self, resp, req, environ, request_time):
            atoms = super().atoms(resp, req, environ, request_time)
            return atoms | {"m": f"{req.method} {dict(req.headers)['X-REQ']} {req.path} {req.version}"}

    class OwnAccess(Logger):
        def access(self, resp, req, environ, request_time):
            response = [resp.status, resp.status_code, resp.sent]
            print("own", *response, req.uri, req.query, request_time.total_seconds() < 5, flush=True)

    class Broken(Logger):
        def access(self, resp, req, environ, request_time):
            raise ValueError("broken access")

    class Duck:
        def __init__(self, cfg):
            self.cfg = cfg
        def setup(self, cfg):
            pass
        def access(self, resp, req, environ, request_time):
            print("quack", resp.status, flush=True)
        def critical(self, text, *args, **kwargs):
            print(text, args, kwargs, flush=True)
        error = warning = info = debug = exception = critical
        def reopen_files(self):
            pass
        def close_on_exec(self):
            pass
"""


def test_a_logger_class_with_atoms_of_its_own(start: Start) -> None:
    access = Access(
        start, "%(m)s", "--logger-class", "loggers.OwnAtoms", conf=write_module("loggers", LOGGERS)
    )
    access.ask("/ok?c=d", fields="x-req: in\r\n")
    assert access.lines(1) == ["GET in /ok (1, 1)"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("OwnAccess", r"^own 200 OK 200 5 /ok\?c=d c=d True$"),
        ("Broken", r"Exception in the access log\nTraceback(.|\n)*ValueError: broken access$"),
        ("Duck", "^quack 200 OK$"),
    ],
)
def test_a_logger_class_of_ones_own(start: Start, name: str, line: str) -> None:
    # Its access() is called without an access log too, as gunicorn's other workers do
    conf = write_module("loggers", LOGGERS)
    gunicorn = start("--logger-class", f"loggers.{name}", app=ACCESS_APP, conf=conf)
    assert exchange(gunicorn.port, "/ok?c=d") == (200, "12345")
    gunicorn.wait_for(line)
    gunicorn.wait_for("appears unsupported")  # the server's own lines


def test_statsd(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(WAIT_S)
        gunicorn = start("--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}", app=ACCESS_APP)
        assert exchange(gunicorn.port, "/fail")[0] == 500
        wanted = {
            b"gunicorn.requests:1|c|@1.0",
            b"gunicorn.request.status.500:1|c|@1.0",
            b"gunicorn.log.error:1|c|@1.0",
        }
        while wanted:
            wanted.discard(statsd.recv(65536))
