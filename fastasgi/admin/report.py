"""What a server says of itself besides its counts: phase, workers, accept queues, certificates, settings.

The supervisor makes it, or an embedded server, and whoever answers at the admin listener has the last one.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

SILENT_S = 3.0  # a worker whose event loop has not turned for so long accepts nothing, as far as is known


@dataclass(frozen=True)
class WorkerReport:
    """A worker's process. Times are Unix times."""

    slot: int
    pid: int
    state: str  # "starting", "serving", "retiring", "leaving" or "condemned", as in processes.states
    started_at: float
    ready_at: float | None = None  # since when it accepts connections
    stands_at: str = ""  # the call that it last said that it stands in


@dataclass(frozen=True)
class QueueReport:
    """How many connections wait to be accepted at an address, and how many may."""

    address: str
    length: int
    limit: int


@dataclass(frozen=True)
class CertificateReport:
    """A certificate that is served."""

    names: list[str]
    file: str
    expires_at: float  # Unix time
    error: str = ""  # why the files could not be read again; empty if they could


@dataclass(frozen=True)
class Report:
    """One server as of a Unix time. No reason is empty: it is one line for people to read."""

    at: float
    started_at: float
    phase: str  # "starting", "running", "withdrawn" or "stopping"
    is_live: bool
    live_reason: str
    is_ready: bool
    ready_reason: str
    workers: list[WorkerReport] = field(default_factory=list)
    queues: list[QueueReport] = field(default_factory=list)
    certificates: list[CertificateReport] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # by name, as --print-config shows them

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that ``to_json`` has written."""
        values: dict[str, Any] = json.loads(text)
        return cls(
            **{
                **values,
                "workers": [WorkerReport(**each) for each in values["workers"]],
                "queues": [QueueReport(**each) for each in values["queues"]],
                "certificates": [CertificateReport(**each) for each in values["certificates"]],
            }
        )

    def not_live(self, reason: str) -> "Report":
        """The same, of a server of which nobody knows any more that it lives."""
        return dataclasses.replace(
            self, is_live=False, live_reason=reason, is_ready=False, ready_reason=reason
        )
