"""The demo's one page: `page.html`, and the policy by which its own style and script run, and no other."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def _inline_source(html: str, tag: str) -> str:
    """Give the CSP source expression for the only `<tag>` element of the page."""
    content = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_HTML = files(__package__).joinpath("page.html").read_text(encoding="utf-8")

BODY = _HTML.encode()
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
    f"img-src data:; style-src {_inline_source(_HTML, 'style')}; script-src {_inline_source(_HTML, 'script')}"
).encode()
