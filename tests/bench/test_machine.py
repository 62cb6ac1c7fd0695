"""Which cores do what, and how many files may be open."""

import subprocess
import sys
import textwrap

import pytest
from benchparts import WITH_BENCH, linux

from bench.machine import Cores, share_cores


@pytest.mark.parametrize(
    ("groups", "workers", "database", "expected"),
    [
        ([(0,)], 1, False, Cores((0,), (0,), ())),
        ([(0,), (1,)], 1, False, Cores((0,), (1,), ())),
        ([(0,), (1,)], 1, True, Cores((0,), (1,), (1,))),
        ([(0,), (1,)], 2, False, Cores((0, 1), (1,), ())),
        ([(0,)], 2, True, Cores((0,), (0,), (0,))),
        ([(0, 1)], 1, False, Cores((0,), (1,), ())),
        ([(0, 1)], 2, False, Cores((0, 1), (1,), ())),
        ([(0, 1), (2, 3)], 1, False, Cores((0,), (2, 3), ())),
        ([(0, 1), (2, 3)], 2, False, Cores((0, 2), (1, 3), ())),
        ([(0, 1), (2, 3)], 2, True, Cores((0, 2), (1,), (3,))),
        ([(0, 1), (2, 3)], 3, False, Cores((0, 2, 1), (3,), ())),
        ([(0, 1), (2,)], 3, False, Cores((0, 2, 1), (1,), ())),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], 1, True, Cores((0,), (1, 5, 2, 6), (7,))),
        ([(0, 4), (1, 5), (2, 6), (3, 7)], 2, False, Cores((0, 1), (2, 6, 3, 7), ())),
    ],
)
def test_server_generators_and_database_get_cores_of_their_own_where_there_are(
    groups: list[tuple[int, ...]], workers: int, database: bool, expected: Cores
) -> None:
    assert share_cores(groups, workers, database) == expected


@pytest.mark.parametrize(
    ("groups", "workers", "shared", "beside"),
    [
        ([(0,), (1,)], 1, False, False),
        ([(0,), (1,)], 2, True, False),
        ([(0, 1), (2, 3)], 1, False, False),
        ([(0, 1), (2, 3)], 2, True, True),
        ([(0, 1)], 1, True, True),
        ([(0, 1)], 2, True, True),
    ],
)
def test_two_threads_of_a_physical_core_are_shared_too(
    groups: list[tuple[int, ...]], workers: int, shared: bool, beside: bool
) -> None:
    cores = share_cores(groups, workers, database=False)
    assert (cores.shared, cores.beside) == (shared, beside)
    assert set(cores.as_json()) == {"server", "generators", "database"}


OPEN_FILES = """
    import resource, subprocess, sys
    from bench.machine import allow_open_files
    soft, hard, wanted = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        allow_open_files(wanted)
    except Exception as error:
        sys.exit(str(error))
    print(subprocess.check_output(["sh", "-c", "ulimit -n"], text=True))
"""


@linux
def test_open_files_are_allowed_for_all_connections_or_the_limit_is_named() -> None:
    def run_with(*limits: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(OPEN_FILES), *map(str, limits)]
        return subprocess.run(command, env=WITH_BENCH, capture_output=True, text=True)

    assert run_with(64, 500, 300).stdout.strip() == "500"
    done = run_with(64, 200, 300)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "it takes 300 open files, and this shell allows 200: raise its hard limit (ulimit -n)"
    )
