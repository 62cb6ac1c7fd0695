"""What is logged, and where it goes: access lines in batches, uvicorn's loggers beside ours.

Knows the ``logging`` module and a scope's keys. Must not know: connections, requests that run, processes.
"""
