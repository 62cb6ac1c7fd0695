"""Chromium, driven by a test."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from serving import WAIT_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

with_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Browser:
    """A headless Chromium with one page, driven by the DevTools protocol over two pipes.

    `options` are further ones of its command line.
    """

    def __init__(self, profile: str, *options: str) -> None:
        read_commands, self._commands = os.pipe()
        answers, write_answers = os.pipe()
        script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        always = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-component-update "
        always += "--disable-background-networking --disable-sync --no-first-run --remote-debugging-pipe"
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *always.split(), *options, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LD_PRELOAD": ""},  # a sanitizer's runtime is for Python alone
        )
        os.close(read_commands)
        os.close(write_answers)
        self._answers = open(answers, "rb")  # noqa: SIM115
        self._unread = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a DevTools method and return its result; note what the page complains of meanwhile."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (message := self._read()).get("id") != self._number:
            self._note(message)
        assert "error" not in message, message
        return message["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        """End the browser."""
        os.close(self._commands)
        self._process.terminate()
        self._process.wait(WAIT_S)
        self._answers.close()

    def _read(self) -> Any:
        while b"\0" not in self._unread:
            piece = self._answers.read1()
            assert piece, "the browser ended"
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, message: Any) -> None:
        match message:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(str(details))
            case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "warning"} as details}:
                self.complaints.append(str(details))
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.complaints.append(str(entry))
