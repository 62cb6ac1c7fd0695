"""The settings of the admin listener: its address, and the token that it asks for."""

import ipaddress
import os
import re
import stat

from fastasgi.errors import ConfigError
from fastasgi.system.sockets import Bind, parse_bind

LEAST_TOKEN, MOST_TOKEN = 16, 4096  # characters


def parse_admin(admin: str) -> Bind:
    """What an address of the admin listener means. Raises ConfigError."""
    try:
        bind = parse_bind(admin)
    except ConfigError:
        bind = Bind(fd=-1)
    if bind.fd is not None:
        raise ConfigError(f"admin {admin!r}: give HOST:PORT, [IPV6]:PORT or unix:PATH")
    return bind


def admin_token(admin: str, file: str | os.PathLike[str] | None, token: str | None) -> bytes | None:
    """The token that the admin listener at this address asks for; None if it asks for none.

    file is the file of the token, whose first line is read; otherwise token is the token itself. Raises
    ConfigError if neither is there and others than this machine can reach the address.
    """
    bind = parse_admin(admin)
    found = _read_token(file, token)
    if found is None and not is_local(bind):
        raise ConfigError(
            f"admin {admin!r} is no loopback address, and everybody could see all: set admin_token_file or "
            "FASTASGI_ADMIN_TOKEN, or give 127.0.0.1:PORT or unix:PATH"
        )
    return found


def is_local(bind: Bind) -> bool:
    """Whether an address can be reached from this machine alone."""
    if bind.path is not None:
        return True
    try:
        return ipaddress.ip_address(bind.host).is_loopback
    except ValueError:
        return bind.host.lower() == "localhost"


def _read_token(file: str | os.PathLike[str] | None, token: str | None) -> bytes | None:
    if file is not None and token is not None:
        raise ConfigError("admin_token_file and admin_token are both set: leave one out")
    what = "admin_token (hidden)"
    if file is not None:
        what = f"admin_token_file {os.fspath(file)!r}"
        token = _first_line(file, what)
    if token is None:
        return None
    if len(token) < LEAST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(
            f"{what}: give at least {LEAST_TOKEN} visible ASCII characters, such as openssl rand -hex 32"
        )
    return token.encode()


def _first_line(file: str | os.PathLike[str], what: str) -> str:
    """The first line of a file, without blanks around it. Raises ConfigError, whose text begins with what."""
    try:
        # A pipe would have us wait, and the line of a device need not end
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ConfigError(f"{what} is no file: name one whose first line is the token")
        with open(file, encoding="utf-8-sig") as stream:
            return stream.readline(MOST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(
            f"{what} can't be read: {reason}; name a file whose first line is the token"
        ) from None
