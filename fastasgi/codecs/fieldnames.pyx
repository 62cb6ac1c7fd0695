"""See fieldnames.pxd for the contracts."""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport SIZE_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastasgi.codecs.scan cimport SCAN_NAME_BYTES, ScanName, scan_pad


# Names of fields that mean something for an HTTP/1.1 message itself, in the order of KnownName
cdef tuple MEANINGFUL = (
    b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade",
)
# Names of fields whose values come again and again, from one client or from all, and are no secrets; the first ones in
# the order of KnownName
cdef tuple REPEATING = (
    b"keep-alive", b"proxy-connection", b"te", b"via", b"priority", b":authority", b":method", b":protocol", b":scheme",
    b":status",
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"access-control-request-headers",
    b"access-control-request-method", b"alt-used", b"cache-control", b"cdn-loop", b"cf-ipcountry",
    b"cf-visitor", b"content-encoding", b"content-language", b"content-type", b"device-memory", b"dnt",
    b"downlink", b"dpr", b"early-data", b"ect", b"grpc-accept-encoding", b"grpc-encoding", b"grpc-timeout",
    b"http2-settings", b"max-forwards", b"mcp-protocol-version", b"origin", b"pragma",
    b"prefer", b"purpose", b"rtt", b"save-data",
    b"sec-ch-prefers-color-scheme", b"sec-ch-ua", b"sec-ch-ua-arch", b"sec-ch-ua-bitness",
    b"sec-ch-ua-full-version-list", b"sec-ch-ua-mobile", b"sec-ch-ua-model", b"sec-ch-ua-platform",
    b"sec-ch-ua-platform-version", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
    b"sec-fetch-storage-access", b"sec-fetch-user", b"sec-gpc", b"sec-purpose", b"sec-websocket-extensions",
    b"sec-websocket-version", b"service-worker", b"trailer", b"upgrade-insecure-requests",
    b"user-agent", b"viewport-width", b"x-envoy-attempt-count", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-proto", b"x-forwarded-scheme",
    b"x-forwarded-server", b"x-grpc-web", b"x-http-method-override", b"x-requested-with", b"x-scheme",
    b"x-user-agent",
)
# The first ones in the order of KnownName
cdef tuple OTHERS = (
    b":path", b"cookie", b"date", b"server",
    b"accept-datetime", b"authorization", b"b3", b"baggage", b"cf-connecting-ip", b"cf-ray",
    b"content-disposition", b"correlation-id", b"forwarded", b"from", b"idempotency-key",
    b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
    b"last-event-id", b"mcp-session-id", b"ping-from", b"ping-to", b"proxy-authorization", b"range",
    b"referer", b"request-id", b"sec-websocket-key", b"sec-websocket-protocol", b"soapaction", b"traceparent",
    b"tracestate", b"true-client-ip", b"warning", b"x-amz-cf-id", b"x-amzn-trace-id", b"x-api-key",
    b"x-b3-sampled", b"x-b3-spanid", b"x-b3-traceid", b"x-client-ip", b"x-cloud-trace-context",
    b"x-correlation-id", b"x-csrf-token", b"x-csrftoken", b"x-envoy-external-address", b"x-forwarded-for",
    b"x-original-uri", b"x-real-ip", b"x-request-id", b"x-request-start", b"x-xsrf-token",
)
# Names of fields of responses, which matter to a codec that compresses them
cdef tuple RESPONSES = (
    b"accept-ranges", b"access-control-allow-credentials", b"access-control-allow-headers",
    b"access-control-allow-methods", b"access-control-allow-origin", b"access-control-expose-headers",
    b"access-control-max-age", b"age", b"allow", b"alt-svc", b"content-location", b"content-range",
    b"content-security-policy", b"etag", b"expires", b"last-modified", b"link", b"location", b"proxy-authenticate",
    b"referrer-policy", b"refresh", b"retry-after", b"server-timing", b"set-cookie", b"strict-transport-security",
    b"vary", b"www-authenticate", b"x-content-type-options", b"x-frame-options", b"x-powered-by", b"x-xss-protection",
)
cdef tuple NAMES = MEANINGFUL + REPEATING + OTHERS + RESPONSES

FORWARDED_NAMES = (
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
    b"forwarded",
)

cdef NameTable interned


cdef bint fill_slots(int count) noexcept nogil:
    cdef int index
    cdef uint32_t slot
    memset(interned.slots, count, sizeof(interned.slots))
    for index in range(count):
        slot = slot_of(&interned.names[index].name, interned.names[index].length, interned.multiplier)
        if interned.slots[slot] != count:
            return False
        interned.slots[slot] = <uint8_t>index
    return True


cdef int intern_names() except -1:
    cdef int index
    cdef bytes name
    if len(NAMES) >= MAX_NAMES:
        raise SystemError("raise MAX_NAMES")
    if len(MEANINGFUL) != MEANINGFUL_NAMES or len(MEANINGFUL) + len(REPEATING) != REPEATING_NAMES:
        raise SystemError(f"KnownName does not fit: {len(MEANINGFUL)} names, and {len(REPEATING)} that repeat")
    for index, name in enumerate(NAMES):
        if len(name) > SCAN_NAME_BYTES:
            raise SystemError(f"too long to be interned: {name!r}")
        # Not by scan_fold(), which would make a NUL byte, as HTTP/1.1 may bring one, of a pseudo field's colon
        scan_pad(<const uint8_t*>PyBytes_AS_STRING(name), len(name), &interned.names[index].name)
        interned.names[index].length = len(name)
        interned.names[index].object = <PyObject*>name
        interned.names[index].is_forwarded = name in FORWARDED_NAMES
    interned.names[len(NAMES)].length = SIZE_MAX        # of free slots
    # The first multiplier without a collision for these names; others find their own.
    interned.multiplier = 0x1CAD18C632A8691B
    while not fill_slots(<int>len(NAMES)):
        interned.multiplier += <uint64_t>0x1E3779B97F4A7C16     # even, so that the multiplier stays odd
    return 0


intern_names()


cdef const NameTable* name_table() noexcept:
    return &interned


cdef int find_known(const uint8_t* name, size_t n) noexcept nogil:
    cdef ScanName padded
    if n > SCAN_NAME_BYTES:
        return -1
    scan_pad(name, n, &padded)
    return known_index(&interned, &padded, n)


cdef class SharedPairs:
    def __dealloc__(self):
        cdef int i
        for i in range(1 << PAIR_BITS):
            Py_XDECREF(self.pairs[i])


# --- For Python: tests ---

NAMED = {
    "host": HOST, "content-length": CONTENT_LENGTH, "transfer-encoding": TRANSFER_ENCODING, "connection": CONNECTION,
    "expect": EXPECT, "upgrade": UPGRADE, "keep-alive": KEEP_ALIVE, "proxy-connection": PROXY_CONNECTION, "te": TE,
    "via": VIA, "priority": PRIORITY, ":authority": PSEUDO_AUTHORITY, ":method": PSEUDO_METHOD,
    ":protocol": PSEUDO_PROTOCOL, ":scheme": PSEUDO_SCHEME, ":status": PSEUDO_STATUS, ":path": PSEUDO_PATH,
    "cookie": COOKIE, "date": DATE, "server": SERVER,
}


def known_name(bytes name not None):
    cdef int known = find_known(<const uint8_t*>PyBytes_AS_STRING(name), len(name))
    return None if known < 0 else known
