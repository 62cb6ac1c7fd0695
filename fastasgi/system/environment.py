"""Files of environment variables, which python-dotenv reads."""

import importlib
import logging
import os

from fastasgi.errors import ConfigError

logger = logging.getLogger("fastasgi.error")


def load_environment(path: str | os.PathLike[str]) -> None:
    """Set the variables in a file that this process does not have yet. Raises ConfigError."""
    try:
        dotenv = importlib.import_module("dotenv")
    except ModuleNotFoundError:
        raise ConfigError("env_file needs the python-dotenv package: pip install python-dotenv") from None
    logger.info("Loading environment from '%s'", path)
    try:
        with open(path, encoding="utf-8") as file:
            dotenv.load_dotenv(stream=file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"env_file {os.fspath(path)!r} can't be read: {reason}") from None
