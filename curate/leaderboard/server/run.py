"""Run the live leaderboard until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from ....errors import MissingError, StorageError
from ....evaluate.leaderboard.store import sweep
from ....pools.uids import UidArray
from .app import make_app
from .intake import Intake, Limits
from .ledger import Ledger
from .live import Live

_BACKLOG = 512


def serve(
    store: Path | str,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    title: str = "DataComp leaderboard",
    limits: Limits | None = None,
    pools: Mapping[str, UidArray] | None = None,
    ready: Callable[[str, Live], None] | None = None,
) -> None:
    """Serve a store's leaderboard and take submissions, until SIGINT or SIGTERM.

    What a killed server left half received is removed first. Port 0 means any free one; ``ready``
    is told the address. Raises StorageError for a port that is taken or a store that another
    server holds, MissingError without the libraries.
    """
    try:
        import starlette  # noqa: F401  told here, not in the middle of a request
        import uvicorn
    except ImportError as error:
        raise MissingError(
            f"serving needs {error.name}, which is not installed: pip install -e '.[serve]'"
        ) from None
    store = Path(store)
    store.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(store)
    try:
        sweep(store)
        live = Live(store, title, ledger, pools)
        live.page("index.html")
        app = make_app(Intake(store, live, ledger, limits or Limits(), pools or {}))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=10, timeout_keep_alive=10, backlog=_BACKLOG,
            h11_max_incomplete_event_size=64 << 10,
        )  # fmt: skip
        with _listening(host, port) as listening:
            shown = f"[{host}]" if ":" in host else host
            if ready is not None:
                ready(f"http://{shown}:{listening.getsockname()[1]}/", live)
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        ledger.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise StorageError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; choose "
            "another --host or --port"
        ) from None
    return listening
