"""locust's users: their clock, and how they move bytes."""

import json
import subprocess
import sys
import textwrap
from typing import Any

from benchparts import SIMPLE, WAIT_S, WITH_BENCH, linux

# The clock of a rated user ticks when it is read, once for each turn of its loop, and not with time: a
# latency is a number of turns. Answers are there as soon as a request is sent.
RATED = """
    from bench import users  # patches for gevent: first
    import json, socket
    from bench.recorder import Recorder

    ticks, mine = 0, []
    def now():
        global ticks
        ticks += 1
        return ticks / 1e5

    class Target(users.Target):
        def connect(self):
            client, server = socket.socketpair()
            client.setblocking(False)
            mine.append(server)
            return client

    class Link(users.Link):
        def send(self, data):
            super().send(data)
            mine[-1].recv(65536)
            mine[-1].sendall(ANSWER)

    class Counting(Recorder):
        def answered(self, latency_s, *rest):
            super().answered(latency_s, *rest)
            latencies.append(round(latency_s * 1e5))

    latencies = []
    users.now, users.Link = now, Link
    users.RatedUser.target = Target({"address": ("", 0), "rate": 500, "request": "GET"}, Counting())
    user = users.gevent.spawn(users.RatedUser.work, users.RatedUser(None))
    while len(latencies) < 20:
        users.gevent.sleep(0.01)
    print(json.dumps(latencies))
""".replace("ANSWER", repr(SIMPLE))


# A connection over TLS whose records are one after the other in the library, then there is no more for now.
RECORDS = """
    from bench import users  # patches for gevent: first
    import json, socket, ssl

    class Client:
        def __init__(self):
            self.socket, self.records = socket.socketpair()[0], [b"one", b"two", None, b"end", b""]
        def fileno(self):
            return self.socket.fileno()
        def recv(self, size):
            record = self.records.pop(0) if self.records else b""
            if record is None:
                raise ssl.SSLWantReadError
            return record
        def close(self):
            pass

    came = []
    note = lambda data: came.append(data.decode())
    link = users.Link(Client(), note, lambda error: came.append(str(error)))
    link._tls = True
    for _ in range(3):
        link._read()
    print(json.dumps(came))
"""
# What a full buffer of the kernel keeps goes before what is sent later.
TWICE = """
    from bench import users  # patches for gevent: first
    import json, socket
    client, server = socket.socketpair()
    client.setblocking(False)
    link = users.Link(client, None, None)
    long = bytes(1 << 22)
    for data in (long, b"a", b"b"):
        link.send(data)
    received = b""
    while len(received) < len(long) + 2:
        users.gevent.sleep(0)
        received += server.recv(1 << 20)
    print(json.dumps(received == long + b"ab"))
"""


def said_by(source: str) -> Any:
    """The JSON that a Python source prints."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, env=WITH_BENCH, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@linux
def test_all_records_of_tls_that_came_are_taken_at_once() -> None:
    assert said_by(RECORDS) == ["onetwo", "end", "connection closed by the server"]


@linux
def test_what_is_sent_while_the_kernels_buffer_is_full_follows() -> None:
    assert said_by(TWICE) is True


@linux
def test_at_a_fixed_rate_an_answer_is_seen_in_the_next_turn_of_the_loop() -> None:
    # Some readings of the clock are the sending's own.
    assert max(said_by(RATED)) < 10
