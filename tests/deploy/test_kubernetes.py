"""The manifests of docs/deploy/kubernetes: schemas, what belongs together, and a pod as kubelet sees it."""

import copy
import http.client
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from contained import ADDRESS, UID, Contained, reason_against
from serving import WAIT_S, wait_until

from fastasgi import Config
from fastasgi.processes.workerlimits import EXIT_S

FOLDER = Path(__file__).parent.parent.parent / "docs" / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.28", "1.36"  # versions of Kubernetes
TOKEN = "0123456789abcdef"
AGENT = "kube-probe/1.36"
DRAIN_S = 2  # in place of that of the manifest, to save time

# What is used of the operator's CustomResourceDefinition, version monitoring.coreos.com/v1
SERVICE_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["endpoints", "selector"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"matchLabels": {"additionalProperties": {"type": "string"}}},
                },
                "endpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": {"type": "string", "pattern": "^([0-9]+m)?([0-9]+s)?$"},
                            "authorization": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "type": {"type": "string"},
                                    "credentials": {
                                        "type": "object",
                                        "required": ["key"],
                                        "additionalProperties": False,
                                        "properties": {"key": {"type": "string"}, "name": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}

APP = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        while not os.path.exists("started"):
            await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getuid()})
"""


def manifests() -> dict[str, dict[str, Any]]:
    """All of them, by kind and name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            found[f"{each['kind']} {each['metadata']['name']}"] = each
    return found


MANIFESTS = manifests()
POD = MANIFESTS["Deployment app"]["spec"]["template"]["spec"]
LABELS = MANIFESTS["Deployment app"]["spec"]["template"]["metadata"]["labels"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
PROBES = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}


def options() -> dict[str, str]:
    words = [word for word in CONTAINER["args"] if word.startswith("--")]
    return dict(word.split("=", 1) for word in words)


# Schemas


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", [name for name in MANIFESTS if not name.startswith("ServiceMonitor")])
def test_the_schema_of(name: str, version: str) -> None:
    assert kubernetes_validate.validate(MANIFESTS[name], version, strict=True) == version


