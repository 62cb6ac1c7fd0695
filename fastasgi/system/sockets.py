"""Listening sockets: TCP addresses, Unix socket paths, inherited file descriptors.

A socket is bound here and made to listen by the event loop. Knows no event loop and no configuration.
"""

import ctypes
import errno
import logging
import os
import re
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastasgi.errors import BindError, ConfigError

logger = logging.getLogger("fastasgi.error")

CLONE_FS = 0x200  # Linux, linux/sched.h: what os has since Python 3.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One thing to listen on: a descriptor, the path of a Unix socket, or host and port."""

    fd: int | None = None
    path: str | None = None
    host: str = ""
    port: int = 0


def parse_bind(text: str) -> Bind:
    """What a text means: ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT``, ``unix:PATH`` or ``fd://NUMBER``.

    Raises ConfigError.
    """
    if (match := re.fullmatch(r"unix:(?://)?([^\0]+)", text)) and match[1] != "//":
        return Bind(path=match[1])
    if match := re.fullmatch(r"fd://([0-9]{1,9})", text):
        return Bind(fd=int(match[1]))
    match = re.fullmatch(r"(?:\[([^\[\]\0]+)\]|([^\[\]:\0]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ConfigError(f"bind {text!r}: give HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER")
    return Bind(host=match[1] or match[2] or "", port=int(match[3]))


def systemd_sockets() -> list[socket.socket]:
    """The listening sockets that systemd has passed to this process: sd_listen_fds(3). Raises BindError."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    return [adopt_descriptor(3 + i) for i in range(int(count))] if re.fullmatch("[0-9]{1,4}", count) else []


def bind_tcp(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Bind every address that host stands for: one, or IPv4 and IPv6. An empty host stands for all addresses.

    Port 0 takes a free port, the same one for each address. With reuse_port others that ask for it too may
    listen on the same port (SO_REUSEPORT, which the platform must have). Raises BindError.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise BindError(
            f"host {host!r} can't be resolved ({error}): give an address or a known name"
        ) from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            taken = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind_address(family, (address[0], taken, *address[2:]), reuse_port))
            except OSError as error:
                # The resolver also names families that this machine has switched off.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                failure = error
        if failure is not None and not sockets:
            raise failure
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise BindError(f"can't listen on {host}:{port}: {_mend(error, reuse_port)}") from None
    return sockets


def bind_all(
    binds: list[Bind], uds_permissions: int, *, reuse_port: bool
) -> tuple[list[socket.socket], list["SocketFile"]]:
    """Bind each of them, and none if one can't be bound. Returns also the files of the Unix sockets.

    reuse_port is ``bind_tcp``'s. Raises BindError.
    """
    sockets: list[socket.socket] = []
    files: list[SocketFile] = []
    try:
        for bind in binds:
            if bind.fd is not None:
                sockets.append(adopt_descriptor(bind.fd))
            elif bind.path is not None:
                sock, file = bind_unix(bind.path, uds_permissions)
                sockets.append(sock)
                files.append(file)
            else:
                sockets += bind_tcp(bind.host, bind.port, reuse_port=reuse_port)
    except BaseException:
        for sock in sockets:
            sock.close()
        for file in files:
            file.remove()
        raise
    return sockets, files


def _bind_address(family: int, address: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if os.name == "posix":  # elsewhere it would let two servers share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _mend(error: OSError, reuse_port: bool = False) -> str:
    """What failed, and what to do about it."""
    by_whom = " by a server without --reuse-port or of another user" if reuse_port else ""
    mends = {
        errno.EADDRINUSE: f"the port is in use{by_whom}; stop the other server or choose another --port, "
        "0 for any",
        errno.EACCES: "not permitted; choose a --port above 1023 or start with the privilege",
        errno.EADDRNOTAVAIL: "not an address of this machine; choose another --host",
    }
    return mends.get(error.errno or 0, f"{error.strerror or error}; choose another --host or --port")


def listen_error(sock: socket.socket, error: OSError) -> BindError:
    """The one line for a bound socket that can't listen."""
    return BindError(f"can't listen on {describe(sock)}: {_mend(error)}")


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a Unix socket that we have bound."""

    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Remove the file, unless another server has put its own in its place."""
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("The socket file %r can't be removed: %s", self.path, error.strerror)


def bind_unix(path: str, permissions: int) -> tuple[socket.socket, SocketFile]:
    """Bind a Unix socket, in place of a stale one. Raises BindError.

    A socket file is stale if nobody answers on it. One that a server answers on is an error.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise BindError(
            f"can't listen on unix socket {path!r}: no folder {folder!r}; create it or change --uds"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_bind_path, sock, path, permissions).result()
        status = os.lstat(path)
    except OSError as error:
        sock.close()
        if isinstance(error, BindError):
            raise
        reason = error.strerror or str(error)
        raise BindError(f"can't listen on unix socket {path!r}: {reason}; choose another --uds") from None
    sock.setblocking(False)
    return sock, SocketFile(path, status.st_dev, status.st_ino)


def _bind_path(sock: socket.socket, path: str, permissions: int) -> None:
    """Bind; the file has its permissions from the first moment on. Called in a thread that does nothing else.

    The umask makes them, and other threads that create files are not to see it: Linux lets a thread have
    its own.
    """
    _leave_umask()
    before = os.umask(0o777 & ~permissions)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _leave_umask() -> None:
    """Give the calling thread a umask of its own, if the system can."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).unshare(CLONE_FS)  # fails if a container forbids it


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(
            f"can't listen on unix socket {path!r}: the file isn't a socket; choose another --uds"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(path)
    if answer == errno.ECONNREFUSED:
        os.unlink(path)
    elif answer in (0, errno.EAGAIN):
        raise BindError(
            f"can't listen on unix socket {path!r}: a server listens there; stop it or choose another --uds"
        )
    elif answer != errno.ENOENT:
        raise OSError(answer, os.strerror(answer))


def inherited_socket(fd: int) -> socket.socket:
    """The socket of an inherited descriptor, which no program that is started from here inherits again."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def adopt_descriptor(fd: int) -> socket.socket:
    """A socket of our own for an inherited descriptor, of whatever family it is. Raises BindError."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise BindError(
            f"fd {fd} is no socket ({error.strerror}): pass a bound stream socket's descriptor"
        ) from None
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise BindError(f"fd {fd} is no stream socket: pass a bound stream socket's descriptor")
    sock.setblocking(False)
    return sock


def describe(sock: socket.socket, host: str | None = None, is_tls: bool = False) -> str:
    """Where clients find a socket: ``http://127.0.0.1:8000`` or ``unix socket /run/app.sock``.

    host is shown in place of the address, if the user gave a name for it.
    """
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return f"unix socket {os.fsdecode(name)}"
    address = host or name[0]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{address}]:{name[1]}" if ":" in address else f"{scheme}://{address}:{name[1]}"
