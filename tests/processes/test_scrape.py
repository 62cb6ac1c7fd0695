"""What a real server tells Prometheus: what clients have seen, whatever becomes of the workers."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from adminlistener import AdminClient
from prometheus_client.parser import text_string_to_metric_families as parse
from serving import wait_until
from supervised import APP, Supervised, ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its workers share memory without a name")

FAILING_APP = APP.replace(
    'if scope["path"] == "/busy":',
    'if scope["path"] == "/fail":\n        raise RuntimeError("as was to be expected")\n'
    '    if scope["path"] == "/busy":',
)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(admin: AdminClient) -> tuple[Series, set[str]]:
    """All samples, and the names of those which only ever rise."""
    values: Series = {}
    rising = set()
    for family in parse(admin.get("/metrics")[1]):
        for sample in family.samples:
            values[sample.name, frozenset(sample.labels.items())] = sample.value
            if family.type in ("counter", "histogram"):
                rising.add(sample.name)
    return values, rising


def total(values: Series, name: str, **labels: str) -> float:
    """The sum of all series of this name that have these labels."""
    wanted = labels.items()
    return sum(value for (each, has), value in values.items() if each == name and wanted <= set(has))


class Scraped:
    """A server whose metrics are looked at again and again. No counter of it may fall or go."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self.values: Series = {}

    def look(self) -> Series:
        """The metrics as they are now."""
        values, rising = scrape(self._admin)
        for key, before in self.values.items():
            if key[0] in rising:
                assert values[key] >= before, key
        self.values = values
        return values

    def wait_for(self, number: float, name: str, **labels: str) -> None:
        """Wait until the sum of these series is that."""
        wait_until(lambda: total(self.look(), name, **labels) == number, f"{number:g} x {name} {labels}")


def test_sums_are_what_clients_have_seen(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "2", "--admin", "127.0.0.1:0", source=FAILING_APP)
    server.wait_for_workers(2)
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)
    scraped = Scraped(admin)
    for _ in range(20):
        server.get()
    with server.connect() as sock:
        ask(sock, "/fail")
    scraped.wait_for(20, "fastasgi_http_responses_total", http_response_status_class="2xx")
    scraped.wait_for(1, "fastasgi_application_exceptions_total")

    killed = next(pid for pid, state in admin.workers().items() if state == "serving")
    os.kill(killed, signal.SIGKILL)
    scraped.wait_for(1, "fastasgi_worker_ends_total", cause="SIGKILL")
    server.wait_for_workers(3)
    server.get()
    server.send(signal.SIGHUP)
    server.wait_for_count("Reloaded", 1)
    server.get()
    scraped.wait_for(2, "fastasgi_worker_ends_total", cause="asked")
    scraped.wait_for(2, "fastasgi_worker_up")
    scraped.wait_for(22, "fastasgi_http_responses_total", http_response_status_class="2xx")

    values = scraped.look()
    assert total(values, "fastasgi_http_responses_total", http_request_method="GET") == 23
    assert total(values, "fastasgi_http_responses_total", http_response_status_class="5xx") == 1
    assert total(values, "http_server_request_duration_seconds_count") == 23
    assert total(values, "fastasgi_http_time_to_first_byte_seconds_count") == 23
    assert total(values, "fastasgi_connections_accepted_total", tls="false") == 23
    assert total(values, "fastasgi_worker_starts_total") == 5
    assert total(values, "fastasgi_ready") == total(values, "fastasgi_live") == 1
    assert {dict(labels)["worker"] for _, labels in values if "worker" in dict(labels)} == {"0", "1"}
    server.assert_ends(tracebacks=1)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault(run: Callable[..., Supervised]) -> None:
    server = run("--workers", "1", "--admin", "127.0.0.1:0")
    server.wait_for_workers(1)
    admin = AdminClient.of(server)
    admin.wait_for("/readyz", 200)
    server.get()
    body = admin.get("/metrics")[1]
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
