"""`make release`: what is in the way is said, and if nothing is, there are packages and a tag."""

import datetime
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging_files import CHECKOUT

import fastasgi

# Builds what twine takes for packages of that version, without a compiler
BUILDER = """
import io, sys, tarfile, zipfile
from pathlib import Path
version = {version!r}
dist = Path(sys.argv[sys.argv.index("--outdir") + 1])
dist.mkdir()
metadata = "Metadata-Version: 2.4\\nName: fastasgi\\nVersion: " + version
metadata += "\\nSummary: x\\nDescription-Content-Type: text/markdown\\n" + {description!r}
name = "fastasgi-" + version
with zipfile.ZipFile(dist / (name + "-cp311-cp311-linux_x86_64.whl"), "w") as wheel:
    wheel.writestr(name + ".dist-info/METADATA", metadata)
    wheel.writestr(name + ".dist-info/WHEEL", "Wheel-Version: 1.0\\n")
    wheel.writestr(name + ".dist-info/RECORD", "")
with tarfile.open(dist / (name + ".tar.gz"), "w:gz") as sdist:
    for path in ("/PKG-INFO", "/README.md"):
        entry = tarfile.TarInfo(name + path)
        entry.size = len(metadata)
        sdist.addfile(entry, io.BytesIO(metadata.encode()))
"""

DESCRIPTION = "\n# fastasgi\n\nA server.\n"
CHANGELOG = """\
# Changelog

## [1.2.3] - 2026-11-28

### Added

- A thing.

## [1.2.2] - 2026-11-01

- Older.
"""


