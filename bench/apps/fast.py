"""A FastAPI application whose route has a path and a query parameter and a response model."""

from fastapi import FastAPI
from pydantic import BaseModel


class Item(BaseModel):
    """What the route answers."""

    id: int
    name: str


app = FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: int, q: str = "x") -> Item:
    """The item with the name that was asked for."""
    return Item(id=item_id, name=q)
