"""The demo's page in a browser: on a phone, over TLS, by another server, when the server restarts."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, with_chromium
from certificates import Pair
from serving import ServerProcess, wait_until
from websockets.sync.client import connect

pytestmark = with_chromium

DEMO = ("fastasgi.demo:app", "--no-access-log")
PHONE, DESK = (390, 844), (1280, 800)
SCREENS = 3  # that the page may take on a phone

# Uses each part of the page, and tells what it shows
VISIT = """
(async () => {
  const at = (id) => document.getElementById(id);
  const until = async (what) => { while (!what()) await new Promise(requestAnimationFrame); };
  const shown = (id) => at(id).textContent;
  await until(() => document.readyState === "complete");
  await until(() => at("state").dataset.state === "live" && at("facts").children.length > 0);
  await until(() => at("socket-state").dataset.state === "live");
  const height = document.documentElement.scrollHeight;
  at("load-count").value = "200";
  at("load-start").click();
  await until(() => !at("load-start").disabled && shown("load-result"));
  at("stream-interval").value = "0";
  at("stream-start").click();
  await until(() => !at("stream-start").disabled);
  at("upload-kind").value = "1";
  at("upload-start").click();
  await until(() => !at("upload-start").disabled);
  at("echo-body").value = "<img src=x onerror=alert(1)>";
  at("echo-send").click();
  await until(() => !at("echo-text").hidden);
  at("socket-text").value = "<b>grüß</b>";
  at("socket-send").click();
  await until(() => shown("socket-result").includes("came back"));
  const message = shown("socket-result");
  at("socket-burst").click();
  await until(() => shown("socket-result").includes("messages/s"));
  await until(() => at("chart").querySelector("polyline") && at("trips").querySelector("rect"));
  await until(() => shown("socket-open") === "1");
  return {
    load: shown("load-result"), stream: shown("stream-text"), upload: shown("upload-result"),
    echo: shown("echo-text"), facts: shown("facts"), images: document.images.length,
    message, burst: shown("socket-result"), socket: shown("socket-state"), protocol: shown("protocol"),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    heights: [height, document.documentElement.scrollHeight],
    unnamed: [...document.querySelectorAll("input, select, textarea, button, output, svg, [tabindex]")]
      .filter((each) => !each.closest("[aria-hidden], [hidden]"))
      .filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))
      .map((each) => each.id),
  };
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile = str(tmp_path_factory.mktemp("profile"))
    with contextlib.closing(Browser(profile, "--ignore-certificate-errors")) as browser:
        yield browser


