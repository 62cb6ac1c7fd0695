"""One server process a framework, each serving an application of the folder ``apps``.

An application module may set ``LACKS``, the features that its framework has not, and ``ARGUMENTS``, options
of the server. They are read without importing the module: frameworks keep state that only a process of its
own isolates.
"""

import ast
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
        self.name = path.stem.removesuffix("_app")
        constants = _constants(path)
        self.lacks: set[str] = constants.get("LACKS", set())
        self._arguments = [*constants.get("ARGUMENTS", []), f"{path.stem}:app"]

    def serve(self) -> ServerProcess:
        return ServerProcess(FOLDER, "--port", "0", *self._arguments)


def _constants(path: Path) -> dict[str, Any]:
    """What the module sets for the tests."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("ARGUMENTS", "LACKS")
    }


APPLICATIONS = [Application(path) for path in sorted(FOLDER.glob("*_app.py"))]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(feature): not run with frameworks that lack the feature")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take an application with each that has what they need."""
    if "application" in metafunc.fixturenames:
        needed = {marker.args[0] for marker in metafunc.definition.iter_markers("needs")}
        applications = [application for application in APPLICATIONS if not needed & application.lacks]
        metafunc.parametrize(
            "application", applications, ids=lambda application: application.name, scope="module"
        )


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
