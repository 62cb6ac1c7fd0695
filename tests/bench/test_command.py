"""The command: options, and errors of one line."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from benchparts import ROOT, WITH_BENCH

from bench.command import build_parser, main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quick", "--servers", "nginx"], "--servers: there is no 'nginx'"),
        (["quick", "-w", "hello,hi"], "--workloads: there is no 'hi'"),
        (
            ["full", "-s", "daphne,floor", "-w", "tls"],
            "--workloads tls: none is for daphne,floor; choose hello",
        ),
        (["full", "--seconds", "0"], "--seconds 0.0"),
        (["full", "--rounds", "0"], "--rounds 0"),
        (["full", "--port", "70000"], "--port 70000"),
        (
            ["full", "--results", "/dev/null/x"],
            "--results /dev/null/x: Not a directory; choose another folder",
        ),
        (["prepare", "--environment", "/dev/null/x"], "--environment /dev/null/x: Not a directory; choose"),
        (["compare", "HEAD", "-w", "hello,start"], "--workloads start: it has no rate to compare"),
        (["compare", "HEAD", "-w", "burst"], "--workloads burst: it has no rate to compare"),
        (["compare", "HEAD", "-w", "hello,te-db"], "--workloads te-db: compare starts no PostgreSQL"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--environment", str(tmp_path / "never"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_the_environment_can_be_named_before_the_command_and_behind_it() -> None:
    parser = build_parser()
    for arguments in (["--environment", "x", "prepare"], ["prepare", "--environment", "x"]):
        assert parser.parse_args(arguments).environment == Path("x")
    assert parser.parse_args(["full"]).environment == ROOT / ".venv-bench"


def test_an_environment_of_another_user_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "lock"))

    monkeypatch.setattr(os, "open", refuse)
    assert main(["--environment", str(tmp_path), "prepare"]) == 2
    assert (
        capsys.readouterr().err
        == f"bench: --environment {tmp_path}: Permission denied; choose another folder\n"
    )


def test_an_output_that_nobody_reads_is_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "list"],
        env=WITH_BENCH,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == "bench: nobody reads the output any more\n"
    assert process.returncode == 1


def test_an_interrupt_while_the_command_is_loaded_is_one_line() -> None:
    source = """
        import os, runpy, signal, sys
        class Interrupter:
            def find_spec(self, name, *rest):
                if name == "bench.errors":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupter())
        sys.argv = ["bench", "list"]
        runpy.run_module("bench", run_name="__main__", alter_sys=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], env=WITH_BENCH, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "bench: interrupted\n")
