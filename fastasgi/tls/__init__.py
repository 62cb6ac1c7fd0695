"""Certificates and the contexts made of them, by the name that a client asks for; files that change.

Knows the ``ssl`` module and PEM. Must not know: Config, connections and their bytes.
"""
