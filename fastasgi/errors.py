"""The errors of whoever runs the server: each one line that says what is wrong and how to mend it."""

# Exit codes of a start that fails; docs/signals.md lists what has which
FAILURE = 1  # of the user's code or files
USAGE = 2
STARTUP_FAILURE = 3


class FastasgiError(Exception):
    """A mistake of the user's, not of the program: shown as one line, without a traceback."""

    exit_code = FAILURE


class ConfigError(FastasgiError, ValueError):
    """A setting has a value that can't be used."""

    exit_code = USAGE


class TLSFileError(ConfigError):
    """A file of TLS can't be read, or does not hold what it should."""

    exit_code = FAILURE


class AppImportError(FastasgiError):
    """The application named by ``module:attribute`` isn't there, at all or in time, or isn't one."""

    exit_code = STARTUP_FAILURE


class BindError(FastasgiError, OSError):
    """An address, a socket path or a file descriptor can't be listened on."""

    exit_code = STARTUP_FAILURE

    def __str__(self) -> str:
        return str(self.args[0])
