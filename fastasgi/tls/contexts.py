"""TLS as the settings ask for it: contexts, the choice among certificates, and reading their files again.

Must not know: connections and their bytes (see tlssink).
"""

import contextlib
import itertools
import logging
import os
import re
import ssl
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from fastasgi.errors import ConfigError, TLSFileError
from fastasgi.settings.declaration import HIDDEN
from fastasgi.tls.certificate import Certificate

logger = logging.getLogger("fastasgi.error")

# For TLS 1.2: forward secrecy and authenticated encryption only, as HTTP/2 asks for (RFC 9113 section
# 9.2.2). The suites of TLS 1.3 have both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
UVICORN_CIPHERS = "TLSv1"  # uvicorn's default for long; by itself OpenSSL would read CBC suites out of it

# What ssl_version may be, and the one version that it stands for; None: 1.2 and later
VERSIONS = {
    int(ssl.PROTOCOL_TLS_SERVER): None,
    int(ssl.PROTOCOL_TLS): None,
    int(ssl.PROTOCOL_TLSv1_2): ssl.TLSVersion.TLSv1_2,
}

# The protocols that are offered by ALPN (RFC 7301), the preferred one first, for each value of http2. With a
# client that asks for others only, OpenSSL agrees on none and goes on.
ALPN = {"on": ["h2", "http/1.1"], "off": ["http/1.1"], "only": ["h2"]}
VERSION_NUMBERS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

POLL_S = 0.5  # between looks at the files; they are read once they have been the same for two looks

FileState = tuple[int, int, int] | None  # inode, time and size; None: not there, or no regular file


class TLSFile(NamedTuple):
    """What one file held when it was read. What is no regular file, such as a pipe, is read once."""

    state: FileState
    contents: bytes


TLSFiles = dict[str, TLSFile]  # by their paths


class TLSSettings(Protocol):
    """The settings of TLS."""

    http2: Any  # a key of ALPN, once it has been checked
    ssl_keyfile: list[str] | str | os.PathLike[str] | None
    ssl_certfile: list[str] | str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    ssl_context_factory: Callable[..., ssl.SSLContext] | None


class Contexts(NamedTuple):
    """What connections are opened with."""

    first: ssl.SSLContext
    by_name: dict[
        str, ssl.SSLContext
    ]  # of several certificates: names in lower case, perhaps with a wildcard


