"""The settings that an admin listener has in common with its server."""

SHARED_SETTINGS = (
    "admin", "admin_token_file", "admin_token", "backlog", "loop", "ssl_certfile", "ssl_keyfile",
    "ssl_keyfile_password", "ssl_version", "ssl_ciphers",
)  # fmt: skip
