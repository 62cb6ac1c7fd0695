"""The load generator, a process of its own: ``python -m bench.generator``, locust used as a library.

Its standard input is a line of JSON, the job. Once all users are at work and warm it writes ``ready``. A
line ``go`` opens the window that is measured, ``stop`` closes it; the answer is a line of JSON, see
Recorder.close. The load goes on until the end of input, or of the process.
"""

# It patches the standard library for gevent: first of all.
from locust import FastHttpUser  # isort: skip

# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-call"

import json
import os
from typing import Any

import gevent
from gevent.os import tp_read
from locust.env import Environment

from bench import users
from bench.recorder import Recorder

CONNECT_DEADLINE_S = 60
READ_BYTES = 1 << 16


class Lines:
    """The lines of standard input, read while the loop goes on."""

    def __init__(self) -> None:
        self._held = b""

    def read(self) -> str:
        """The next line. Empty at the end of input."""
        pieces = [self._held]
        while b"\n" not in pieces[-1]:
            piece: bytes = tp_read(0, READ_BYTES)
            if not piece:
                return ""
            pieces.append(piece)
        line, _, self._held = b"".join(pieces).partition(b"\n")
        return line.decode().strip()


def prepare(job: dict[str, Any], recorder: Recorder) -> Environment:
    """locust's environment with the user class of the job."""
    user_class = users.KINDS[job["kind"]]
    user_class.target = users.Target(job, recorder)
    scheme = "https" if job.get("tls") else "http"
    host, port = job["address"]
    environment = Environment(user_classes=[user_class], host=f"{scheme}://{host}:{port}")
    if issubclass(user_class, FastHttpUser):
        user_class.insecure = True

        def note(response_time: float, response_length: int, exception: Exception | None, **_: Any) -> None:
            if exception:
                recorder.failed(str(exception))
            else:
                recorder.answered(response_time / 1e3, 1, response_length)

        environment.events.request.add_listener(note)
    return environment


def main() -> None:
    """Do the job of standard input."""
    lines = Lines()
    job = json.loads(lines.read())
    recorder = Recorder()
    environment = prepare(job, recorder)
    runner = environment.create_local_runner()
    connections = job["connections"]
    if job["kind"] == "rated":
        users.RatedUser.connections, connections = connections, 1
    runner.start(connections, spawn_rate=max(connections, 1))
    with gevent.Timeout(CONNECT_DEADLINE_S, False):
        while runner.user_count < connections or (job["joins"] and recorder.joined < connections):
            # Users try again, ten times a second: some failures may pass, so many don't.
            if recorder.refusal or recorder.failures.total() > 10 + connections:
                break
            gevent.sleep(0.01)
    gevent.sleep(job["warmup_s"])
    print("ready", flush=True)
    if lines.read() == "go":
        recorder.open()
        if lines.read() == "stop":
            print(json.dumps(recorder.close()), flush=True)
            # The load goes on, until the parent has taken the server's memory and ends this process.
            lines.read()
    # The connections end with the process; to end each user in turn would take longer and show nothing.
    os._exit(0)


if __name__ == "__main__":
    main()
