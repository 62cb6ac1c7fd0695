"""What the admin listener answers: an ASGI application that tells of a server, and can change nothing."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from fastasgi.admin import events, files, probes
from fastasgi.admin.access import Access, Refusal, is_own_form
from fastasgi.admin.exchange import BodyTooLarge, ClientLeft, Exchange
from fastasgi.admin.metrics import MissingExtra, exposition
from fastasgi.admin.seldomlog import SeldomLog
from fastasgi.admin.source import Source
from fastasgi.admin.status import Status
from fastasgi.application.interfaces import Receive, Scope, Send

logger = logging.getLogger("fastasgi.error")

SAMPLE_S = 1.0  # between two documents
FORM_BYTES = 4096  # the most of a login form
FORM_S = 5.0  # that it may take to come
FORM_KIND = b"application/x-www-form-urlencoded"
READS = ("GET", "HEAD")

Handler = Callable[[Exchange], Awaitable[None]]


class AdminApp:
    """The application of one admin listener: tells what source does, to whom access lets.

    ``sample`` is to run beside it, in the same event loop.
    """

    def __init__(self, source: Source, access: Access) -> None:
        self._source = source
        self._access = access
        self._status = Status(source)
        self._events = events.Events(self._status.document)
        self._wrong_tokens = SeldomLog(logging.WARNING, "The admin listener has refused %d more wrong tokens")
        self._faults = SeldomLog(logging.ERROR, "The admin listener has failed %d more times")
        self._has_told_of_extra = False
        self._routes: dict[str, Handler] = {
            "/": files.serve,
            "/metrics": self._metrics,
            "/status": self._status_document,
            "/events": self._serve_events,
        }

    async def sample(self) -> None:
        """Make a document each second, for the history and for all who listen, until it is cancelled.

        Then the responses to those who listen end, so that the listener's end need not wait for them.
        """
        try:
            while True:
                try:
                    self._events.tell(self._status.update())
                except Exception as error:
                    self._events.tell(None)
                    self._faults.log("The admin listener can't make a document", error=error)
                self._wrong_tokens.tell_rest()
                self._faults.tell_rest()
                await asyncio.sleep(SAMPLE_S)
        finally:
            self._events.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        assert scope["type"] == "http", "it is served without lifespan and WebSockets"
        exchange = Exchange(scope, receive, send)
        with contextlib.suppress(ClientLeft):
            await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path == "/login" and self._access.asks_for_token:
            await self._login(exchange)
        elif exchange.method not in READS:
            await exchange.respond_text(405, "nothing can be changed here", (b"allow", b"GET, HEAD"))
        elif exchange.path in ("/livez", "/readyz"):
            await self._probe(exchange)
        elif exchange.path in files.PUBLIC:
            await files.serve(exchange)
        elif (refusal := self._refusal(exchange)) is not None:
            await self._refuse(exchange, refusal)
        elif (handler := self._routes.get(exchange.path)) is not None:
            await self._run(handler, exchange)
        else:
            await exchange.respond_text(404, "there is nothing at this path")

    async def _run(self, handler: Handler, exchange: Exchange) -> None:
        """Have a route answer. A fault in what it tells is logged, and ends nothing but this response."""
        try:
            await handler(exchange)
        except (OSError, ClientLeft):
            raise  # of the client's connection
        except Exception as error:
            self._faults.log(f"The admin listener can't answer {exchange.path}", error=error)
            if exchange.is_answered:
                raise
            await exchange.respond_text(500, "this can't be told now: the server's log says why")

    def _refusal(self, exchange: Exchange) -> Refusal | None:
        """Why a client may not see what is not for everybody; None if it may."""
        return self._noted(exchange, self._access.refusal(exchange.headers))

    def _noted(self, exchange: Exchange, refusal: Refusal | None) -> Refusal | None:
        if refusal is not None and refusal.is_wrong_token:
            self._wrong_tokens.log(f"The admin listener has refused a wrong token from {exchange.client}")
        return refusal

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        if refusal.status == 401 and exchange.wants_page and exchange.path == "/":
            await exchange.redirect("login")
        else:
            await exchange.respond_text(refusal.status, refusal.reason, *refusal.fields)

    async def _probe(self, exchange: Exchange) -> None:
        report = self._source.report()
        is_live = exchange.path == "/livez"
        status, reason = probes.liveness(report) if is_live else probes.readiness(report)
        if exchange.has_flag(b"verbose") and self._refusal(exchange) is None:
            reason = probes.verbose(reason, report)
        await exchange.respond_text(status, reason)

    async def _metrics(self, exchange: Exchange) -> None:
        try:
            accept = exchange.field(b"accept").decode("latin-1")
            body, kind = exposition(self._source, accept)
        except MissingExtra as error:
            if not self._has_told_of_extra:
                self._has_told_of_extra = True
                logger.warning("The admin listener can't answer /metrics: %s", error)
            await exchange.respond_text(501, str(error))
            return
        await exchange.respond(200, kind, body)

    async def _status_document(self, exchange: Exchange) -> None:
        await exchange.respond_json(self._status.document())

    async def _serve_events(self, exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            await exchange.respond(200, events.KIND, b"")
        elif self._events.has_room:
            await self._events.serve(exchange)
        else:
            await exchange.respond_text(503, "too many dashboards are open", (b"retry-after", b"10"))

    async def _login(self, exchange: Exchange) -> None:
        if exchange.method == "POST":
            await self._take_form(exchange)
        elif exchange.method not in READS:
            await exchange.respond_text(405, "this path takes a form", (b"allow", b"GET, HEAD, POST"))
        elif self._access.refusal(exchange.headers) is None:
            await exchange.redirect(".")
        else:
            await files.serve_form(exchange)

    async def _take_form(self, exchange: Exchange) -> None:
        if not is_own_form(exchange.headers):
            await exchange.respond_text(403, "this form is of another site")
            return
        if exchange.field(b"content-type").partition(b";")[0].strip().lower() != FORM_KIND:
            await exchange.respond_text(415, f"send a form, as {FORM_KIND.decode()}")
            return
        try:
            body = await exchange.body(FORM_BYTES, FORM_S)
            tokens = parse_qs(body.decode("latin-1"), max_num_fields=8).get("token", [])
        except BodyTooLarge:
            await exchange.respond_text(413, f"a form has {FORM_BYTES} bytes at most")
            return
        except TimeoutError:
            await exchange.respond_text(408, f"a form takes {FORM_S:g} s at most")
            return
        except ValueError:
            await exchange.respond_text(400, "this form has too many fields")
            return
        token = tokens[0].strip() if len(tokens) == 1 else ""
        refusal = self._noted(exchange, self._access.check(token.encode("utf-8", "replace")))
        if refusal is not None:
            await files.serve_form(exchange, refusal)
            return
        cookie = self._access.new_cookie(is_secure=exchange.is_secure)
        await exchange.redirect(".", (b"set-cookie", cookie))
