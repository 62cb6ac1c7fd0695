"""The settings with which fastasgi serves the admin listener."""

from typing import Any

from fastasgi.admin.access import Access
from fastasgi.admin.app import AdminApp
from fastasgi.admin.source import Source
from fastasgi.config import Config
from fastasgi.system.adminsettings import parse_admin
from fastasgi.tls.contexts import TLSFiles

PATIENCE_S = 1.0  # after which the end of a listener is to be hurried: a client may read nothing


def listener_config(settings: dict[str, Any], tls_files: TLSFiles | None, source: Source) -> Config:
    """A Config that serves what source tells.

    settings are the SHARED_SETTINGS, and others of the server that the listener has too; tls_files have been
    read already. Raises ConfigError.
    """
    if parse_admin(settings["admin"]).path is not None:
        # Nobody is between the two ends of a Unix socket, and its clients speak plain HTTP
        settings |= dict.fromkeys(("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password"))
        tls_files = None
    access = Access(settings.pop("admin"), settings.pop("admin_token_file"), settings.pop("admin_token"))
    app = AdminApp(source, access)
    config = Config.with_tls_files(
        tls_files,
        app=app,
        callback_notify=app.sample,
        interface="asgi3",
        lifespan="off",
        workers=1,  # whatever WEB_CONCURRENCY says
        ws="none",
        proxy_headers=False,
        limit_connections=1024,
        limit_request_line=4096,
        limit_request_head=16384,
        limit_request_body=65536,
        timeout_keep_alive=15,
        timeout_request_head=5,
        timeout_request_body=2,  # a login form comes at once
        timeout_write=5,
        timeout_graceful_shutdown=0.5,
        log_stall=0,
        **settings,
    )
    config.access_log = False  # as an argument it would silence the access log of all servers in this process
    return config
