"""The errors that a user of the bench sees as one line."""


class BenchError(Exception):
    """Something the bench needs isn't there or failed; the message names it and the mend."""


class UsageError(BenchError):
    """An option or argument that can't be: the message names it, the value and the mend."""


class MissingError(BenchError):
    """A program or package that a turn needs isn't installed."""


class UnsupportedError(BenchError):
    """The server can't do this workload; the message says how that showed."""
