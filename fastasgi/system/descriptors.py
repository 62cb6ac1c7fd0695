"""This process's table of file descriptors. Must not know: what they are for."""

import contextlib
import fcntl
import os
import resource

ROOM = 16384  # descriptors


def make_room() -> None:
    """Have the kernel make room for ROOM descriptors, or as many as the limit allows.

    Linux lets a process that has several threads wait for some 15 ms each time that the table grows, which
    would be in the middle of a burst of connections. Call it while there is one thread.
    """
    soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = ROOM if soft_limit == resource.RLIM_INFINITY else min(ROOM, soft_limit)
    with contextlib.suppress(OSError):  # no descriptor is left, which will be told when one is needed
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, most - 1))
        finally:
            os.close(fd)
