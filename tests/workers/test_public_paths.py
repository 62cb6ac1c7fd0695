"""The worker classes are those of ``fastasgi.workers``, wherever in it they stand."""

import importlib
import pickle

import pytest


@pytest.mark.parametrize("name", ["FastASGIWorker", "UvicornWorker", "UvicornH11Worker"])
def test_a_worker_class_has_its_public_path(name: str) -> None:
    worker_class = getattr(importlib.import_module("fastasgi.workers"), name)
    assert (worker_class.__module__, worker_class.__qualname__) == ("fastasgi.workers", name)
    data = pickle.dumps(worker_class)
    assert b"fastasgi.workers" in data
    assert b"fastasgi.workers." not in data
    assert pickle.loads(data) is worker_class
