"""The dashboard in Chromium: what it shows of a server whose state a test sets, at each width."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from browser import Browser, with_chromium
from told import Told, histogram, responses, row, worker
from wire import Served, in_loop, served

from fastasgi.admin.access import Access
from fastasgi.admin.app import AdminApp
from fastasgi.admin.report import CertificateReport, QueueReport

EVIL = "<img src=x onerror=alert(1)>"
UNTIL = """
const until = async (what) => {
  const from = performance.now();
  while (!what()) {
    if (performance.now() - from > 12000) throw new Error(`in vain: ${what}; ${document.body.innerText}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
"""
TEXT = "const text = (id) => document.getElementById(id)?.textContent ?? '';"

SHOWN = f"""
(async () => {{
  {UNTIL}{TEXT}
  await until(() => text("state") === "Live" && text("rate").endsWith("/s"));
  await until(() => document.querySelector("#charts path.curve"));
  const ids = ["problems", "summary", "name", "workers", "stalls", "refusals", "refusal-kinds", "queues",
               "certificates", "settings"];
  return Object.fromEntries(ids.map((id) => [id, text(id)]).concat([
    ["images", document.images.length],
    ["scripts", document.scripts.length],
    ["empty", [...document.querySelectorAll(".empty:not([hidden])")].map((each) => each.id)],
    ["names", [...document.querySelectorAll("table")].every((each) => each.caption.textContent)],
  ]));
}})()
"""
OVERFLOW = """
new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve(
  document.documentElement.scrollWidth - document.documentElement.clientWidth))))
"""
GROUND = "getComputedStyle(document.body).backgroundColor"


def busy_night(told: Told) -> None:
    """Two workers, one of them killed, and all that can be shown, with names that strangers chose."""
    now = time.time()
    stall = {
        "at": now - 20, "duration_s": 3.25, "request": f"GET /{EVIL}", "where": [f"{EVIL}:3 view"],
        "is_over": True, "is_held": True,
    }  # fmt: skip
    refusal = {
        "at": now - 9, "status": 400, "reason": EVIL, "kind": "bad_request", "client": "127.0.0.1",
        "method": "GET", "path": f"/{'long' * 60}\u202e{EVIL}",
    }  # fmt: skip
    told.rows = [
        row(0, beat_at=now, responses=responses(100), duration=histogram([0.01] * 100), running=3,
            last_stalls=[stall], stalls=1, last_refusals=[refusal] * 9, refusals={"bad_request": 9},
            resident_bytes=2**26, descriptors=20, descriptors_limit=1024),
        row(1, pid=0, ends={"SIGKILL": 1}, responses=responses(10, "5xx")),
    ]  # fmt: skip
    told.say(
        workers=[worker(0, 100)],
        ready_reason="1 of 2 workers serves",
        queues=[QueueReport("http://127.0.0.1:8000", 3, 4096)],
        certificates=[CertificateReport([EVIL, "x" * 200], "cert.pem", now + 5 * 86400, "no such file")],
        settings={"app": EVIL, "workers": "2", "admin_token": "hidden", "long": "word" * 80},
    )


def grow(told: Told, number: int) -> None:
    """Let the first worker have answered so many requests more."""
    first, *others = told.rows
    total = sum(first.responses.values()) + number
    told.rows = [replace(first, responses=responses(total), beat_at=time.time()), *others]


@contextlib.asynccontextmanager
async def dashboard(told: Told, **settings: Any) -> Any:
    """A server of the admin application alone, told by this source."""
    app = AdminApp(told, Access("127.0.0.1:0", None, None))
    sampling = asyncio.create_task(app.sample())
    async with served(app, **settings) as server:
        yield server
        sampling.cancel()


async def in_browser(profile: Path, server: Served, visit: Callable[[Browser], Any]) -> Any:
    """What a visit of the page gives, which runs beside the event loop."""

    def run() -> Any:
        with contextlib.closing(Browser(str(profile))) as browser:
            browser.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
            return visit(browser)

    return await asyncio.to_thread(run)


async def growing(told: Told) -> None:
    """Let requests come until this is cancelled."""
    while True:
        await asyncio.sleep(0.2)
        grow(told, 20)


async def first_of(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    """Wait for the event, or the end of the task, which may have failed before."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


@contextlib.asynccontextmanager
async def traffic(told: Told) -> Any:
    task = asyncio.create_task(growing(told))
    try:
        yield
    finally:
        task.cancel()


@with_chromium
@in_loop
async def test_all_is_shown_at_each_width_and_in_each_scheme(tmp_path: Path) -> None:
    told = Told()
    busy_night(told)

    def visit(browser: Browser) -> Any:
        shown, overflows, grounds = browser.evaluate(SHOWN), {}, set()
        browser.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        browser.evaluate("document.getElementById('refusals-more').click()")
        for width in (320, 390, 800, 1280):
            for scheme in ("light", "dark"):
                metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
                browser.call("Emulation.setDeviceMetricsOverride", **metrics)
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                browser.call("Emulation.setEmulatedMedia", features=features)
                overflows[width, scheme] = browser.evaluate(OVERFLOW)
                grounds.add((scheme, browser.evaluate(GROUND)))
        return shown, overflows, grounds, browser.complaints

    async with dashboard(told) as server, traffic(told):
        shown, overflows, grounds, complaints = await in_browser(tmp_path, server, visit)
    assert complaints == []
    assert set(overflows.values()) == {0}, overflows
    assert len(grounds) == 2
    assert (shown["images"], shown["scripts"]) == (0, 1)
    assert shown["names"]
    assert shown["empty"] == ["collections-empty"]
    assert EVIL in shown["name"]
    assert shown["stalls"].count(EVIL) == 2
    assert "C code has held the interpreter" in shown["stalls"]
    assert f"\\u{{202e}}{EVIL}" in shown["refusals"]
    assert shown["refusal-kinds"] == "bad request9"
    assert EVIL in shown["certificates"]
    assert "no such file" in shown["problems"]
    assert shown["summary"].startswith("Ready: 1 of 2 workers serves; live: the supervisor replaces")
    assert "pid 100serving" in shown["workers"]
    assert "1 SIGKILL" in shown["workers"]
    assert "4,096" in shown["queues"]
    assert "admin_tokenhidden" in shown["settings"]


LIVE = f"""
(async () => {{
  {UNTIL}{TEXT}
  await until(() => text("state") === "Live" && text("rate").endsWith("/s"));
  const before = text("rate-more");
  await until(() => text("rate-more") !== before);
  const empty = [...document.querySelectorAll(".empty:not([hidden])")].map((each) => each.textContent);
  return {{ before, after: text("rate-more"), verdict: text("verdict-text"), empty }};
}})()
"""
STALE = f"""
(async () => {{
  {UNTIL}{TEXT}
  await until(() => document.body.classList.contains("is-stale"));
  return [text("verdict-text"), text("age"), text("state")];
}})()
"""
AGAIN = f"""
(async () => {{
  {UNTIL}{TEXT}
  await until(() => text("state") === "Live");
  return [text("verdict-text"), document.getElementById("age").hidden];
}})()
"""


@with_chromium
@in_loop
async def test_figures_follow_the_server_and_their_age_is_told_once_it_is_gone(tmp_path: Path) -> None:
    told = Told(row(0, beat_at=time.time()))
    told.say(workers=[worker(0, 100)])
    loop = asyncio.get_running_loop()
    seen, missed = asyncio.Event(), asyncio.Event()

    def visit(browser: Browser) -> Any:
        live = browser.evaluate(LIVE)
        assert browser.complaints == []
        loop.call_soon_threadsafe(seen.set)
        stale = browser.evaluate(STALE)
        loop.call_soon_threadsafe(missed.set)
        return live, stale, browser.evaluate(AGAIN)

    async with traffic(told):
        async with dashboard(told) as server:
            visiting = asyncio.create_task(in_browser(tmp_path, server, visit))
            await first_of(visiting, seen)
        await first_of(visiting, missed)
        async with dashboard(told, port=server.port):
            live, stale, again = await visiting
    assert live["verdict"] == "All is well"
    assert live["before"].endswith(" since the start")
    assert "No stalls since the start." in live["empty"]
    assert "None: the server does not speak TLS." in live["empty"]
    assert stale[0] == "Not connected; before: All is well"
    assert stale[1].startswith("figures are ")
    assert stale[2] in ("Not connected", "No news")
    assert again == ["All is well", True]
