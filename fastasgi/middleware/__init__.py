"""Applications around applications, under the names that uvicorn gives them."""
