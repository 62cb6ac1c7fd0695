"""The fuzz targets for a moment, always the same cases; `make fuzz` runs others, for longer and sanitized."""

from random import Random

from fuzz.driver import run_cases
from fuzz.fuzz_clienthello import ClientHelloTarget
from fuzz.fuzz_frames import FramesTarget
from fuzz.fuzz_http1 import HTTP1Target


def test_http1() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(HTTP1Target(), (seeds.getrandbits(48) for _ in range(cases))) == cases


def test_frames() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(FramesTarget(), (seeds.getrandbits(48) for _ in range(cases))) == cases


def test_clienthello() -> None:
    seeds = Random(1)
    cases = 400
    assert run_cases(ClientHelloTarget(), (seeds.getrandbits(48) for _ in range(cases))) == cases