class TLS:
    """The TLS side of one server. Raises ConfigError if a setting or a file can't be used.

    ``files`` are the last good ones, which another process may have read. Contexts that are made again are
    for new connections; open ones keep theirs.
    """

    def __init__(self, config: TLSSettings, files: TLSFiles | None = None) -> None:
        self._config = config
        self._paths = dict.fromkeys(_files(config.ssl_certfile), "ssl_certfile")
        self._paths |= dict.fromkeys(_files(config.ssl_keyfile), "ssl_keyfile")
        if config.ssl_ca_certs is not None:
            self._paths[os.fspath(config.ssl_ca_certs)] = "ssl_ca_certs"
        self.files = (
            files if files is not None and files.keys() >= self._paths.keys() else self._read_files({})
        )
        self._seen = [self.files[path].state for path in self._paths]
        self._has_changed = False
        self._poll_at = 0.0
        # Of all contexts in use: connections outlive the files that they were opened with
        self._certificates: weakref.WeakKeyDictionary[ssl.SSLContext, str] = weakref.WeakKeyDictionary()
        self._cipher_suites: dict[str, int] = {}
        self._contexts = self._new_contexts(self.files)
        self.fault = ""  # why the files could not be read again, the last time; empty if they could

    @property
    def needs_name(self) -> bool:
        """Whether the next connection's server name is to be read before OpenSSL gets the ClientHello.

        The name is needed if it chooses the context, or if OpenSSL would hand it to a callback of the user's.
        """
        return bool(self._contexts.by_name) or self._contexts.first.sni_callback is not None

    def context_for(self, name: str | None) -> ssl.SSLContext:
        """The context whose certificate is for the host that a client names, otherwise the first one.

        A wildcard stands for one label (RFC 6125 section 6.4.3).
        """
        first, by_name = self._contexts
        if not by_name or not name:
            return first
        name = name.lower().rstrip(".")
        return by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}") or first

    def _read_files(self, before: TLSFiles) -> TLSFiles:
        """Read all files, but for those of before that can be read only once. Raises ConfigError."""
        return {
            path: before[path] if path in before and before[path].state is None else _read_file(setting, path)
            for path, setting in self._paths.items()
        }

    def _new_contexts(self, files: TLSFiles) -> Contexts:
        """Raises ConfigError, or what the user's factory raises."""
        config = self._config
        certfiles: list[str | None] = [*_files(config.ssl_certfile)]
        certificates: dict[ssl.SSLContext, str] = {}
        by_name: dict[str, ssl.SSLContext] = {}
        contexts = [
            self._new_context(files, certfile, keyfile, certificates, by_name)
            for certfile, keyfile in itertools.zip_longest(certfiles or [None], _files(config.ssl_keyfile))
        ]
        for each in contexts:
            self._cipher_suites.update(_cipher_suites(each))
        self._certificates.update(certificates)
        return Contexts(contexts[0], by_name if len(contexts) > 1 else {})

    def _new_context(
        self,
        files: TLSFiles,
        certfile: str | None,
        keyfile: str | None,
        certificates: dict[ssl.SSLContext, str],
        by_name: dict[str, ssl.SSLContext],
    ) -> ssl.SSLContext:
        """One certificate's context, which is put into certificates and by_name."""
        config = self._config

        def default() -> ssl.SSLContext:
            if certfile is None:
                raise ConfigError(
                    "ssl_context_factory calls its default factory, which needs ssl_certfile: set it"
                )
            context = _usual_context(config, files)
            certificates[context], _ = _read_certificate(certfile, files)
            _load_pair(context, files, certfile, keyfile, config.ssl_keyfile_password)
            return context

        if config.ssl_context_factory is None:
            context = default()
        else:
            context = config.ssl_context_factory(config, default)
            if not isinstance(context, ssl.SSLContext):
                raise ConfigError(f"ssl_context_factory returned {context!r}: return an ssl.SSLContext")
        if certfile is not None:
            _, certificate = _read_certificate(certfile, files)
            for name in certificate.host_names:
                by_name.setdefault(name, context)
        return context

    def poll(self, now: float) -> None:
        """Read the files again once they have changed and are quiet. To be called about once a second.

        now is a clock's time in seconds, always the same clock's.
        """
        if now < self._poll_at:
            return
        self._poll_at = now + POLL_S
        states = self._file_states()
        if states != self._seen:
            self._seen = states
            self._has_changed = True
        elif self._has_changed:
            self.reload()

    def reload(self) -> None:
        """Read the files again, now. What can't be used changes nothing and is told in one line."""
        try:
            self.renew()
        except ConfigError as error:
            self.fault = str(error)
            logger.error("Certificates not renewed, the old ones stay: %s", error)
        except Exception as error:
            # The user's factory; its mistake must not end a server that runs
            self.fault = f"ssl_context_factory raised {type(error).__name__}"
            logger.error("Certificates not renewed, the old ones stay", exc_info=error)
        else:
            self.fault = ""
            logger.info("Certificates renewed")

    def certificates(self) -> dict[str, Certificate]:
        """The certificates of ssl_certfile that are served, by their files."""
        paths = _files(self._config.ssl_certfile)
        return {path: _read_certificate(path, self.files)[1] for path in paths}

    def renew(self) -> None:
        """Read the files again, now. Raises ConfigError or the user's error, and then changes nothing."""
        self._seen = self._file_states()
        self._has_changed = False
        files = self._read_files(self.files)
        self._contexts = self._new_contexts(files)
        self.files = files

    def _file_states(self) -> list[FileState]:
        return [_file_state(path) for path in self._paths]

    def extension(self, connection: ssl.SSLObject) -> dict[str, Any]:
        """What an application is told of a connection whose handshake is done (ASGI extension "TLS").

        A client whose certificate is not accepted is refused. client_cert_error tells only of a name that
        can't be read in one that is.
        """
        chain = _client_chain(connection)
        version, cipher = connection.version(), connection.cipher()
        suite = None
        if cipher is not None:
            suite = self._cipher_suites.get(cipher[0])
            if suite is None:  # of a context that the user's own callback has chosen
                suite = _cipher_suites(connection.context).get(cipher[0])
        name = error = None
        if chain:
            try:
                name = Certificate(chain[0]).subject
            except ValueError:
                error = "the certificate's subject can't be read"
        return {
            "server_cert": self._certificates.get(connection.context),
            "client_cert_chain": tuple(ssl.DER_cert_to_PEM_cert(der) for der in chain),
            "client_cert_name": name,
            "client_cert_error": error,
            "tls_version": VERSION_NUMBERS.get(version or ""),
            "cipher_suite": suite,
        }

    def fault_of_resumed(self, connection: ssl.SSLObject) -> str | None:
        """Why a connection that has resumed a session is refused all the same; None: it is not.

        A session brings the certificate that its client once proved. OpenSSL keeps sessions of TLS 1.2, the
        ssl module can't forbid it, and on resumption nobody checks that certificate's time again.
        """
        certificate = connection.getpeercert()
        if not certificate:
            return None
        try:
            begin, end = (
                ssl.cert_time_to_seconds(str(certificate[name])) for name in ("notBefore", "notAfter")
            )
        except ValueError:
            return "certificate times can't be read"
        now = time.time()
        if now < begin:
            return "certificate is not yet valid"
        return "certificate has expired" if now > end else None


