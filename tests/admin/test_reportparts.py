"""What a report tells of sockets, certificates and settings."""

import socket
import sys
import time
from pathlib import Path

import pytest
from certificates import Authority
from recorder import hello

from fastasgi import Config
from fastasgi.admin.report import CertificateReport, QueueReport, Report, WorkerReport
from fastasgi.admin.reportparts import certificate_reports, queue_reports, setting_reports


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_that_wait_are_counted(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=7) as sock:
        clients = [socket.create_connection(sock.getsockname()[:2]) for _ in range(3)]
        (report,) = queue_reports([sock], is_tls=False)
        assert (report.length, report.limit) == (3, 7)
        assert report.address.startswith("http://")
        sock.accept()[0].close()
        assert queue_reports([sock], is_tls=False)[0].length == 2
        for client in clients:
            client.close()


def test_sockets_that_have_no_such_queue_are_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as closed:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        closed.close()
        assert queue_reports([unix, closed], is_tls=False) == []


def test_certificates_are_told_with_what_was_wrong_with_newer_ones(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("a.example", "b.example")
    tls = Config(hello, **pair.settings).tls
    assert tls is not None
    (report,) = certificate_reports(tls)
    assert sorted(report.names) == ["a.example", "b.example"]
    assert report.file == str(pair.cert)
    assert report.expires_at > time.time()
    assert report.error == ""
    pair.cert.write_text("no certificate")
    tls.reload()
    (report,) = certificate_reports(tls)
    assert sorted(report.names) == ["a.example", "b.example"]
    assert report.error.startswith("ssl_certfile")
    assert certificate_reports(None) == []


def test_secrets_are_not_among_the_settings() -> None:
    settings = setting_reports(Config(hello, admin="127.0.0.1:1", admin_token="0123456789abcdef"))
    assert settings["admin"] == "127.0.0.1:1"
    assert "0123456789abcdef" not in str(settings)
    assert settings["app"].endswith("recorder:hello")


def test_a_report_survives_its_way() -> None:
    report = Report(
        at=2.5,
        started_at=1.0,
        phase="running",
        is_live=True,
        live_reason="é\nñ",
        is_ready=False,
        ready_reason="none",
        workers=[WorkerReport(0, 7, "serving", 1.0, 2.0, "f (x.py:1)")],
        queues=[QueueReport("http://a:1", 1, 2)],
        certificates=[CertificateReport(["a"], "f", 3.0, "why")],
        settings={"app": "a:b"},
    )
    assert "\n" not in report.to_json()
    assert Report.from_json(report.to_json()) == report
    assert not report.not_live("gone").is_live
