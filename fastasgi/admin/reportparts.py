"""What of a server's report any kind of server makes: its queues, certificates and settings."""

import socket
import struct
import sys
from collections.abc import Iterable

from fastasgi.admin.report import CertificateReport, QueueReport
from fastasgi.config import Config
from fastasgi.settings.declaration import settings_of, shown
from fastasgi.system.sockets import describe
from fastasgi.tls.contexts import TLS

# Of Linux's struct tcp_info: tcpi_unacked and tcpi_sacked, which of a socket that listens are the length and
# the limit of its accept queue
_QUEUE = struct.Struct("24xII")


def queue_reports(sockets: Iterable[socket.socket], is_tls: bool) -> list[QueueReport]:
    """The accept queues of listening sockets, as far as the system tells: of TCP, on Linux."""
    reports = []
    for sock in sockets:
        if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        try:
            data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size)
            address = describe(sock, is_tls=is_tls)
        except OSError:
            continue  # it is closed, or of another protocol than TCP
        reports.append(QueueReport(address, *_QUEUE.unpack(data)))
    return reports


def certificate_reports(tls: TLS | None) -> list[CertificateReport]:
    """The certificates that are served."""
    if tls is None:
        return []
    return [
        CertificateReport(certificate.host_names, path, certificate.expires_at, tls.fault)
        for path, certificate in tls.certificates().items()
    ]


def setting_reports(config: Config) -> dict[str, str]:
    """The settings in force. Secrets are hidden, and so is what objects that were given may hold."""
    reports = {"app": _name_of(config.app)}
    for field, described in settings_of(config):
        value = getattr(config, field.name)
        is_object = described.kind == "object" and not isinstance(value, str | int | None)
        reports[field.name] = type(value).__name__ if is_object else shown(described, value)
    return reports


def _name_of(app: object) -> str:
    """An application as module:attribute; of an object the name of its function, or of its class."""
    if isinstance(app, str):
        return app
    named = app if hasattr(app, "__qualname__") else type(app)
    return f"{named.__module__}:{named.__qualname__}"
