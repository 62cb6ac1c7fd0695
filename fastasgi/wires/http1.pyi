"""HTTP/1.x, for the settings of a worker."""

MOST_LINE_BYTES: int
"""The longest request line that is read; in place of no limit, since a head is kept in memory."""

MOST_HEAD_BYTES: int
"""The longest head."""

MOST_FIELDS: int
"""The most header fields."""
