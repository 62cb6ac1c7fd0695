"""GitHub's files: workflows, forms for issues, dependabot's settings."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging_files import CHECKOUT, HOME, PYTHONS, output_of, program

yaml = pytest.importorskip("yaml")

GITHUB = CHECKOUT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def read(path: Path) -> dict[str, Any]:
    # BaseLoader: `on` is a key here, and no truth
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    return document


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """All jobs of all workflows, by "ci.yml test"."""
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield f"{path.name} {name}", job


def commands() -> str:
    """The lines of all steps."""
    steps = [step for _, job in jobs() for step in job.get("steps", ())]
    return "\n".join(step.get("run", "") for step in steps)


def test_actionlint_finds_nothing() -> None:
    assert WORKFLOWS
    output_of(program("actionlint"), *map(str, WORKFLOWS))


def test_zizmor_finds_nothing() -> None:
    arguments = ("--offline", "--no-progress", "--pedantic", "--strict-collection")
    output_of(program("zizmor"), *arguments, *map(str, WORKFLOWS), str(GITHUB / "dependabot.yml"))


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-issue-forms", FORMS),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE/config.yml"]),
        ("dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_a_file_is_as_its_schema_says(schema: str, paths: list[Path]) -> None:
    output_of(program("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, paths))


def test_an_action_is_one_commit_whose_version_is_named() -> None:
    used: dict[str, set[str]] = defaultdict(set)
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.+)", path.read_text(encoding="utf-8")):
            if line.startswith("$/"):
                assert (CHECKOUT / line.removeprefix("$/")).is_file(), line
                continue
            pinned = re.fullmatch(r"([\w/-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
            assert pinned, f"{path.name}: {line}"
            used[pinned[1]].add(pinned[2])
    assert len(used) > 3
    assert not {action: commits for action, commits in used.items() if len(commits) > 1}


def test_what_a_job_may_is_said_by_each_and_little() -> None:
    assert all(read(path)["permissions"] == {} for path in WORKFLOWS)
    writers = {}
    for name, job in jobs():
        rights = job["permissions"]
        assert set(rights.values()) <= {"read", "write"}
        if written := {right for right, access in rights.items() if access == "write"}:
            writers[name] = written
    assert writers == {
        "docs.yml deploy": {"id-token", "pages"},
        "release.yml github": {"contents"},
        "release.yml publish": {"id-token"},
    }


def test_what_publishes_runs_no_code_of_the_checkout() -> None:
    """Whoever could change a build step would else have PyPI's token."""
    publish = dict(jobs())["release.yml publish"]
    assert publish["environment"]["name"] == "pypi"
    assert [step["uses"].split("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


def test_every_python_is_tested_on_every_platform() -> None:
    matrix = dict(jobs())["ci.yml test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert matrix["os"] == ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"]


def test_the_last_job_asks_for_all_others() -> None:
    listed = read(GITHUB / "workflows/ci.yml")["jobs"]
    last = listed.pop("passed")
    assert last["needs"] == list(listed)
    assert last["if"] == "always()"
    assert f'"{" ".join(["success"] * len(listed))}"' in last["steps"][0]["run"]


@pytest.mark.parametrize(
    ("platform", "tags"),
    [("linux", ["manylinux_x86_64", "musllinux_x86_64"]), ("macos", ["macosx_x86_64", "macosx_arm64"])],
)
def test_there_is_a_wheel_for_every_python(platform: str, tags: list[str]) -> None:
    architectures = sorted({tag.partition("_")[2] for tag in tags})
    command = [program("cibuildwheel"), "--print-build-identifiers", "--platform", platform]
    listed = output_of(*command, "--archs", ",".join(architectures), str(CHECKOUT)).split()
    assert sorted(listed) == sorted(
        f"cp{python.replace('.', '')}-{tag}" for python in PYTHONS for tag in tags
    )


def test_what_the_steps_name_is_there() -> None:
    lines = commands()
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\s*make (\w+)", lines, re.MULTILINE)
    assert len(targets) > 3
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    files = re.findall(r"(?:-r |python )(\S+\.(?:txt|py))", lines)
    assert len(files) > 3
    for name in files:
        assert (CHECKOUT / name).is_file(), name


def test_all_that_is_installed_is_pinned() -> None:
    installs = [line for line in commands().splitlines() if "pip install" in line]
    assert len(installs) > 3
    for line in installs:
        assert "--require-hashes -r requirements/" in line or "--no-deps --no-build-isolation" in line, line
    for line in re.findall(r"^\s*make .*", commands(), re.MULTILINE):
        assert "LOCKED=1" in line or read(GITHUB / "workflows/ci.yml")["env"]["LOCKED"] == "1", line


def test_a_bug_report_asks_for_version_and_settings() -> None:
    fields = {part.get("id"): part["attributes"] for part in read(GITHUB / "ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "fastasgi --version" in fields["version"]["label"]
    assert "--print-config" in fields["settings"]["description"]


def test_links_lead_to_this_project() -> None:
    paths = [path for path in GITHUB.rglob("*") if path.suffix in {".yml", ".md"}]
    texts = [
        path.read_text(encoding="utf-8")
        for path in (*paths, CHECKOUT / "SECURITY.md", CHECKOUT / "CONTRIBUTING.md")
    ]
    links = [link for text in texts for link in re.findall(r"https://github\.com/[^/\s]+/[^/\s)]+", text)]
    assert links
    assert set(links) == {HOME}
