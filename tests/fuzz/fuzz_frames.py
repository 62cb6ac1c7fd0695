"""Any bytes on a WebSocket connection have one meaning however they arrive, within the limits.

Run by `make fuzz`, and for moments by tests/fuzz/test_fuzz.py.
"""

from array import array
from collections.abc import Iterable
from random import Random

from clientframes import cut
from fuzz.driver import main
from fuzz.frames_inputs import make_settings, make_stream, mutate

from fastasgi.codecs.deflate import DeflateSettings
from fastasgi.codecs.frames import FrameDecoder, FrameEvent

CLOSE_CODES = {*range(1000, 1004), 1005, *range(1007, 1015), *range(3000, 5000)}


def decode(
    pieces: Iterable[bytes], deflate: DeflateSettings | None, max_message_bytes: int
) -> list[FrameEvent]:
    """What is read, up to the first failure."""
    decoder = FrameDecoder(max_message_bytes=max_message_bytes, deflate=deflate)
    events: list[FrameEvent] = []
    for piece in pieces:
        # An array has no byte behind its last one, so that the sanitizer sees any that is read.
        events += decoder.feed(memoryview(array("B", piece)))
        if events and events[-1].kind == "failed":
            assert decoder.feed(piece) == events[-1:]
            break
    return events


def split(rng: Random, data: bytes) -> list[bytes]:
    """The data in pieces, which begin with small ones now and then."""
    end = len(data) if rng.random() < 0.7 else min(len(data), 40)
    return cut(data, [rng.randint(0, end) for _ in range(rng.choice([1, 2, 5, 30]))])


def check_event(event: FrameEvent, max_message_bytes: int) -> None:
    if event.kind == "failed":
        assert event.close_code in (1002, 1007, 1009)
        assert event.close_reason
    elif event.kind == "close":
        assert event.close_code in CLOSE_CODES
    elif event.kind in ("ping", "pong"):
        assert isinstance(event.data, bytes)
        assert len(event.data) <= 125
    else:
        data = event.data.encode() if isinstance(event.data, str) else event.data
        assert not max_message_bytes or len(data) <= max_message_bytes


def check_splits(rng: Random, data: bytes, deflate: DeflateSettings | None, max_message_bytes: int) -> None:
    """One outcome of the data in whatever pieces it comes."""
    events = decode([data], deflate, max_message_bytes)
    for event in events:
        check_event(event, max_message_bytes)
    assert all(event.kind not in ("failed", "close") for event in events[:-1])
    for _ in range(3):
        others = decode(split(rng, data), deflate, max_message_bytes)
        if deflate is not None and events and events[-1].kind == "failed":
            # zlib may see what is wrong with a stream before or behind the byte that is too much.
            assert others[:-1] == events[:-1]
            assert others[-1].kind == "failed"
        else:
            assert others == events


class FramesTarget:
    """Streams of frames through the codec: as they should be, spoilt, and any bytes."""

    def run_case(self, seed: int) -> None:
        rng = Random(seed)
        settings = make_settings(rng)
        if rng.random() < 0.4:
            data, events = make_stream(rng, settings)
            assert decode([data], settings, 0) == decode(split(rng, data), settings, 0) == events
            return
        data, _ = make_stream(rng, settings)
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            data = mutate(rng, data)
        check_splits(rng, data, settings, rng.choice([0, 0, 1, 100, 1000, 66_000]))

    def run_input(self, data: bytes) -> None:
        for seed in range(50):
            for settings in (None, DeflateSettings(), DeflateSettings(client_no_context_takeover=True)):
                check_splits(Random(seed), data, settings, 1000)

    def close(self) -> None:
        """Nothing is shared."""


if __name__ == "__main__":
    main(FramesTarget)
