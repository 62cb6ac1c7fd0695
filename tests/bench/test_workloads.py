"""The workloads' requests."""

import h11

from bench.workloads import WORKLOADS


def test_each_workload_has_a_request_that_h11_reads() -> None:
    for work in WORKLOADS.values():
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(work.request)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        assert request.target == work.path.encode()
        length = 0
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            length += len(event.data)
        assert length == work.body_bytes
        assert work.workers <= 2
