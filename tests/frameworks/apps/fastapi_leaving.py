"""FastAPI, without a middleware of the user's."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from leaving import FILE, Recorder, after, disconnect, held, slow, waiting_texts

RAISES = "ClientDisconnect"

router = APIRouter()


@router.get("/plain/{mark}", response_class=PlainTextResponse)
async def plain(mark: str) -> str:
    return "plain"


@router.get("/slow/{mark}", response_class=PlainTextResponse)
async def slow_one(mark: str) -> str:
    return await slow()


@router.post("/echo/{mark}")
async def echo(mark: str, request: Request) -> Response:
    return Response(await request.body())


@router.get("/held/{mark}", response_class=PlainTextResponse)
async def held_one(mark: str, request: Request) -> str:
    return await held(mark, disconnect(request.receive))


@router.get("/stream/{mark}")
async def stream(mark: str) -> StreamingResponse:
    return StreamingResponse(waiting_texts(mark), media_type="text/plain")


@router.get("/events/{mark}", response_class=EventSourceResponse)
async def events(mark: str) -> AsyncIterator[ServerSentEvent]:
    async for text in waiting_texts(mark):
        yield ServerSentEvent(raw_data=text)


@router.get("/stream-with-task/{mark}")
async def stream_with_task(mark: str, tasks: BackgroundTasks) -> StreamingResponse:
    tasks.add_task(after, mark)
    return StreamingResponse(waiting_texts(mark), media_type="text/plain")


@router.get("/file/{mark}")
async def file(mark: str) -> FileResponse:
    return FileResponse(FILE)


@router.get("/file-with-task/{mark}")
async def file_with_task(mark: str, tasks: BackgroundTasks) -> FileResponse:
    tasks.add_task(after, mark)
    return FileResponse(FILE)


application = FastAPI()
application.include_router(router)
app = Recorder(application)
