"""What tests of one call of the application share."""

import asyncio
import contextlib
from typing import Any

from anyclient import Response

OK = Response(200, body=b"ok")
START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"ok"}
MORE = {"type": "http.response.body", "body": b"ok", "more_body": True}
CUT_OFF = Response(200, body=b"ok", is_whole=False)
DISCONNECT = {"type": "http.disconnect"}


class Oops(Exception):
    """What an application raises here."""


class Outcome:
    """What one call of an application came to: to be awaited where the call is made elsewhere."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Any:
        return self._future.__await__()

    @contextlib.contextmanager
    def set_by(self) -> Any:
        """The exception that leaves the block, or None."""
        try:
            yield
        except BaseException as error:
            self._future.set_result(error)
            raise
        else:
            self._future.set_result(None)
