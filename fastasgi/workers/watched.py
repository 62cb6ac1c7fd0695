"""Tells gunicorn's access log and hooks of requests, in objects that look like gunicorn's own.

Knows ASGI messages, and what loggers and hooks read of gunicorn's requests and responses. Must not know: the
wire.
"""

import asyncio
import datetime
import re
import time
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger  # type: ignore
from gunicorn.workers.base import Worker  # type: ignore

from fastasgi.application.interfaces import ASGIApp, Message, Receive, Scope, Send
from fastasgi.asgi.exchange import ClientDisconnected
from fastasgi.codecs.heads import reason_phrase
from fastasgi.workers.gunicornsettings import is_set

CLIENT_CLOSED_REQUEST = 499  # in access logs, as nginx has it: nobody took the response


def watched(app: ASGIApp, worker: Worker) -> ASGIApp:
    """The application, or one around it that tells gunicorn's access log and hooks of its requests.

    worker is a FastASGIWorker. Nothing is wrapped if nobody listens.
    """
    cfg, log = worker.cfg, worker.log
    # A class of the user's, or statsd, may do more with a request than write a line
    is_wanted = type(log).access is not Logger.access or getattr(log, "access_log_enabled", True)
    is_logged = is_wanted and not worker.config.access_log
    pre_request = cfg.pre_request if is_set(cfg, "pre_request") else None
    post_request = cfg.post_request if is_set(cfg, "post_request") else None
    if not is_logged and pre_request is None and post_request is None:
        return app

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = WatchedRequest(scope)
        call = _WatchedCall(request, receive, send, log if is_logged else None)
        try:
            if pre_request is not None:
                pre_request(worker, request)
            await app(scope, call.receive, call.send)
        except BaseException as error:
            call.end(error)
            raise
        else:
            call.end(None)
        finally:
            if post_request is not None:
                try:
                    post_request(worker, request, request.environ, call.response)
                except Exception:
                    log.exception("Exception in post_request hook")

    return watched


class WatchedRequest:
    """A request as gunicorn's loggers and hooks know it. Texts hold no control characters."""

    def __init__(self, scope: Scope) -> None:
        client = scope["client"] or ("-", "")
        server = scope["server"] or ("", "")
        self.method: str = scope["method"]
        self.scheme: str = scope["scheme"]
        self.path = _printable(scope["path"])
        self.query = _printable(scope["query_string"].decode("latin-1"))
        raw_path = _printable(scope["raw_path"].decode("latin-1"))
        self.uri = f"{raw_path}?{self.query}" if self.query else raw_path
        major, _, minor = scope["http_version"].partition(".")
        self.version = (int(major), int(minor or 0))
        self.remote_addr: tuple[str, Any] = (client[0], client[1])
        self.headers = [
            (name.decode("latin-1").upper(), _printable(value.decode("latin-1")))
            for name, value in scope["headers"]
        ]
        self.environ = {
            "REQUEST_METHOD": self.method,
            "RAW_URI": self.uri,
            "SCRIPT_NAME": scope["root_path"],
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "SERVER_PROTOCOL": f"HTTP/{self.version[0]}.{self.version[1]}",
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1] or ""),
            "REMOTE_ADDR": client[0],
            "REMOTE_PORT": str(client[1]),
            "wsgi.url_scheme": self.scheme,
        }
        for name, value in self.headers:
            # PEP 3333: these two without HTTP_
            key = name.replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            self.environ[key] = f"{self.environ[key]},{value}" if key in self.environ else value


class WatchedResponse:
    """A response as gunicorn's loggers and hooks know it; ``status`` is empty if nothing was sent.

    ``sent`` is the number of bytes of the body, None if it is not known.
    """

    def __init__(self) -> None:
        self.status = ""
        self.status_code = 0
        self.headers: list[tuple[str, str]] = []
        self.sent: int | None = 0

    def begin(self, status: int, headers: Any) -> None:
        """Set the status and the headers."""
        self.status_code, self.status = status, f"{status} {reason_phrase(status)}".rstrip()
        self.headers = [
            (bytes(name).decode("latin-1"), _printable(bytes(value).decode("latin-1")))
            for name, value in headers
        ]


class _WatchedCall:
    """One call of the application. Follows its messages, and logs the response once, whole or broken off."""

    def __init__(self, request: WatchedRequest, receive: Receive, send: Send, log: Any) -> None:
        self.response = WatchedResponse()
        self._request, self._receive, self._send = request, receive, send
        self._exchange = send.__self__  # type: ignore[attr-defined]  # the server's Exchange
        self._log = log  # None if nothing is to be logged, or the response has been
        self._start: Message | None = None  # the server holds it until the first piece of the body
        self._client_has_gone = False
        self._started_at = time.perf_counter()

    async def receive(self) -> Message:
        """The receive callable."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._client_has_gone = True
        return message

    async def send(self, message: Message) -> None:
        """The send callable. A message that is refused, or finds the client gone, does not count."""
        kind = message["type"]
        if kind == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
        try:
            await self._send(message)
        except ClientDisconnected:
            self._client_has_gone = True
            raise
        if self._exchange.client_left:
            return
        if kind == "http.response.start":
            self._start = message
        elif kind in _BODY_KINDS:
            self._count(message)
        elif kind == "http.response.trailers" and not message.get("more_trailers", False):
            self._finish()

    def _count(self, message: Message) -> None:
        """Count a piece of the body, given as bytes or as a file."""
        assert self._start is not None
        response = self.response
        if not response.status:
            response.begin(self._start["status"], self._start["headers"])
        if message["type"] != "http.response.body":
            response.sent = None
        elif response.sent is not None:
            response.sent += len(message.get("body", b""))
        if not message.get("more_body", False) and not self._start.get("trailers", False):
            self._finish()

    def _finish(self) -> None:
        """Log a response that is complete. The server has held the application to its declared length."""
        response = self.response
        if self._request.method == "HEAD" or response.status_code in (204, 304):
            response.sent = 0
        elif response.sent is None:
            lengths = [value for name, value in response.headers if name.lower() == "content-length"]
            response.sent = int(lengths[0]) if lengths else None
        self._write()

    def end(self, error: BaseException | None) -> None:
        """Log the response, unless it is logged. The application has returned, or raised this error."""
        is_given_up = self._client_has_gone or isinstance(error, asyncio.CancelledError)
        if self._exchange.client_left:
            self.response.begin(CLIENT_CLOSED_REQUEST, ())
        elif not self.response.status and not is_given_up:
            # The server answers in the application's place
            self.response.begin(HTTPStatus.INTERNAL_SERVER_ERROR, ())
            self.response.sent = None
        self._write()

    def _write(self) -> None:
        log, self._log = self._log, None
        if log is None or not self.response.status:
            return
        duration = datetime.timedelta(seconds=time.perf_counter() - self._started_at)
        try:
            log.access(self.response, self._request, self._request.environ, duration)
        except Exception:
            log.exception("Exception in the access log")


_BODY_KINDS = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _printable(text: str) -> str:
    """The text, with control characters written as \\xNN: none may end a log line or reach a terminal."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
