"""TechEmpower's tests with Starlette and asyncpg. The rules: github.com/TechEmpower/FrameworkBenchmarks.

BENCH_DATABASE is the folder of PostgreSQL's socket; the pool has BENCH_POOL connections, server.js's too.
"""

import contextlib
import os
from random import randint

import asyncpg
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
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


@contextlib.asynccontextmanager
async def lifespan(app):
    """The pool of this process, for as long as the application runs."""
    size = int(os.environ["BENCH_POOL"])
    app.state.pool = await asyncpg.create_pool(
        host=os.environ["BENCH_DATABASE"],
        user="bench",
        database="bench",
        min_size=size,
        max_size=size,
        connection_class=Connection,
    )
    yield
    await app.state.pool.close()


async def single(request):
    """A random row. asyncpg prepares the statement once on each connection."""
    async with request.app.state.pool.acquire() as connection:
        row = await connection.fetchrow(READ_ROW, randint(1, 10000))
    return JSONResponse({"id": row[0], "randomNumber": row[1]})


async def fortunes(request):
    """All fortunes and one more, sorted, as an escaped page."""
    async with request.app.state.pool.acquire() as connection:
        rows = await connection.fetch("SELECT id, message FROM fortune")
    rows = sorted([*map(tuple, rows), ADDITION], key=lambda row: row[1])
    return HTMLResponse(PAGE.render(fortunes=rows))


app = Starlette(routes=[Route("/db", single), Route("/fortunes", fortunes)], lifespan=lifespan)
