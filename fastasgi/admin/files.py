"""The files of the dashboard and of the login form, read once."""

import html
from importlib.resources import files

from fastasgi.admin.access import Refusal
from fastasgi.admin.exchange import Exchange

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# By the path at which each is asked for
NAMES = {
    "/": "index.html",
    "/login": "login.html",
    "/assets/script.js": "script.js",
    "/assets/style.css": "style.css",
}
# Those that say nothing of the server: the login form needs its style
PUBLIC = frozenset(path for path in NAMES if path.startswith("/assets/"))

FAULT = b"<!-- fault -->"  # where the login form tells what was wrong

_FOLDER = files("fastasgi.admin").joinpath("page")
_CONTENTS = {path: _FOLDER.joinpath(name).read_bytes() for path, name in NAMES.items()}


async def serve(exchange: Exchange) -> None:
    """Answer with the file of the path that is asked for, which is one of NAMES."""
    kind = KINDS[NAMES[exchange.path].rpartition(".")[2]]
    await exchange.respond(200, kind, _CONTENTS[exchange.path])


async def serve_form(exchange: Exchange, refusal: Refusal | None = None) -> None:
    """Answer with the login form, which tells why the last token was refused."""
    fault = "" if refusal is None else f'<p class="fault" role="alert">{html.escape(refusal.reason)}</p>'
    status, fields = (200, ()) if refusal is None else (refusal.status, refusal.fields)
    body = _CONTENTS["/login"].replace(FAULT, fault.encode())
    # By the policy of all other responses a browser would hide the Origin of the form, too
    policy = (b"referrer-policy", b"same-origin")
    await exchange.respond(status, KINDS["html"], body, policy, *fields)
