"""The listening sockets, one an address, which all workers share.

The supervisor keeps them open, so what waits to be accepted belongs to no worker: whichever is free takes it,
and if all have died, the next one does. Knows no process and no event loop.
"""

import socket
from dataclasses import asdict, dataclass, field
from typing import Any

from fastasgi.admin.binding import bind_admin
from fastasgi.config import Config
from fastasgi.system.sockets import SocketFile, inherited_socket, listen_error


@dataclass
class Listeners:
    """The sockets of all addresses, and the files of those that are Unix sockets which we have bound.

    admin is the setting, if they are its.
    """

    sockets: list[socket.socket]
    files: list[SocketFile] = field(default_factory=list)
    admin: str | None = None

    @classmethod
    def bind(cls, config: Config, sockets: list[socket.socket] | None = None) -> "Listeners":
        """Bind what config names, or take these sockets, and listen. Raises BindError."""
        if sockets is None:
            sockets = config.bind_sockets()
        listeners = cls(sockets, config.socket_files[:])
        config.socket_files.clear()  # they are ours: a forked worker is not to remove them
        for sock in sockets:
            try:
                sock.listen(config.backlog)
            except OSError as error:
                listeners.close()
                raise listen_error(sock, error) from None
        return listeners

    @classmethod
    def bind_both(
        cls, config: Config, sockets: list[socket.socket] | None = None
    ) -> "tuple[Listeners, Listeners]":
        """As ``bind``, and as ``bind_admin``."""
        listeners = cls.bind(config, sockets)
        try:
            return listeners, cls.bind_admin(config)
        except BaseException:
            listeners.close()
            raise

    @classmethod
    def bind_admin(cls, config: Config) -> "Listeners":
        """Bind what admin names, if it names anything, and listen. Raises BindError."""
        if config.admin is None:
            return cls([])
        return cls(*bind_admin(config), admin=config.admin)

    def export(self) -> tuple[dict[str, Any], list[int]]:
        """What ``adopt`` takes in another process, and the descriptors which that has to inherit."""
        fds = [sock.fileno() for sock in self.sockets]
        return {"fds": fds, "files": [asdict(file) for file in self.files], "admin": self.admin}, fds

    @classmethod
    def adopt(cls, exported: dict[str, Any]) -> "Listeners":
        """The listeners that another process has exported."""
        return cls(
            [inherited_socket(fd) for fd in exported["fds"]],
            [SocketFile(**file) for file in exported["files"]],
            exported.get("admin"),  # an older version tells of none
        )

    def hand_over(self) -> None:
        """Another process has adopted them: closing them here removes no file."""
        self.files.clear()

    def close_sockets(self) -> None:
        """Close all sockets here: they live for as long as workers have them open."""
        for sock in self.sockets:
            sock.close()

    def close(self) -> None:
        """Close all sockets and remove the files of Unix sockets."""
        self.close_sockets()
        for file in self.files:
            file.remove()
        self.files.clear()
