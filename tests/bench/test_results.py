"""The results of a run, as they are read back."""

from pathlib import Path

import pytest
from benchparts import results_of

from bench import results as store
from bench.command import main


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    store.save(tmp_path, results_of(format=99))
    with pytest.raises(ValueError, match="format 99"):
        store.load(tmp_path)
    assert main(["summary", str(tmp_path)]) == 1
