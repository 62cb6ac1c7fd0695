"""Ends an orphan by the kernel, even if no thread of ours gets the interpreter any more: see orphan.h."""

cdef extern from "system/orphan.h" nogil:
    int end_after_parent(unsigned int life_s)


def end_orphan(unsigned int life_s):
    end_after_parent(life_s)
