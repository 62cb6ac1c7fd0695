"""The names of uvicorn's module ``main``, for programs that import them: the command and what it calls."""

import logging

import click

from fastasgi.cli import main, print_version
from fastasgi.config import (
    INTERFACES,
    LIFESPAN,
    LOG_LEVELS,
    LOGGING_CONFIG,
    SSL_PROTOCOL_VERSION,
    STARTUP_FAILURE,
    Config,
    HTTPProtocolType,
    InterfaceType,
    LifespanType,
    LoopFactoryType,
    WSProtocolType,
)
from fastasgi.launch import run
from fastasgi.server import Server
from fastasgi.serverstate import ServerState
from fastasgi.supervisors import ChangeReload, Multiprocess

__all__ = [
    "INTERFACES",
    "INTERFACE_CHOICES",
    "LEVEL_CHOICES",
    "LIFESPAN",
    "LIFESPAN_CHOICES",
    "LOGGING_CONFIG",
    "LOG_LEVELS",
    "SSL_PROTOCOL_VERSION",
    "STARTUP_FAILURE",
    "ChangeReload",
    "Config",
    "HTTPProtocolType",
    "InterfaceType",
    "LifespanType",
    "LoopFactoryType",
    "Multiprocess",
    "Server",
    "ServerState",
    "WSProtocolType",
    "logger",
    "main",
    "print_version",
    "run",
]

LEVEL_CHOICES = click.Choice(list(LOG_LEVELS))
LIFESPAN_CHOICES = click.Choice(list(LIFESPAN))
INTERFACE_CHOICES = click.Choice(INTERFACES)

logger = logging.getLogger("fastasgi.error")

if __name__ == "__main__":
    main()
