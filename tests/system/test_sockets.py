import contextlib
import errno
import http.client
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import HI_APP, WAIT_S, ServerProcess, Start, listening_ports, wait_until
from supervised import sockets_on

from fastasgi.errors import BindError, ConfigError
from fastasgi.system import sockets
from fastasgi.system.sockets import (
    Bind,
    adopt_descriptor,
    bind_tcp,
    bind_unix,
    describe,
    parse_bind,
)


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


def umask_of_the_main_thread() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^Umask:\t(\d+)$", status, re.MULTILINE)[0], 8)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize("permissions", [0, 0o600, 0o660, 0o666, 0o777], ids=oct)
@pytest.mark.parametrize("has_own_umask", [True, False])
def test_a_unix_socket_has_its_permissions_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, permissions: int, has_own_umask: bool
) -> None:
    """Nor does another thread see the umask that makes them, where the system can."""
    seen = []

    class WatchedSocket(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            seen.append(stat.S_IMODE(os.lstat(address).st_mode))
            if has_own_umask and sys.platform.startswith("linux"):
                assert umask_of_the_main_thread() == umask

    monkeypatch.setattr(socket, "socket", WatchedSocket)
    monkeypatch.delattr(os, "chmod")
    if not has_own_umask:
        monkeypatch.setattr("fastasgi.system.sockets._leave_umask", lambda: None)
    before = os.umask(umask)
    try:
        sock, file = bind_unix(str(tmp_path / "app.sock"), permissions)
        found = os.umask(0)
    finally:
        os.umask(before)
    sock.close()
    file.remove()
    assert seen == [permissions]
    assert found == umask


@pytest.mark.parametrize("has_own_umask", [True, False])
def test_a_bind_that_fails_leaves_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_own_umask: bool
) -> None:
    if not has_own_umask:
        monkeypatch.setattr("fastasgi.system.sockets._leave_umask", lambda: None)
    before = os.umask(0o027)
    try:
        with pytest.raises(BindError, match="too long"):
            bind_unix(str(tmp_path / ("x" * 120)), 0o666)
        assert os.umask(0) == 0o027
    finally:
        os.umask(before)


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


