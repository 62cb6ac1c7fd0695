"""Litestar."""

from leaving import FILE, Recorder, after, disconnect, held, slow, waiting_texts
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.response import File, ServerSentEvent, Stream


@get("/plain/{mark:str}", media_type=MediaType.TEXT)
async def plain(mark: str) -> str:
    return "plain"


@get("/slow/{mark:str}", media_type=MediaType.TEXT)
async def slow_one(mark: str) -> str:
    return await slow()


@post("/echo/{mark:str}", status_code=200)
async def echo(mark: str, request: Request) -> Response[bytes]:
    return Response(await request.body(), media_type=MediaType.TEXT)


@get("/held/{mark:str}", media_type=MediaType.TEXT)
async def held_one(mark: str, request: Request) -> str:
    return await held(mark, disconnect(request.receive))


@get("/stream/{mark:str}")
async def stream(mark: str) -> Stream:
    return Stream(waiting_texts(mark), media_type=MediaType.TEXT)


@get("/events/{mark:str}")
async def events(mark: str) -> ServerSentEvent:
    return ServerSentEvent(waiting_texts(mark))


@get("/stream-with-task/{mark:str}")
async def stream_with_task(mark: str) -> Stream:
    return Stream(waiting_texts(mark), background=BackgroundTask(after, mark), media_type=MediaType.TEXT)


@get("/file/{mark:str}")
async def file(mark: str) -> File:
    return File(FILE)


@get("/file-with-task/{mark:str}")
async def file_with_task(mark: str) -> File:
    return File(FILE, background=BackgroundTask(after, mark))


app = Recorder(
    Litestar(
        [
            plain,
            slow_one,
            echo,
            held_one,
            stream,
            events,
            stream_with_task,
            file,
            file_with_task,
        ]
    )
)
