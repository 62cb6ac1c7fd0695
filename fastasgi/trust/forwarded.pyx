"""See forwarded.pxd for the contracts."""

import re

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memset

from fastasgi.codecs.address cimport Address, address_text, read_address
from fastasgi.codecs.fieldnames cimport FORWARDED_NAMES
from fastasgi.codecs.target cimport is_named_host
from fastasgi.codecs.text cimport Span, equals_folded, read_port, span, span_of, trimmed
from fastasgi.trust.peers cimport TrustedPeers

cdef enum:
    MAX_HOPS = 64               # further hops are not looked at: no chain of proxies is as long
    MAX_PREFIX = 1024           # bytes of a prefix that is believed, at most

cdef bytes FOR
cdef bytes PROTO
cdef bytes HOST
cdef bytes PORT
cdef bytes PREFIX
cdef bytes FORWARDED
FOR, PROTO, HOST, PORT, PREFIX, FORWARDED = FORWARDED_NAMES

# A path of whole segments without escapes, which is the same whether it is decoded or not
cdef object PLAIN_PATH = re.compile(rb"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9!$&'()*+;=:@._~-]+)+")

FIELDS = tuple([name.decode() for name in FORWARDED_NAMES])


cdef class Forwarding:

    def __cinit__(self, TrustedPeers trusted not None, believed=("x-forwarded-for", "x-forwarded-proto"), *,
                  bint strips=False):
        self.trusted = trusted
        self.believed = frozenset([name.encode() for name in believed])
        self.strips = strips

    def apply(self, dict scope) -> None:
        """Change the scope of a request, if the scope's client is trusted, by what the request's fields say."""
        client = scope.get("client")
        if (client[0] if client else None) in self.trusted:
            self.believe(scope)

    cdef int believe(self, dict scope) except -1:
        cdef Hop hop
        cdef bytes chain, proto, host
        cdef dict found = None
        cdef Py_ssize_t n
        for pair in scope["headers"]:
            name = pair[0]
            n = len(name)
            if (n == 9 or 15 <= n <= 18) and name in self.believed:
                if found is None:
                    found = {}
                found.setdefault(name, []).append(pair[1])
        if found is None:
            return 0
        memset(&hop, 0, sizeof(hop))
        proto = host = None
        if FORWARDED in found:
            chain = b",".join(<list>found[FORWARDED])
            walk(chain, True, self.trusted, &hop)
            proto = hop.proto.p[:hop.proto.n]
            host = hop.host.p[:hop.host.n]
        else:
            chain = b",".join(<list>found.get(FOR, ()))
            walk(chain, False, self.trusted, &hop)
            proto = entry_at(found.get(PROTO), chain, hop.number)
            host = entry_at(found.get(HOST), chain, hop.number)
        if hop.has_client:
            scope["client"] = (address_text(&hop.client), hop.port)
        if proto:
            set_scheme(scope, proto.lower())
        if host or PORT in found:
            set_host(scope, host, entry_at(found.get(PORT), chain, hop.number))
        if PREFIX in found:
            add_prefix(scope, entry_at(found[PREFIX], chain, hop.number))
        return 0

    cdef list without_forwarded(self, list headers):
        return [pair for pair in headers if not is_forwarded_name(<bytes>(<tuple>pair)[0])]


cdef int set_scheme(dict scope, bytes proto) except -1:
    cdef bint is_websocket = scope["type"] == "websocket"
    if proto == b"https" or proto == b"wss":
        scope["scheme"] = "wss" if is_websocket else "https"
    elif proto == b"http" or proto == b"ws":
        scope["scheme"] = "ws" if is_websocket else "http"
    return 0


cdef int set_host(dict scope, bytes host, bytes port) except -1:
    """Make the host and port that the client asked for the scope's server, and the Host field, of which URLs are
    made."""
    cdef object number = port_of(port) if port else None
    cdef object server = scope["server"]
    cdef int usual = 443 if scope["scheme"] in ("https", "wss") else 80
    if host and names_host(host):
        name, own_port = split_host(host)
        told = own_port if number is None else number
        scope["server"] = (name.decode("ascii").strip("[]"), usual if told is None else told)
    elif number is None:
        return 0
    else:
        if server is not None and server[1] is not None:
            scope["server"] = (server[0], number)
        host = dict(scope["headers"]).get(b"host", b"")
        if not names_host(host):
            return 0
    if number is not None:
        name, _ = split_host(host)
        host = name if number == usual else b"%b:%d" % (name, number)
    return replace_host(scope["headers"], host)


