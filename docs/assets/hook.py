"""Shows the top level's Markdown files as pages, and makes all pages' links right for the site.

A page links as GitHub needs it: relative to where the file stands in the repository. In the site a link leads
to a page or a file of it, if that is there, otherwise to the repository, at the ``repo_url`` of mkdocs.yml.
Images are taken into the site.
"""

import logging
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
BRANCH = "main"

# A page's name in the site, and the file that it shows
TOP_LEVEL = {
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security-policy.md": "SECURITY.md",
}

log = logging.getLogger("mkdocs.hooks.fastasgi")
slug_of = slugify(case="lower")


class Links(Treeprocessor):
    """Rewrites the links of the page that is being rendered."""

    def __init__(self, config: MkDocsConfig) -> None:
        self.config = config
        self.repo_url = (config.repo_url or "").rstrip("/")
        self.page_uri = ""
        self.files = Files([])

    def run(self, root: Element) -> None:
        """Rewrite the links of one page."""
        for element in root.iter():
            attribute = {"a": "href", "img": "src"}.get(element.tag)
            if attribute and (target := element.get(attribute)):
                element.set(attribute, self.rewritten(target, is_image=attribute == "src"))

    def rewritten(self, target: str, is_image: bool) -> str:
        """What a link has to be in the site; what leads nowhere stays as it is, and MkDocs tells of it."""
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
            return target
        page_path = TOP_LEVEL.get(self.page_uri, f"docs/{self.page_uri}")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page_path), unquote(parts.path)))
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        for uri, shown in TOP_LEVEL.items():
            if path == shown:
                return self.relative(uri) + fragment
        uri = path.removeprefix("docs/")
        file = self.files.get_file_from_path(uri) if uri != path else None
        if file is not None and file.inclusion.is_included():
            return self.relative(uri) + fragment
        if path.startswith("..") or not (ROOT / path).exists():
            return target
        if fragment and path.endswith(".md") and parts.fragment not in anchors(ROOT / path):
            log.warning("%s links to %s, which has no such heading", page_path, target)
        if is_image:
            self.files.append(File.generated(self.config, f"images/{path}", abs_src_path=str(ROOT / path)))
            return self.relative(f"images/{path}")
        return f"{self.repo_url}/{'tree' if (ROOT / path).is_dir() else 'blob'}/{BRANCH}/{path}{fragment}"

    def relative(self, uri: str) -> str:
        """The link from the page to something in the site."""
        return posixpath.relpath(uri, posixpath.dirname(self.page_uri) or ".")


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file that is not shown as a page."""
    text = re.sub(r"^(`{3,}).*?^\1`*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug_of(each, "-") for each in re.findall(r"^#+ +(.*?)[ #]*$", text, re.MULTILINE)}


class LinksExtension(Extension):
    """Runs Links once inline Markdown is parsed, and before MkDocs looks for what links name."""

    def __init__(self, links: Links) -> None:
        super().__init__()
        self.links = links

    def extendMarkdown(self, md: Markdown) -> None:
        """Called once a page."""
        md.treeprocessors.register(self.links, "fastasgi_links", priority=3)


def on_config(config: MkDocsConfig) -> None:
    """Called once a build."""
    config.markdown_extensions.append(LinksExtension(Links(config)))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that stand at the top level."""
    for uri, shown in TOP_LEVEL.items():
        files.append(File.generated(config, uri, content=(ROOT / shown).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Called before each page is rendered."""
    for extension in config.markdown_extensions:
        if isinstance(extension, LinksExtension):
            extension.links.page_uri = page.file.src_uri
            extension.links.files = files
