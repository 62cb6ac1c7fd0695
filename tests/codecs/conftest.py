"""Fixtures of the codecs' tests."""

import ctypes
import mmap
from collections.abc import Iterator

import pytest


@pytest.fixture
def fence() -> Iterator[memoryview]:
    """A page of memory with pages before and behind it that may not be touched."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    libc = ctypes.CDLL(None, use_errno=True)
    anchor = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(anchor)
    fences = [ctypes.c_void_p(address), ctypes.c_void_p(address + 2 * page)]
    for start in fences:
        assert libc.mprotect(start, ctypes.c_size_t(page), 0) == 0
    whole = memoryview(memory)
    view = whole[page : 2 * page]
    yield view
    for start in fences:
        libc.mprotect(start, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)
    view.release()
    whole.release()
    del anchor
    memory.close()
