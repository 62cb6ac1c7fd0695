"""HTTP of any version, for the settings of a worker: what stands for "no limit" of a head in memory."""

MOST_LINE_BYTES: int
"""The bytes of a request line, at most."""

MOST_HEAD_BYTES: int
"""The bytes of a head, at most."""

MOST_FIELDS: int
"""The header fields of a head, at most."""
