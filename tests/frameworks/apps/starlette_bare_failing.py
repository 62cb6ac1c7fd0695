"""Starlette without a middleware of the user's: only its own are between a route and the server."""

from starlette.applications import Starlette
from starlette_failing import lifespan, routes

LACKS = {"compression"}

app = Starlette(routes=routes, lifespan=lifespan)
