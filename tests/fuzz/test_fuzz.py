"""The fuzz targets for a moment, always the same cases; `make fuzz` runs others, for longer and sanitized."""

from random import Random

import pytest
from fuzz.driver import run_cases
from fuzz.fuzz_clienthello import ClientHelloTarget
from fuzz.fuzz_frames import FramesTarget
from fuzz.fuzz_hpack import HPACKTarget
from fuzz.fuzz_http1 import HTTP1Target
from fuzz.fuzz_http2 import HTTP2Target


def test_http1() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(HTTP1Target(), (seeds.getrandbits(48) for _ in range(cases))) == cases


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(276314557665031, id="a stream that answers HEAD, of which nothing is seen on the wire"),
        pytest.param(144012295482639, id="a handshake with a chunked body and no version"),
        pytest.param(264052771058774, id="the same with 100-continue, behind Upgrade without Connection"),
        pytest.param(108650251178657, id="HEAD with a malformed body, refused without a body"),
    ],
)
def test_http1_cases(seed: int) -> None:
    # What a seed stands for changes with the draws of http1_inputs: new inputs should get cases of their own.
    assert run_cases(HTTP1Target(), [seed]) == 1


def test_http2() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(HTTP2Target(), (seeds.getrandbits(48) for _ in range(cases))) == cases


def test_frames() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(FramesTarget(), (seeds.getrandbits(48) for _ in range(cases))) == cases


def test_clienthello() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(ClientHelloTarget(), (seeds.getrandbits(48) for _ in range(cases))) == cases


def test_hpack() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(HPACKTarget(), (seeds.getrandbits(48) for _ in range(cases))) == cases
