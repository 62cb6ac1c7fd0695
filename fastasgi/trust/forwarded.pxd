"""What proxies say of a request in its header: X-Forwarded-* and Forwarded (RFC 7239), and who is believed.

Proxies append to these fields. So each field is read from its end, up to the first hop that is not trusted: what stands
left of that may be anything. Knows the grammar of the fields and what they mean for an ASGI scope. Must not know:
HTTP's own grammar, connections.
"""

from fastasgi.codecs.address cimport Address
from fastasgi.codecs.text cimport Span
from fastasgi.trust.peers cimport TrustedPeers


cdef struct Hop:                # how far the walk from the nearest proxy toward the client has come
    int number                  # 1: what the nearest proxy says; 0: nobody says anything
    bint has_client             # the next two fields are set
    Address client              # as the proxy at this hop saw it
    int port                    # the client's; 0 if it is not told
    Span proto                  # of Forwarded; p is NULL if it is not given, and n is 0 then or if it is empty
    Span host                   # of Forwarded, like proto


cdef class Forwarding:
    """Which peers are trusted, and which fields of theirs are believed."""

    cdef:
        readonly TrustedPeers trusted
        readonly frozenset believed     # lower-case names of fields
        readonly bint strips            # requests of other peers lose all fields whose names say Forwarded

    cdef int believe(self, dict scope) except -1        # changes the scope of a trusted peer's request
    cdef list without_forwarded(self, list headers)     # the headers that an untrusted peer's request keeps
