"""TechEmpower's tests with Starlette and asyncpg. The rules: github.com/TechEmpower/FrameworkBenchmarks.

BENCH_DATABASE is the folder of PostgreSQL's socket; the pool has BENCH_POOL connections, server.js's too.
"""

import asyncio
import os
from random import randint

import asyncpg
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route

READ_ROW = "SELECT id, randomnumber FROM world WHERE id = $1"
ADDITION = (0, "Additional fortune added at request time.")
PAGE = Environment(autoescape=True).from_string(
    "<!DOCTYPE html><html><head><title>Fortunes</title>"
    "</head><body><table><tr><th>id</th><th>message</th></tr>"
    "{% for id, message in fortunes %}<tr><td>{{ id }}</td><td>{{ message }}</td></tr>{% endfor %}"
    "</table></body></html>"
)


class Connection(asyncpg.Connection):
    """One that goes back to the pool as it is: no statement here changes its session.

    asyncpg would reset it by a query after each use, which no other driver's pool makes.
    """

    def get_reset_query(self):
        """None."""
        return ""


class Pool:
    """The pool of this process, made for the first request: daphne calls no lifespan."""

    def __init__(self):
        self._making = None

    async def get(self):
        """The pool itself."""
        if self._making is None:
            self._making = asyncio.ensure_future(self._make())
        return await asyncio.shield(self._making)

    async def _make(self):
        size = int(os.environ["BENCH_POOL"])
        folder = os.environ["BENCH_DATABASE"]
        return await asyncpg.create_pool(
            host=folder,
            user="bench",
            database="bench",
            min_size=size,
            max_size=size,
            connection_class=Connection,
        )


POOL = Pool()


def as_count(text):
    """How many queries: 1 to 500, and 1 for what is no number."""
    try:
        return min(max(int(text), 1), 500)
    except (TypeError, ValueError):
        return 1


async def as_json(request):
    """Serialize a small object."""
    return JSONResponse({"message": "Hello, World!"})


async def plaintext(request):
    """Thirteen bytes."""
    return PlainTextResponse(b"Hello, World!")


async def random_row(connection):
    """A random row. asyncpg prepares the statement once on each connection."""
    row = await connection.fetchrow(READ_ROW, randint(1, 10000))
    return {"id": row[0], "randomNumber": row[1]}


async def single(request):
    """A random row."""
    async with (await POOL.get()).acquire() as connection:
        row = await random_row(connection)
    return JSONResponse(row)


async def several(request):
    """As many random rows as asked for, a query each, one after the other on one connection."""
    count = as_count(request.query_params.get("queries"))
    async with (await POOL.get()).acquire() as connection:
        rows = [await random_row(connection) for _ in range(count)]
    return JSONResponse(rows)


async def fortunes(request):
    """All fortunes and one more, sorted, as an escaped page."""
    async with (await POOL.get()).acquire() as connection:
        rows = await connection.fetch("SELECT id, message FROM fortune")
    rows = sorted([*map(tuple, rows), ADDITION], key=lambda row: row[1])
    return HTMLResponse(PAGE.render(fortunes=rows))


app = Starlette(
    routes=[
        Route("/json", as_json),
        Route("/plaintext", plaintext),
        Route("/db", single),
        Route("/queries", several),
        Route("/fortunes", fortunes),
    ]
)
