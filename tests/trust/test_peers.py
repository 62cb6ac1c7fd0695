"""Who is trusted: addresses, networks, unix sockets, names."""

import ipaddress
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware as UvicornsMiddleware

from fastasgi.trust.peers import TrustedPeers, split_peers


@pytest.mark.parametrize(
    ("peers", "trusted", "others"),
    [
        ("127.0.0.1", ["127.0.0.1", "::ffff:127.0.0.1"], ["127.0.0.2", "::1", "", "localhost", "127.0.0.1 "]),
        ("127.0.0.1, ::1,", ["127.0.0.1", "::1", "0:0:0:0:0:0:0:1"], ["::2", ",", " "]),
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.0", "9.255.255.255"]),
        ("10.1.0.0/255.255.0.0", ["10.1.2.3"], ["10.2.0.0"]),
        ("10.0.0.128/25", ["10.0.0.128", "10.0.0.255"], ["10.0.0.127", "10.0.1.128"]),
        ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["::1", "x"]),
        ("::/0", ["::1", "2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("2001:DB8::/33", ["2001:db8:7fff::1"], ["2001:db8:8000::1", "2001:db9::1"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0", "fe80::1%1"], ["fec0::1%eth0"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "::1"]),
        ("*", ["1.2.3.4", "::1", "anything", ""], []),
        (["127.0.0.1", "*"], ["1.2.3.4"], []),
        (["127.0.0.1,::1", "10.0.0.1"], ["::1", "10.0.0.1"], ["10.0.0.2"]),
        ("unix", [], ["127.0.0.1", "", "/run/a.sock"]),
        ([], [], ["127.0.0.1", "", "0.0.0.0", "::"]),
        ("", [], ["127.0.0.1", ""]),
    ],
)  # fmt: skip
def test_hosts(peers: str | list[str], trusted: list[str], others: list[str]) -> None:
    trusts = TrustedPeers(peers)
    assert [host for host in trusted if host not in trusts] == []
    assert [host for host in others if host in trusts] == []


def test_no_host_is_trusted_only_by_all() -> None:
    assert None in TrustedPeers("*")
    assert None not in TrustedPeers("0.0.0.0/0, ::/0, unix")


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("localhost", "'localhost': give an address"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("10.0.0.0/33", "'10.0.0.0/33': give an address"),
        ("256.0.0.1", "give an address"),
        ("010.0.0.1", "give an address"),
        ("10.0.0.1:80", "give an address"),
        ("[::1]", "give an address"),
        ("10.0.0.*", "give an address"),
        ("unixes", "give an address"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone, which a peer's address is"),
        ("fe80::%eth0/64", "has a zone"),
    ],
)  # fmt: skip
def test_what_is_no_peer_is_refused_with_its_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        TrustedPeers(["127.0.0.1", text])
    assert mend in str(caught.value)


def test_names_where_they_are_allowed() -> None:
    trusts = TrustedPeers("testclient, 10.0.0.1", allow_names=True)
    assert "testclient" in trusts
    assert "10.0.0.1" in trusts
    assert "testclients" not in trusts
    for text in ("10.0.0.1/8", "fe80::1%eth0"):
        with pytest.raises(ValueError, match=r"write 10|has a zone"):
            TrustedPeers(text, allow_names=True)


@pytest.mark.parametrize("peers", ["127.0.0.1,*", "*,", " *", ["127.0.0.1", "*"], ["*", "*"], []])
def test_beside_names_an_asterisk_is_one_unless_it_stands_alone(peers: str | list[str]) -> None:
    """As for uvicorn's middleware."""
    assert "1.2.3.4" not in TrustedPeers(peers, allow_names=True)
    assert "1.2.3.4" not in UvicornsMiddleware(None, peers).trusted_hosts
    for alone in ("*", ["*"]):
        assert "1.2.3.4" in TrustedPeers(alone, allow_names=True)
        assert "1.2.3.4" in UvicornsMiddleware(None, alone).trusted_hosts


@pytest.mark.parametrize(
    ("peers", "peer", "own", "trusted"),
    [
        ("127.0.0.1", ("127.0.0.1", 5), ("127.0.0.1", 80), True),
        ("127.0.0.1", ("127.0.0.2", 5), ("127.0.0.1", 80), False),
        ("::1", ("::1", 5, 0, 0), ("::1", 80, 0, 0), True),
        ("unix", ("127.0.0.1", 5), ("127.0.0.1", 80), False),
        ("unix", "", "/run/a.sock", True),
        ("unix", b"", b"/run/a.sock", True),
        ("unix", None, "/run/a.sock", True),
        ("unix", None, ("127.0.0.1", 80), False),
        ("unix", None, None, False),
        ("127.0.0.1", None, ("127.0.0.1", 80), False),
        ("127.0.0.1", "", "/run/a.sock", False),
        ("0.0.0.0/0,::/0", "", "/run/a.sock", False),
        ("*", "", "/run/a.sock", True),
        ("*", None, None, True),
        ("/run/a.sock", "", "/run/a.sock", True),
        ("unix:/run/a.sock", "", b"/run/a.sock", True),
        ("unix:///run/a.sock", "", "/run/a.sock", True),
        ("unix:a.sock", "", "a.sock", True),
        ("unix:/run/a.sock", "", "/run/b.sock", False),
        ("unix:/run/a.sock", "/run/a.sock", "/run/b.sock", False),
        ("unix:a.sock", "a.sock", "/run/b.sock", False),
        ("unix:/run/a.sock", "/run/a.sock", None, False),
        ("unix:./a.sock", "", "a.sock", True),
        ("unix:a.sock", "", "./a.sock", True),
        ("unix:x/../a.sock", "", "a.sock", True),
        ("unix:a.sock", "", os.path.abspath("a.sock"), True),
        (f"unix:{os.path.abspath('a.sock')}", "", "a.sock", True),
        ("unix:a.sock", "", "b/a.sock", False),
        (f"unix:{os.getcwd()}", "", "", False),
    ],
)
def test_peers_of_connections(peers: str, peer: object, own: object, trusted: bool) -> None:
    assert TrustedPeers(peers).trusts_peer(peer, own) is trusted


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(addresses, st.integers(0, 128), addresses)
def test_networks_are_those_of_the_ipaddress_module(first: object, bits: int, other: object) -> None:
    network = ipaddress.ip_network((first, bits % (first.max_prefixlen + 1)), strict=False)
    trusts = TrustedPeers(str(network))
    for address in (first, other):
        # An IPv4-mapped address is an IPv4 address here
        if getattr(address, "ipv4_mapped", None) is None:
            assert (str(address) in trusts) == (address in network)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_is_trusted_by_accident(text: str) -> None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        assert text not in TrustedPeers("0.0.0.0/0, ::/0")
    else:
        assert str(address) in TrustedPeers("0.0.0.0/0, ::/0")


def test_splitting() -> None:
    assert split_peers("a, b ,,c,") == ["a", "b", "c"]
    assert split_peers(["a,b", "", "c"]) == ["a", "b", "c"]
    assert split_peers([]) == []
