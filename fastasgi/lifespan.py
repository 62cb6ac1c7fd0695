"""The name of uvicorn's package ``lifespan``, for programs that import it."""

from fastasgi.application.lifespan import Lifespan

__all__ = ["Lifespan"]
