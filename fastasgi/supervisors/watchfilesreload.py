"""A supervisor of one worker that is replaced when files change, made by hand."""

import socket
from collections.abc import Callable
from typing import Any

from fastasgi.config import Config
from fastasgi.errors import ConfigError
from fastasgi.server import Server
from fastasgi.supervisors.multiprocess import Multiprocess


class WatchFilesReload(Multiprocess):
    """Serves with one worker, which is replaced when files change.

    target is the method ``run`` of a Server; raises ConfigError for another one: workers are our own.
    """

    def __init__(self, config: Config, target: Callable[..., Any], sockets: list[socket.socket]) -> None:
        if getattr(target, "__func__", None) is not Server.run:
            raise ConfigError(f"target {target!r} can't be run by a worker: give Server(config).run")
        super().__init__(config, sockets)