cdef int add_prefix(dict scope, bytes prefix) except -1:
    """Put the path under which the proxy serves the application, and which it has taken off, before the scope's
    paths."""
    prefix = prefix.removesuffix(b"/")
    if len(prefix) > MAX_PREFIX or PLAIN_PATH.fullmatch(prefix) is None:
        return 0
    text = prefix.decode("ascii")
    scope["root_path"] = text + scope["root_path"]
    if scope["raw_path"] == b"*":
        return 0                        # the server as a whole, which is no path (RFC 9112 section 3.2.4)
    scope["path"] = text + scope["path"]
    scope["raw_path"] = prefix + scope["raw_path"]
    return 0


cdef int replace_host(list headers, bytes host) except -1:
    cdef Py_ssize_t i
    for i, (name, _) in enumerate(list(headers)):
        if name == b"host":             # by code of an application's, if ProxyHeadersMiddleware is inside one
            headers[i:i + 1] = [(b"host", host)]
            return 0
    headers.insert(0, (b"host", host))
    return 0


cdef bint names_host(bytes host):
    """Whether this is a valid value of Host with a name in it."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(host)
    return is_named_host(p, p + PyBytes_GET_SIZE(host))


cdef tuple split_host(bytes host):
    """The name in a valid Host, with its brackets, and the port, or None if it has none."""
    name, colon, port = host.rpartition(b":")
    if not colon or host.endswith(b"]"):
        return host, None
    return name, int(port) if port else None


cdef object port_of(bytes text):
    """The number of a port; None if the text is none."""
    cdef int port = read_port(span_of(text))
    return port if port > 0 else None


cdef bint is_forwarded_name(bytes name):
    """Whether a field tells of a client, or would to a gateway that makes CGI names, which reads "_" as "-"."""
    cdef const char* p = name
    if len(name) < 9 or (p[0] != c"f" and p[0] != c"x"):
        return False
    plain = name.replace(b"_", b"-")
    return plain == FORWARDED or plain.startswith(b"x-forwarded-")


# --- Lists whose last entry is the nearest proxy's ---

cdef const char* opening_quote(const char* start, const char* closing) noexcept:
    """The quote that begins the quoted-string which ends at `closing` (RFC 9110 section 5.6.4), or NULL."""
    cdef const char* p = closing - 1
    cdef const char* slash
    while p >= start:
        if p[0] == c"\"":
            slash = p
            while slash > start and (slash - 1)[0] == c"\\":
                slash -= 1
            if (p - slash) % 2 == 0:
                return p
            p = slash
        p -= 1
    return NULL


cdef bint previous_entry(const char* start, const char** end, bint has_quotes, Span* entry) noexcept:
    """Cut the last entry that is not empty off [start, end). False if there is none, or if nobody knows where it
    begins."""
    cdef const char* last = end[0]
    cdef const char* p = last
    while True:
        if p == start or (p - 1)[0] == c",":
            entry[0] = trimmed(p, last)
            if entry.n:
                end[0] = p - 1 if p > start else start
                return True
            if p == start:
                return False
            p -= 1
            last = p
        elif has_quotes and (p - 1)[0] == c"\"":
            p = opening_quote(start, p - 1)
            if p is NULL:
                return False
        else:
            p -= 1


cdef int walk(bytes chain, bint is_forwarded, TrustedPeers trusted, Hop* hop) except -1:
    """Go from the right to the first hop that is not trusted. `chain` is the value of Forwarded or X-Forwarded-For."""
    cdef const char* start = chain
    cdef const char* end = start + PyBytes_GET_SIZE(chain)
    cdef Span entry
    cdef Span node
    cdef Address address
    cdef int port
    while hop.number < MAX_HOPS and previous_entry(start, &end, is_forwarded, &entry):
        hop.number += 1
        node = entry
        if is_forwarded and not read_element(entry, hop, &node):
            hop.proto.n = hop.host.n = 0
            break
        if not read_node(node, &address, &port):
            break                       # an obfuscated identifier or "unknown": nobody here knows who that is
        hop.has_client = True
        hop.client = address
        hop.port = port
        if not trusted.has(&address):
            break
    return 0


cdef bytes entry_at(list values, bytes chain, int hop):
    """The entry that belongs to a hop, if a field has one for each hop of `chain`; otherwise the last one."""
    cdef bytes value
    cdef const char* start
    cdef const char* end
    cdef Span entry
    if not values:
        return b""
    value = b",".join(values)
    start = value
    end = start + PyBytes_GET_SIZE(value)
    if hop == 0 or count_entries(value) != count_entries(chain):
        hop = 1
    while hop and previous_entry(start, &end, False, &entry):
        hop -= 1
        if hop == 0:
            return PyBytes_FromStringAndSize(entry.p, entry.n)
    return b""


cdef int count_entries(bytes value):
    cdef const char* start = value
    cdef const char* end = start + PyBytes_GET_SIZE(value)
    cdef Span entry
    cdef int count = 0
    while previous_entry(start, &end, False, &entry):
        count += 1
    return count


# --- What stands in an entry ---

cdef bint read_node(Span node, Address* address, int* port) noexcept:
    """Read an address, with a port or not; IPv6 before a port has brackets (RFC 7239 section 6). False if it is
    neither."""
    cdef const char* end
    cdef const char* colon
    cdef const char* host
    cdef const char* host_end
    if node.n == 0:
        return False
    host = node.p
    end = host_end = host + node.n
    port[0] = 0
    if host[0] == c"[":
        host += 1
        host_end = <const char*>memchr(host, c"]", end - host)
        if host_end is NULL or memchr(host, c":", host_end - host) is NULL:
            return False
        colon = host_end + 1
    else:
        colon = <const char*>memchr(host, c":", node.n)
        if colon is NULL or memchr(colon + 1, c":", end - colon - 1) is not NULL:
            colon = end                 # IPv6 without brackets has no port
        else:
            host_end = colon
    if colon < end:
        if colon[0] != c":":
            return False
        # RFC 7239 section 6.2: obfport
        port[0] = 0 if colon + 1 < end and colon[1] == c"_" else read_port(span(colon + 1, end))
        if port[0] < 0:
            return False
    return read_address(host, host_end - host, address)


cdef bint read_element(Span element, Hop* hop, Span* node) noexcept:
    """Read the for, proto and host of a forwarded-element (RFC 7239 section 4). False if it is malformed.

    Escapes in quoted strings are left as they are: nothing that is believed has one.
    """
    cdef const char* p = element.p
    cdef const char* end = p + element.n
    cdef const char* equals
    cdef const char* behind
    cdef Span name
    cdef Span value
    node.p = hop.proto.p = hop.host.p = NULL
    node.n = hop.proto.n = hop.host.n = 0
    while p < end:
        behind = p
        while behind < end and behind[0] != c";":
            if behind[0] == c"\"":
                behind += 1
                while behind < end and behind[0] != c"\"":
                    behind += 2 if behind[0] == c"\\" else 1
                if behind >= end:
                    return False
            behind += 1
        equals = <const char*>memchr(p, c"=", behind - p)
        if equals is not NULL:
            name = trimmed(p, equals)
            value = trimmed(equals + 1, behind)
            if value.n >= 2 and value.p[0] == c"\"" and value.p[value.n - 1] == c"\"":
                value.p += 1
                value.n -= 2
            if not read_parameter(name, value, hop, node):
                return False
        elif trimmed(p, behind).n:
            return False
        p = behind + 1
    return True


cdef bint read_parameter(Span name, Span value, Hop* hop, Span* node) noexcept:
    """Keep the value of a parameter. False if it has been given already."""
    cdef Span* place
    if equals_folded(name, b"for", 3):
        place = node
    elif equals_folded(name, b"proto", 5):
        place = &hop.proto
    elif equals_folded(name, b"host", 4):
        place = &hop.host
    else:
        return True
    if place.p is not NULL:
        return False
    place[0] = value
    return True
