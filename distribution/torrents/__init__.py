"""BitTorrent: seeding releases, and getting them from peers."""

from .seed import Seeder
from .session import Net

__all__ = ["Net", "Seeder"]
