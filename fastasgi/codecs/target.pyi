"""Targets of requests, for tests. The server itself calls most of it from C."""

def split_target(target: bytes) -> tuple[str, bytes, bytes] | None:
    """Path, path as it came, and query of a target that begins with a path; None if it is malformed.

    The first is percent-decoded, as UTF-8; invalid sequences are replaced.
    """

def check_host(host: bytes, *, named: bool = False) -> bool:
    """Whether this is a valid value of Host; `named`: and its host is not empty."""
