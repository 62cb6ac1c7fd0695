"""Who may see what the admin listener tells.

Probes are for everybody. All else is for whoever can reach a loopback address or a Unix socket, or, where a
token is configured, for whoever has that: then it is asked for everywhere. Without a token the host that is
asked for has to be a name of this machine: otherwise a page of the web could have a browser ask here, by a
name that leads to 127.0.0.1 (DNS rebinding).
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass

from fastasgi.system.adminsettings import admin_token, parse_admin

Fields = list[tuple[bytes, bytes]]

SESSION_S = 12 * 3600
LOOPBACK_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
SESSION = re.compile(rb"([0-9]{1,12})\.([0-9a-f]{64})")  # when it ends, as Unix time, and the proof

# The answer to a wrong token says so at most so often; further ones are told to come later. What makes it
# hopeless to try all tokens is their length: the right one is always taken, whoever tries others meanwhile.
TRIES = 20.0
TRIES_PER_S = 2.0
RETRY_AFTER = b"10"  # seconds


@dataclass(frozen=True)
class Refusal:
    """An answer to whoever may not see something: the status, one line of why, and further fields."""

    status: int
    reason: str
    fields: tuple[tuple[bytes, bytes], ...] = ()
    is_wrong_token: bool = False


_CHALLENGE = (b"www-authenticate", b'Bearer realm="fastasgi"')
MISSING = Refusal(401, "a token is needed: send it as Authorization: Bearer TOKEN", (_CHALLENGE,))
WRONG = Refusal(401, "this is not the token", (_CHALLENGE,), is_wrong_token=True)
TOO_MANY = Refusal(
    429, "too many wrong tokens: try again later", ((b"retry-after", RETRY_AFTER),), is_wrong_token=True
)
OTHER_HOST = Refusal(
    421, "this listener answers to localhost, 127.0.0.1 and [::1] alone: ask for one of these"
)
OTHER_SITE = Refusal(403, "a page of another site asks for this: open it by its address")


class Access:
    """The rules of one admin listener, by its settings. Raises ConfigError if they can't hold.

    A session is what a browser has in its cookie: when it ends, and a proof of that which only this object
    can make. So it ends with the process, and tells nothing of the token.
    """

    def __init__(self, admin: str, token_file: str | os.PathLike[str] | None, token: str | None) -> None:
        self._token = admin_token(admin, token_file, token)
        # A browser has one set of cookies for all ports of a host
        self.cookie_name = f"fastasgi_admin_{parse_admin(admin).port}"
        self._key = secrets.token_bytes(32)
        self._tries = TRIES
        self._tried_at = time.monotonic()

    @property
    def asks_for_token(self) -> bool:
        """Whether a token is needed for what is not for everybody."""
        return self._token is not None

    def refusal(self, headers: Fields) -> Refusal | None:
        """Why a request with these fields is to be refused; None if it may see all."""
        if _is_of_other_site(headers):
            return OTHER_SITE
        if self._token is None:
            hosts = values_of(b"host", headers)
            return None if len(hosts) == 1 and LOOPBACK_HOST.fullmatch(hosts[0]) else OTHER_HOST
        for value in values_of(b"authorization", headers):
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return self.check(token.strip(b" "))
        if any(self._is_session(session) for session in self._sessions(headers)):
            return None
        return MISSING

    def check(self, token: bytes) -> Refusal | None:
        """Why this is not the token; None if it is. There has to be one."""
        assert self._token is not None
        # Compared by digests, so that the time does not tell the length either
        if hmac.compare_digest(_digest(token), _digest(self._token)):
            return None
        now = time.monotonic()
        self._tries = min(TRIES, self._tries + (now - self._tried_at) * TRIES_PER_S)
        self._tried_at = now
        if self._tries < 1:
            return TOO_MANY
        self._tries -= 1
        return WRONG

    def new_cookie(self, *, is_secure: bool) -> bytes:
        """The value of a Set-Cookie field that gives access for SESSION_S; is_secure over TLS."""
        ends_at = f"{time.time() + SESSION_S:.0f}"
        cookie = f"{self.cookie_name}={ends_at}.{self._proof(ends_at)}; Path=/; Max-Age={SESSION_S}; HttpOnly"
        return f"{cookie}; SameSite=Strict{'; Secure' if is_secure else ''}".encode()

    def _sessions(self, headers: Fields) -> list[bytes]:
        """The values of our cookie (RFC 6265 section 5.4): others of this host may have set some, too."""
        pairs = [pair.strip(b" ") for value in values_of(b"cookie", headers) for pair in value.split(b";")]
        begin = f"{self.cookie_name}=".encode()
        return [pair.removeprefix(begin) for pair in pairs if pair.startswith(begin)]

    def _is_session(self, session: bytes) -> bool:
        match = SESSION.fullmatch(session)
        if match is None:
            return False
        ends_at = match[1].decode()
        return hmac.compare_digest(match[2].decode(), self._proof(ends_at)) and time.time() < int(ends_at)

    def _proof(self, ends_at: str) -> str:
        return hmac.new(self._key, ends_at.encode(), hashlib.sha256).hexdigest()


def values_of(name: bytes, headers: Fields) -> list[bytes]:
    """The values of all fields of this name."""
    return [value for key, value in headers if key == name]


def is_own_form(headers: Fields) -> bool:
    """Whether a form comes from a page of this listener, or from no browser.

    Browsers say where it comes from in Sec-Fetch-Site, but without TLS only on a loopback address; elsewhere
    in Origin.
    """
    sites = values_of(b"sec-fetch-site", headers)
    if sites:
        return sites in ([b"same-origin"], [b"none"])
    origins = values_of(b"origin", headers)
    return not origins or [origin.partition(b"://")[2] for origin in origins] == values_of(b"host", headers)


def _is_of_other_site(headers: Fields) -> bool:
    """Whether a page of another origin asks, for anything but to have a browser's window show it.

    The browser gives it nothing of what is answered; with this it also learns nothing by time and size.
    """
    sites = values_of(b"sec-fetch-site", headers)
    if not sites or sites in ([b"same-origin"], [b"none"]):
        return False
    return values_of(b"sec-fetch-dest", headers) != [b"document"]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
