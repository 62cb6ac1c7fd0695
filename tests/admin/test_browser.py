"""A browser at the admin listener: it logs in, and pages of other sites learn nothing through it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from adminserved import TOKEN, FakeSource, serving_admin
from browser import Browser, with_chromium
from serving import WAIT_S, port_of, wait_until

pytestmark = with_chromium

# Names of the web that lead here: a browser takes what is asked by them for insecure, as of any other machine
NAMES = "--host-resolver-rules=MAP *.example 127.0.0.1"


@contextmanager
def listening(token: str | None) -> Iterator[int]:
    """The port of an admin listener that runs in a thread."""
    ports: list[int] = []
    began = threading.Event()
    ends = threading.Event()

    async def run() -> None:
        async with serving_admin(FakeSource(), token=token) as server:
            ports.append(port_of(server))
            began.set()
            await asyncio.to_thread(ends.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert began.wait(WAIT_S)
        yield ports[0]
    finally:
        ends.set()
        thread.join(WAIT_S)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(str(tmp_path_factory.mktemp("profile")), NAMES)
    yield browser
    browser.close()


@pytest.fixture
def port() -> Iterator[int]:
    """Of a listener that asks for no token."""
    with listening(None) as port:
        yield port


@pytest.fixture
def locked_port() -> Iterator[int]:
    """Of a listener that asks for TOKEN."""
    with listening(TOKEN) as port:
        yield port


def open_page(browser: Browser, address: str, selector: str = "body") -> None:
    """Show a page, and wait for what the selector finds."""
    browser.complaints.clear()
    browser.call("Page.navigate", url=address)
    wait_for(browser, address, selector)


def wait_for(browser: Browser, address: str, selector: str) -> None:
    is_there = f"location.href === {address!r} && document.readyState === 'complete' && "
    wait_until(
        lambda: browser.evaluate(f"{is_there}document.querySelector({selector!r}) !== null"),
        lambda: browser.evaluate("location.href + document.documentElement.outerHTML"),
    )


def log_in(browser: Browser, token: str) -> None:
    browser.evaluate(f"document.getElementById('token').value = {token!r}")
    browser.evaluate("document.querySelector('button').click()")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "box.example"])
def test_it_logs_in_by_the_form(browser: Browser, locked_port: int, host: str) -> None:
    address = f"http://{host}:{locked_port}/"
    browser.call("Page.navigate", url=address)
    wait_for(browser, f"{address}login", "#token")
    log_in(browser, "wrong")
    wait_for(browser, f"{address}login", "[role=alert]")
    assert browser.evaluate("document.querySelector('[role=alert]').textContent") == "this is not the token"
    browser.complaints.clear()
    log_in(browser, TOKEN)
    wait_for(browser, address, "body")
    assert browser.evaluate("fetch('status').then(response => response.status)") == 200
    assert browser.evaluate("document.cookie") == ""
    assert browser.evaluate("localStorage.length + sessionStorage.length") == 0
    assert TOKEN not in browser.evaluate("document.documentElement.outerHTML")


def test_its_page_needs_nothing_that_the_policy_forbids(browser: Browser, port: int) -> None:
    open_page(browser, f"http://localhost:{port}/")
    events = "new Promise(done => new EventSource('events').addEventListener('whole', e => done(e.data)))"
    assert browser.evaluate(f"{events}.then(data => typeof JSON.parse(data))") == "object"
    assert browser.complaints == []


def test_a_name_of_the_web_that_leads_here_is_told_nothing(browser: Browser, port: int) -> None:
    rebound = f"http://rebound.example:{port}"
    open_page(browser, f"{rebound}/livez")
    for path in ("/", "/status", "/metrics", "/events", "/nothing"):
        assert browser.evaluate(f"fetch({path!r}).then(response => response.status)") == 421


def test_a_page_of_another_site_learns_nothing(browser: Browser, port: int, locked_port: int) -> None:
    """Also one of another port of the same host, for which a browser keeps the same cookies."""
    with ExitStack() as stack:
        other = stack.enter_context(listening(None))
        open_page(browser, f"http://localhost:{locked_port}/login", "#token")
        log_in(browser, TOKEN)
        wait_for(browser, f"http://localhost:{locked_port}/", "body")
        # Without a policy of its own, which would keep the page from asking at all
        browser.call("Page.setBypassCSP", enabled=True)
        stack.callback(browser.call, "Page.setBypassCSP", enabled=False)
        for site in (f"http://localhost:{other}", f"http://evil.example:{other}"):
            open_page(browser, f"{site}/livez")
            for asked in (port, locked_port):
                status = f"http://localhost:{asked}/status"
                for options in (
                    "{}",
                    "{mode: 'no-cors', credentials: 'include'}",
                    "{credentials: 'include'}",
                ):
                    outcome = (
                        f"fetch({status!r}, {options}).then(response => response.text(), () => 'refused')"
                    )
                    assert browser.evaluate(outcome) in ("refused", "")
                source = f"const source = new EventSource('http://localhost:{asked}/events')"
                heard = "new Promise(done => { source.onopen = () => done('open'); source.onerror = "
                heard += "() => { source.close(); done('refused'); }; })"
                assert browser.evaluate(f"{{ {source}; {heard} }}") == "refused"


def test_a_form_of_another_site_logs_nobody_in(browser: Browser, locked_port: int) -> None:
    with listening(None) as other:
        browser.call("Page.setBypassCSP", enabled=True)
        open_page(browser, f"http://evil.example:{other}/livez")
        form = f"<form method=post action=http://box2.example:{locked_port}/login>"
        form += f"<input name=token value={TOKEN}></form>"
        browser.evaluate(f"document.body.innerHTML = {form!r}; document.forms[0].submit()")
        wait_for(browser, f"http://box2.example:{locked_port}/login", "body")
        browser.call("Page.setBypassCSP", enabled=False)
        assert browser.evaluate("document.body.textContent") == "this form is of another site\n"
        assert browser.evaluate("fetch('status').then(response => response.status)") == 401


def test_a_link_of_another_site_leads_here(browser: Browser, port: int, tmp_path: Path) -> None:
    """Of which a browser says that it is of another site, as it says of what a page asks for by itself."""
    (tmp_path / "wiki.html").write_text(f"<a href='http://localhost:{port}/'>dashboard</a>")
    open_page(browser, f"file://{tmp_path}/wiki.html", "a")
    browser.evaluate("document.querySelector('a').click()")
    wait_for(browser, f"http://localhost:{port}/", "body")
    assert "dashboard" not in browser.evaluate("document.links.length ? document.links[0].textContent : ''")
    assert browser.evaluate("fetch('status').then(response => response.status)") == 200
