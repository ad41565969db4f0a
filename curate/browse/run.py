"""Serve the pages of a pool until told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ...distribution.serving.listening import address_of, listen
from ...distribution.serving.run import stopping
from ...errors import DatacompError, DataError, MissingError, StorageError, UsageError
from ...pools.neighbours import build
from ...pools.pool import Pool
from ...progress import warn
from .alike import Alike, Embedder
from .app import Browse, make_app
from .index import FROM, prepare
from .lending import Lender
from .renewing import Renewal

_BACKLOG = 512


def serve(
    pool: Path | str,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    seconds: float = 10.0,
    sketch: Sequence[str] = (),
    index: bool = True,
    embedder: Embedder | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve pages about ``pool``, a file or a folder of metadata, until SIGINT or SIGTERM.

    A question may take ``seconds``. Features named in ``sketch`` get their sketches first (see
    pools/neighbours.py); a pool of very many samples gets its index (see index.py) unless ``index``
    is false. Port 0 means any free one; ``ready`` is told the address. Raises
    StorageError for a port that is taken, MissingError without the libraries, the pool or the
    features.
    """
    try:
        import starlette  # noqa: F401  told here, not in the middle of a request
        import uvicorn
    except ImportError as error:
        raise MissingError(
            f"serving needs {error.name}, which is not installed: pip install -e '.[serve]'"
        ) from None
    if not seconds > 0:
        raise UsageError(f"seconds is {seconds:g}, expected more than 0")
    path = Path(pool)
    with Pool.open(path, read_only=True, confined=True, memory_limit=memory_limit,
                   threads=threads) as opened:  # fmt: skip
        for name in sketch:
            build(opened, name)
        Alike(embedder).check(opened)
    indexed = False
    if index:
        try:
            indexed = prepare(path, memory_limit, threads)
        except (StorageError, DataError) as error:
            warn(f"searching without an index, which takes seconds: {error}")
    renewal = Renewal(path, memory_limit, threads, FROM) if index else None
    lender = Lender(path, memory_limit, threads, renewal=renewal)
    early: threading.Thread | None = None
    try:
        browse = Browse(lender, Alike(embedder), seconds, loopback=_is_loopback(host))
        config = uvicorn.Config(
            make_app(browse), log_level="warning", access_log=False, server_header=False,
            lifespan="off", ws="none", timeout_graceful_shutdown=5, timeout_keep_alive=10,
            backlog=_BACKLOG, h11_max_incomplete_event_size=64 << 10,
        )  # fmt: skip
        with listen(host, port, _BACKLOG) as listening, stopping():
            if indexed:  # the first who looks should not wait for it
                early = threading.Thread(target=_draw, args=(browse,))
                early.start()
            if ready is not None:
                ready(address_of(listening, host))
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        if early is not None:
            early.join()
        lender.close()


def _draw(browse: Browse) -> None:
    with contextlib.suppress(DatacompError):
        browse.overview()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
