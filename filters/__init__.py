"""What to keep: the contract, the registry, the engine and one file per family of filters."""

from .contract import Batch, Decision, Filter, Scorer, View
from .engine import Selection, run_filters
from .expression import FilterGroup, Node
from .sets import Samples, SetScorer
from .spec import FilterSpec, parse

__all__ = [
    "Batch",
    "Decision",
    "Filter",
    "FilterGroup",
    "FilterSpec",
    "Node",
    "Samples",
    "Scorer",
    "Selection",
    "SetScorer",
    "View",
    "parse",
    "run_filters",
]
