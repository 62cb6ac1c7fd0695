import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastasgi import sockets
from fastasgi.errors import BindError
from fastasgi.sockets import adopt_descriptor, bind_tcp, bind_unix, describe


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def close(bound: list[socket.socket]) -> None:
    for sock in bound:
        sock.close()


# TCP


def test_port_0_takes_a_free_port() -> None:
    [sock] = bind_tcp("127.0.0.1", 0)
    with sock:
        assert sock.getsockname()[1] > 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getblocking()
        assert describe(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_an_ipv6_address_is_bound_and_described_in_brackets() -> None:
    try:
        [sock] = bind_tcp("::1", 0)
    except BindError:
        pytest.skip("no IPv6 on this machine")
    with sock:
        assert sock.family == socket.AF_INET6
        assert describe(sock) == f"http://[::1]:{sock.getsockname()[1]}"


def test_every_address_of_a_host_gets_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *args, **kwargs: found)
    bound = bind_tcp("localhost", 0)
    try:
        assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1", "127.0.0.2"]
        assert len({sock.getsockname()[1] for sock in bound}) == 1
    finally:
        close(bound)


def test_an_address_that_the_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 0, 0, "", (address, 0)) for address in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *args, **kwargs: found)
    bound = bind_tcp("localhost", 0)
    assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1"]
    close(bound)


def test_an_empty_host_stands_for_all_addresses() -> None:
    bound = bind_tcp("", 0)
    assert "0.0.0.0" in [sock.getsockname()[0] for sock in bound]
    close(bound)


def test_a_port_in_use_says_how_to_mend_it(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(BindError) as caught:
        bind_tcp("127.0.0.1", port)
    assert str(caught.value).startswith(f"can't listen on 127.0.0.1:{port}: the port is in use; stop ")
    assert isinstance(caught.value, OSError)


def test_another_machines_address_says_how_to_mend_it() -> None:
    with pytest.raises(BindError, match="not an address of this machine; choose another --host"):
        bind_tcp("192.0.2.1", 0)


def test_an_unknown_host_says_how_to_mend_it() -> None:
    with pytest.raises(BindError, match=r"^host 'no\.such\.host\.invalid' can't be resolved"):
        bind_tcp("no.such.host.invalid", 0)


def test_a_host_that_is_no_name_says_how_to_mend_it() -> None:
    with pytest.raises(BindError, match="can't be resolved"):
        bind_tcp("a" * 80 + ".example", 0)


# Unix sockets


@pytest.mark.parametrize("permissions", [0o600, 0o666])
def test_a_unix_socket_has_its_permissions_and_goes_at_the_end(tmp_path: Path, permissions: int) -> None:
    path = tmp_path / "app.sock"
    sock, file = bind_unix(str(path), permissions)
    with sock:
        assert stat.S_IMODE(path.stat().st_mode) == permissions
        assert describe(sock) == f"unix socket {path}"
    file.remove()
    assert not path.exists()
    file.remove()


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    bind_unix(path, 0o666)[0].close()
    sock, _ = bind_unix(path, 0o666)
    with sock, socket.socket(socket.AF_UNIX) as client:
        sock.listen()
        client.connect(path)


def test_a_living_servers_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with bind_unix(path, 0o666)[0] as living, socket.socket(socket.AF_UNIX) as client:
        living.listen()
        with pytest.raises(BindError, match=r"app\.sock': a server listens there; stop it or choose"):
            bind_unix(path, 0o666)
        client.connect(path)


def test_another_servers_socket_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    old, old_file = bind_unix(str(path), 0o666)
    path.rename(tmp_path / "old.sock")
    new, new_file = bind_unix(str(path), 0o666)
    with old, new:
        old_file.remove()
        assert path.exists()
        new_file.remove()
        assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("text")
    with pytest.raises(BindError, match="the file isn't a socket; choose another --uds"):
        bind_unix(str(path), 0o666)
    assert path.read_text() == "text"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=rf"no folder '{tmp_path}/none'; create it or change --uds"):
        bind_unix(f"{tmp_path}/none/app.sock", 0o666)


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="too long; choose another --uds"):
        bind_unix(str(tmp_path / ("x" * 120)), 0o666)


# Descriptors


def test_a_descriptor_of_any_family_is_adopted(listener: socket.socket) -> None:
    with adopt_descriptor(listener.fileno()) as sock:
        assert sock.family == socket.AF_INET
        assert sock.fileno() != listener.fileno()
    left, right = socket.socketpair()
    with left, right, adopt_descriptor(left.fileno()) as sock:
        assert sock.family == socket.AF_UNIX


def test_a_descriptor_that_is_no_stream_socket_is_named(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(BindError) as caught:
        adopt_descriptor(file.fileno())
    assert os.strerror(errno.ENOTSOCK) in str(caught.value)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(BindError, match="no stream socket"):
        adopt_descriptor(sock.fileno())


def test_a_closed_descriptor_is_named(listener: socket.socket) -> None:
    fd = os.dup(listener.fileno())
    os.close(fd)
    with pytest.raises(BindError, match=f"fd {fd} is no socket"):
        adopt_descriptor(fd)
