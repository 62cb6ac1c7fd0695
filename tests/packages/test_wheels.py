"""What `make wheels` has built: `WHEELS` is the folder of the sdist and of a wheel for each CPython."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from serving import ServerProcess

import fastasgi

CHECKOUT = Path(__file__).parent.parent.parent
FOLDER = os.environ.get("WHEELS", "")
WHEELS = sorted(Path(FOLDER).glob("*.whl")) if FOLDER else []

MOST_WHEEL_BYTES = 3_000_000
# What takes part of a wheel's work: compiled modules, declarations for those who compile against it, pages
SUFFIXES = {".so", ".py", ".pyi", ".pxd", ".pyx", ".h", ".html", ".css", ".js", ".typed", ".svg"}

pytestmark = pytest.mark.skipif(not FOLDER, reason="`make wheels` builds wheels and runs this")


class Tag(NamedTuple):
    """What the name of a wheel says, see PEP 427."""

    version: str
    python: str
    abi: str
    platform: str


def tag_of(wheel: Path) -> Tag:
    return Tag(*wheel.stem.split("-")[1:])


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    """The path of each CPython of this machine, by its tag."""
    listed = subprocess.run([CHECKOUT / ".ci" / "pythons"], capture_output=True, text=True, check=True)
    pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
    return {f"cp{version.replace('.', '')}": path for version, path in pairs}


def test_there_is_a_wheel() -> None:
    assert WHEELS


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
class TestWheel:
    def test_its_name_says_where_it_runs(self, wheel: Path) -> None:
        tag = tag_of(wheel)
        assert tag.version == fastasgi.__version__
        assert tag.python == tag.abi
        assert re.match(r"manylinux_2_\d+_\w+", tag.platform), "no manylinux tag: it would be refused by PyPI"

    def test_it_is_small(self, wheel: Path) -> None:
        assert wheel.stat().st_size < MOST_WHEEL_BYTES

    def test_it_has_no_debug_information(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            modules = [name for name in archive.namelist() if name.endswith(".so")]
            archive.extractall(tmp_path, modules)
        assert modules
        for module in modules:
            sections = subprocess.run(
                ["readelf", "--sections", "--wide", tmp_path / module],
                capture_output=True,
                text=True,
                check=True,
            )
            assert ".text" in sections.stdout
            assert ".debug_" not in sections.stdout, module

    def test_it_holds_the_package_alone(self, wheel: Path) -> None:
        names = [name for name in names_in(wheel) if ".dist-info/" not in name and not name.endswith("/")]
        assert {name.split("/")[0] for name in names} == {"fastasgi"}
        assert {Path(name).suffix for name in names} <= SUFFIXES
        assert {"fastasgi/py.typed", "fastasgi/demo/page.html", "fastasgi/_parser.pxd"} <= set(names)

    def test_it_serves_in_a_clean_environment(
        self, wheel: Path, pythons: dict[str, str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "venv"
        subprocess.run([pythons[tag_of(wheel).python], "-m", "venv", folder], check=True)
        python = folder / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--only-binary", "fastasgi", wheel], check=True
        )
        said = subprocess.run([folder / "bin" / "fastasgi", "--version"], capture_output=True, text=True)
        assert f"fastasgi {tag_of(wheel).version} with CPython" in said.stdout
        server = ServerProcess(
            tmp_path, "--port", "0", "fastasgi.demo:app", command=(str(folder / "bin" / "fastasgi"),)
        )
        try:
            with urlopen(f"http://127.0.0.1:{server.port}/", timeout=20) as response:
                assert b"fastasgi" in response.read()
            server.end()
        finally:
            server.close()


def test_cibuildwheel_builds_for_each_python_and_platform() -> None:
    built: set[str] = set()
    for platform, archs in (("linux", "x86_64,aarch64"), ("macos", "x86_64,arm64")):
        command = [sys.executable, "-m", "cibuildwheel", "--platform", platform, "--archs", archs]
        listed = subprocess.run(
            [*command, "--print-build-identifiers"], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        built |= set(listed.stdout.split())
    platforms = ["macosx_arm64", "macosx_x86_64"]
    platforms += [f"{libc}linux_{arch}" for libc in ("many", "musl") for arch in ("aarch64", "x86_64")]
    assert built == {f"cp3{minor}-{platform}" for minor in range(11, 16) for platform in platforms}


def test_the_sdist_has_all_sources_and_nothing_built() -> None:
    (sdist,) = Path(FOLDER).glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    expected = {name for name in tracked.stdout.splitlines() if not name.startswith("bench/results/")}
    assert expected <= names
    assert not {name for name in names if name.endswith((".so", ".c", ".pyc"))} - expected
