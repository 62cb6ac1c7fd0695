"""See registry.pxd for the contracts."""


cdef class Registry:

    def __init__(self, loop):
        self.loop = loop
        self.connections = set()
        self.suspended = set()
        self.slow_ended = []

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self.connections)

    def open_connections(self) -> set:
        """A copy of the set of open connections."""
        return set(self.connections)

    def running_tasks(self) -> set:
        """The tasks of the application calls that have not returned."""
        return {exchange.task for exchange in self.suspended} - {None}

    async def wait_idle(self) -> None:
        """Return once no connection is open and no application call runs."""
        while self.connections or self.suspended:
            if self.idle_waiter is None or self.idle_waiter.done():
                self.idle_waiter = self.loop.create_future()
            await self.idle_waiter

    cdef int check_idle(self) except -1:
        waiter = self.idle_waiter
        if waiter is not None and not self.connections and not self.suspended:
            self.idle_waiter = None
            if not waiter.done():
                waiter.set_result(None)
        return 0
