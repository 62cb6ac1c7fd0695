"""Nodes that serve, and proxies in front of them, each on a machine of its own: see netns.

The proxies run docs/deploy's configurations for several nodes as they stand, but for paths and times.
"""

import collections
import getpass
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from certificates import Authority
from netns import Network
from serving import WAIT_S, ServerProcess, read_all, wait_until
from shipped import command, program, substituted

CERTIFICATE = "/etc/ssl/private/example.org.pem"
NAME = "example.org"
CLIENTS, PROXY = "clients", "proxy"
ADDRESSES = {
    CLIENTS: "10.0.0.1",
    PROXY: "10.0.0.2",
    "node1": "10.0.0.11",
    "node2": "10.0.0.12",
    "node3": "10.0.0.13",
}
NODES = [name for name in ADDRESSES if name.startswith("node")]
TOKEN = "nobody-asks-for-this"
GRACE_S = 5.0
STREAM_S = 1.0  # how long a stream of events lasts, which is less than that

# Answers with what it has got. Each request is noted in a file before anything else is done with it.
APP = f"""
import asyncio, hashlib, json, os

NODE = os.environ["NODE"]
begun = os.open("begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while (message := await receive())["type"] == "websocket.receive":
            await send({{"type": "websocket.send", "text": NODE + " " + message["text"]}})
        return
    headers = dict(scope["headers"])
    os.write(begun, headers.get(b"x-id", b"none") + b"\\n")
    if scope["path"] == "/events":
        await stream(headers, send)
        return
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await asyncio.sleep(float(headers.get(b"x-wait", b"0")))
    told = {{
        "id": headers.get(b"x-id", b"none").decode(), "method": scope["method"], "path": scope["path"],
        "size": size, "digest": digest.hexdigest(), "node": NODE, "client": scope["client"][0],
    }}
    body = json.dumps(told).encode()
    fields = [(b"content-length", b"%d" % len(body)), (b"x-told", body)]
    await send({{"type": "http.response.start", "status": 200, "headers": fields}})
    await send({{"type": "http.response.body", "body": body}})

async def stream(headers, send):
    number = int(headers.get(b"last-event-id", b"0"))
    fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({{"type": "http.response.start", "status": 200, "headers": fields}})
    ends_at = asyncio.get_running_loop().time() + {STREAM_S}
    while (now := asyncio.get_running_loop().time()) < ends_at:
        number += 1
        event = f"id: {{number}}\\ndata: {{NODE}}\\n\\n".encode()
        await send({{"type": "http.response.body", "body": event, "more_body": True}})
        await asyncio.sleep(0.05)
    await send({{"type": "http.response.body", "body": b""}})
"""


class Node:
    """A machine with fastasgi, which is started as the configuration of the proxy says."""

    def __init__(self, network: Network, name: str, folder: Path, drain_s: float) -> None:
        self.name, self.folder, self._network = name, folder, network
        self.address = ADDRESSES[name]
        self._drain_s = drain_s
        self.server: ServerProcess | None = None
        folder.mkdir()
        (folder / "app.py").write_text(APP)
        (folder / "token").write_text(TOKEN)

    def start(self, configuration: str) -> None:
        """Start the server; `wait_until_ready` waits for it."""
        values = {
            "10.0.0.11": self.address,
            "10.0.0.11:9000": f"{self.address}:9000",
            "/etc/fastasgi/token": str(self.folder / "token"),
            "main:app": "app:app",
            "10": str(self._drain_s),
        }
        self.server = ServerProcess(
            self.folder,
            *command(configuration, values),
            *("--no-access-log", "--timeout-graceful-shutdown", str(GRACE_S)),
            environment={**os.environ, "NODE": self.name, "PYTHONDONTWRITEBYTECODE": "1"},
            command=self._network.command(self.name, sys.executable, "-m", "fastasgi"),
        )

    @property
    def running(self) -> ServerProcess:
        assert self.server is not None, f"{self.name} has not been started"
        return self.server

    def readiness(self) -> int:
        """The status of /readyz, as the proxy's machine sees it; 0 if nobody answers."""

        def ask() -> int:
            connection = http.client.HTTPConnection(self.address, 9000, timeout=WAIT_S)
            try:
                connection.request("GET", "/readyz", headers={"connection": "close"})
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0
            finally:
                connection.close()

        return self._network.call_on(PROXY, ask)

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.running.process.poll() is None, self.running.log
            return self.readiness() == 200

        wait_until(is_ready, lambda: f"{self.name} is ready\n{self.running.log}")

    def stop(self) -> None:
        """SIGTERM; `wait` waits for the end."""
        self.running.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """The server ends, in good order."""
        code = self.running.wait()
        log = self.running.log
        assert code == 0, log
        assert "Traceback" not in log, log
        assert "is killed" not in log, log
        self._close()

    def kill(self) -> None:
        """SIGKILL to all its processes, which are gone afterwards."""
        self._network.kill_all_on(self.name)
        self._close()

    def _close(self) -> None:
        self.running.close()
        self.server = None

    def begun(self) -> collections.Counter[str]:
        """The ids of the requests that its application has got, ever."""
        path = self.folder / "begun"
        return collections.Counter(path.read_text().split() if path.exists() else ())

    def close(self) -> None:
        if self.server is not None:
            self._network.kill_all_on(self.name)
            self._close()


