"""Whole requests of HTTP/2 as a micro-benchmark."""

import contextlib
import itertools

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from bench import micro_http2
from bench.http2 import StreamCounter
from bench.inprocess import InProcess
from bench.micro_http2 import AT_ONCE, HEADS


def test_each_batch_opens_the_next_streams_with_the_same_fields() -> None:
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    counter = StreamCounter()
    counter.feed(server.data_to_send())
    batches = micro_http2._http2_requests(HEADS["small"], counter)
    streams = itertools.count(1, 2)
    sizes = []
    for batch in itertools.islice(batches, 20):  # stream identifiers of one byte and of two
        events = server.receive_data(batch)
        requests = [event for event in events if isinstance(event, RequestReceived)]
        assert [event.stream_id for event in requests] == list(itertools.islice(streams, AT_ONCE))
        assert all(event.headers == HEADS["small"] and event.stream_ended for event in requests)
        for event in requests:
            server.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        sizes.append(len(batch))
    assert len(set(sizes[2:])) == 1


def test_a_server_is_asked_until_it_ends_the_connection() -> None:
    with contextlib.closing(InProcess(micro_http2.hello)) as server:
        server.send(micro_http2.REQUEST)
        assert server.receive().endswith(b"\r\n\r\nHello, World!")
        server.send(b"nonsense\r\n\r\n")
        assert server.receive().startswith(b"HTTP/1.1 400 ")
        with pytest.raises(ValueError, match="ended the connection"):
            server.receive()
