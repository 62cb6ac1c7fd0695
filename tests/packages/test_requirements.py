"""requirements/: pinned versions with hashes, which `make requirements` writes from pyproject.toml."""

import importlib.metadata
import itertools
import re
import runpy
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from packaging_files import CHECKOUT, PYTHONS, SETTINGS

TOOLS = runpy.run_path(str(CHECKOUT / ".ci" / "requirements.py"))
WANTED: dict[str, list[str]] = {name: wanted for name, (_, wanted) in TOOLS["locked_files"](SETTINGS).items()}
PLATFORMS = {
    "Linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "Linux on ARM": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}

PIN = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n",
    re.MULTILINE,
)


class Pin(NamedTuple):
    name: str
    version: Version
    marker: Marker | None


def text_of(name: str) -> str:
    return (CHECKOUT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins_of(name: str) -> list[Pin]:
    return [
        Pin(pin["name"], Version(pin["version"]), pin["marker"] and Marker(pin["marker"]))
        for pin in PIN.finditer(text_of(name))
    ]


def pins_for(name: str, where: dict[str, Any]) -> list[Pin]:
    """Those that hold in such an environment."""
    return [pin for pin in pins_of(name) if pin.marker is None or pin.marker.evaluate(where)]


def environment(python: str, platform: str) -> dict[str, Any]:
    version = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_version": f"{python}.1",
    }
    return {**default_environment(), **PLATFORMS[platform], **version}


def holds(requirement: Requirement, where: dict[str, Any], extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**where, "extra": extra})


def test_there_is_a_file_for_each_purpose() -> None:
    names = {path.stem for path in (CHECKOUT / "requirements").iterdir()}
    assert names == set(WANTED) == {"base", "build", "dev", "docs", "packages", "test"}


@pytest.mark.parametrize("name", WANTED)
def test_a_file_holds_nothing_but_pins_with_hashes(name: str) -> None:
    rest = PIN.sub("", text_of(name))
    assert re.fullmatch(r"(#.*\n)+", rest), rest
    # Whoever installs chooses the registry
    assert "://" not in text_of(name)


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_what_pyproject_requires_is_pinned_within_its_range(name: str, platform: str, python: str) -> None:
    where = environment(python, platform)
    pins = pins_for(name, where)
    versions = {pin.name: pin.version for pin in pins}
    assert len(versions) == len(pins), "two versions of one distribution"
    for requirement in map(Requirement, WANTED[name]):
        if holds(requirement, where):
            pinned = versions.get(canonicalize_name(requirement.name))
            assert pinned is not None, f"{requirement} has no pin: make requirements"
            assert requirement.specifier.contains(pinned, prereleases=True), (
                f"{requirement}: {pinned}: make requirements"
            )


def test_a_distribution_has_one_version_in_all_files() -> None:
    versions: dict[str, set[Version]] = {}
    for name, python, platform in itertools.product(WANTED, PYTHONS, PLATFORMS):
        for pin in pins_for(name, environment(python, platform)):
            versions.setdefault(pin.name, set()).add(pin.version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


@pytest.mark.parametrize("name", WANTED)
def test_what_the_pinned_ones_require_is_pinned_too(name: str) -> None:
    """By the metadata of those that are installed here in the pinned version."""
    where: dict[str, Any] = {**default_environment()}
    versions = {pin.name: pin.version for pin in pins_for(name, where)}
    installed = {canonicalize_name(each.name): each for each in importlib.metadata.distributions()}
    pending = [(requirement, "pyproject.toml") for requirement in map(Requirement, WANTED[name])]
    seen: set[tuple[str, str]] = set()
    while pending:
        requirement, by = pending.pop()
        distribution = canonicalize_name(requirement.name)
        assert distribution in versions, f"{requirement} of {by} has no pin: make requirements"
        found = installed.get(distribution)
        if found is None or Version(found.version) != versions[distribution]:
            continue
        for extra in ("", *requirement.extras):
            if (distribution, extra) not in seen:
                seen.add((distribution, extra))
                theirs = map(Requirement, found.requires or ())
                pending += [(each, distribution) for each in theirs if holds(each, where, extra)]


def test_contributing_has_a_reason_for_each() -> None:
    """The first column of each table of its chapter on dependencies names what pyproject.toml requires."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    chapter = text.partition("\n## Dependencies, and why each\n")[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\| ([^|]+) \|.*\|$", chapter, re.MULTILINE) if row != "distribution"]
    named = [canonicalize_name(name) for row in rows for name in row.split(", ")]
    extras = [*SETTINGS["project"]["optional-dependencies"]]
    wanted = {canonicalize_name(Requirement(each).name) for each in TOOLS["requirements"](SETTINGS, extras)}
    assert set(named) == wanted