class Proxy:
    """A proxy's process, on its machine."""

    configuration = ""

    def __init__(self, network: Network, folder: Path, authority: Authority, times: dict[str, str]) -> None:
        self._network, self.folder = network, folder
        self._times = times
        folder.mkdir()
        pair = authority.issue(NAME)
        self._certificate = folder / "example.org.pem"
        self._certificate.write_text(pair.cert.read_text() + pair.key.read_text())
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "proxy.log"

    def _run(self, *arguments: str) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._network.command(PROXY, *arguments), stdout=log, stderr=log, cwd=self.folder
            )
        wait_until(self._listens, self.log)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()

        def try_connect() -> bool:
            try:
                socket.create_connection((ADDRESSES[PROXY], 443), WAIT_S).close()
            except OSError:
                return False
            return True

        return self._network.call_on(CLIENTS, try_connect)

    def log(self) -> str:
        """What it has to tell."""
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        if self._process is not None:
            self._network.kill_all_on(PROXY)
            self._process.wait(WAIT_S)


class HAProxy(Proxy):
    """HAProxy with haproxy-nodes.cfg, which asks nodes whether they are ready."""

    configuration = "haproxy-nodes.cfg"

    def start(self) -> None:
        self._stats = self.folder / "admin.sock"
        values = {
            CERTIFICATE: str(self._certificate),
            "/run/haproxy/admin.sock": str(self._stats),
            **self._times,
        }
        (self.folder / "haproxy.cfg").write_text(substituted(self.configuration, values))
        self._run(program("haproxy"), "-db", "-f", "haproxy.cfg")

    def ask(self, question: str) -> str:
        """What it answers at its stats socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT_S)
            sock.connect(str(self._stats))
            sock.sendall(question.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def state_of(self, node: str) -> str:
        """What its statistics say of a node: UP, NOLB (which gets no new requests), DOWN ..."""
        head, *lines = self.ask("show stat fastasgi 4 -1").lstrip("# ").splitlines()
        fields = head.split(",")
        for line in lines:
            values = dict(zip(fields, line.split(","), strict=False))
            if values.get("svname") == node:
                return values["status"]
        raise AssertionError(f"no {node} in {lines}")

    def wait_for(self, node: str, *states: str) -> None:
        wait_until(
            lambda: self.state_of(node) in states, lambda: f"{node} is {self.state_of(node)}, not {states}"
        )

    def take_out(self, node: Node, look: Callable[[], None]) -> None:
        """Tell a node to stop, which HAProxy sees by its checks while the node serves on; then look."""
        node.stop()
        self.wait_for(node.name, "NOLB")
        assert "Shutting down" not in node.running.log, "it was seen when it served no more"
        look()

    def see_lost(self, node: Node) -> None:
        """Wait until it sees that a node has gone."""
        self.wait_for(node.name, "DOWN")

    def put_in(self, node: Node) -> None:
        """Wait until it sees that a node is ready."""
        self.wait_for(node.name, "UP")


class Nginx(Proxy):
    """nginx with nginx-nodes.conf, which has to be told what to leave out: by files, unless it `reloads`."""

    configuration = "nginx-nodes.conf"
    reloads = False

    def start(self) -> None:
        self._path = self.folder / "nginx.conf"
        self._marks = self.folder / "marks"
        self._marks.mkdir()
        values = {
            "user www-data;": f"user {getpass.getuser()};",
            "/run/fastasgi-nodes": str(self._marks),
            "/run/nginx.pid": str(self.folder / "nginx.pid"),
            "/var/log/nginx": str(self.folder),
            CERTIFICATE: str(self._certificate),
            "http {": "http {\n"
            + "".join(
                f"    {name}_temp_path {self.folder}/{name};\n"
                for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
            **self._times,
        }
        self._path.write_text(substituted(self.configuration, values))
        self._arguments = [program("nginx"), "-e", str(self.folder / "error.log"), "-c", str(self._path)]
        self._run(*self._arguments, "-g", "daemon off;")

    def workers(self) -> dict[int, str]:
        """The titles of its workers, by their numbers."""
        assert self._process is not None
        children = [int(pid) for pid in read_all(self._process.pid, "task/*/children").split()]
        titles = {pid: read_all(pid, "cmdline").strip("\0 ") for pid in children}
        return {pid: title for pid, title in titles.items() if "worker process" in title}

    def reload(self) -> None:
        """``nginx -s reload``; then wait until workers with the new configuration have taken over."""
        before = self.workers()
        subprocess.run(
            self._network.command(PROXY, *self._arguments, "-g", "daemon off;", "-s", "reload"),
            check=True,
            timeout=WAIT_S,
            cwd=self.folder,
        )

        def is_over() -> bool:
            now = self.workers()
            serving = {pid for pid, title in now.items() if "shutting down" not in title}
            return bool(serving) and not serving & set(before)

        wait_until(is_over, lambda: f"workers that take over: {self.workers()}\n{self.log()}")

    def take_out(self, node: Node, look: Callable[[], None]) -> None:
        """Mark a node, by a file or by the word "down" and a reload, look, and tell it to stop."""
        if self.reloads:
            self._write_down(node, " down")
        else:
            (self._marks / f"{node.name}.down").touch()
        look()
        node.stop()

    def see_lost(self, node: Node) -> None:
        """Nothing: it sees that only when it has a request for the node."""

    def put_in(self, node: Node) -> None:
        """Take the mark back."""
        if self.reloads:
            self._write_down(node, "")
        else:
            (self._marks / f"{node.name}.down").unlink()

    def _write_down(self, node: Node, word: str) -> None:
        line = rf"(server {re.escape(node.address)}:8000 [^;]*?)(?: down)?;"
        self._path.write_text(re.sub(line, rf"\1{word};", self._path.read_text()))
        self.reload()

    def log(self) -> str:
        path = self.folder / "error.log"
        return super().log() + (path.read_text() if path.exists() else "")


class Fleet:
    """Three nodes that serve behind a proxy."""

    def __init__(self, network: Network, folder: Path, proxy: HAProxy | Nginx, drain_s: float) -> None:
        self.network, self.proxy = network, proxy
        self.nodes = [Node(network, name, folder / name, drain_s) for name in NODES]

    def start(self) -> None:
        for node in self.nodes:
            node.start(self.proxy.configuration)
        for node in self.nodes:
            node.wait_until_ready()
        self.proxy.start()
        for node in self.nodes:
            if isinstance(self.proxy, HAProxy):
                self.proxy.wait_for(node.name, "UP")

    def replace(self, node: Node, look: Callable[[], None] | None) -> None:
        """What a rolling deploy does with a node. `look` is called when it should get no new requests.

        Without that the proxy is not told.
        """
        if look is None:
            node.stop()
        else:
            self.proxy.take_out(node, look)
        node.wait()
        node.start(self.proxy.configuration)
        node.wait_until_ready()
        if look is not None:
            self.proxy.put_in(node)

    def begun(self) -> dict[str, collections.Counter[str]]:
        """How often each request has reached the application, by node."""
        return {node.name: node.begun() for node in self.nodes}

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.proxy.close()
