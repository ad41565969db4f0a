"""Channels compared: the same shards over HTTP, BitTorrent, both, and an IPFS gateway."""

from .cases import Case, all_cases
from .compare import Comparison, Row, compare
from .conditions import Conditions
from .measure import Run
from .page import write_page

__all__ = ["Case", "Comparison", "Conditions", "Row", "Run", "all_cases", "compare", "write_page"]
