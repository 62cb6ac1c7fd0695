"""The clock of locust's users."""

import json
import subprocess
import sys
import textwrap

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


@linux
def test_at_a_fixed_rate_an_answer_is_seen_in_the_next_turn_of_the_loop() -> None:
    command = [sys.executable, "-c", textwrap.dedent(RATED)]
    done = subprocess.run(command, env=WITH_BENCH, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    # Some readings of the clock are the sending's own.
    assert max(json.loads(done.stdout)) < 10
