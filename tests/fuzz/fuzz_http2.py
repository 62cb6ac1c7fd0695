"""Any bytes on an HTTP/2 connection end in answers or a close, and in nothing else.

Run by `make fuzz`, and for moments by tests/fuzz/test_fuzz.py.
"""

from random import Random

from fuzz.driver import main
from fuzz.http2_connections import HTTP2Connections
from fuzz.http2_inputs import Script, make_script


class HTTP2Target:
    """Valid frames through connections, split in whatever way; spoilt ones through several at once."""

    def __init__(self) -> None:
        self.connections = HTTP2Connections()

    def run_case(self, seed: int) -> None:
        rng = Random(seed)
        if rng.random() < 0.35:
            self.connections.check_steady(rng, make_script(rng))
            return
        websocket_share = rng.choice([0, 0, 0.1, 0.5])
        reset_share = rng.choice([0, 0, 0.1])
        scripts = [
            make_script(rng, websocket_share, reset_share, rng.choice([0, 0, 1, 1, 2, 4]))
            for _ in range(rng.choice([1, 1, 1, 2, 3]))
        ]
        self.connections.check_scripts(rng, scripts)

    def run_input(self, data: bytes) -> None:
        for seed in range(200):
            self.connections.check_scripts(Random(seed), [Script([data], is_valid=False)])

    def close(self) -> None:
        self.connections.close()


if __name__ == "__main__":
    main(HTTP2Target)
