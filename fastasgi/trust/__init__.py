"""Who is believed about a client: peers that are trusted, and what trusted proxies say.

Knows addresses and fields. Must not know: connections, settings by name.
"""
