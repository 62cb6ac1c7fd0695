"""Helpers that applications, and formatters of logs, import from uvicorn's module of this name."""

import urllib.parse
from typing import Any

from fastasgi.application.interfaces import Scope
from fastasgi.asgi.exchange import ClientDisconnected

__all__ = ["ClientDisconnected", "get_client_addr", "get_path_with_query_string"]


def get_client_addr(scope: Scope) -> str:
    """The client as in the access log: ``127.0.0.1:50000``; empty where there is no address."""
    client: Any = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def get_path_with_query_string(scope: Scope) -> str:
    """The path, percent-encoded again, and the query, as in the access log."""
    path: str = urllib.parse.quote(scope["path"])
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('latin-1')}" if query else path
