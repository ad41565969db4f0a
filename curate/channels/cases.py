"""What is compared: ways in which one download can be served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One way to serve a download.

    ``channel`` is ``http``, ``bittorrent``, ``http+bittorrent`` or ``ipfs``. ``peers`` counts those
    who seed; the first of them is the origin where it has no web server. ``killed`` means
    that the origin is killed when half of the bytes have come.
    """

    channel: str
    peers: int
    killed: bool = False

    @property
    def web(self) -> bool:
        """Whether the origin is a web server."""
        return self.channel != "bittorrent"

    @property
    def name(self) -> str:
        """What people call it."""
        title = {"http": "HTTP", "bittorrent": "BitTorrent", "ipfs": "IPFS gateway"}
        if not self.peers:
            return title[self.channel]
        peers = f"{self.peers} peer{'' if self.peers == 1 else 's'}"
        return f"HTTP + {peers}" if self.web else f"BitTorrent, {peers}"


def all_cases(peers: int, killed: bool = True) -> list[Case]:
    """Return every case with 1 to ``peers`` peers; those whose origin is killed come last."""
    found = [
        Case("http", 0),
        *(Case("bittorrent", number) for number in range(1, peers + 1)),
        *(Case("http+bittorrent", number) for number in range(1, peers + 1)),
        Case("ipfs", 0),
    ]
    return [*found, *(Case(c.channel, c.peers, True) for c in found if killed)]
