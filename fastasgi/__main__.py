"""``python -m fastasgi``: the command line."""

from fastasgi.cli import main

main()
