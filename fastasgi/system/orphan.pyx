"""See orphan.h: what the kernel does where no thread of ours gets the interpreter any more."""

cdef extern from "system/orphan.h" nogil:
    int end_after_parent(unsigned int life_s)


def end_orphan(unsigned int life_s):
    end_after_parent(life_s)