# What a bind text means


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", Bind(host="127.0.0.1", port=80)),
        ("localhost:0", Bind(host="localhost", port=0)),
        (":65535", Bind(host="", port=65535)),
        ("[::1]:8000", Bind(host="::1", port=8000)),
        ("[fe80::1%eth0]:8000", Bind(host="fe80::1%eth0", port=8000)),
        ("unix:app.sock", Bind(path="app.sock")),
        ("unix:/run/app.sock", Bind(path="/run/app.sock")),
        ("unix:///run/app.sock", Bind(path="/run/app.sock")),
        ("unix://app.sock", Bind(path="app.sock")),
        ("unix:a:80", Bind(path="a:80")),
        ("fd://0", Bind(fd=0)),
        ("fd://17", Bind(fd=17)),
    ],
)
def test_bind_texts(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "8000", "localhost", "localhost:", "localhost:http", "localhost:65536", "localhost:-1",
        "localhost:+1", "localhost: 80", "localhost:80 ", "localhost:\u0661", "::1", "::1:80",
        "[::1]", "[::1]80", "[]:80", "[[::1]]:80", "[::1:80", "http://localhost:80", "localhost:80/", "unix:",
        "unix://", "unix:\0a", "unix:a\0", "a\0:80", "[\0]:80", "fd:", "fd://", "fd://x", "fd://-1", "fd://9999999999",
    ],
)  # fmt: skip
def test_texts_that_are_no_bind(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bind(text)
    assert str(caught.value) == f"bind {text!r}: give HOST:PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER"


@given(
    st.one_of(
        st.text(max_size=20),
        st.text(alphabet="unix:/fd[]0123456789ab.\0", max_size=20),
        st.from_regex(r"(unix:|fd://|\[|)[a:0-9]*\]?:?[0-9]{0,6}", fullmatch=True),
    )
)
def test_no_text_does_anything_else(text: str) -> None:
    try:
        bind = parse_bind(text)
    except ConfigError:
        return
    assert 0 <= bind.port <= 65535
    assert bind.path != ""
    assert "\0" not in f"{bind.path}{bind.host}"


# Several servers on one port


@pytest.mark.parametrize(("theirs", "ours"), [(False, False), (True, False), (False, True)])
def test_a_port_is_in_use_unless_both_reuse_it(theirs: bool, ours: bool) -> None:
    [sock] = bind_tcp("127.0.0.1", 0, reuse_port=theirs)
    with sock:
        sock.listen()
        with pytest.raises(BindError, match=r"the port is in use.*; stop the other server"):
            bind_tcp("127.0.0.1", sock.getsockname()[1], reuse_port=ours)


def test_a_free_port_is_nobody_elses() -> None:
    bound = [bind_tcp("127.0.0.1", 0, reuse_port=True)[0] for _ in range(50)]
    assert len({sock.getsockname()[1] for sock in bound}) == 50
    close(bound)


@pytest.mark.parametrize(
    ("theirs", "ours", "by_whom"),
    [
        ([], [], ""),
        (["--reuse-port"], [], ""),
        ([], ["--reuse-port"], " by a server without --reuse-port or of another user"),
    ],
)
def test_a_second_server_is_refused(start: Start, theirs: list[str], ours: list[str], by_whom: str) -> None:
    first = start(HI_APP, "app:app", "--port", "0", "--workers", "1", *theirs)
    second = start(HI_APP, "app:app", "--port", str(first.port), "--workers", "1", *ours)
    assert second.wait() == 3
    said = (
        f"Error: can't listen on 127.0.0.1:{first.port}: the port is in use{by_whom}; stop the other server "
    )
    assert second.log.startswith(said)
    assert len(second.errors) == 1
    assert get(("127.0.0.1", first.port)) == b"hi"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root to be another user")
def test_a_port_of_another_users_server_is_in_use() -> None:
    [sock] = bind_tcp("127.0.0.1", 0, reuse_port=True)
    with sock:
        sock.listen()
        port = sock.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setuid(65534)
                bind_tcp("127.0.0.1", port, reuse_port=True)
            except BindError as error:
                code = 0 if "in use by a server without --reuse-port or of another user" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


SERVER_APP = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": os.environ["SERVER"].encode()})
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not spread connections")
@pytest.mark.parametrize("kind", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_servers_share_a_port(start: Start, kind: tuple[str, ...]) -> None:
    def serve(name: str, port: int) -> ServerProcess:
        environment = {**os.environ, "SERVER": name}
        server = start(
            SERVER_APP, "app:app", "--port", str(port), "--reuse-port", *kind, environment=environment
        )
        wait_until(lambda: server.log.count("appears unsupported") == max(1, len(kind)), lambda: server.log)
        return server

    one = serve("one", 0)
    two = serve("two", one.port)
    wait_until(lambda: sockets_on(one.port) == 2, "one socket a server, however many workers it has")
    assert {get(("127.0.0.1", one.port)) for _ in range(60)} == {b"one", b"two"}
    one.end()
    assert {get(("127.0.0.1", one.port)) for _ in range(20)} == {b"two"}
    two.end()


# The process


def get(address: tuple[str, int] | str) -> bytes:
    """The body of the answer from host and port, or from a Unix socket."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(WAIT_S)
        sock.connect(address)
    else:
        sock = socket.create_connection(address, timeout=WAIT_S)
    connection = http.client.HTTPConnection("localhost", timeout=WAIT_S)
    connection.sock = sock
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read()


BLOCKING = """
import socket, sys
from fastasgi import Config, Server

sock = socket.create_server(("127.0.0.1", 0))
assert sock.getblocking()
print("running on http://127.0.0.1:%d " % sock.getsockname()[1], file=sys.stderr, flush=True)
Server(Config(app)).run(sockets=[sock])
"""


def test_a_socket_that_blocks_is_served(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(HI_APP + BLOCKING)
    process = ServerProcess(tmp_path, command=(sys.executable, "main.py"))
    try:
        with socket.create_connection(("127.0.0.1", process.port), timeout=WAIT_S) as sock:
            for _ in range(2):
                sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        process.close()


each_kind = pytest.mark.parametrize("kind", [(), ("--workers", "2")], ids=["alone", "workers"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@each_kind
def test_several_binds(start: Start, tmp_path: Path, kind: tuple[str, ...]) -> None:
    arguments = ["--bind", "127.0.0.1:0", "--bind", "[::1]:0", "--bind", "unix:app.sock", *kind]
    process = start(HI_APP, "app:app", *arguments)
    process.wait_for("(?s)" + (2 if kind else 1) * "appears unsupported.*")
    if not kind:
        process.wait_for("running on")
    ports = listening_ports(process.process.pid)
    assert set(ports) == {"127.0.0.1", "::1"}
    for _ in range(4):
        assert get(("127.0.0.1", ports["127.0.0.1"][0])) == b"hi"
        assert get(("::1", ports["::1"][0])) == b"hi"
        assert get(str(tmp_path / "app.sock")) == b"hi"
    process.end()
    assert not (tmp_path / "app.sock").exists()


def test_one_bind_of_several_that_fails_leaves_nothing(
    start: Start, tmp_path: Path, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    process = start(HI_APP, "app:app", "--bind", "unix:app.sock", "--bind", f"127.0.0.1:{port}")
    assert process.wait() == 3
    assert process.errors[-1].startswith(f"Error: can't listen on 127.0.0.1:{port}: the port is in use")
    assert not (tmp_path / "app.sock").exists()


# Moves descriptors to 3 and on and becomes the server, as a service manager starts it
LAUNCHER = """
import fcntl, os, sys
fds, count, pid, *arguments = sys.argv[1:]
for i, fd in enumerate([fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds.split()]):
    os.dup2(fd, 3 + i)
os.environ.update(LISTEN_FDS=count, LISTEN_PID=pid or str(os.getpid()))
os.execv(sys.executable, [sys.executable, *arguments])
"""


def launch(
    folder: Path, passed: list[socket.socket], count: str, pid: str, *arguments: str
) -> "subprocess.Popen[str]":
    """Start what arguments say with these sockets from descriptor 3 on."""
    (folder / "app.py").write_text(HI_APP)
    (folder / "launcher.py").write_text(LAUNCHER)
    fds = [sock.fileno() for sock in passed]
    return subprocess.Popen(
        [sys.executable, "launcher.py", " ".join(map(str, fds)), count, pid, *arguments],
        cwd=folder,
        pass_fds=fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def inherited() -> Iterator[list[socket.socket]]:
    """Two listening sockets, with descriptors that are none of those that they are passed as."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield made
    close(made)


@pytest.mark.parametrize("kind", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_systemds_sockets_are_served(tmp_path: Path, inherited: list[socket.socket], kind: list[str]) -> None:
    with launch(tmp_path, inherited, "2", "", "-m", "fastasgi", "app:app", *kind) as process:
        try:
            for sock in inherited:
                for _ in range(2):
                    assert get(sock.getsockname()) == b"hi"
        finally:
            process.terminate()
            _, said = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in said
    assert f"running on http://127.0.0.1:{inherited[0].getsockname()[1]} " in said


@pytest.mark.parametrize("kind", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_a_descriptor_is_served(tmp_path: Path, inherited: list[socket.socket], kind: list[str]) -> None:
    arguments = ["-m", "fastasgi", "app:app", "--bind", "fd://4", *kind]
    with launch(tmp_path, inherited, "0", "1", *arguments) as process:
        try:
            assert get(inherited[1].getsockname()) == b"hi"
        finally:
            process.terminate()
            _, said = process.communicate(timeout=WAIT_S)
    assert "Traceback" not in said


COUNT = """
from fastasgi import Config
from fastasgi.errors import BindError
from fastasgi.system.sockets import systemd_sockets
try:
    print([sock.getsockname()[1] for sock in systemd_sockets()])
    print([sock.getsockname()[1] for sock in Config("app:app", bind=["127.0.0.1:0"]).bind_sockets()])
except BindError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("count", "pid"), [("2", "1"), ("0", ""), ("-1", ""), ("two", ""), ("", ""), ("99999", ""), ("2", "self")]
)
def test_systemds_sockets_are_not_taken_by_others(
    tmp_path: Path, inherited: list[socket.socket], count: str, pid: str
) -> None:
    with launch(tmp_path, inherited, count, pid, "-c", COUNT) as process:
        out, said = process.communicate(timeout=WAIT_S)
    assert said == ""
    assert out.splitlines()[0] == "[]"


def test_systemds_sockets_give_way_to_a_bind(tmp_path: Path, inherited: list[socket.socket]) -> None:
    with launch(tmp_path, inherited, "2", "", "-c", COUNT) as process:
        out, said = process.communicate(timeout=WAIT_S)
    assert said == ""
    passed, bound = out.splitlines()
    ports = [sock.getsockname()[1] for sock in inherited]
    assert passed == str(ports)
    assert bound not in (str(ports), str(ports[:1]), str(ports[1:]))


def test_systemds_descriptor_that_is_no_socket_is_named(tmp_path: Path) -> None:
    with launch(tmp_path, [], "1", "", "-c", COUNT) as process:
        out, _ = process.communicate(timeout=WAIT_S)
    assert out.startswith("fd 3 is no ")
