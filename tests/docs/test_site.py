"""The documentation's site builds without a broken link, loads nothing from elsewhere, and fits a phone."""

import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from browser import Browser, with_chromium
from markdownblocks import blocks_of, pages
from serving import wait_until

ROOT = Path(__file__).parents[2]
LOADING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
BUILD_S = 100.0
REPOSITORY = "https://github.com/fastasgi/fastasgi"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed"
)


def build(configuration: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build a site; not with --quiet, with which --strict sees no warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    arguments = ["--config-file", str(configuration), "--site-dir", str(into)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's word on other generators
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_S
    )


class Loads(HTMLParser):
    """What a page loads by itself, and its paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.paragraphs: list[str] = []
        self._in_paragraph = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        kinds = (values.get("rel") or "").split()
        if tag in LOADING and not {"canonical", "next", "prev"} & set(kinds):
            self.addresses.append(values.get(LOADING[tag]) or "")
        if tag == "p":
            self.paragraphs.append("")
        self._in_paragraph = tag == "p" or (self._in_paragraph and tag not in ("pre", "code"))

    def handle_endtag(self, tag: str) -> None:
        self._in_paragraph = self._in_paragraph and tag != "p"

    def handle_data(self, text: str) -> None:
        if self._in_paragraph:
            self.paragraphs[-1] += text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pages_load_nothing_from_elsewhere_and_read_as_on_github(site: Path) -> None:
    """GitHub begins a list without an empty line before it: in the site it would be part of a paragraph."""
    found = sorted(site.rglob("*.html"))
    assert len(found) >= len(list((ROOT / "docs").rglob("*.md")))
    for path in found:
        page = Loads(path.read_text(encoding="utf-8"))
        assert page.addresses
        assert [each for each in page.addresses if re.match(r"(\w+:)?//", each)] == [], path
        # For these two the theme's script asks others
        assert not re.search(r'data-md-component="?source"?[ >]|class="?mermaid', path.read_text()), path
        runs_on = [each for each in page.paragraphs if re.search(r"\n *([-*+] |\d+\. |\||```)", each)]
        assert runs_on == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import) *[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


WRONG_LINKS = "[a](nothing.md) [b](/start.md) [c](../README.md#nothing) [d](#where-is)"
RIGHT_LINKS = "[a](start.md#start) [b](../README.md) [c](../fastasgi/) [d](../CHANGELOG.md) [e](#where-is-it)"


def test_broken_links_are_errors(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    configuration = tmp_path / "mkdocs.yml"
    configuration.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nhooks: ['{ROOT / 'docs/assets/hook.py'}']\n"
        f"theme: {{custom_dir: '{ROOT / 'docs/assets/theme'}'}}\nnav: [index.md, start.md]\n"
    )
    (docs / "start.md").write_text("# Start\n\n[e](index.md#nothing)\n")
    (docs / "left.md").write_text("# Left out\n")
    (docs / "index.md").write_text(f"# Title\n\n## Where is *it*?\n\n{WRONG_LINKS} {RIGHT_LINKS}\n")
    built = build(configuration, tmp_path / "site")
    assert built.returncode == 1
    warnings = [line for line in built.stderr.splitlines() if "WARNING" in line and "index.md" in line]
    for name in ("nothing.md", "/start.md", "../README.md#nothing", "index.md#nothing", "#where-is"):
        assert any(f"'{name}'" in line or f" {name}," in line for line in warnings), (name, built.stderr)
    assert len(warnings) == 5
    assert "  - left.md" in built.stderr
    # The others lead to pages, or to the repository
    shown = (tmp_path / "site/index.html").read_text()
    for address in (
        "start.html#start",
        f"{REPOSITORY}/blob/main/README.md",
        f"{REPOSITORY}/tree/main/fastasgi",
    ):
        assert f'href="{address}"' in shown
    assert 'href="changelog.html"' in shown


def test_the_repository_has_one_address() -> None:
    text = re.sub(r"!!python/\S+ \{.*\}", "null", (ROOT / "mkdocs.yml").read_text())
    configuration = yaml.safe_load(text)
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert configuration["repo_url"] == urls["Homepage"] == REPOSITORY
    assert configuration["site_url"] == urls["Documentation"]


def test_headings_are_unlike_within_a_page() -> None:
    """GitHub and the site number those that are alike in different ways, so that no link fits both."""
    for path in pages(ROOT):
        lines = path.read_text(encoding="utf-8").splitlines()
        for block in blocks_of(path.name, "\n".join(lines)):
            lines[block.line - 1 : block.line + block.text.count("\n") + 1] = [""] * (
                block.text.count("\n") + 2
            )
        headings = [line.lstrip("# ").lower() for line in lines if re.match("#+ ", line)]
        if path.name != "CHANGELOG.md":
            assert sorted(headings) == sorted(set(headings)), path


@with_chromium
def test_pages_fit_a_phone_and_complain_of_nothing(address: str, site: Path, tmp_path: Path) -> None:
    browser = Browser(str(tmp_path), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    try:
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True
        )
        too_wide = {}
        for path in sorted(site.rglob("*.html")):
            url = f"{address}/{path.relative_to(site)}"
            if path.name == "404.html":  # its links are for the place where the site is to be
                continue
            browser.call("Page.navigate", url=url)
            is_complete = f"location.href == {url!r} && document.readyState == 'complete'"
            wait_until(functools.partial(browser.evaluate, is_complete), url)
            if (width := browser.evaluate("document.documentElement.scrollWidth")) > 390:
                too_wide[path.name] = width
            loaded = browser.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
            assert [each for each in loaded if not each.startswith(address)] == [], path
        assert too_wide == {}
        assert browser.complaints == []
    finally:
        browser.close()
