"""``python -m bench``: the command as a process, which interrupts end in order from its first moment on."""

import sys


def run_process() -> int:
    """Run the command with this process's arguments; the exit code."""
    try:
        # Within the block: the imports take long enough for a Ctrl-C.
        from bench import processes
        from bench.command import main

        processes.take_interrupts()
        return main()
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_process())
