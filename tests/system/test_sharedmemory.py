import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastasgi.system.sharedmemory import map_shared, open_shared

WRITER = "import mmap, sys; mmap.mmap(int(sys.argv[1]), 0)[4096:] = b'written'"


def forbid(*args: object) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def open_descriptors() -> set[int]:
    listed = {int(name) for name in os.listdir("/proc/self/fd")}
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}  # without that of the list itself


@pytest.fixture(params=["memfd", "file", "forbidden"])
def each_kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the memory made in each of the ways that there are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif request.param == "forbidden":
        monkeypatch.setattr(os, "memfd_create", forbid, raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("the platform has no memfd_create")


@pytest.mark.usefixtures("each_kind")
def test_processes_share_it_and_leave_nothing_behind(tmp_path: Path) -> None:
    size = 4096 + len(b"written")
    descriptor = open_shared(size)
    ours = map_shared(descriptor)
    assert ours[:] == bytes(size)
    assert list(tmp_path.iterdir()) == []
    subprocess.run([sys.executable, "-c", WRITER, str(descriptor)], pass_fds=[descriptor], check=True)
    os.close(descriptor)
    assert ours[4096:] == b"written"
    ours.close()


@pytest.mark.usefixtures("each_kind")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_no_program_inherits_it() -> None:
    before = open_descriptors()
    descriptor = open_shared(64)
    with map_shared(descriptor):
        ours = open_descriptors() - before
        assert descriptor in ours
        assert [fd for fd in ours if os.get_inheritable(fd)] == []
    os.close(descriptor)
    assert open_descriptors() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_failure_leaves_no_descriptor() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="Invalid argument"):
        open_shared(-1)
    assert open_descriptors() == before
