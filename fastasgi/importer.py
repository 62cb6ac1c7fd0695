"""The names of uvicorn's module ``importer``, for programs that import them."""

from fastasgi.application.importer import ImportFromStringError, import_from_string

__all__ = ["ImportFromStringError", "import_from_string"]
