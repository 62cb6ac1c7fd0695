"""Any bytes on an HTTP/1 connection end in an answer or a close: the codecs alone, and whole connections.

Run by `make fuzz`, and for moments by tests/fuzz/test_fuzz.py.
"""

from random import Random

from fuzz.driver import main
from fuzz.http1_codecs import check_chunked_body, check_heads
from fuzz.http1_connections import HTTP1Connections
from fuzz.http1_inputs import make_stream, split


class HTTP1Target:
    """Heads and chunked bodies through the codecs, streams through connections."""

    def __init__(self) -> None:
        self.connections = HTTP1Connections()

    def run_case(self, seed: int) -> None:
        rng = Random(seed)
        kind = rng.random()
        # In some cases only: the first handshake that is accepted ends the requests of its stream.
        handshake_share = rng.choice([0.1, 0.5]) if 0.5 < kind < 0.7 else 0
        data = make_stream(rng, handshake_share)
        if kind < 0.2:
            check_heads(rng, data)
            check_chunked_body(rng, data[rng.randint(0, len(data)) :])
        elif kind < 0.6:
            self._check_steady(rng, data)
        else:
            streams = [split(rng, data)]
            streams += [
                split(rng, make_stream(rng, handshake_share)) for _ in range(rng.choice([0, 0, 1, 2]))
            ]
            self.connections.check_chaos(rng, streams)

    def _check_steady(self, rng: Random, data: bytes) -> None:
        # A malformed line is refused at its end at the latest: so that it has one.
        data += b"\r\n\r\n"
        self.connections.check_steady(rng, data, split(rng, data))

    def run_input(self, data: bytes) -> None:
        for seed in range(200):
            rng = Random(seed)
            check_heads(rng, data)
            check_chunked_body(rng, data)
            self._check_steady(rng, data)
            self.connections.check_chaos(rng, [split(rng, data)])

    def close(self) -> None:
        self.connections.close()


if __name__ == "__main__":
    main(HTTP1Target)
