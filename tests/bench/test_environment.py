"""The environment that the bench makes for itself."""

import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from benchparts import FakeEnvironment, linux

from bench import accounting
from bench.environment import Environment
from bench.errors import BenchError, UsageError


def test_a_package_that_cannot_be_installed_leaves_the_others(tmp_path: Path) -> None:
    class Unlucky(FakeEnvironment):
        installed: list[str] = []  # noqa: RUF012

        def _pip(self, *arguments: str) -> None:
            if "granian" in arguments:
                raise BenchError("pip install: no matching distribution")
            self.installed += arguments

    environment = Unlucky(tmp_path)
    environment._install_packages()
    assert environment.notes == ["granian is missing: pip install: no matching distribution"]
    assert {"locust", "uvicorn", "peregrine-server", "h2corn", "hypercorn", "daphne", "gunicorn"} <= set(
        Unlucky.installed
    )
    # It is tried again the next time.
    assert not (tmp_path / "installed.txt").exists()


@linux
def test_an_environment_whose_interpreter_has_gone_or_changed_is_made_anew(tmp_path: Path) -> None:
    class Bare(Environment):
        """With an empty pip, since to install the real one takes seconds."""

        def _run(self, command: list[str], what: str, cwd: Path | None = None) -> str:
            if "venv" not in command:
                return super()._run(command, what, cwd)
            said = super()._run([*command, "--without-pip"], what, cwd)
            pip = next(self.folder.glob("lib/*/site-packages")) / "pip"
            pip.mkdir()
            (pip / "__init__.py").touch()
            return said

        def _pip(self, *arguments: str) -> None:
            pass

    environment = Bare(tmp_path)
    environment._lock()
    environment._install_packages()
    assert environment.python_version() == platform.python_version()
    stamp = (tmp_path / "installed.txt").read_text()
    assert os.path.realpath(environment.python) in stamp.splitlines()[0]
    for spoil in (
        lambda: (environment.python.unlink(), environment.python.symlink_to("/nonexistent/python3")),
        lambda: (tmp_path / "installed.txt").write_text("3 10 1 final 0 /usr/bin/python3.10\n"),
        lambda: shutil.rmtree(next(tmp_path.glob("lib/*/site-packages/pip"))),
    ):
        (tmp_path / "builds").mkdir()
        spoil()
        environment._install_packages()
        assert environment._run([str(environment.python), "-c", "import pip"], "pip") == ""
        assert (tmp_path / "installed.txt").read_text() == stamp
        # A build is for one interpreter.
        assert not (tmp_path / "builds").exists()
    environment._install_packages()


@linux
def test_a_folder_with_other_files_is_not_taken_for_an_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with pytest.raises(BenchError, match="it holds other files"):
        Environment(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@linux
def test_a_command_that_fails_is_told_by_its_error_and_not_by_advice(tmp_path: Path) -> None:
    source = """
        import sys
        sys.exit("WARNING: slow\\nERROR: no matching distribution\\nERROR: gave up\\nfor help visit x")
    """
    environment = Environment(tmp_path)
    with pytest.raises(BenchError, match=r"^pip install: ERROR: no matching distribution$"):
        environment._run([sys.executable, "-c", textwrap.dedent(source)], "pip install")
    with pytest.raises(BenchError, match=r"^it: last$"):
        environment._run([sys.executable, "-c", "import sys; sys.exit('first\\nlast')"], "it")
    with pytest.raises(BenchError, match=r"^it: exit code 3$"):
        environment._run([sys.executable, "-c", "import sys; sys.exit(3)"], "it")


@linux
def test_two_runs_do_not_share_an_environment(tmp_path: Path) -> None:
    first, second = Environment(tmp_path), Environment(tmp_path)
    first._lock()
    with pytest.raises(BenchError, match="another bench uses it"):
        second._lock()


@linux
@pytest.mark.usefixtures("handlers")
def test_an_interrupted_command_of_the_environment_leaves_nothing(tmp_path: Path) -> None:
    """As pip's build of fastasgi: with children, one of which ignores signals, and temporary files."""
    source = f"""
        import os, signal, tempfile
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        made = tempfile.mkdtemp()
        pid = os.fork()
        if pid:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with open({str(tmp_path / "made")!r}, "w") as file:
                file.write(f"{{made}} {{pid}} {{os.getpid()}}")
            os.kill({os.getpid()}, signal.SIGTERM)
        signal.pause()
    """
    environment = Environment(tmp_path / "environment")
    with pytest.raises(KeyboardInterrupt):
        environment._run([sys.executable, "-c", textwrap.dedent(source)], "building")
    made, *pids = (tmp_path / "made").read_text().split()
    assert Path(made).is_relative_to(environment.folder)
    assert list(environment.folder.iterdir()) == []
    running = {process.pid for process in accounting.read_processes() if process.state not in "ZX"}
    assert not running & set(map(int, pids))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose only commit has neither README.md nor LICENSE."""
    root = tmp_path / "checkout"
    (root / "fastasgi").mkdir(parents=True)
    (root / "fastasgi" / "__init__.py").write_text("")
    (root / "setup.py").write_text("")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    monkeypatch.setattr("bench.environment.ROOT", root)
    return root


@linux
@pytest.mark.usefixtures("repository")
def test_a_commit_without_some_of_the_sources_can_be_built(tmp_path: Path) -> None:
    class Builder(Environment):
        def _build(self, sources: Path, build: Path, stamp: str) -> Path:
            assert sorted(path.name for path in sources.iterdir()) == ["fastasgi", "setup.py"]
            return build

    environment = Builder(tmp_path / "environment")
    assert re.fullmatch("[0-9a-f]{40}", environment.build_revision("HEAD").name)


@linux
@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("revision", ["nowhere", "--all", "HEAD^"])
def test_an_unknown_commit_is_named(tmp_path: Path, revision: str) -> None:
    with pytest.raises(UsageError, match=f"there is no commit '{re.escape(revision)}'"):
        Environment(tmp_path / "environment").build_revision(revision)


@linux
def test_where_there_is_no_repository_git_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.environment.ROOT", tmp_path)
    with pytest.raises(BenchError, match="git: fatal: not a git repository"):
        Environment(tmp_path / "environment").build_revision("HEAD")
