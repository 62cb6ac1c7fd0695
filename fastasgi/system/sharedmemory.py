"""Memory without a name that processes share: whoever has inherited its descriptor maps it.

It lasts for as long as any process has it open or mapped, and leaves nothing behind.
"""

import mmap
import os
import tempfile


def open_shared(size: int) -> int:
    """The descriptor of new memory of so many bytes, all of them 0. Raises OSError.

    No program that is started from here inherits it, unless it is passed on.
    """
    descriptor = _open_unnamed()
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open_unnamed() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("fastasgi", os.MFD_CLOEXEC)
        except OSError:
            pass  # a container may forbid it
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def map_shared(descriptor: int) -> mmap.mmap:
    """The memory of a descriptor, which may be closed then. Raises OSError."""
    return mmap.mmap(descriptor, 0)


def allocate(descriptor: int, start: int, size: int) -> None:
    """Have the system find room for a part of the memory. Raises OSError if there is none.

    Without this, whoever first writes to memory that there is no room for gets a signal, SIGBUS.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, size)
