"""The image and the compose file of docs/deploy/docker, and what the image's command does as PID 1."""

import fnmatch
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from contained import UID, Contained, reason_against
from dockerfile_parse import DockerfileParser
from serving import WAIT_S, wait_until

from fastasgi import Config
from fastasgi.processes.workerlimits import EXIT_S

FOLDER = Path(__file__).parent.parent.parent / "docs" / "deploy" / "docker"
DOCKERFILE, IGNORED, COMPOSE = (
    (FOLDER / name).read_text() for name in ("Dockerfile", ".dockerignore", "compose.yaml")
)
CADDYFILE = (FOLDER.parent / "Caddyfile").read_text()

APP = """
import asyncio, os, subprocess

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/slow":
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await asyncio.sleep(1)
    if scope["path"] == "/orphan":
        subprocess.run(["sh", "-c", "sleep 0.1 &"])
    body = b"done"
    if scope["path"] == "/me":
        body = b"%d %d" % (os.getuid(), os.access("/srv/app", os.W_OK) or os.access("/etc", os.W_OK))
    await send({"type": "http.response.body", "body": body})
"""


def instructions() -> list[tuple[str, str]]:
    parser = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.encode()))
    return [
        (each["instruction"], each["value"]) for each in parser.structure if each["instruction"] != "COMMENT"
    ]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[tuple[str, str]]] = []
    for each in instructions():
        if each[0] == "FROM":
            found.append([])
        found[-1].append(each)
    return found


def only(name: str) -> str:
    """The value of an instruction that the last stage has once."""
    [value] = [value for instruction, value in stages()[-1] if instruction == name]
    return value


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in only("ENV").split())


def command() -> list[str]:
    words = json.loads(only("CMD"))
    assert isinstance(words, list)
    return words


def option(name: str) -> str:
    words = command()
    return words[words.index(name) + 1]


# The image


def hadolint(text: str) -> str:
    path = shutil.which("hadolint", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")
    if path is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([path, "-"], input=text, capture_output=True, text=True, timeout=WAIT_S)
    return done.stdout


def test_the_dockerfile_is_linted() -> None:
    assert hadolint(DOCKERFILE) == ""


def test_a_command_of_a_shell_would_be_found() -> None:
    assert "DL3025" in hadolint("FROM python:3.13-slim\nCMD fastasgi main:app\n")


def test_what_compiles_stays_out_of_the_image() -> None:
    build, image = stages()
    assert build[0][1].endswith(" AS build")
    assert any("gcc" in value for _, value in build)
    assert not any(re.search(r"apt|gcc|pip", value) for name, value in image if name == "RUN")
    assert ("COPY", "--from=build /venv /venv") in image
    # Both have the same Python, to which the venv leads
    assert build[0][1].removesuffix(" AS build") == image[0][1]


def test_the_user_has_no_rights() -> None:
    names = [name for name, _ in stages()[-1]]
    user = int(only("USER"))
    assert user == UID
    assert f"--uid {user}" in "".join(value for name, value in stages()[-1] if name == "RUN")
    assert "--chown" not in DOCKERFILE
    assert names.index("USER") < names.index("CMD")
    assert "COPY" not in names[names.index("USER") :]


def test_signals_reach_the_server() -> None:
    assert only("STOPSIGNAL") == "SIGTERM"
    assert command()[0] == "fastasgi"
    assert not [name for name, _ in instructions() if name == "ENTRYPOINT"]


def test_the_ports_agree() -> None:
    assert only("EXPOSE") == str(Config("app:app").port)
    assert option("--host") == "0.0.0.0"
    assert "--port" not in command()
    assert f"http://{option('--admin')}/readyz" in only("HEALTHCHECK")


def test_the_keep_alive_is_longer_than_the_proxys() -> None:
    kept = re.search(r"keepalive (\d+)s", CADDYFILE)
    assert kept
    assert int(option("--timeout-keep-alive")) > max(int(kept[1]), 60)


def test_the_health_check_has_time() -> None:
    value = only("HEALTHCHECK")
    options = {name: int(number) for name, number in re.findall(r"--(\w+)=(\d+)s", value)}
    patience = re.search(r"timeout=(\d+)\)", value)
    assert patience
    assert int(patience[1]) < options["timeout"] < options["interval"]


def is_ignored(path: str) -> bool:
    """Whether a pattern matches the path or a folder that it is in, as docker reads them."""
    patterns = [line for line in IGNORED.splitlines() if line and line[0] != "#"]
    parts = path.split("/")
    heads = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(
        fnmatch.fnmatchcase(head, pattern)
        or (pattern.startswith("**/") and fnmatch.fnmatchcase(head, pattern[3:]))
        for head in heads
        for pattern in patterns
    )


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        ".env.local",
        "key.pem",
        "Dockerfile",
        "shop/__pycache__/cart.pyc",
    ],
)
def test_what_the_image_does_not_get(path: str) -> None:
    assert is_ignored(path)


