"""One client of one server, before the load: is it up, and does it do the work that is to be measured?"""

import socket
import ssl
import subprocess
import time
from pathlib import Path

from bench import http2, websocket
from bench.clients import Address
from bench.errors import BenchError, UnsupportedError
from bench.processes import last_line
from bench.responses import ResponseCounter, ResponseError
from bench.workloads import Workload

START_S = 30.0
ANSWER_S = 10.0
POLL_S = 0.002
USAGE = 2


class ProbeError(BenchError):
    """The server doesn't start, or answers something else than the workload expects."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_free(port: int) -> None:
    """Raise ProbeError if something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ProbeError(
                f"port {port} is occupied ({error.strerror}): choose another --port, or 0"
            ) from None


def connect(address: Address, work: Workload) -> socket.socket:
    """A connection with a deadline for each step. Raises OSError."""
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        client.settimeout(ANSWER_S)
        client.connect(address)
        if not work.tls:
            return client
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if work.http2:
            context.set_alpn_protocols(["h2"])
        return context.wrap_socket(client)
    except BaseException:
        client.close()
        raise


def check_answer(address: Address, work: Workload) -> None:
    """Make one request of the workload.

    Raises OSError, ProbeError, or UnsupportedError for a refused handshake, or a server without HTTP/2.
    """
    with connect(address, work) as client:
        if work.kind == "websocket":
            client.sendall(websocket.build_handshake(work.path))
            answer = b""
            while websocket.read_handshake(answer) is None:
                answer += _read(client)
            return
        counter: ResponseCounter | http2.StreamCounter
        if work.http2:
            _, request = http2.Requests(work.path, tls=work.tls).open(1)
            client.sendall(http2.build_preface() + request)
            counter = http2.StreamCounter()
        else:
            client.sendall(work.request)
            counter = ResponseCounter()
        answer = b""
        try:
            complete = False
            while not complete:
                data = _read(client)
                answer += data
                complete = bool(counter.feed(data))
        except ResponseError as error:
            raise ProbeError(f"{work.path}: {error}") from None
        if work.expect not in answer:
            raise ProbeError(f"{work.path} answers {answer[-60:]!r}, without {work.expect[:40]!r}")


def _read(client: socket.socket) -> bytes:
    data = client.recv(1 << 18)
    if not data:
        raise ConnectionError("connection closed by the server")
    return data


def wait_until_up(
    process: subprocess.Popen[str], address: Address, work: Workload, log: Path, started: float
) -> float:
    """Seconds from `started` (time.monotonic) to the first good answer of a server that is starting.

    Raises ProbeError, or UnsupportedError if the server refuses its settings as wrong usage.
    """
    reason = "it does not listen"
    while time.monotonic() - started < START_S:
        code = process.poll()
        if code is not None:
            raise end_of(code, work, log)
        try:
            check_answer(address, work)
        except (ConnectionRefusedError, FileNotFoundError):
            time.sleep(POLL_S)
        except OSError as error:
            reason = str(error)
            time.sleep(POLL_S)
        else:
            return time.monotonic() - started
    raise ProbeError(f"no answer within {START_S:.0f} s: {reason}; its log: {last_line(log)}")


def end_of(code: int, work: Workload, log: Path) -> BenchError:
    """Why a server has ended before it answered.

    If the workload asks for a feature, wrong usage (exit code 2), or a message which says that something
    is not supported, is the server's word that it lacks the feature.
    """
    if (work.tls or work.http2 or work.uds or work.workers > 1) and (
        code == USAGE or "not supported" in last_line(log)
    ):
        return UnsupportedError(f"it refuses the settings: {last_line(log)}")
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return ProbeError(f"ended at its start with {how}: {last_line(log)}")
