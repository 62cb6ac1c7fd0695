"""A Starlette application with one JSON route."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def message(request):
    """A small object."""
    return JSONResponse({"message": "Hello, World!"})


app = Starlette(routes=[Route("/json", message)])
