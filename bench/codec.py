"""What the micro-benchmarks measure: a library's codec, or a whole server, at one input, in one process."""

from collections.abc import Callable
from dataclasses import dataclass

Step = Callable[[], object]


@dataclass(frozen=True)
class Codec:
    """A library at an input."""

    name: str
    library: str
    input: str
    """What is read or written; codecs with the same input are compared."""
    make: Callable[[], Step]
    """Imports the library, checks that it does the work, and gives the step that does it."""
    guarded: bool = False
    """CI fails when the work takes more instructions than recorded; see guard.py."""
    batch: int = 1
    """How often a step does the work; figures are of once."""


def check(works: bool) -> None:
    """Raise ValueError if a codec doesn't do the work: its figure would be of something else."""
    if not works:
        raise ValueError("the codec doesn't give what it should")
