"""A comparison of servers that anyone can repeat: ``python -m bench``. See bench/README.md."""
