"""The sockets of the admin listener."""

import logging
import re
import socket

from fastasgi.config import Config
from fastasgi.errors import BindError
from fastasgi.system.sockets import SocketFile, bind_all, describe, listen_error, parse_bind

logger = logging.getLogger("fastasgi.error")

UNIX_PERMISSIONS = 0o600  # whoever may connect sees all


def bind_admin(config: Config) -> tuple[list[socket.socket], list[SocketFile]]:
    """Bind what admin names, and listen. Raises BindError."""
    assert config.admin is not None
    sockets: list[socket.socket] = []
    files: list[SocketFile] = []
    try:
        sockets, files = bind_all([parse_bind(config.admin)], UNIX_PERMISSIONS, reuse_port=False)
        for sock in sockets:
            try:
                sock.listen(config.backlog)
            except OSError as error:
                raise listen_error(sock, error) from None
    except BindError as error:
        close_admin(sockets, files)
        # The mend is of admin, and not of the options that it names for the other addresses
        raise BindError(f"admin {config.admin!r}: {re.sub('--(?=host|port|uds)', '', str(error))}") from None
    return sockets, files


def close_admin(sockets: list[socket.socket], files: list[SocketFile]) -> None:
    """Undo ``bind_admin``."""
    for sock in sockets:
        sock.close()
    for file in files:
        file.remove()


def log_admin(sockets: list[socket.socket], config: Config) -> None:
    """Tell where the admin listener answers."""
    is_tls = bool(config.ssl_certfile)  # see admin.listener
    logger.info("Admin listener on %s", " and ".join(describe(sock, is_tls=is_tls) for sock in sockets))
