"""Flask by WSGI, under hooks of each kind and a middleware around its WSGI application.

All runs in threads. What runs after a response is ``Response.call_on_close``.
"""

import logging
from typing import Any

from failures import fail, good, headers_of_stream, pieces
from flask import Flask, Response
from werkzeug.middleware.proxy_fix import ProxyFix

ARGUMENTS = ["--interface", "wsgi"]
LACKS = {"compression", "later", "lifespan", "thread", "websocket"}

logging.basicConfig()  # else Flask logs to wsgi.errors, which is stdout
app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app)


@app.get("/good/<mark>")
def good_one(mark: str) -> Response:
    return Response(good(mark), mimetype="text/plain")


@app.get("/raise/<kind>/<mark>")
def raising(kind: str, mark: str) -> Response:
    fail(kind, mark)


@app.get("/stream/<where>/<mark>")
def stream(where: str, mark: str) -> Response:
    return Response(pieces(where, mark), headers=headers_of_stream(where), mimetype="text/plain")


@app.get("/background/<mark>")
def background(mark: str) -> Response:
    response = Response("done", mimetype="text/plain")
    response.call_on_close(lambda: fail("error", mark))
    return response


@app.before_request
def before() -> None:
    pass


@app.after_request
def after(response: Response) -> Response:
    response.headers["x-after"] = "1"
    return response


@app.teardown_request
def teardown(error: Any) -> None:
    pass
