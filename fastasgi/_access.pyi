"""The access log: one line a response, written in batches."""

import logging
from collections.abc import Callable

class AccessLog:
    """One line a response."""

    def __init__(
        self,
        *,
        format: str | None,
        write: Callable[[str], object] | None,
        prefix: str = "",
        use_colors: bool = False,
        logger: logging.Logger | None = None,
    ) -> None:
        """`format` is None for uvicorn's line, "json", or a text with atoms, {client} among them.

        Lines go to `write` in batches, each line whole, or to `logger.info` one by one; exactly one of the
        two is given. `prefix` and `use_colors` shape uvicorn's line as `write` gets it. Raises ValueError
        that names the atom which doesn't exist.
        """

    def flush(self) -> None:
        """Write what is batched."""
