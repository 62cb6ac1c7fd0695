"""The end of a process whose parent has died."""

def end_orphan(life_s: int) -> None:
    """Have the kernel end this process so many seconds after its parent, whatever it is doing then.

    On Linux; without effect elsewhere. A later change of the process's user undoes it.
    """
