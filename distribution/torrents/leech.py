"""What a torrent is, asked from its peers: the metadata of a magnet link (BEP 9)."""

from __future__ import annotations

import tempfile
import time

from ...errors import DataError, StorageError
from ...progress import Board, duration, say
from .session import Net, load_libtorrent, open_session, parse_peers


def fetch_metadata(magnet: str, net: Net, peers: tuple[str, ...], seconds: float) -> bytes:
    """Return the torrent file of a magnet link, without the layers of its hash trees.

    Raises DataError for a link that is broken, StorageError when no peer answers in time.
    """
    lt, addresses = load_libtorrent(), parse_peers(peers)
    try:
        params = lt.parse_magnet_uri(magnet)
    except RuntimeError as error:
        raise DataError(f"{magnet[:100]}: not a magnet link: {error}") from None
    session = open_session(net)
    with tempfile.TemporaryDirectory() as folder:
        params.save_path = folder
        flags = lt.torrent_flags
        params.flags |= flags.default_dont_download
        params.flags &= ~(flags.auto_managed | flags.paused)
        try:
            handle = session.add_torrent(params)
        except RuntimeError as error:
            raise DataError(f"{magnet[:100]}: not a magnet link: {error}") from None
        for peer in addresses:
            handle.connect_peer(peer)
        say(f"looking for peers that tell what the magnet link is of, for up to {seconds:g} s")
        board = Board()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            status = handle.status()
            if status.has_metadata:
                board.clear()
                info = handle.torrent_file().info_section()
                return b"d4:info" + bytes(info) + b"e"
            if board.due():
                board.draw([f"looking for peers: {status.num_peers:,} met, {duration(left)} left"])
            time.sleep(0.05)
        board.clear()
        session.remove_torrent(handle)
    raise StorageError(
        f"{magnet[:100]}: no peer has answered within {seconds:g} s; name a --peer, or use the "
        ".torrent file or the address of the manifest"
    )
