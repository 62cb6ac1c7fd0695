"""What a worker and its supervisor say to each other over the socket pair between them.

A worker sends single bytes, and lines that begin with STANDS. A supervisor first sends a worker that it has
spawned its order, then single bytes. The end of the stream tells either side that the other has died.
"""

import signal

# From a worker to its supervisor
READY = b"r"  # it accepts connections
BEAT = b"."  # its event loop has turned
RETIRE = b"m"  # instead of BEAT: it wants to be succeeded by another worker
LIMIT = b"l"  # instead of BEAT: the same, since it has served limit_max_requests
STANDS = b"w"  # begins a line that says where it stands while it starts, or while its loop does not turn

# From a supervisor to its worker
STOP = b"t"  # stop gracefully
SUCCEEDED = b"s"  # stop accepting connections now: another worker serves your sockets
HURRY = b"h"  # stop at once

# From a supervisor to the process of the admin listener, in place of a report
ADMIN_END = b"end\n"  # stop: the server has ended
ADMIN_SUCCEEDED = b"succeeded\n"  # stop soon: another process is about to answer at your sockets

# Blocked while a supervisor starts a worker; the worker unblocks them once it handles them. Windows lacks
# some, and has no workers.
HELD_SIGNALS: list[int] = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
