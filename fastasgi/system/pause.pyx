"""A pause that tells when it was over, whoever held the interpreter then."""

import os

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd* fds, unsigned long count, int timeout_ms)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)


cdef class Pause:
    """Waits in one thread, until another one ends it. Raises OSError if the system lacks descriptors."""

    cdef int reader
    cdef int writer

    def __cinit__(self):
        self.reader = self.writer = -1
        self.reader, self.writer = os.pipe()

    def __dealloc__(self):
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)

    def wait(self, double seconds) -> float:
        """Wait for so long. Returns the monotonic time, in seconds, at which the wait was over.

        If end() has been called it returns at once, and -1. The thread may get the interpreter only later: as much
        later as other threads have held it.
        """
        cdef pollfd waited
        cdef timespec now
        cdef int found
        waited.fd = self.reader
        waited.events = POLLIN
        waited.revents = 0
        with nogil:
            found = poll(&waited, 1, <int>(seconds * 1000 + 0.5))
            clock_gettime(CLOCK_MONOTONIC, &now)
        return -1 if found > 0 else now.tv_sec + now.tv_nsec / 1e9

    def end(self) -> None:
        """Have the wait under way, and all others, return at once. From any thread."""
        os.write(self.writer, b"e")
