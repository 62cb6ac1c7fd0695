"""The fields of an HTTP/2 request: decoded pairs in, plain data out (RFC 9113 sections 8.1 to 8.3, RFC 8441).

Knows which fields there have to be, which there must not be, and what they mean for the message. Must not know: frames,
streams, asyncio, ASGI, responses.
"""

from libc.stdint cimport int64_t

from fastasgi.codecs.headreader cimport HeadReader
from fastasgi.codecs.hpack cimport FieldList, HPACKDecoder


cdef enum:                      # HTTP2RequestHead.fault
    NO_FAULT = 0
    MALFORMED                   # a stream error of type PROTOCOL_ERROR (RFC 9113 section 8.1.1)
    REFUSED                     # to be answered with `status`


cdef class HTTP2RequestHead(HeadReader):
    """What the fields of one request mean. max_head_bytes are the size of a field list (RFC 9113 section 6.5.2).

    max_request_line_bytes is that of the line that HTTP/1.1 would have: both refuse the same target.
    """

    cdef:
        FieldList fields        # HPACKDecoder.decode() fills it
        # The result of the last read(). Of a refused request the texts that are not understood are empty
        str method
        str path                # percent-decoded, UTF-8, invalid sequences replaced; "*" of OPTIONS
        bytes raw_path
        bytes query
        bytes scheme            # in lower case
        bytes protocol          # websocket, in any case, of an extended CONNECT (RFC 8441), or None
        bytes authority         # :authority, or host; None if there is neither
        list headers            # of pairs: host of :authority first, the crumbs of cookie as one; a new one each time
        bytes priority          # the value of a Priority field, or None
        int64_t content_length  # -1 if it is not given
        bint expect_continue    # the client sent Expect: 100-continue
        bint tells_client       # there is one of FORWARDED_NAMES
        bint via_proxy          # there is Via or X-Forwarded-For
        bint accepts_trailers   # the client sent TE: trailers
        int fault
        int status              # of a refused request: 400, 414, 417, 431, 501
        const char* reason      # of a fault: a static sentence for the log; else NULL
    # Reads the request in `fields`, which `decoder` has decoded last. `lent` has to be set from before that.
    cdef int read(self, HPACKDecoder decoder) except -1
    # Looks for what makes the trailers in `fields` malformed. Only fault and reason are set.
    cdef int read_trailers(self) except -1


cdef HTTP2RequestHead unlent_head(HTTP2RequestHead head)     # this one; if it is lent, a new one with its limits
