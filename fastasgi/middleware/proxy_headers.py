"""Proxy headers for applications that are wrapped by hand; the server itself needs no middleware for them."""

from fastasgi.application.interfaces import ASGIApp, Receive, Scope, Send
from fastasgi.trust.forwarded import Forwarding
from fastasgi.trust.peers import TrustedPeers


class ProxyHeadersMiddleware:
    """The application, told who the client of a trusted proxy is: ``client`` and ``scheme`` of its scopes.

    ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed if the scope's client is one of
    trusted_hosts: addresses, networks, names as test clients have them, or ``*`` alone for all. Raises
    ValueError for a text that looks like a network and is none, and for an address with a zone.
    """

    def __init__(self, app: ASGIApp, trusted_hosts: list[str] | str = "127.0.0.1") -> None:
        self.app = app
        self._forwarding = Forwarding(TrustedPeers(trusted_hosts, allow_names=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's call, with a scope that is changed in place."""
        if scope["type"] != "lifespan":
            self._forwarding.apply(scope)
        await self.app(scope, receive, send)
