"""Certificates made for a test, as files."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# trustme and cryptography are imported where they are used: few sanitized processes have what they never free

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
PASSWORD = "open sesame"


@dataclass(frozen=True)
class Pair:
    """The files of one certificate, with its chain, and of its key."""

    cert: Path
    key: Path

    @property
    def pem(self) -> str:
        """The certificate alone, as the ssl module writes it."""
        end = "-----END CERTIFICATE-----\n"
        return self.cert.read_text().partition(end)[0] + end

    @property
    def settings(self) -> dict[str, Any]:
        return {"ssl_certfile": self.cert, "ssl_keyfile": self.key}

    @property
    def arguments(self) -> list[str]:
        return ["--ssl-certfile", str(self.cert), "--ssl-keyfile", str(self.key)]


class Authority:
    """Signs certificates, and puts files into a folder."""

    def __init__(self, folder: Path, authority: Any = None) -> None:
        import trustme

        self.folder = folder
        self._authority = authority or trustme.CA()
        self.path = folder / "ca.pem"
        if authority is None:
            self._authority.cert_pem.write_to_path(self.path)

    def intermediate(self) -> "Authority":
        return Authority(self.folder, self._authority.create_child_ca())

    def issue(self, *names: str, file: str = "server", expired: bool = False, **details: Any) -> Pair:
        """A pair of files, or other contents for those that there are."""
        if expired:
            details["not_before"] = PAST
            details["not_after"] = PAST + datetime.timedelta(days=1)
        issued = self._authority.issue_cert(*(names or ("localhost", "127.0.0.1")), **details)
        pair = Pair(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair

    def client(self, pair: Pair | None = None, **details: Any) -> ssl.SSLContext:
        """A client's context that trusts this authority alone; details are attributes of the context."""
        context = ssl.create_default_context(cafile=self.path)
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        for name, value in details.items():
            setattr(context, name, value)
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        return context


def encrypt_key(path: Path) -> None:
    """Protect a key by PASSWORD."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSWORD.encode())
        )
    )
