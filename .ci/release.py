"""Make a release as far as it goes on one machine: `make release VERSION=1.2.3` runs this.

    python .ci/release.py 1.2.3            check, build into dist/, tag
    python .ci/release.py --notes 1.2.3    check the version and print what the changelog says of it

Nothing is pushed or uploaded. When all is well, the last line says what to push; the workflow release.yml
then builds the wheels and publishes them. What is in the way is one line each, and says what to do about it.

Exit codes: 0, or 1 if something is in the way, or 2 if the arguments are wrong.
"""

import argparse
import ast
import datetime
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

BRANCH = "main"
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>.+)$", re.MULTILINE)


class Refused(Exception):
    """What is in the way of the release, and what to do about it; one line."""


def git(root: Path, *arguments: str) -> str:
    """What git prints."""
    run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise Refused(f"git {arguments[0]} failed, mend that: {why}")
    return run.stdout.strip()


def package_version(root: Path) -> str:
    """`fastasgi.__version__`, without importing it."""
    path = root / "fastasgi" / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise Refused("fastasgi/__init__.py has no __version__: add it")


def changelog_part(root: Path, version: str) -> tuple[str, str]:
    """The date and the text of this version in the changelog."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading["version"] == version:
            return heading["date"], text[heading.end() : following.start() if following else None].strip()
    raise Refused(f"CHANGELOG.md has no '## [{version}] - YYYY-MM-DD': write what is new under it")


def check_version(root: Path, version: str) -> None:
    """The package says this version."""
    if (found := package_version(root)) != version:
        raise Refused(f'fastasgi/__init__.py says {found}: set __version__ = "{version}" there')


def check_changelog(root: Path, version: str) -> None:
    """The changelog has this version, with a day that is not to come and with words."""
    date, text = changelog_part(root, version)
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError:
        raise Refused(f"CHANGELOG.md says '{date}' of {version}: write the day, YYYY-MM-DD") from None
    # Anywhere on earth it may be tomorrow already
    if day > datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1):
        raise Refused(f"CHANGELOG.md says {date} of {version}, a day to come: write today's")
    if not text:
        raise Refused(f"CHANGELOG.md says nothing of {version}: write what is new")


def check_branch(root: Path, version: str) -> None:
    """The release is made on the main branch."""
    if (branch := git(root, "branch", "--show-current")) != BRANCH:
        raise Refused(f"this is {f'the branch {branch}' if branch else 'no branch'}: git switch {BRANCH}")


def check_tree(root: Path, version: str) -> None:
    """All is committed: what is built is what is tagged."""
    if changes := git(root, "status", "--porcelain").splitlines():
        more = f" and {len(changes) - 1} more" if changes[1:] else ""
        raise Refused(f"not committed: {changes[0].split(maxsplit=1)[1]}{more}: commit or remove it")


def check_tag(root: Path, version: str) -> None:
    """There is no such release yet."""
    if git(root, "tag", "--list", f"v{version}"):
        raise Refused(f"the tag v{version} is there: choose another version, or git tag -d v{version}")


WORDS = (check_version, check_changelog)
CHECKS = (*WORDS, check_branch, check_tree, check_tag)


def refusals(root: Path, version: str, checks: Sequence[Callable[[Path, str], None]]) -> Iterator[str]:
    """What is in the way, all of it."""
    for check in checks:
        try:
            check(root, version)
        except Refused as refusal:
            yield str(refusal)


def run(root: Path, what: str, *command: str) -> None:
    """Run one of the tools, which writes to the terminal."""
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    if code := subprocess.run(command, cwd=root, stdout=sys.stderr).returncode:
        raise Refused(f"{what} failed with exit code {code}: mend what it says above")


def build(root: Path, version: str, builder: list[str]) -> list[Path]:
    """The sdist and a wheel in dist/, which hold nothing else."""
    dist = root / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(root, "the build", *builder, "--outdir", str(dist))
    built = sorted(dist.iterdir()) if dist.is_dir() else []
    names = ", ".join(path.name for path in built) or "nothing"
    if sorted(path.suffix for path in built) != [".gz", ".whl"]:
        raise Refused(f"dist/ holds {names}, not one sdist and one wheel: mend the build")
    if not all(re.match(rf"fastasgi-{re.escape(version)}[.-]", path.name) for path in built):
        raise Refused(f"dist/ holds {names}, which is not {version}: mend the build")
    return built


def tag(root: Path, version: str) -> None:
    """An annotated tag; signed if git has a key for that."""
    key = subprocess.run(["git", "config", "user.signingkey"], cwd=root, capture_output=True).returncode == 0
    git(root, "tag", "--sign" if key else "--annotate", "--message", f"fastasgi {version}", f"v{version}")
    if not key:
        print("The tag is not signed: git has no user.signingkey.", file=sys.stderr)


def release(root: Path, version: str, builder: list[str]) -> None:
    """All of it; the tag comes last."""
    built = build(root, version, builder)
    run(root, "twine", sys.executable, "-m", "twine", "check", "--strict", *map(str, built))
    tag(root, version)
    print(f"fastasgi {version} is built and tagged:")
    for path in built:
        print(f"  dist/{path.name}, {path.stat().st_size / 1e6:.1f} MB")
    print(f"Nothing is published yet. To publish it:\n  git push origin {BRANCH} v{version}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="release", description="Check, build and tag a release.")
    parser.add_argument("version", nargs="?", default="", help="such as 1.2.3 or 1.2.3rc1")
    parser.add_argument("--notes", action="store_true", help="only print what the changelog says of it")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout, not the current folder")
    parser.add_argument(
        "--builder",
        type=shlex.split,
        default=[sys.executable, "-m", "build"],
        help="the command that builds; it gets --outdir DIRECTORY",
    )
    arguments = parser.parse_args()
    version, root = arguments.version, arguments.root.resolve()
    if not VERSION.fullmatch(version):
        was = f"'{version}' is no version" if version else "no version given"
        print(f"release: {was}: make release VERSION=1.2.3", file=sys.stderr)
        return 2
    found = list(refusals(root, version, WORDS if arguments.notes else CHECKS))
    if not found:
        try:
            if arguments.notes:
                print(changelog_part(root, version)[1])
            else:
                release(root, version, arguments.builder)
        except Refused as refusal:
            found.append(str(refusal))
    for line in found:
        print(f"release: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