@pytest.mark.parametrize("path", ["main.py", "requirements.txt", "shop/cart.py", "static/environment.js"])
def test_what_the_image_gets(path: str) -> None:
    assert not is_ignored(path)


# The compose file


def composed() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE)
    return loaded


def complaints(text: str, folder: Path) -> str:
    """What is wrong by the schema of compose files."""
    (folder / "compose.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        cwd=folder, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    return done.stdout + done.stderr if done.returncode else ""


def test_the_compose_file_has_the_right_form(tmp_path: Path) -> None:
    assert complaints(COMPOSE, tmp_path) == ""


def test_a_mistake_in_the_compose_file_would_be_found(tmp_path: Path) -> None:
    assert "stop_grce" in complaints(COMPOSE.replace("stop_grace", "stop_grce"), tmp_path)


def test_the_time_to_stop_is_enough() -> None:
    config = Config("app:app")
    assert "--timeout-graceful-shutdown" not in command()
    needed = math.ceil(config.timeout_drain + config.grace_timeout_s + EXIT_S)
    given = composed()["services"]["web"]["stop_grace_period"]
    assert given == "30s"
    assert needed <= 30


def test_only_the_proxy_reaches_a_server_that_believes_everybody() -> None:
    services = composed()["services"]
    web = services["web"]
    assert web["environment"]["FORWARDED_ALLOW_IPS"] == "*"
    assert "ports" not in web
    (network,) = web["networks"]
    assert [name for name, service in services.items() if network in service["networks"]] == ["web", "proxy"]


def test_the_proxy_finds_the_server() -> None:
    proxy = composed()["services"]["proxy"]
    assert proxy["environment"]["UPSTREAM"] == f"web:{only('EXPOSE')}"
    for name in ("SITE", "UPSTREAM"):
        assert f"{{${name}:" in CADDYFILE
    assert proxy["depends_on"]["web"]["condition"] == "service_healthy"
    assert "./Caddyfile:/etc/caddy/Caddyfile:ro" in proxy["volumes"]
    assert composed()["services"]["web"]["environment"]["FASTASGI_HEADER_UNDERSCORES"] == "drop"
    assert "--header-underscores drop" in CADDYFILE


# The command as PID 1


@pytest.fixture
def contain(tmp_path: Path) -> Iterator[Callable[..., Contained]]:
    """Runs the image's command with the environment of image and compose file, behind these other words."""
    if reason := reason_against():
        pytest.skip(f"no namespaces can be made here: {reason}")
    (tmp_path / "main.py").write_text(APP)
    started: list[Contained] = []

    def contain(*before: str) -> Contained:
        variables = {**environment(), **composed()["services"]["web"]["environment"]}
        del variables["PATH"]
        started.append(Contained(tmp_path, *before, *command(), environment=variables))
        count = int(environment()["WEB_CONCURRENCY"])
        wait_until(lambda: started[-1].log.count("startup complete.") == count, lambda: started[-1].log)
        return started[-1]

    yield contain
    for server in started:
        server.close()


def test_the_settings_are_right(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "fastasgi", "--check-config", *command()[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_container_stops_gracefully(contain: Callable[..., Contained]) -> None:
    server = contain()
    assert server.get("/me", 8000).read() == b"%d 0" % UID
    slow = server.get("/slow", 8000)
    begin = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert slow.read() == b"begun done"
    assert server.wait() == 0
    assert time.monotonic() - begin < 28
    assert "Traceback" not in server.log


def test_the_health_check_as_docker_runs_it(contain: Callable[..., Contained]) -> None:
    words = json.loads(only("HEALTHCHECK").partition(" CMD ")[2])
    server = contain()
    assert server.run(*words).returncode == 0
    server.run("sh", "-c", "kill -WINCH 1")  # all workers end
    wait_until(lambda: server.run(*words).returncode == 1, "it is not healthy")


def test_no_worker_stays_as_a_zombie(contain: Callable[..., Contained]) -> None:
    server = contain()
    before = set(server.processes())
    server.run("sh", "-c", "kill -HUP 1")
    server.wait_for("Reloaded")
    wait_until(lambda: len(set(server.processes()) & before) == 2, "the end of the old workers")
    assert not [each for each in server.processes().values() if each.endswith("Z")]


def test_an_init_reaps_what_the_application_leaves(contain: Callable[..., Contained]) -> None:
    """As `init: true` has it, which is tini."""
    if shutil.which("tini") is None:
        pytest.skip("tini is not installed")
    assert composed()["services"]["web"]["init"] is True
    server = contain("tini", "--")
    assert server.get("/orphan", 8000).read() == b"done"
    assert any(each.startswith("tini ") for each in server.processes().values())
    wait_until(lambda: not any("sleep" in each for each in server.processes().values()), server.processes)
    assert server.end() == 0
