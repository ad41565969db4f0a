"""Fetch what is missing: every source of an order at work at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import cache, partial

from ...errors import DatacompError, MissingError, UsageError
from ...progress import Progress, say
from ...urls import join_url
from ..release.torrents import MAX_TORRENT_BYTES
from .blocks import Layers
from .engine import Engine
from .find import fetch_small
from .folder import Folder
from .options import Options
from .order import Order, Wanted
from .pieces import Pieces
from .report import GetReport
from .there import link_same
from .torrent_file import names_of


def fetch(
    folder: Folder, order: Order, missing: list[Wanted], options: Options, report: GetReport
) -> None:
    """Fetch files into a folder and say in the report how that went.

    Raises UsageError where no source is named, StorageError where the disk is full.
    """
    lock = threading.Lock()
    first: dict[str | int, Wanted] = {}
    for wanted in missing:
        first.setdefault(wanted.sha256 or wanted.number, wanted)
    once = list(first.values())
    chosen = {wanted.number for wanted in once}
    twins = [wanted for wanted in missing if wanted.number not in chosen]
    with Progress(f"getting {order.title}", sum(one.size for one in once), "bytes") as progress:

        def advance(amount: int) -> None:
            with lock:
                progress.advance(amount)

        layers, pieces = _Layers(order, options).load, _pieces_of(order)
        engine = Engine(folder, once, layers, pieces, advance, options.patience)
        mirrors = dict.fromkeys(order.mirrors) if options.http else ()
        for base in mirrors:
            engine.add_mirror(base, options.connections)
        for base in options.gateways:
            engine.add_gateway(base, options.connections)
        if options.bittorrent:
            _add_peers(engine, folder, order, options)
        if not engine.queue.sources:
            raise UsageError(f"{order.title}: no source to get it from; name a --mirror")
        progress.resume(engine.resume())
        engine.run()
    for wanted in link_same(folder, twins):
        engine.queue.failed[wanted.path] = (
            "has the same bytes as another file that could not be fetched"
        )
    report.failed = dict(sorted(engine.queue.failed.items()))
    report.fetched_files = len(missing) - len(report.failed)
    report.sources = [source.to_dict() for source in engine.queue.sources]
    for source in engine.queue.sources:
        report.channels[source.channel] = report.channels.get(source.channel, 0) + source.bytes


def _add_peers(engine: Engine, folder: Folder, order: Order, options: Options) -> None:
    """Let peers take part, if there is a torrent and libtorrent to read it."""
    from ..torrents.channel import Channel
    from ..torrents.session import load_libtorrent, parse_peers

    known = order.manifest.torrents["hybrid"] if order.manifest is not None else None
    if known is None and order.torrent is None:
        return
    try:
        load_libtorrent()
    except MissingError as error:
        if options.peers or order.manifest is None:
            raise
        say(f"no peers: {error}", 1)
        return
    name = known["infohash_v1"] if known else order.name
    source = engine.add_source(f"peers of {name[:12]}", "bittorrent")
    channel = Channel(
        engine, source, folder, partial(_torrent_of, order, options.patience),
        options.net(), parse_peers(options.peers), options.patience,
        order.manifest, order.seeds if options.http else (),
    )  # fmt: skip
    engine.add_thread(channel.run)


def _torrent_of(order: Order, patience: float) -> bytes:
    """Return the torrent file: the one at hand, or the one that the manifest names."""
    if order.torrent is not None:
        return order.torrent
    assert order.manifest is not None
    named = order.manifest.torrents["hybrid"]
    trouble = "no mirror has it"
    for base in order.mirrors:
        try:
            where = join_url(base, "..")
            data = fetch_small(where, named["file"], MAX_TORRENT_BYTES, patience)
            if named["infohash_v2"] in names_of(data):
                return data
            trouble = f"{where} has another torrent than the manifest names"
        except DatacompError as error:
            trouble = str(error)
    raise MissingError(f"{named['file']}: {trouble}")


def _pieces_of(order: Order) -> Callable[[], Pieces | None]:
    """Return what gives the v1 pieces of an order, looked for once, where they are needed."""

    @cache
    def load() -> Pieces | None:
        return Pieces.of_torrent(order.torrent, order.name) if order.torrent else None

    return load


class _Layers:
    """The digests of blocks: fetched once, and only when a file turns out to be wrong."""

    def __init__(self, order: Order, options: Options) -> None:
        self._order, self._patience = order, options.patience
        self._lock = threading.Lock()
        self._found: Layers | None = None
        self._looked = False

    def load(self) -> Layers | None:
        """Return the layers, None if nobody has them."""
        with self._lock:
            if not self._looked:
                self._looked = True
                self._found = self._look()
            return self._found

    def _look(self) -> Layers | None:
        order = self._order
        if order.torrent is not None:
            layers = Layers.of_torrent(order.torrent, "torrent")
            if layers.by_root or order.manifest is None:
                return layers
        if order.manifest is None:
            return None
        name = order.manifest.torrents["hybrid"]["file"]
        for base in order.mirrors:
            # A torrent that was tampered with gives layers that do not lead to the roots.
            with contextlib.suppress(DatacompError):
                data = fetch_small(join_url(base, ".."), name, MAX_TORRENT_BYTES, self._patience)
                return Layers.of_torrent(data, name)
        return None
