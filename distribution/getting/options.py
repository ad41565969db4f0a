"""How a download is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DataError, UsageError
from ...urls import split_url
from ..release.keys import check_public
from .engine import CONNECTIONS
from .mirror import PATIENCE

if TYPE_CHECKING:
    from ..torrents.session import Net


@dataclass(frozen=True)
class Options:
    """How a download is done.

    ``key`` is the public key expected (64 hex digits); ``mirrors`` are further addresses of
    served releases; ``gateways`` IPFS gateways; ``peers`` are ``HOST:PORT`` of BitTorrent peers
    to call, ``listen`` the ``HOST:PORT`` to listen on for them, ``bootstrap`` the nodes
    through which their DHT is entered. ``rehash`` reads files again that
    are known to be right. ``patience`` is how many seconds a server may be silent.
    Raises UsageError for a key, an address or a peer that cannot be one.
    """

    update: bool = False
    key: str | None = None
    mirrors: Sequence[str] = ()
    gateways: Sequence[str] = ()
    peers: Sequence[str] = ()
    http: bool = True
    bittorrent: bool = True
    lan: bool = False
    rehash: bool = False
    connections: int = CONNECTIONS
    patience: float = PATIENCE
    listen: str | None = None
    bootstrap: str | None = None

    def __post_init__(self) -> None:
        from ..torrents.session import check_listen, split_peer

        try:
            if self.key is not None:
                object.__setattr__(self, "key", check_public(self.key.lower(), "--key"))
            for place in (*self.mirrors, *self.gateways):
                split_url(place)
        except DataError as error:
            raise UsageError(str(error)) from None
        for peer in self.peers:
            split_peer(peer)
        if self.listen is not None:
            check_listen(self.listen)

    def net(self) -> Net:
        """Return how peers are talked to."""
        from ..torrents.session import Net

        listen = self.listen or "0.0.0.0:0,[::]:0"
        return Net(listen, self.lan, bootstrap=self.bootstrap, open_ports=False)
