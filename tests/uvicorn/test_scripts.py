"""Scripts that call ``run`` themselves: for what they define, and in threads."""

import contextlib
import http.client
import importlib
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import WAIT_S, ServerProcess, port_of
from wire import hello

import fastasgi as uvicorn
from fastasgi.application import importer
from fastasgi.errors import AppImportError
from fastasgi.processes import preload, startmethods

APP = """
    import os
    import fastasgi as uvicorn

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": f"{__name__} {os.getpid()}".encode()})
"""


class Script(ServerProcess):
    """A script of the user's that serves."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "script.py").write_text(textwrap.dedent(source))
        super().__init__(folder, command=(sys.executable, "script.py"))

    def get(self) -> str:
        self.wait_for("Started supervisor")  # bind_socket tells the address before anybody listens
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().read().decode()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], Script]]:
    scripts: list[Script] = []

    def run(source: str) -> Script:
        scripts.append(Script(tmp_path, textwrap.dedent(APP) + textwrap.dedent(source)))
        return scripts[-1]

    yield run
    for each in scripts:
        each.close()


RUN = """
    if __name__ == "__main__":
        uvicorn.run("__main__:app", port=0, {settings})
"""


@pytest.mark.parametrize("settings", ["workers=2", "reload=True"])
def test_workers_find_the_application_of_a_script(script: Callable[[str], Script], settings: str) -> None:
    process = script(RUN.format(settings=settings))
    name, pid = process.get().split()
    assert name == "__mp_main__"
    assert int(pid) != process.process.pid
    assert process.end() == 0


IN_A_THREAD = """
    import threading

    if __name__ == "__main__":
        settings = dict(app="script:app", app_dir=".", port=0, workers=2)
        threading.Thread(target=uvicorn.run, kwargs=settings).start()
"""


def test_workers_of_a_supervisor_in_a_thread(script: Callable[[str], Script]) -> None:
    process = script(IN_A_THREAD)
    assert process.get().startswith("script ")
    assert process.end() == -signal.SIGTERM  # signals are the program's


@pytest.mark.parametrize("settings", [{}, {"pid_file": "x.pid"}])
def test_run_in_a_thread_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    servers: list[uvicorn.Server] = []
    ready, ended = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)

    async def note() -> None:
        ready.set()

    startup = uvicorn.Server.startup

    async def noting(self: uvicorn.Server, sockets: Any = None) -> None:
        await startup(self, sockets)
        servers.append(self)

    def serve() -> None:
        uvicorn.run(app, port=0, lifespan="off", callback_notify=note, **settings)
        ended.set()

    monkeypatch.setattr(uvicorn.Server, "startup", noting)
    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(WAIT_S)
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    connection = http.client.HTTPConnection("127.0.0.1", port_of(servers[0]), timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    servers[0].should_exit = True
    thread.join(WAIT_S)
    assert ended.is_set()


def test_an_import_in_a_thread_has_no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing() -> None:
        with preload._time_limit(60):
            ran.append(True)

    ran: list[bool] = []
    alarms: list[Any] = []
    monkeypatch.setattr(signal, "setitimer", lambda *arguments: alarms.append(arguments))
    thread = threading.Thread(target=importing)
    thread.start()
    thread.join()
    assert (ran, alarms) == ([True], [])


class TestMainSource:
    @staticmethod
    def main(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
        module = types.ModuleType("__main__")
        for name, value in attributes.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "__main__", module)

    @pytest.mark.parametrize("attributes", [{}, {"__file__": "<stdin>"}, {"__file__": "no/such.py"}])
    def test_a_program_without_a_file(
        self, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any]
    ) -> None:
        self.main(monkeypatch, **attributes)
        for settings in ({"workers": 2}, {"reload": True}):
            with pytest.raises(AppImportError, match=r"^app '__main__:app' can't be imported by workers"):
                uvicorn.Config("__main__:app", **settings)
        assert uvicorn.Config("__main__:app", workers=2, preload=True).preload
        config = uvicorn.Config("app:app", workers=2, loop="__main__:new")
        with pytest.raises(AppImportError, match=r"^a setting is defined in this program's main module"):
            startmethods.spawn_worker(config, 0, None, [], {}, ".", [])

    @pytest.mark.parametrize("name", ["stall.serve", None])
    def test_a_main_module_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
    ) -> None:
        (tmp_path / "stall").mkdir()
        (tmp_path / "stall" / "other.py").write_text("value = 5")
        path = tmp_path / "stall" / "serve.py"
        how = "from .other" if name else "from stall.other"
        path.write_text(f"{how} import value\ncount = 0\ndef add():\n    global count\n    count += value\n")
        monkeypatch.syspath_prepend(tmp_path)
        self.main(monkeypatch, __file__=str(path), __spec__=importlib.util.find_spec(name) if name else None)
        source = importer.main_source()
        monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        monkeypatch.setitem(sys.modules, "__mp_main__", types.ModuleType("x"))
        importer.import_main(source)
        module = sys.modules["__main__"]
        assert (module.__name__, module.__file__) == ("__mp_main__", str(path))
        importer.import_from_string("__main__:add")()
        assert module.count == 5
        assert pickle.loads(pickle.dumps(module.add)) is module.add
        importer._former_main.clear()


BY_HAND = """
    if __name__ == "__main__":
        config = uvicorn.Config("__main__:app", port=0, workers=2)
        sock = config.bind_socket()
        uvicorn.supervisors.Multiprocess(config, sockets=[sock]).run()
        print("at the end")
"""


def test_a_supervisor_made_by_hand_serves_on_the_sockets_given(script: Callable[[str], Script]) -> None:
    process = script(BY_HAND)
    name, pid = process.get().split()
    assert name == "__mp_main__"
    assert int(pid) != process.process.pid
    assert process.end() == 0
    assert process.log.count("running on") == 1
    assert "at the end" in process.output


def test_a_server_in_a_daemon_thread_that_ends_with_the_program(tmp_path: Path) -> None:
    program = """
        import threading, time, urllib.request
        import fastasgi

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        server = fastasgi.Server(fastasgi.Config(app, port=0, lifespan="off"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for name in ("first", "next"):  # the line of the first is made when the next is answered
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}").close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0
    assert done.stdout.count('"GET /first HTTP/1.1" 200 OK') == 1


def test_a_program_without_a_file_gets_one_line() -> None:
    program = "import fastasgi\nfastasgi.run('__main__:app', port=0, workers=2)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 3
    assert re.fullmatch(r"Error: app '__main__:app' can't be imported by workers, .*\n", done.stderr)
