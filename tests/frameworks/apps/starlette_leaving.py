"""Starlette, without a middleware of the user's. It has no server-sent events of its own."""

from leaving import FILE, Recorder, after, disconnect, held, slow, waiting_texts
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

LACKS = {"events"}
RAISES = "ClientDisconnect"


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def slow_one(request: Request) -> Response:
    return PlainTextResponse(await slow())


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def held_one(request: Request) -> Response:
    return PlainTextResponse(await held(**request.path_params, leaving=disconnect(request.receive)))


async def stream(request: Request) -> Response:
    return StreamingResponse(waiting_texts(**request.path_params), media_type="text/plain")


async def stream_with_task(request: Request) -> Response:
    task = BackgroundTask(after, **request.path_params)
    return StreamingResponse(waiting_texts(**request.path_params), background=task, media_type="text/plain")


async def file(request: Request) -> Response:
    return FileResponse(FILE)


async def file_with_task(request: Request) -> Response:
    return FileResponse(FILE, background=BackgroundTask(after, **request.path_params))


routes = [
    Route("/plain/{mark}", plain),
    Route("/slow/{mark}", slow_one),
    Route("/echo/{mark}", echo, methods=["POST"]),
    Route("/held/{mark}", held_one),
    Route("/stream/{mark}", stream),
    Route("/stream-with-task/{mark}", stream_with_task),
    Route("/file/{mark}", file),
    Route("/file-with-task/{mark}", file_with_task),
]

app = Recorder(Starlette(routes=routes))
