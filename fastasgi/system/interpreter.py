"""What is told of the interpreter that runs a server."""

import logging
import sys

logger = logging.getLogger("fastasgi.error")


def log_interpreter() -> None:
    """Warn of a free-threaded CPython, whose users expect that threads run at the same time."""
    if "t" not in sys.abiflags:
        return
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        logger.warning(
            "This CPython is free-threaded, but has its GIL on: fastasgi's modules need it. Threads take "
            "turns, as in the usual build; --workers uses all processors."
        )
    else:
        logger.warning(
            "This CPython is free-threaded, and PYTHON_GIL=0 or -X gil=0 keeps its GIL off: fastasgi's "
            "modules are not made for that, and may crash."
        )
