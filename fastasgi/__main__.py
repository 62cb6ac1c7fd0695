"""The command ``fastasgi``, and ``python -m fastasgi``: the command line in a process of its own."""

import sys

try:
    from fastasgi.cli import main
    from fastasgi.processes.failures import owned_process
except ImportError as error:
    if sys.platform != "win32":
        raise
    sys.exit(f"Error: {error}")


def command() -> None:
    """Run the command line, and end the process with its exit code."""
    with owned_process():
        main()


if __name__ == "__main__":
    command()
