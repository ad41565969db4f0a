"""Getting releases: from HTTP mirrors, peers and gateways at once, every byte verified."""

from .get import get, get_some
from .options import Options
from .report import GetReport

__all__ = ["GetReport", "Options", "get", "get_some"]
