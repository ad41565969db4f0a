"""A BitTorrent session (libtorrent), set up for a server, a download, or this machine alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, MissingError, StorageError, UsageError
from ..release.torrents import MAX_TORRENT_BYTES

ALERT_QUEUE = 20_000
BLOCK = 16 << 10
CACHE_BLOCKS = 1024
"""Blocks of 16 KiB kept until they are written: memory is bounded whatever the download."""
MAX_PIECES = 1 << 23
"""Of a torrent: 8 TiB in pieces of 1 MiB, more than fit into a torrent file."""

_PORT = re.compile(r"[0-9]{1,5}")
_ONE_ADDRESS_EACH = (
    "dht_restrict_routing_ips",
    "dht_restrict_search_ips",
    "dht_prefer_verified_node_ids",
    "dht_enforce_node_id",
)


@dataclass(frozen=True)
class Net:
    """How a session uses the network.

    ``listen`` is ``HOST:PORT``, several with commas; port 0 is any free one. Limits are in bytes
    a second, 0 is none. ``lan`` means no DHT, no uTP (which
    is ten times slower there) and no opening of ports. ``bootstrap`` names the nodes, ``HOST:PORT``
    with commas, through which the DHT is entered; None means libtorrent's own.
    ``open_ports`` asks the router to let peers in.
    """

    listen: str = "0.0.0.0:6881,[::]:6881"
    lan: bool = False
    upload_limit: int = 0
    download_limit: int = 0
    connections: int = 500
    bootstrap: str | None = None
    open_ports: bool = True

    @property
    def anywhere(self) -> bool:
        """Whether nobody cares for where it listens."""
        return all(one.endswith(":0") for one in self.listen.split(","))


def load_libtorrent() -> Any:
    """Return the libtorrent module, or raise MissingError saying how to get it."""
    try:
        import libtorrent
    except ImportError:
        raise MissingError("BitTorrent needs libtorrent: pip install -e '.[p2p]'") from None
    return libtorrent


def load_torrent(data: bytes, where: str) -> Any:
    """Return the parameters with which a session takes up a torrent file.

    Raises DataError for one that libtorrent does not read.
    """
    # Its own limits are those of small torrents: a hybrid one of 200 GB is over them.
    limits = {"max_buffer_size": MAX_TORRENT_BYTES, "max_pieces": MAX_PIECES}
    try:
        return load_libtorrent().load_torrent_buffer(data, limits)
    except RuntimeError as error:
        raise DataError(f"{where}: not a torrent that can be used: {error}") from None


def open_session(net: Net) -> Any:
    """Return a session. Raises UsageError for an address to listen on that is none."""
    check_listen(net.listen)
    lt = load_libtorrent()
    kinds = lt.alert.category_t
    settings = {
        "user_agent": "datacomp",
        "listen_interfaces": net.listen,
        "enable_dht": not net.lan,
        "enable_lsd": net.lan or not _is_loopback(net.listen),
        "enable_upnp": net.open_ports and not net.lan,
        "enable_natpmp": net.open_ports and not net.lan,
        "enable_incoming_utp": not net.lan,
        "enable_outgoing_utp": not net.lan,
        "allow_multiple_connections_per_ip": net.lan,
        "upload_rate_limit": net.upload_limit,
        "download_rate_limit": net.download_limit,
        "connections_limit": net.connections,
        "unchoke_slots_limit": -1,
        # The port asked for or none: whoever opened it in a firewall wants to know.
        "listen_system_port_fallback": False,
        "max_retry_port_bind": 0,
        # A download that has claimed nothing yet needs its peers all the same.
        "close_redundant_connections": False,
        "cache_size": CACHE_BLOCKS,
        "max_queued_disk_bytes": CACHE_BLOCKS * BLOCK,
        "stop_tracker_timeout": 1,
        "announce_to_all_trackers": True,
        "announce_to_all_tiers": True,
        # A server seeds everything it has: none of it waits in a queue.
        "active_seeds": -1,
        "active_downloads": -1,
        "active_limit": -1,
        "active_tracker_limit": -1,
        "active_dht_limit": -1,
        "active_lsd_limit": -1,
        "alert_queue_size": ALERT_QUEUE,
        "alert_mask": kinds.error_notification | kinds.status_notification
        | kinds.storage_notification,
    }  # fmt: skip
    if not net.lan:
        settings["alert_mask"] |= kinds.dht_notification
    if net.bootstrap is not None:
        settings["dht_bootstrap_nodes"] = net.bootstrap
    if _is_loopback(net.listen):
        # A DHT of this machine alone: its nodes all have one address.
        settings |= dict.fromkeys(_ONE_ADDRESS_EACH, False) | {"enable_lsd": False}
    try:
        session = lt.session(settings)
    except RuntimeError as error:
        raise UsageError(f"{net.listen}: cannot listen there: {error}") from None
    if net.upload_limit or net.download_limit:
        # Peers of the local network are a class of their own, to which no limit would apply.
        local = session.get_peer_class(session.local_peer_class_id)
        local |= {"upload_limit": net.upload_limit, "download_limit": net.download_limit}
        session.set_peer_class(session.local_peer_class_id, local)
    return session


def listening(session: Any, net: Net, seconds: float = 5.0) -> int:
    """Wait until the session listens; return its port. StorageError if it cannot."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if session.is_listening():
            return int(session.listen_port())
        if any(type(alert).__name__ == "listen_failed_alert" for alert in session.pop_alerts()):
            break
        time.sleep(0.02)
    raise StorageError(f"{net.listen}: cannot listen there; choose another --listen")


def wait_for(
    session: Any, kind: str, seconds: float, other: Callable[[Any], None] | None = None
) -> Any:
    """Return the next alert of a kind, handing others to ``other``; None after some seconds."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        session.wait_for_alert(int(min(left, 0.5) * 1000))
        found = None
        for alert in session.pop_alerts():
            if found is None and type(alert).__name__ == kind:
                found = alert
            elif other is not None:
                other(alert)
        if found is not None:
            return found
    return None


def parse_peers(peers: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return the addresses of peers named as ``HOST:PORT``. Raises UsageError for what is none."""
    found = (split_peer(peer) for peer in peers)
    return tuple((_address(host), port) for host, port in found)


def split_peer(peer: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``. Raises UsageError for what is none."""
    host, _, port = peer.rpartition(":")
    if not host or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise UsageError(f"peer {peer!r}: expected HOST:PORT")
    return host.strip("[]"), int(port)


def check_listen(listen: str) -> None:
    """Raise UsageError for what is not ``HOST:PORT``, or several of them with commas."""
    for one in listen.split(","):
        host, _, port = one.strip().rpartition(":")
        if not host or not _PORT.fullmatch(port) or int(port) > 65535:
            raise UsageError(f"--listen {listen!r}: expected HOST:PORT, or several with commas")


def _address(host: str) -> str:
    import socket

    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError:
        raise UsageError(f"peer {host!r}: no such host") from None


def _is_loopback(listen: str) -> bool:
    return all(one.strip().startswith(("127.", "[::1]", "localhost")) for one in listen.split(","))
