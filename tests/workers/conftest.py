"""What the tests of the worker classes start."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gunicornprocess import APP, Gunicorn


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    """Starts gunicorn: ``start(*arguments, app=source of app.py, conf=source of gunicorn.conf.py)``."""
    started: list[Gunicorn] = []

    def start(
        *arguments: str, app: str = APP, conf: str = "", target: str = "app:app", **environment: str
    ) -> Gunicorn:
        (tmp_path / "app.py").write_text(textwrap.dedent(app))
        (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(conf))
        started.append(Gunicorn(tmp_path, target, *arguments, **environment))
        return started[-1]

    yield start
    for process in started:
        process.close()
