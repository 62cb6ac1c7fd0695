"""What proxies say of a request, for settings and middleware. The server itself calls it from C."""

from collections.abc import Iterable, MutableMapping
from typing import Any

from fastasgi.trust.peers import TrustedPeers

FIELDS: tuple[str, ...]
"""The fields that can be believed, in lower case."""

class Forwarding:
    """Which peers are trusted, and which fields of theirs are believed."""

    def __init__(
        self,
        trusted: TrustedPeers,
        believed: Iterable[str] = ("x-forwarded-for", "x-forwarded-proto"),
        *,
        strips: bool = False,
    ) -> None:
        """`believed` has names of FIELDS. With `strips`, requests of other peers lose all fields named like
        these."""

    def apply(self, scope: MutableMapping[str, Any]) -> None:
        """Change the scope of a request, or a WebSocket, if its client is a trusted peer.

        ``client`` becomes the first address from the right that is not trusted, and ``scheme`` that of this
        client's connection. A malformed value changes nothing.
        """
