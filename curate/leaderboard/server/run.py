"""Run the live leaderboard until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ....distribution.serving.listening import address_of, listen
from ....distribution.serving.run import stopping
from ....errors import MissingError
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
        with listen(host, port, _BACKLOG) as listening, stopping():
            if ready is not None:
                ready(address_of(listening, host), live)
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        ledger.close()