class Checkout:
    """A repository that version 1.2.3 can be released from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        (self.folder / "fastasgi").mkdir(parents=True)
        self.builder = folder / "builder.py"
        self.build_with()
        # No settings of whoever runs the tests: a hook, a key to sign with
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{
                f"GIT_{who}_{what}": "t@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        self.git("init", "--quiet", "--initial-branch", "main")
        self.write("fastasgi/__init__.py", '__version__ = "1.2.3"\n')
        self.write("CHANGELOG.md", CHANGELOG)
        self.write(".gitignore", "/dist/\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        run = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "x")

    def build_with(self, version: str = "1.2.3", description: str = DESCRIPTION) -> None:
        self.builder.write_text(BUILDER.format(version=version, description=description))

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CHECKOUT / ".ci" / "release.py"), *arguments]
        command += ["--builder", f"{sys.executable} {self.builder}"]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def refusals(self, *arguments: str) -> list[str]:
        """The lines that say what is in the way."""
        run = self.release(*arguments)
        assert run.returncode == 1, run.stdout + run.stderr
        assert run.stdout == ""
        head = "release: "
        return [line.removeprefix(head) for line in run.stderr.splitlines() if line.startswith(head)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_release_is_built_checked_and_tagged(checkout: Checkout) -> None:
    pytest.importorskip("twine")
    (checkout.folder / "dist").mkdir()
    checkout.write("dist/fastasgi-1.2.2.tar.gz", "of the last release")
    run = checkout.release("1.2.3")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "fastasgi 1.2.3 is built and tagged:",
        "  dist/fastasgi-1.2.3-cp311-cp311-linux_x86_64.whl, 0.0 MB",
        "  dist/fastasgi-1.2.3.tar.gz, 0.0 MB",
        "Nothing is published yet. To publish it:",
        "  git push origin main v1.2.3",
    ]
    assert "twine check --strict" in run.stderr
    assert "The tag is not signed: git has no user.signingkey." in run.stderr
    # Annotated: it has a date and an author of its own
    assert checkout.git("cat-file", "-t", "v1.2.3") == "tag"
    assert checkout.git("tag", "--list", "--format", "%(contents:subject)") == "fastasgi 1.2.3"
    assert checkout.git("rev-parse", "v1.2.3^{commit}") == checkout.git("rev-parse", "HEAD")


def test_a_description_that_pypi_would_not_show_is_refused(checkout: Checkout) -> None:
    pytest.importorskip("twine")
    checkout.build_with(description="")
    assert checkout.refusals("1.2.3") == ["twine failed with exit code 1: mend what it says above"]
    assert checkout.git("tag") == ""


def branch(checkout: Checkout) -> None:
    checkout.git("switch", "--quiet", "--create", "other")


def detach(checkout: Checkout) -> None:
    checkout.git("switch", "--quiet", "--detach")


def change(checkout: Checkout) -> None:
    checkout.write("CHANGELOG.md", CHANGELOG + "\n")


def add(checkout: Checkout) -> None:
    checkout.write("new", "")
    checkout.write("newer", "")


def tag(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.3")


def other_version(checkout: Checkout) -> None:
    checkout.write("fastasgi/__init__.py", '__version__ = "1.2.2"\n')
    checkout.commit()


def no_version(checkout: Checkout) -> None:
    checkout.write("fastasgi/__init__.py", "")
    checkout.commit()


def changelog(text: str) -> Callable[[Checkout], None]:
    def write(checkout: Checkout) -> None:
        checkout.write("CHANGELOG.md", text)
        checkout.commit()

    return write


def no_key(checkout: Checkout) -> None:
    checkout.git("config", "user.signingkey", "0123")
    checkout.git("config", "gpg.program", "false")


def builder(text: str) -> Callable[[Checkout], None]:
    def write(checkout: Checkout) -> None:
        checkout.builder.write_text(text)

    return write


TO_COME = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)).date().isoformat()


@pytest.mark.parametrize(
    ("arrange", "refusal"),
    [
        (branch, "this is the branch other: git switch main"),
        (detach, "this is no branch: git switch main"),
        (change, "not committed: CHANGELOG.md: commit or remove it"),
        (add, "not committed: new and 1 more: commit or remove it"),
        (tag, "the tag v1.2.3 is there: choose another version, or git tag -d v1.2.3"),
        (other_version, 'fastasgi/__init__.py says 1.2.2: set __version__ = "1.2.3" there'),
        (no_version, "fastasgi/__init__.py has no __version__: add it"),
        (
            changelog("# Changelog\n\n## [1.2.2] - 2026-11-01\n\n- Older.\n"),
            "CHANGELOG.md has no '## [1.2.3] - YYYY-MM-DD': write what is new under it",
        ),
        (
            changelog(CHANGELOG.replace("2026-11-28", "unreleased")),
            "CHANGELOG.md says 'unreleased' of 1.2.3: write the day, YYYY-MM-DD",
        ),
        (
            changelog(CHANGELOG.replace("2026-11-28", TO_COME)),
            f"CHANGELOG.md says {TO_COME} of 1.2.3, a day to come: write today's",
        ),
        (
            changelog("# Changelog\n\n## [1.2.3] - 2026-11-28\n\n## [1.2.2] - 2026-11-01\n\n- Older.\n"),
            "CHANGELOG.md says nothing of 1.2.3: write what is new",
        ),
        (builder("raise SystemExit(3)"), "the build failed with exit code 3: mend what it says above"),
        (builder(""), "dist/ holds nothing, not one sdist and one wheel: mend the build"),
        (
            lambda checkout: checkout.build_with(version="1.2.30"),
            "dist/ holds fastasgi-1.2.30-cp311-cp311-linux_x86_64.whl, fastasgi-1.2.30.tar.gz, "
            "which is not 1.2.3: mend the build",
        ),
    ],
)
def test_what_is_in_the_way_is_one_line(
    checkout: Checkout, arrange: Callable[[Checkout], None], refusal: str
) -> None:
    arrange(checkout)
    before = checkout.git("tag")
    assert checkout.refusals("1.2.3") == [refusal]
    assert checkout.git("tag") == before


def test_all_that_is_in_the_way_is_said_at_once(checkout: Checkout) -> None:
    other_version(checkout)
    branch(checkout)
    tag(checkout)
    assert [line.split(":")[0] for line in checkout.refusals("1.2.3")] == [
        "fastasgi/__init__.py says 1.2.2",
        "this is the branch other",
        "the tag v1.2.3 is there",
    ]


def test_a_tag_is_signed_if_git_has_a_key(checkout: Checkout) -> None:
    pytest.importorskip("twine")
    no_key(checkout)
    (refusal,) = checkout.refusals("1.2.3")
    assert refusal.startswith("git tag failed, mend that: ")
    assert checkout.git("tag") == ""


def test_without_git_it_is_refused(checkout: Checkout) -> None:
    (checkout.folder / ".git").rename(checkout.folder / "git")
    refusals = checkout.refusals("1.2.3")
    assert refusals
    assert all("not a git repository" in line for line in refusals)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no version given"),
        (("",), "no version given"),
        (("v1.2.3",), "'v1.2.3' is no version"),
        (("1.2",), "'1.2' is no version"),
        (("1.2.3-rc1",), "'1.2.3-rc1' is no version"),
    ],
)
def test_a_version_is_needed(checkout: Checkout, arguments: tuple[str, ...], why: str) -> None:
    run = checkout.release(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"release: {why}: make release VERSION=1.2.3\n"


def test_notes_are_the_versions_part_of_the_changelog(checkout: Checkout) -> None:
    # As in the workflow: no branch, and a tag
    tag(checkout)
    detach(checkout)
    run = checkout.release("--notes", "1.2.3")
    assert (run.returncode, run.stdout) == (0, "### Added\n\n- A thing.\n"), run.stderr


def test_no_notes_of_another_version(checkout: Checkout) -> None:
    other_version(checkout)
    assert checkout.refusals("--notes", "1.2.3") == [
        'fastasgi/__init__.py says 1.2.2: set __version__ = "1.2.3" there'
    ]


def test_the_changelog_is_one_that_can_be_released() -> None:
    """Ours has a part for the version that the package says, dated or still to be."""
    run = subprocess.run(
        [sys.executable, str(CHECKOUT / ".ci" / "release.py"), "--notes", fastasgi.__version__],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 or "'unreleased'" in run.stderr, run.stderr