def check_tls_settings(config: TLSSettings) -> None:
    """Check the settings together. Raises ConfigError."""
    certfiles, keyfiles = _files(config.ssl_certfile), _files(config.ssl_keyfile)
    if config.ssl_version not in VERSIONS:
        raise ConfigError(
            f"ssl_version {config.ssl_version}: give {int(ssl.PROTOCOL_TLS_SERVER)} for TLS 1.2 and later, "
            f"or {int(ssl.PROTOCOL_TLSv1_2)} for 1.2 alone"
        )
    if keyfiles and len(keyfiles) != len(certfiles):
        raise ConfigError(
            f"ssl_keyfile is given {_times(keyfiles)} and ssl_certfile {_times(certfiles)}: "
            "give a key for each certificate, in the same order"
        )
    if not certfiles and config.ssl_context_factory is None:
        for name in ("ssl_ca_certs", "ssl_cert_reqs", "ssl_keyfile_password"):
            if getattr(config, name):
                raise ConfigError(f"{name} is given, but no certificate: set ssl_certfile too")
    if config.ssl_cert_reqs and config.ssl_ca_certs is None and config.ssl_context_factory is None:
        raise ConfigError(
            f"ssl_cert_reqs {int(config.ssl_cert_reqs)} asks for client certificates, but of no authority: "
            "set ssl_ca_certs"
        )
    if config.ssl_ca_certs is not None and not config.ssl_cert_reqs:
        raise ConfigError(
            f"ssl_ca_certs {os.fspath(config.ssl_ca_certs)!r} is for client certificates, which "
            "ssl_cert_reqs 0 does not ask for: set ssl_cert_reqs to 1 or 2, or leave ssl_ca_certs out"
        )


def _files(paths: Any) -> list[str]:
    """The paths of a setting that has been checked."""
    return [] if paths is None else list(paths)


def _times(values: list[str]) -> str:
    return {0: "not at all", 1: "once"}.get(len(values), f"{len(values)} times")


def _file_state(file: str | int) -> FileState:
    """Of a path or an open file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _read_file(setting: str, path: str) -> TLSFile:
    try:
        with open(path, "rb") as file:
            state = _file_state(file.fileno())  # first: what is written meanwhile is to be noticed
            return TLSFile(state, file.read())
    except OSError as error:
        raise TLSFileError(
            f"{setting} {path!r} can't be read: {error.strerror}; name a file in PEM"
        ) from None


@contextlib.contextmanager
def _path_of(path: str, file: TLSFile) -> Iterator[str]:
    """Where OpenSSL, which loads keys from paths only, finds these contents: in memory, if the system can."""
    try:
        descriptor = os.memfd_create("fastasgi")
    except (AttributeError, OSError):
        yield path
        return
    with open(descriptor, "wb") as memory:
        memory.write(file.contents)
        memory.flush()
        name = f"/proc/self/fd/{memory.fileno()}"
        yield name if os.path.exists(name) else path


# --- Contexts ---


def _cipher_suites(context: ssl.SSLContext) -> dict[str, int]:
    return {str(cipher["name"]): int(cipher["id"]) & 0xFFFF for cipher in context.get_ciphers()}


def _usual_context(config: TLSSettings, files: TLSFiles) -> ssl.SSLContext:
    """A context without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    only = VERSIONS[config.ssl_version]
    context.minimum_version = only or ssl.TLSVersion.TLSv1_2
    context.maximum_version = only or ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN[config.http2])
    ciphers = config.ssl_ciphers
    if ciphers is None or ciphers == UVICORN_CIPHERS:
        ciphers = CIPHERS
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise ConfigError(
            f"ssl_ciphers {ciphers!r} names no cipher of this OpenSSL: give an OpenSSL cipher list "
            f"such as {CIPHERS!r}"
        ) from None
    context.verify_mode = ssl.VerifyMode(config.ssl_cert_reqs)
    if config.ssl_ca_certs is not None:
        _load_authorities(context, files, os.fspath(config.ssl_ca_certs))
    if config.ssl_cert_reqs:
        # A ticket keeps a client's own certificate, but neither its chain nor whether it is still valid
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _load_authorities(context: ssl.SSLContext, files: TLSFiles, path: str) -> None:
    try:
        with _path_of(path, files[path]) as file:  # cadata would leave out revocation lists
            context.load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise TLSFileError(
            f"ssl_ca_certs {path!r} holds no certificates that can be read ({_reason(error)}): "
            "name a file of certificates in PEM"
        ) from None


