"""The software bill of materials, as `make sbom` writes it."""

import json
import re
import sys
from typing import Any

import pytest
from packaging_files import CHECKOUT, SETTINGS, output_of

import fastasgi


@pytest.fixture(scope="module")
def text() -> str:
    return output_of(sys.executable, str(CHECKOUT / ".ci" / "sbom.py"))


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}


def test_it_is_as_the_schema_says(text: str) -> None:
    pytest.importorskip("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None


def test_it_is_of_this_version(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.7")
    own = bill["metadata"]["component"]
    assert own["purl"] == f"pkg:pypi/fastasgi@{fastasgi.__version__}"
    assert own["licenses"] == [{"license": {"id": SETTINGS["project"]["license"]}}]


def test_it_lists_what_is_required_and_nothing_else(bill: dict[str, Any]) -> None:
    extras = SETTINGS["project"]["optional-dependencies"]
    by_scope: dict[str, set[str]] = {}
    for component in bill["components"]:
        by_scope.setdefault(component["scope"], set()).add(component["name"])
    assert by_scope == {
        "required": names(SETTINGS["project"]["dependencies"]),
        "optional": names([*extras["metrics"], *extras["reload"], *extras["wsgi"]]),
        "excluded": names(SETTINGS["build-system"]["requires"]),
    }
    assert bill["dependencies"] == [
        {"ref": "fastasgi", "dependsOn": [component["bom-ref"] for component in bill["components"]]}
    ]


def test_each_has_its_range_or_its_version(bill: dict[str, Any]) -> None:
    parts = {component["name"]: component for component in bill["components"]}
    assert parts["click"]["versionRange"] == "vers:pypi/>=8.1"
    assert parts["uvloop"]["properties"] == [{"name": "fastasgi:marker", "value": 'sys_platform != "win32"'}]
    assert parts["a2wsgi"]["properties"] == [{"name": "fastasgi:extra", "value": "wsgi"}]
    pins = (CHECKOUT / "requirements" / "build.txt").read_text(encoding="utf-8")
    assert f"cython=={parts['cython']['version']} " in pins
    assert f"setuptools=={parts['setuptools']['version']} " in pins


def test_it_is_the_same_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (output_of(sys.executable, str(CHECKOUT / ".ci" / "sbom.py")) for _ in range(2))
    assert first == second
    assert json.loads(first)["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
