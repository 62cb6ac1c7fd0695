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


def test_an_overload_may_have_as_many_connections_as_requests() -> None:
    assert WORKLOADS["hello"].most_connections(10) == 64
    assert WORKLOADS["burst"].most_connections(10) == 264
    # The handler takes 5 ms: at most 200 a second are answered.
    assert WORKLOADS["overload-3"].most_connections(10) == 6004