def test_a_mistake_in_a_manifest_would_be_found() -> None:
    wrong = copy.deepcopy(MANIFESTS["Deployment app"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_schema_of_the_service_monitor() -> None:
    jsonschema.validate(MANIFESTS["ServiceMonitor app"], SERVICE_MONITOR)


# What belongs together


def test_all_select_the_pods() -> None:
    pods = {"matchLabels": LABELS}
    assert MANIFESTS["Deployment app"]["spec"]["selector"] == pods
    assert MANIFESTS["PodDisruptionBudget app"]["spec"]["selector"] == pods
    assert MANIFESTS["NetworkPolicy app"]["spec"]["podSelector"] == pods
    for name in ("app", "app-admin"):
        assert MANIFESTS[f"Service {name}"]["spec"]["selector"] == LABELS
    assert all(each["labelSelector"] == pods for each in POD["topologySpreadConstraints"])
    admin = MANIFESTS["Service app-admin"]
    monitor = MANIFESTS["ServiceMonitor app"]["spec"]
    assert monitor["selector"]["matchLabels"] == admin["metadata"]["labels"]
    assert (
        LABELS.items() != admin["metadata"]["labels"].items()
    )  # otherwise it would scrape the application too
    scaled = MANIFESTS["HorizontalPodAutoscaler app"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", "app")
    assert "replicas" not in MANIFESTS["Deployment app"]["spec"]


def test_the_ports_agree() -> None:
    assert options()["--bind"] == f":{PORTS['http']}"
    assert options()["--admin"] == f":{PORTS['admin']}"
    assert {probe["httpGet"]["port"] for probe in PROBES.values()} == {"admin"}
    app = {port["name"]: port for port in MANIFESTS["Service app"]["spec"]["ports"]}
    assert {port["targetPort"] for port in app.values()} == {"http"}
    assert app["h2c"]["appProtocol"] == "kubernetes.io/h2c"
    assert "appProtocol" not in app["http"]
    (port,) = MANIFESTS["Service app-admin"]["spec"]["ports"]
    assert port["targetPort"] == "admin"
    (endpoint,) = MANIFESTS["ServiceMonitor app"]["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    admitted = [rule["ports"][0]["port"] for rule in MANIFESTS["NetworkPolicy app"]["spec"]["ingress"]]
    assert admitted == ["http", "admin"]


def test_the_token_is_that_of_the_monitor() -> None:
    (variable,) = CONTAINER["env"]
    assert variable["name"] == "FASTASGI_ADMIN_TOKEN"
    (endpoint,) = MANIFESTS["ServiceMonitor app"]["spec"]["endpoints"]
    assert variable["valueFrom"]["secretKeyRef"] == endpoint["authorization"]["credentials"]


def test_the_grace_period_is_enough() -> None:
    """D + G + 8, by the settings that the container has, and not much more."""
    config = Config("app:app", timeout_drain=float(options()["--timeout-drain"]))
    assert "--timeout-graceful-shutdown" not in options()
    needed = math.ceil(config.timeout_drain + config.grace_timeout_s + EXIT_S)
    assert needed == 38
    assert needed <= POD["terminationGracePeriodSeconds"] <= needed + 5


def test_it_drains_for_longer_than_its_readiness_takes_to_fail() -> None:
    probe = PROBES["readiness"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert float(options()["--timeout-drain"]) > noticed_s


def test_the_container_has_no_rights() -> None:
    assert POD["securityContext"]["runAsUser"] == UID
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    rights = CONTAINER["securityContext"]
    assert not rights["allowPrivilegeEscalation"]
    assert rights["readOnlyRootFilesystem"]
    assert rights["capabilities"] == {"drop": ["ALL"]}


# The pod, as kubelet sees it


def check(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "main.py").write_text(APP)
    return subprocess.run(
        [sys.executable, "-m", "fastasgi", "--check-config", *CONTAINER["args"][1:]],
        cwd=folder, capture_output=True, text=True, timeout=WAIT_S, env={**os.environ, **environment},
    )  # fmt: skip


def test_the_settings_are_right(tmp_path: Path) -> None:
    assert CONTAINER["args"][0] == "fastasgi"
    done = check(tmp_path, {"FASTASGI_ADMIN_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr


def test_without_the_secret_it_does_not_start(tmp_path: Path) -> None:
    done = check(tmp_path, {})
    assert done.returncode == 2
    assert "admin_token" in done.stderr


def probe(pod: Contained, name: str) -> int:
    """The status that kubelet sees: it asks by the pod's address, and keeps no connection."""
    asked = PROBES[name]["httpGet"]
    port = PORTS[asked["port"]]
    fields = {"host": f"{ADDRESS}:{port}", "user_agent": AGENT, "accept": "*/*", "connection": "close"}
    return pod.status(asked["path"], port, **fields)


@pytest.fixture
def contain(tmp_path: Path) -> Iterator[Callable[[], Contained]]:
    if reason := reason_against():
        pytest.skip(f"no namespaces can be made here: {reason}")
    (tmp_path / "main.py").write_text(APP)
    started: list[Contained] = []

    def contain() -> Contained:
        drain = f"--timeout-drain={options()['--timeout-drain']}"
        words = [f"--timeout-drain={DRAIN_S}" if word == drain else word for word in CONTAINER["args"]]
        started.append(Contained(tmp_path, *words, environment={"FASTASGI_ADMIN_TOKEN": TOKEN}))
        return started[-1]

    yield contain
    for pod in started:
        pod.close()


def test_probes_before_during_and_after_the_life_of_a_pod(
    contain: Callable[[], Contained], tmp_path: Path
) -> None:
    pod = contain()
    pod.wait_for("Waiting for application startup")
    wait_until(lambda: probe(pod, "liveness") == 200, lambda: pod.log)
    assert probe(pod, "startup") == 503
    assert probe(pod, "readiness") == 503
    (tmp_path / "started").touch()
    wait_until(lambda: probe(pod, "startup") == 200, lambda: pod.log)
    assert probe(pod, "readiness") == 200
    os.kill(pod.pid, signal.SIGTERM)
    begin = time.monotonic()
    wait_until(lambda: probe(pod, "readiness") == 503, lambda: pod.log)
    assert time.monotonic() - begin < DRAIN_S
    # Gateways that have not heard of it yet are served, and kubelet has no reason to kill it
    assert pod.get("/", PORTS["http"]).read() == b"%d" % UID
    assert probe(pod, "liveness") == 200
    assert time.monotonic() - begin < DRAIN_S
    assert pod.wait() == 0
    assert time.monotonic() - begin >= DRAIN_S
    assert "Traceback" not in pod.log


def test_metrics_are_for_those_who_have_the_token(contain: Callable[[], Contained], tmp_path: Path) -> None:
    (endpoint,) = MANIFESTS["ServiceMonitor app"]["spec"]["endpoints"]
    (tmp_path / "started").touch()
    pod = contain()
    wait_until(lambda: probe(pod, "readiness") == 200, lambda: pod.log)
    port = PORTS["admin"]
    assert pod.status(endpoint["path"], port) == 401
    answer = pod.get(endpoint["path"], port, authorization=f"{endpoint['authorization']['type']} {TOKEN}")
    assert answer.status == 200
    assert b"fastasgi_ready 1" in answer.read()


def test_the_port_of_the_service_speaks_http2(contain: Callable[[], Contained], tmp_path: Path) -> None:
    """To gateways that begin with it, as appProtocol tells them."""
    (tmp_path / "started").touch()
    pod = contain()
    wait_until(lambda: probe(pod, "readiness") == 200, lambda: pod.log)
    with pod.connect(PORTS["http"]) as sock:
        sock.settimeout(WAIT_S)
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = b""
        while len(head) < 9:
            piece = sock.recv(9 - len(head))
            assert piece
            head += piece
    assert head[3:4] == b"\4"  # SETTINGS


def test_the_client_is_the_one_that_a_gateway_tells(contain: Callable[[], Contained], tmp_path: Path) -> None:
    assert re.fullmatch(r"[\d.]+/\d+", options()["--forwarded-allow-ips"])
    (tmp_path / "started").touch()
    pod = contain()
    wait_until(lambda: probe(pod, "readiness") == 200, lambda: pod.log)
    pod.run("ip", "address", "add", "10.244.3.4/32", "dev", "lo")
    for source in ("10.244.3.4", ADDRESS):
        connection = http.client.HTTPConnection(ADDRESS, PORTS["http"], timeout=WAIT_S)
        connection.sock = pod.connect(PORTS["http"], source=source)
        connection.request("GET", f"/{source}", headers={"x-forwarded-for": "198.51.100.7"})
        assert connection.getresponse().status == 200
        connection.close()
    assert pod.end() == 0
    assert '198.51.100.7:0 - "GET /10.244.3.4 ' in pod.output
    assert re.search(rf'{ADDRESS}:\d+ - "GET /{ADDRESS} ', pod.output)
