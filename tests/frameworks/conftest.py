"""One server process a framework, each serving an application of the folder ``apps``.

A test module may set ``APPLICATIONS``, the pattern of its applications' files. An application module may set
``LACKS``, the features that its framework has not, ``ARGUMENTS``, options of the server, and what its test
module looks up. They are read without importing the module: frameworks keep state that only a process of its
own isolates.
"""

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import ServerProcess

FOLDER = Path(__file__).parent / "apps"


class Application:
    """An application module of the folder."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem.rpartition("_")[0]
        self.constants = _constants(path)
        self.lacks: set[str] = self.constants.get("LACKS", set())
        self._arguments = [*self.constants.get("ARGUMENTS", []), f"{path.stem}:app"]

    def serve(self, **environment: str) -> ServerProcess:
        return ServerProcess(
            FOLDER, "--port", "0", *self._arguments, environment={**os.environ, **environment}
        )


def _constants(path: Path) -> dict[str, Any]:
    """What the module sets for the tests: names in capitals, literals."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.isupper()
    }


@functools.cache
def applications(pattern: str) -> list[Application]:
    return [Application(path) for path in sorted(FOLDER.glob(pattern))]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(feature): not run with frameworks that lack the feature")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take an application with each of those that their module names."""
    if "application" in metafunc.fixturenames:
        having = applications(getattr(metafunc.module, "APPLICATIONS", "*_app.py"))
        metafunc.parametrize("application", having, ids=lambda application: application.name, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests, and parameters of tests, that need what their application lacks."""
    items[:] = [item for item in items if not _lacks(item)]


def _lacks(item: pytest.Item) -> bool:
    application = item.callspec.params.get("application") if hasattr(item, "callspec") else None
    needed = {marker.args[0] for marker in item.iter_markers("needs")}
    return isinstance(application, Application) and bool(needed & application.lacks)


@pytest.fixture(scope="module")
def server(application: Application) -> Iterator[ServerProcess]:
    """The application's server. When the tests are through, it and asyncio must have logged no failure."""
    process = application.serve()
    try:
        process.wait_for("running on")
        yield process
        process.end()
        assert not re.search("^(ERROR|CRITICAL):|never retrieved|never awaited", process.log, re.MULTILINE)
    finally:
        process.close()