def _load_pair(
    context: ssl.SSLContext, files: TLSFiles, certfile: str, keyfile: str | None, password: str | None
) -> None:
    has_asked = False
    what = f"ssl_certfile {certfile!r}" if keyfile is None else f"ssl_keyfile {keyfile!r}"
    if b"PRIVATE KEY-----" not in files[keyfile or certfile].contents:
        if keyfile is None:
            raise TLSFileError(f"{what} holds no private key: set ssl_keyfile too")
        raise TLSFileError(f"{what} holds no private key: name a file that has one, in PEM")

    def give_password() -> str:
        nonlocal has_asked
        has_asked = True
        if password is None:
            raise TLSFileError(f"{what} is encrypted: set ssl_keyfile_password")
        return password

    try:
        with contextlib.ExitStack() as stack:
            cert = stack.enter_context(_path_of(certfile, files[certfile]))
            key = keyfile and stack.enter_context(_path_of(keyfile, files[keyfile]))
            context.load_cert_chain(cert, key, give_password)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise TLSFileError(
                f"{what} is not the key of ssl_certfile {certfile!r}: name the files that belong together"
            ) from None
        if has_asked and error.reason not in _CERTIFICATE_REASONS:
            raise TLSFileError(
                f"ssl_keyfile_password {HIDDEN} does not decrypt {what}: give that key's password"
            ) from None
        raise TLSFileError(
            f"ssl_certfile {certfile!r} and its key can't be used: OpenSSL says {_reason(error)}; "
            "name a certificate and its key, in PEM"
        ) from None
    except TLSFileError:
        raise
    except (OSError, ValueError) as error:  # a password that is too long, for example
        raise TLSFileError(f"{what} can't be read: {_reason(error)}; name a key in PEM") from None


_CERTIFICATE_REASONS = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_MD_TOO_WEAK")


def _read_certificate(path: str, files: TLSFiles) -> tuple[str, Certificate]:
    """The first certificate of a file, in PEM and read. Raises TLSFileError."""
    text = files[path].contents.decode("latin-1")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise TLSFileError(f"ssl_certfile {path!r} holds no certificate: name a file that has one, in PEM")
    try:
        der = ssl.PEM_cert_to_DER_cert(f"{begin}{rest.partition(end)[0]}{end}")
        return ssl.DER_cert_to_PEM_cert(der), Certificate(der)
    except ValueError:
        raise TLSFileError(
            f"ssl_certfile {path!r} holds a broken certificate: name a file that has one, in PEM"
        ) from None


def _reason(error: Exception) -> str:
    """OpenSSL's or the system's own words for what is wrong."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return re.sub(r"^\[\w+\] | \(_ssl\.c:\d+\)$", "", getattr(error, "strerror", None) or str(error))


def _client_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The certificates that the client has sent, its own first, in DER."""
    if connection.getpeercert(binary_form=True) is None:
        return []
    return list(_unverified_chain(connection))


def _unverified_chain(connection: Any) -> Iterator[bytes]:
    if hasattr(connection, "get_unverified_chain"):  # CPython 3.13
        yield from connection.get_unverified_chain()
        return
    for certificate in connection._sslobj.get_unverified_chain():
        yield ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
