"""The peers that are trusted to speak for others, for settings, middleware and tests."""

from collections.abc import Iterable

class TrustedPeers:
    """Addresses, networks and unix sockets: ``in`` tells whether a host is one of them."""

    def __init__(self, peers: str | Iterable[str], *, allow_names: bool = False) -> None:
        """A text may have several peers, with commas between: an address, a network such as ``10.0.0.0/8``,
        ``unix`` for every unix socket that is listened on, ``unix:PATH`` or a path for one, ``*`` for all.
        An IPv4-mapped IPv6 address is the IPv4 address.

        Raises ValueError for anything else. With `allow_names` any other text is a name, which is compared as
        it stands; ``*`` beside others is a name too.
        """

    def __contains__(self, host: str | None) -> bool: ...
    def trusts_peer(self, peer: object, own: object) -> bool:
        """Whether the peer of a connection is trusted. `peer` and `own` are asyncio's ``peername`` and
        ``sockname``.

        If it is a unix socket, only `own` counts: a client chooses the other name.
        """

def split_peers(peers: str | Iterable[str]) -> list[str]:
    """The texts that a text with commas, or several such texts, stand for."""
