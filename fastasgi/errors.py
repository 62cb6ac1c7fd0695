"""The errors of whoever runs the server: each one line that says what is wrong and how to mend it."""


class FastasgiError(Exception):
    """A mistake of the user's, not of the program: shown as one line, without a traceback."""

    exit_code = 1


class ConfigError(FastasgiError, ValueError):
    """A setting has a value that can't be used."""

    exit_code = 2


class AppImportError(FastasgiError):
    """The application named by ``module:attribute`` isn't there, or isn't an application."""


class BindError(FastasgiError, OSError):
    """An address, a socket path or a file descriptor can't be listened on."""

    def __str__(self) -> str:
        return str(self.args[0])
