"""The listening sockets of all workers. The supervisor holds them, so what waits on one outlives its worker.

Knows no process and no event loop.
"""

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from fastasgi.config import Config
from fastasgi.system.sockets import SocketFile, another_of, inherited_socket, listen_error

SO_ATTACH_REUSEPORT_CBPF = 51  # Linux, asm-generic/socket.h; socket has no name for it


@dataclass
class Address:
    """What one bound address is listened on with.

    Where the platform spreads connections over sockets (SO_REUSEPORT on Linux), there is one for each worker
    slot, otherwise a single one that all slots share.
    """

    sockets: list[socket.socket]
    is_spread: bool
    socket_file: SocketFile | None = None


@dataclass
class Listeners:
    """The sockets of all addresses, by worker slot."""

    addresses: list[Address] = field(default_factory=list)
    backlog: int = 2048
    _steered: list[int] = field(default_factory=list)  # slots that new connections go to

    @classmethod
    def bind(cls, config: Config, sockets: list[socket.socket] | None = None) -> "Listeners":
        """Bind what config names, or take these sockets, and listen, one an address. Raises BindError."""
        listeners = cls(backlog=config.backlog)
        try:
            for sock in config.bind_sockets() if sockets is None else sockets:
                listeners.addresses.append(Address([sock], _can_spread(sock)))
            files = {file.path: file for file in config.socket_files}
            for address in listeners.addresses:
                name = address.sockets[0].getsockname()
                address.socket_file = files.get(name) if isinstance(name, str) else None
                listeners._listen(address.sockets[0])
            config.socket_files.clear()  # they are ours: a forked worker is not to remove them
        except BaseException:
            listeners.close()
            raise
        return listeners

    def _listen(self, sock: socket.socket) -> None:
        try:
            sock.listen(self.backlog)
        except OSError as error:
            raise listen_error(sock, error) from None

    def of_slot(self, index: int) -> list[socket.socket]:
        """The sockets of a worker slot; those that are not there yet are made. Raises BindError."""
        return [self._of_slot(address, index) for address in self.addresses]

    def _of_slot(self, address: Address, index: int) -> socket.socket:
        if not address.is_spread:
            return address.sockets[0]
        while len(address.sockets) <= index:
            if len(address.sockets) == 1:
                _steer(address.sockets[0], [0])
            try:
                sock = another_of(address.sockets[0])
            except OSError as error:
                raise listen_error(address.sockets[0], error) from None
            self._listen(sock)
            address.sockets.append(sock)
        return address.sockets[index]

    def steer(self, slots: list[int]) -> None:
        """Let new connections go to these slots only. What waits on the sockets of others stays there."""
        if slots == self._steered:
            return
        self._steered = list(slots)
        for address in self.addresses:
            if len(address.sockets) > 1:
                _steer(address.sockets[0], slots)

    def release(self, count: int) -> None:
        """Close the sockets of all slots but the first `count`, which is at least 1.

        They stop listening even if another process, such as a worker's child, still has them open: the
        kernel numbers the sockets of an address, and the next one is to get the next slot's number.
        """
        for address in self.addresses:
            while len(address.sockets) > count:
                with address.sockets.pop() as sock, contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def export(self) -> tuple[list[dict[str, Any]], list[int]]:
        """What ``adopt`` takes in another process, and the descriptors which that has to inherit."""
        exported: list[dict[str, Any]] = [
            {
                "fds": [sock.fileno() for sock in address.sockets],
                "is_spread": address.is_spread,
                "file": None
                if (file := address.socket_file) is None
                else [file.path, file.device, file.inode],
            }
            for address in self.addresses
        ]
        return exported, [fd for address in exported for fd in address["fds"]]

    @classmethod
    def adopt(cls, exported: list[dict[str, Any]], backlog: int) -> "Listeners":
        """The listeners that another process has exported."""
        return cls(
            [
                Address(
                    [inherited_socket(fd) for fd in address["fds"]],
                    address["is_spread"],
                    SocketFile(*address["file"]) if address["file"] else None,
                )
                for address in exported
            ],
            backlog,
        )

    def hand_over(self) -> None:
        """Another process has adopted them: closing them here removes no file."""
        for address in self.addresses:
            address.socket_file = None

    def keep_only(self, kept: list[socket.socket]) -> None:
        """In a forked worker: close the sockets of the other slots, and leave files to the supervisor."""
        for address in self.addresses:
            for sock in address.sockets:
                if sock not in kept:
                    sock.close()
        self.addresses.clear()

    def close_sockets(self) -> None:
        """Close all sockets here: they live for as long as workers have them open."""
        for address in self.addresses:
            for sock in address.sockets:
                sock.close()

    def close(self) -> None:
        """Close all sockets and remove the files of Unix sockets."""
        self.close_sockets()
        for address in self.addresses:
            if address.socket_file is not None:
                address.socket_file.remove()
        self.addresses.clear()


def _can_spread(sock: socket.socket) -> bool:
    """Whether the sockets that share this one's address each get a share of its connections."""
    if not sys.platform.startswith("linux") or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _steer(member: socket.socket, numbers: list[int]) -> None:
    """Spread the new connections of a SO_REUSEPORT group over some of its sockets, numbered by age from 0.

    Without it a socket that is closed takes the connections with it that wait on it. A kernel that refuses
    the program goes on to spread over all.
    """
    # BPF_LD|W|ABS, BPF_ALU|MOD|K, BPF_JMP|JEQ|K, BPF_RET|K: linux/bpf_common.h
    load, modulo, jump_equal, ret = 0x20, 0x94, 0x15, 0x06
    random_number = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: linux/filter.h
    instructions = [(load, 0, random_number), (modulo, 0, len(numbers))]
    for position, number in enumerate(numbers):
        instructions += [(jump_equal, 1, position), (ret, 0, number)]  # if it differs, skip one
    instructions.append((ret, 0, numbers[0]))
    program = b"".join(struct.pack("=HBBI", code, 0, skip, operand) for code, skip, operand in instructions)
    memory = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HP", len(instructions), ctypes.addressof(memory))
    try:
        member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EPERM, errno.EINVAL, errno.ENOMEM):
            raise
