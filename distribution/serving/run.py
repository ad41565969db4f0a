"""Run the web server until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import MissingError, UsageError
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

    if base is not None:
        _check_base(base)
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
    # An answer that is broken off is told where the reason is known.
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = uvicorn.Server(config)
    with listening, stopping():
        if ready is not None:
            ready(base or address_of(listening, host))
        server.run(sockets=[listening])


def _check_base(base: str) -> None:
    """Raise UsageError for what is no address that pages could name."""
    try:
        parts = urlsplit(base)
    except ValueError:
        parts = urlsplit("")
    good = parts.scheme in ("http", "https") and parts.hostname and base.isprintable()
    if not good or parts.query or parts.fragment or " " in base:
        raise UsageError(
            f"--base {base[:80]!r}: expected an address as in https://data.example.org/"
        )


def _is_news(record: logging.LogRecord) -> bool:
    return "without completing response" not in record.getMessage()


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Make of SIGINT and SIGTERM a clean end of what is done inside.

    uvicorn raises the signal that it stopped at once more, for whoever runs it: SIGTERM would then
    end the process as a failure.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not its matter
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _to_standard_error(default: dict[str, Any]) -> dict[str, Any]:
    """Return uvicorn's logging with its lines about requests where they belong."""
    access = {**default["handlers"]["access"], "stream": "ext://sys.stderr"}
    return {**default, "handlers": {**default["handlers"], "access": access}}
