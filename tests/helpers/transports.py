"""Transports of the event loop, with something put between them and the server."""

from collections.abc import Callable
from typing import Any

import pytest

from fastasgi.sinks.socketsink import ServerProtocol
from fastasgi.sinks.tlssink import TLSProtocol


def _wrapping(protocol_type: Any, wrap: Callable[[Any], Any]) -> Any:
    class WrappingProtocol(protocol_type):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(wrap(transport))

    return WrappingProtocol


def wrap_transports(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]) -> None:
    """Have servers that start from now on use what `wrap` makes of each transport."""
    monkeypatch.setattr("fastasgi.server.ServerProtocol", _wrapping(ServerProtocol, wrap))
    monkeypatch.setattr("fastasgi.server.TLSProtocol", _wrapping(TLSProtocol, wrap))