def open_page(browser: Browser, address: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    width, height = size
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Page.navigate", url="about:blank")
    browser.complaints.clear()
    browser.call("Page.navigate", url=address)


def visited(browser: Browser) -> dict[str, Any]:
    """What the page shows once each of its parts has been used."""
    shown = browser.evaluate(VISIT)
    assert browser.complaints == []
    assert shown["load"].startswith("200 answered in ")
    assert "none failed" in shown["load"]
    assert shown["stream"].endswith("talking to nobody. \n")
    assert shown["upload"].startswith("All 1.0 MiB arrived")
    assert "\n<img src=x onerror=alert(1)>\n" in shown["echo"]
    assert shown["images"] == 0
    assert re.fullmatch(r"“<b>grüß</b>” came back after .*", shown["message"])
    assert re.fullmatch(r"1,000 came back in .*: [\d,]+ messages/s, all in order\.", shown["burst"])
    assert shown["overflow"] == 0
    assert shown["unnamed"] == []
    return shown


@contextlib.contextmanager
def demo(folder: Path, *arguments: str, server: str = "fastasgi") -> Iterator[ServerProcess]:
    command = (sys.executable, "-m", server)
    process = ServerProcess(folder, *DEMO, "--port", "0", *arguments, command=command)
    with contextlib.closing(process):
        assert process.port
        yield process
        process.end()
    assert "Traceback" not in process.log


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")])
def test_each_part_of_the_page_works(browser: Browser, port: int, size: tuple[int, int], scheme: str) -> None:
    open_page(browser, f"http://127.0.0.1:{port}/", size, scheme)
    shown = visited(browser)
    assert shown["protocol"] == (
        "This page has come by HTTP/1.1. Browsers speak HTTP/2 over TLS only; curl does without: "
        f"curl --http2-prior-knowledge http://127.0.0.1:{port}/about"
    )
    assert shown["socket"] == "Open, over HTTP/1.1"
    if size == PHONE:
        assert max(shown["heights"]) <= SCREENS * PHONE[1]


def test_it_says_that_it_has_come_by_http2(browser: Browser, tmp_path: Path, pair: Pair) -> None:
    files = ("--ssl-certfile", str(pair.cert), "--ssl-keyfile", str(pair.key))
    with demo(tmp_path, *files, "--root-path", "/under") as process:
        open_page(browser, f"https://127.0.0.1:{process.port}/", PHONE)
        shown = visited(browser)
    assert shown["protocol"] == "This page has come by HTTP/2 over TLS: all requests share one connection."
    assert shown["echo"].startswith("POST /under/echo/caf%C3%A9?day=today HTTP/2\n")
    assert shown["socket"] == "Open, over HTTP/2"
    assert max(shown["heights"]) <= SCREENS * PHONE[1]


def test_it_tells_how_to_ask_for_http2_over_tls(browser: Browser, tmp_path: Path, pair: Pair) -> None:
    files = ("--ssl-certfile", str(pair.cert), "--ssl-keyfile", str(pair.key))
    with demo(tmp_path, *files, "--no-http2") as process:
        open_page(browser, f"https://127.0.0.1:{process.port}/")
        command = f"curl -k --http2 https://127.0.0.1:{process.port}/about"
        text = f"This page has come by HTTP/1.1 over TLS. HTTP/2, unless it is switched off: {command}"
        wait_until(lambda: browser.evaluate("document.getElementById('protocol')?.textContent") == text)
        wait_until(lambda: state_of(browser) == "Open, over HTTP/1.1")


def test_another_server_serves_it_too(browser: Browser, tmp_path: Path) -> None:
    with demo(tmp_path, "--ws", "websockets-sansio", server="uvicorn") as process:
        open_page(browser, f"http://127.0.0.1:{process.port}/", PHONE)
        shown = visited(browser)
    assert shown["protocol"] == "This page has come by HTTP/1.1."
    assert "uvicorn" in shown["facts"]
    assert max(shown["heights"]) <= SCREENS * PHONE[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_command_that_it_shows_asks_by_http2(browser: Browser, port: int) -> None:
    open_page(browser, f"http://127.0.0.1:{port}/")
    shown = "document.querySelector('#protocol code')?.textContent"
    command = wait_until(lambda: browser.evaluate(shown))
    done = subprocess.run([*command.split(), "-s"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["http_version"] == "2"


def state_of(browser: Browser) -> str:
    return browser.evaluate("document.getElementById('socket-state')?.textContent ?? ''")


def test_it_connects_again_to_a_server_that_was_restarted(browser: Browser, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        port = process.port
        open_page(browser, f"http://127.0.0.1:{port}/")
        wait_until(lambda: state_of(browser).startswith("Open"))
    wait_until(lambda: "econnecting" in state_of(browser))
    assert browser.evaluate("document.getElementById('socket-send').disabled") is True
    with demo(tmp_path, "--port", str(port)):
        wait_until(lambda: state_of(browser).startswith("Open"))
        wait_until(lambda: browser.evaluate("document.getElementById('state').textContent") == "Live")
        browser.evaluate("document.getElementById('socket-send').click()")
        result = "document.getElementById('socket-result').textContent"
        wait_until(lambda: "came back" in browser.evaluate(result))


def test_a_message_under_way_is_not_forgotten(browser: Browser, tmp_path: Path) -> None:
    """That the connection was closed is told, if what was sent can't come back any more."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with demo(tmp_path, "--port", str(port)) as process:
        open_page(browser, f"http://127.0.0.1:{process.port}/")
        wait_until(lambda: state_of(browser).startswith("Open"))
        browser.evaluate(f"document.getElementById('socket-text').value = '{'x' * 70_000}'")
        browser.evaluate("document.getElementById('socket-send').click()")
        result = "document.getElementById('socket-result').textContent"
        wait_until(lambda: browser.evaluate(result) == "Failed: the connection was closed, code 1009.")
        wait_until(lambda: state_of(browser).startswith("Open"))


def test_it_counts_what_other_tabs_have_open(browser: Browser, port: int) -> None:
    open_page(browser, f"http://127.0.0.1:{port}/")
    wait_until(lambda: state_of(browser).startswith("Open"))
    with connect(f"ws://127.0.0.1:{port}/ws"), connect(f"ws://127.0.0.1:{port}/ws"):
        wait_until(lambda: browser.evaluate("document.getElementById('socket-open').textContent") == "3")
    wait_until(lambda: browser.evaluate("document.getElementById('socket-open').textContent") == "1")


def test_its_policy_forbids_a_websocket_to_another_place(browser: Browser, port: int) -> None:
    open_page(browser, f"http://127.0.0.1:{port}/")
    wait_until(lambda: state_of(browser).startswith("Open"))
    outcome = f"""new Promise(done => {{
        addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        new WebSocket("ws://localhost:{port}/ws").onopen = () => done("open");
    }})"""
    assert browser.evaluate(outcome) == "connect-src"
