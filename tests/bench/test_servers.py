"""The servers' commands."""

from pathlib import Path

from benchparts import ROOT

from bench.errors import UnsupportedError
from bench.probe import free_port
from bench.servers import SERVERS, Place
from bench.workloads import WORKLOADS


def test_the_readme_counts_servers_and_workloads() -> None:
    text = (ROOT / "bench" / "README.md").read_text()
    assert f"{len(WORKLOADS)} workloads, {len(SERVERS)} servers" in text


def test_every_server_makes_a_command_for_every_workload_or_says_why_not(tmp_path: Path) -> None:
    programs = (
        "python",
        "uvicorn",
        "granian",
        "peregrine",
        "h2corn",
        "gunicorn",
        "hypercorn",
        "daphne",
        "floor",
    )
    for program in programs:
        (tmp_path / program).touch()
    place = Place(
        free_port(),
        tmp_path / "socket",
        tmp_path,
        tmp_path / "floor",
        "/usr/bin/node",
        tmp_path / "key",
        tmp_path / "certificate",
    )
    for server in SERVERS.values():
        for work in WORKLOADS.values():
            if server.takes_part(work):
                try:
                    command = server.command(work, place)
                except UnsupportedError:
                    continue
                assert str(place.uds if work.uds else place.port) in " ".join(command)
                assert not work.tls or str(place.certificate) in " ".join(command)


def test_servers_whose_other_figures_say_nothing_new_are_at_a_few_workloads() -> None:
    places = {
        server.name: [name for name, work in WORKLOADS.items() if server.takes_part(work)]
        for server in SERVERS.values()
    }
    for name in ("gunicorn", "daphne"):
        assert places.pop(name) == ["hello"]
    assert places.pop("hypercorn") == ["hello", *(name for name, work in WORKLOADS.items() if work.http2)]
    overloads = [name for name, work in WORKLOADS.items() if work.kind == "overload"]
    assert places.pop("fastasgi-shedding") == overloads
    assert places.pop("h2corn") == [name for name in WORKLOADS if name not in overloads]
    assert places.pop("floor") != []
    assert all(works == list(WORKLOADS) for works in places.values())
