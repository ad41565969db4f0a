"""Run the web server until it is told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import MissingError
from .app import make_app
from .listening import address_of, listen

GRACE_SECONDS = 5
BACKLOG = 2048


def serve(
    folder: Path | str,
    host: str = "127.0.0.1",
    port: int = 8080,
    base: str | None = None,
    log: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a folder of releases until SIGINT or SIGTERM; running downloads get some seconds.

    Port 0 means any free one; ``ready`` is told the address. Raises StorageError for a port that
    is taken, and what ``make_app`` raises.
    """
    try:
        import uvicorn
        from uvicorn.config import LOGGING_CONFIG
    except ImportError:
        raise MissingError("serving needs uvicorn: pip install -e '.[serve]'") from None

    app = make_app(folder, base)
    listening = listen(host, port, BACKLOG)
    config = uvicorn.Config(
        app,
        log_config=_to_standard_error(LOGGING_CONFIG),
        log_level="info" if log else "warning",
        access_log=log,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
    )
    server = uvicorn.Server(config)
    if ready is not None:
        ready(base or address_of(listening, host))
    with listening, contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _to_standard_error(logging: dict[str, Any]) -> dict[str, Any]:
    """Return uvicorn's logging with its lines about requests where they belong."""
    access = {**logging["handlers"]["access"], "stream": "ext://sys.stderr"}
    return {**logging, "handlers": {**logging["handlers"], "access": access}}
