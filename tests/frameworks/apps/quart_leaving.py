"""Quart. It has no server-sent events of its own, and no tasks that belong to a response."""

from leaving import FILE, Recorder, cancellation, held, slow, waiting_pieces
from quart import Quart, Response, request, send_file

LACKS = {"background", "events"}

application = Quart(__name__)


@application.get("/plain/<mark>")
async def plain(mark: str) -> Response:
    return Response("plain")


@application.get("/slow/<mark>")
async def slow_one(mark: str) -> Response:
    return Response(await slow())


@application.post("/echo/<mark>")
async def echo(mark: str) -> Response:
    return Response(await request.get_data())


@application.get("/held/<mark>")
async def held_one(mark: str) -> Response:
    return Response(await held(mark, cancellation()))


@application.get("/stream/<mark>")
async def stream(mark: str) -> Response:
    return Response(waiting_pieces(mark), mimetype="text/plain")


@application.get("/file/<mark>")
async def file(mark: str) -> Response:
    return await send_file(FILE)


app = Recorder(application)
