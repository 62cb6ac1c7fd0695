"""The table of an HTTP/2 connection's streams, against a dict."""

from hypothesis import given
from hypothesis import strategies as st

from fastasgi.wires.streamtable import _drive

FIRST_SLOTS = 8
# Identifiers that ascend, as a client's, and some that meet in one slot
identifiers = st.one_of(
    st.integers(1, 64), st.integers(0, 40).map(lambda n: 1 + 2 * FIRST_SLOTS * n), st.integers(1, 2**31 - 1)
)
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "find"]), identifiers), max_size=200)


@given(steps)
def test_it_finds_what_a_dict_finds(steps: list[tuple[str, int]]) -> None:
    model: dict[int, object] = {}
    driven: list[object] = []
    expected = []
    for kind, number in steps:
        if kind == "add" and number not in model:
            model[number] = object()
            driven.append((number, model[number]))
        elif kind == "remove":
            model.pop(number, None)
            driven.append(~number)
        else:
            expected.append(model.get(number))
            driven.append(number)
    found, streams = _drive(driven)
    assert found == expected
    assert len(streams) == len(model)
    assert set(map(id, streams)) == set(map(id, model.values()))


def test_it_shrinks_when_the_last_stream_is_removed() -> None:
    many = range(1, 401, 2)
    found, streams = _drive([(n, n) for n in many] + [~n for n in many] + [(7, "seven"), 7, 9])
    assert (found, streams) == (["seven", None], ["seven"])
