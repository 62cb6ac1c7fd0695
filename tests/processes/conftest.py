"""What the tests of processes start."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import processes_in
from supervised import APP, Supervised


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts a supervisor: ``run(*arguments, source=...)``. What it has started ends with the test."""
    started: list[Supervised] = []

    def run(*arguments: str, source: str = APP, environment: dict[str, str] | None = None) -> Supervised:
        (tmp_path / "app.py").write_text(source)
        binds = (
            ()
            if any(name.startswith(("--uds", "--bind", "--fd", "--port")) for name in arguments)
            else ("--port", "0")
        )
        started.append(
            Supervised(tmp_path, "app:app", "--no-access-log", *binds, *arguments, environment=environment)
        )
        return started[-1]

    run.folder = tmp_path  # type: ignore[attr-defined]
    yield run
    for pid in processes_in(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for server in started:
        server.close()
