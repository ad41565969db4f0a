"""What to keep: the contract, the registry, the engine and one file per family of filters."""

from .contract import Batch, Decision, Filter, Scorer, View
from .engine import Selection, run_filters
from .spec import FilterSpec, parse

__all__ = [
    "Batch",
    "Decision",
    "Filter",
    "FilterSpec",
    "Scorer",
    "Selection",
    "View",
    "parse",
    "run_filters",
]
